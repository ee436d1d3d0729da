"""X-ray files on disk: which file is which image of IU X-ray (OpenI).

Finds them under the names that OpenI, the Kaggle copy, R2Gen's copy and a
folder of DICOM files give them, and unpacks archives with care. It gives no
pixels (`pixels`) and never guesses a view: where the name does not lead to
an image of the published list, the view is left to `view_model`.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pandas as pd

from ..course.errors import CourseError
from ..course.files import write_whole
from ..course.run import cache_folder, data_folder
from .downloads import check_space
from .reports import DATA, r2gen_split

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")
ARCHIVE_SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar")
#: Folder in the cache where `openi` puts what it fetches.
FETCHED = "openi"
#: In an unpacked folder: the archive that it came from.
NOTE = ".unpacked"
#: CXR2_IM-0652-1001, CXR894_IM-2404-0001-0001; the first study's images
#: have a number more (CXR1_1_IM-0001-3001), Kaggle's copy has no "CXR".
_OPENI = re.compile(r"(?:CXR)?(\d+)(?:_1)?(_IM-\d{4}(?:-\d+){1,2})")
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error,
    lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
)  # fmt: skip


class BadArchive(CourseError):
    """Broken or not safe: another copy is needed."""


def known_views() -> pd.DataFrame:
    """``image_id``, ``view`` (frontal, lateral): 7,426 of 7,470 images."""
    return pd.read_csv(DATA / "views.csv")


def openi_id(stem: str) -> str | None:
    """OpenI's image id for a file name without its ending, or None.

    ``CXR2_IM-0652-1001`` (OpenI) and ``2_IM-0652-1001.dcm`` (Kaggle, from
    ``2_IM-0652-1001.dcm.png``) are the same image.
    """
    match = _OPENI.fullmatch(stem.removesuffix(".dcm"))
    if match is None:
        return None
    number, rest = match.groups()
    return f"CXR{number}{'_1' if number == '1' else ''}{rest}"


def find_images(folder: Path | None = None) -> pd.DataFrame:
    """Every image of the collection under a folder, whatever its layout.

    Parameters
    ----------
    folder : path, optional
        Default: the data folder, and what ``fetch openi`` brought. Archives
        (.zip, .tgz, .tar) directly in it are unpacked once, into the cache.

    Returns
    -------
    DataFrame
        ``study_id``, ``image_id``, ``path``, ``layout``, sorted by study
        and image; one row an image (the first file, if there are several).

        - ``openi``, ``kaggle``, ``dicom``: ``image_id`` is OpenI's.
        - ``r2gen``: R2Gen's files are numbered within a study, and how was
          not published. So ``image_id`` is ``CXR2384_IM-0942/0``, an id of
          its own, and its view is unknown: 0 is not always the frontal.

        ``attrs["ignored"]``: image files under other names, as paths.

    Raises
    ------
    CourseError
        If an archive is broken, not safe, or does not fit on the disk.
    """
    r2gen = set(r2gen_split()["r2gen_id"])
    rows: dict[tuple[str, str], tuple[Path, str]] = {}
    ignored = []
    for file in (file for root in _roots(folder) for file in _files(root)):
        image_id, layout = openi_id(file.stem), "openi"
        if image_id and file.suffix.lower() in (".dcm", ""):
            layout = "dicom"
        elif image_id and not file.name.startswith("CXR"):
            layout = "kaggle"
        elif file.stem.isdecimal() and file.parent.name in r2gen:
            image_id, layout = f"{file.parent.name}/{file.stem}", "r2gen"
        if image_id is None:
            ignored.append(file)
            continue
        study_id = image_id.split("_")[0]
        rows.setdefault((study_id, image_id), (file, layout))
    table = pd.DataFrame(
        [(*ids, *rest) for ids, rest in rows.items()],
        columns=["study_id", "image_id", "path", "layout"],
    )
    number = table["study_id"].str.removeprefix("CXR").astype(int)
    table = table.assign(number=number).sort_values(["number", "image_id"])
    table = table.drop(columns="number").reset_index(drop=True)
    table.attrs["ignored"] = [str(file) for file in ignored]
    return table


def find_xrays(folder: Path | None = None) -> dict[str, Path]:
    """OpenI's image id -> file: the images whose id their name tells.

    Raises
    ------
    CourseError
        If there is none, or an archive is broken or not safe.
    """
    images = find_images(folder)
    named = images[images["layout"] != "r2gen"]
    if named.empty:
        others = len(images) + len(images.attrs["ignored"])
        raise CourseError(
            f"No X-rays were found under {(folder or data_folder()).name}/.",
            "IMAGES = \"real\" reads IU X-ray images named by their OpenI id "
            "(CXR1_1_IM-0001-3001.png), in any sub-folder or archive"
            + (f"; {others} images there have other names" if others else "")
            + ".",
            "Get them with `python -m llamaxr_utils fetch openi`, put them "
            "into data/, or set LLAMAXR_DATA to their folder; "
            'IMAGES = "phantom" needs none.',
        )
    return dict(zip(named["image_id"], named["path"], strict=True))


def _roots(folder: Path | None) -> Iterator[Path]:
    top = folder or data_folder()
    yield top
    if folder is None and not cache_folder().is_relative_to(top):
        yield cache_folder() / FETCHED  # the data folder is read-only
    for archive in sorted(top.glob("*")):
        if is_archive(archive.name):
            yield unpack_images(archive, cache_folder() / stem(archive.name))


def _files(root: Path) -> Iterator[Path]:
    """Image files in order, without hidden (half-written, macOS's) ones and
    without the drawings in the cache."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f != "phantoms"
        )
        for name in sorted(n for n in names if not n.startswith(".")):
            file = Path(place, name)
            if file.suffix.lower() in IMAGE_SUFFIXES or _is_dicom(file):
                yield file


def _is_dicom(file: Path) -> bool:
    """DICOM by its magic number: many such files have no ending."""
    if file.suffix:
        return False
    try:
        with file.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def fault(file: Path) -> str:
    """Why a file is no whole image, "" if it is one.

    PNG by its checksums, JPEG by reading all of it, DICOM by its beginning.
    """
    from PIL import Image

    try:
        with file.open("rb") as handle:
            if handle.read(132)[128:] == b"DICM":
                return ""
        with Image.open(file) as image:
            image.verify() if image.format == "PNG" else image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return f"no whole image: {str(error).replace(str(file), file.name)}"
    return ""


# --- archives ---------------------------------------------------------------


def is_archive(name: str) -> bool:
    """Whether a file name or the path of an address is an archive's."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def stem(name: str) -> str:
    """``NLMCXR_png.tgz`` -> ``NLMCXR_png``."""
    ending = next(e for e in ARCHIVE_SUFFIXES if name.lower().endswith(e))
    return name[: -len(ending)]


def unpack_images(archive: Path, target: Path) -> Path:
    """Unpack an archive's images; whole or not at all, no path escapes.

    Parameters
    ----------
    archive : path
        .zip, .tar, .tgz.
    target : path
        A folder. One that is there is taken to be complete, unless it says
        that it came from another archive (or another state of this one).

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    CourseError
        If it does not fit on the disk; `BadArchive` if it is broken or holds
        a path that leads out, a link or a device. What was there stays.
    """
    info, note = archive.stat(), target / NOTE
    origin = f"{archive.name} {info.st_size} {info.st_mtime_ns}"
    if target.is_dir() and (
        not note.exists() or note.read_text("utf-8") == origin
    ):
        return target

    def fill(part: Path) -> None:
        part.mkdir(parents=True)
        for entry in images:
            content.extract(entry, part)
        (part / NOTE).write_text(origin, "utf-8")

    try:
        with _open(archive) as content:
            checked = _checked(content, archive.name)
            images, sizes = zip(*checked, strict=True) if checked else ((), ())
            check_space(target, sum(sizes), archive.name)
            write_whole(target, fill)
    except _BROKEN as error:
        raise BadArchive(
            f"{archive.name} could not be unpacked.",
            f"{error}. The download may have been cut.",
            "Download it again; nothing was changed.",
        ) from error
    return target


def _open(archive: Path):
    if archive.name.lower().endswith(".zip"):
        return zipfile.ZipFile(archive)
    content = tarfile.open(archive)  # noqa: SIM115 - the caller closes it
    # A second guard behind `_checked`, where Python has it (3.11.4).
    content.extraction_filter = getattr(tarfile, "data_filter", None)
    return content


def _checked(content, name: str) -> list[tuple]:
    """(entry, bytes) of the images, after a look at every entry."""
    if isinstance(content, zipfile.ZipFile):
        entries = [
            (e, e.filename, e.file_size, stat.S_IFMT(e.external_attr >> 16)
             in (0, stat.S_IFREG, stat.S_IFDIR))
            for e in content.infolist()
        ]  # fmt: skip
    else:
        entries = [
            (e, e.name, e.size, e.isreg() or e.isdir()) for e in content
        ]
    images = []
    for entry, entry_name, size, plain in entries:
        path = PurePosixPath(entry_name)
        inside = not path.is_absolute() and ".." not in path.parts
        if not (inside and plain and "\\" not in entry_name):
            kind = "the path" if plain else "a link or a device,"
            raise BadArchive(
                f"{name} is not safe to unpack.",
                f"It holds {kind} {entry_name!r}.",
                "Get the archive again from a source you trust.",
            )
        hidden = any(part.startswith(".") for part in path.parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden:
            images.append((entry, size))
    return images
