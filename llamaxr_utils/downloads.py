"""Files from elsewhere: fetched with a checksum, unpacked with care.

A thin layer over pooch: what is fetched is whole and is what it should be,
or it is not there. Nothing of it is part of this repository, and nothing is
fetched unless a command asks for it. What the files mean is not known here.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

import pandas as pd

from .errors import CourseError
from .files import write_whole

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TIMEOUT = 30
#: Bytes that stay free, whatever is fetched.
SPARE = 50_000_000


class Source(NamedTuple):
    """A public file, pinned."""

    url: str
    sha256: str
    size: int  #: bytes
    saves: str  #: name of the table that `fetch` writes
    licence: str


#: What `fetch` knows.
SOURCES: dict[str, Source] = {
    # Nicolson et al. 2023, the IU X-ray test predictions of May 2023:
    # columns report, dicom_id. The commit is pinned. The bytes were not at
    # hand when this was written: the checksum is that of the same 590 pairs
    # in the same order, written again in the file's format. Its length
    # (139,099), beginning and end are those of a public copy of the file.
    "cvt2distilgpt2": Source(
        "https://raw.githubusercontent.com/aehrc/cvt2distilgpt2/"
        "8cf4c8dcafe92ebf50d5a1d4ebbc7c3f0b7e2d87/experiment/iu_x_ray_chen/"
        "test_iu_x_ray_chen_cvt2distilgpt2/trial_0/generated_reports/"
        "test_reports_epoch-0_16-05-2023_12-46-42.csv",
        "a39c41e058f747ad5fabb9b5466f6e04d0f930c8fb3a1b3dc09a3180db56f85d",
        139_099,
        "cvt2distilgpt2_iu_test.csv",
        "GPL-3 repository",
    ),
}


def fetch(name: str, folder: Path, origin: str = "") -> Path:
    """Predictions of a published system, as a table ``id``, ``generated``.

    Parameters
    ----------
    name : str
        A key of `SOURCES`.
    folder : path
        Where the table is written, as `Source.saves`.
    origin : str
        Empty: the pinned address. ``http(s)://``: a mirror, the file itself
        or the folder that it lies in. Else a local copy, as published or as
        a table ``id``, ``generated``.

    Returns
    -------
    Path
        The table; one that is there and right is not fetched again.

    Raises
    ------
    CourseError
        Unknown name, no network, no space, another file than expected.
    """
    if name not in SOURCES:
        raise CourseError(
            f"{name!r} cannot be fetched.",
            f"The kit knows {', '.join(SOURCES)}.",
            "Choose one of these.",
        )
    source, folder = SOURCES[name], Path(folder)
    saved = folder / source.saves
    if not origin and saved.is_file() and _matches(saved, source):
        return saved
    if origin and not _is_url(origin):
        table, why = _read(Path(origin)), f"{Path(origin).name} holds"
    else:
        url = origin or source.url
        file = PurePosixPath(urlsplit(source.url).path).name
        if origin and not urlsplit(url).path.endswith(".csv"):
            url = f"{url.rstrip('/')}/{file}"
        with TemporaryDirectory() as place:
            raw = download(url, source.sha256, source.size, Path(place))
            table, why = _read(raw), "The server sent"
    if table is None or _fingerprint(table) != source.sha256:
        raise CourseError(
            f"This is not the published file of {name}.",
            f"{why} other predictions than those pinned (SHA-256 "
            f"{source.sha256[:12]}...).",
            "Get the file again; `score` takes any predictions file as it "
            "is, without `fetch`.",
        )
    write_whole(saved, lambda part: table.to_csv(part, index=False))
    return saved


def download(url: str, known_sha256: str, size: int, folder: Path) -> Path:
    """Download one file; it is whole and the one expected, or not there.

    Parameters
    ----------
    url : str
    known_sha256 : str
        Of the whole file.
    size : int
        Its bytes; the free space is checked before the first is asked for.
    folder : path
        Made if it is missing. The file keeps its name.

    Returns
    -------
    Path

    Raises
    ------
    CourseError
        Not enough space, no connection, an answer that is not the file.
    """
    import pooch
    from requests.exceptions import HTTPError, RequestException

    name = PurePosixPath(urlsplit(url).path).name
    check_space(folder, size, name)
    pooch.get_logger().setLevel("ERROR")
    bar = pooch.HTTPDownloader(progressbar=_terminal(), timeout=TIMEOUT)
    elsewhere = (
        "Get the file on another machine and name it with --from FILE, or "
        "name a copy with --mirror URL."
    )
    try:
        known = f"sha256:{known_sha256}"
        path = pooch.retrieve(url, known, name, folder, downloader=bar)
    except HTTPError as error:
        raise CourseError(
            f"{name} is not at {_host(url)}.",
            f"The server answered: {error}.",
            elsewhere,
        ) from error
    except RequestException as error:
        raise CourseError(
            f"{name} could not be downloaded.",
            f"There is no connection to {_host(url)}, or it broke off "
            f"({type(error).__name__}).",
            f"Check the network, behind a proxy HTTPS_PROXY. {elsewhere}",
        ) from error
    except ValueError as error:  # pooch: another checksum
        raise CourseError(
            f"{_host(url)} sent something else than {name}.",
            "Its SHA-256 is not the pinned one: a page of a proxy, a "
            "download cut short, or a changed file. Nothing was kept.",
            f"Try again. {elsewhere}",
        ) from error
    return Path(path)


def check_space(folder: Path, size: int, name: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises
    ------
    CourseError
        If fewer than `size` bytes and some spare are free.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < size + SPARE:
        raise CourseError(
            f"There is not enough space for {name}.",
            f"It needs {size / 1e6:,.0f} MB and some to spare; "
            f"{free / 1e6:,.0f} MB are free.",
            "Free some, or move the data folder with LLAMAXR_DATA.",
        )


def unpack_images(archive: Path, target: Path) -> Path:
    """Unpack the images of a zip; whole or not at all, no path escapes.

    Parameters
    ----------
    archive : path
    target : path
        A folder; one that is there is taken to be complete.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    CourseError
        If the archive is broken, holds a path that leads out of it, or
        does not fit on the disk.
    """
    if target.is_dir():
        return target

    def fill(part: Path) -> None:
        part.mkdir(parents=True)
        for entry in images:
            content.extract(entry, part)

    try:
        with zipfile.ZipFile(archive) as content:
            images = [e for e in content.infolist() if _is_image(e, archive)]
            size = sum(entry.file_size for entry in images)
            check_space(target, size, archive.name)
            write_whole(target, fill)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise CourseError(
            f"{archive.name} could not be unpacked.",
            f"{error}. The download may have been cut.",
            "Download it again; nothing was changed.",
        ) from error
    return target


def _is_image(entry: zipfile.ZipInfo, archive: Path) -> bool:
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts:
        raise CourseError(
            f"{archive.name} is not safe to unpack.",
            f"It holds the path {entry.filename!r}.",
            "Get the archive again from a source you trust.",
        )
    return path.suffix.lower() in IMAGE_SUFFIXES


def _read(path: Path) -> pd.DataFrame | None:
    """A predictions file in either form -> ``id``, ``generated``."""
    if not path.is_file():
        raise CourseError(
            f"{path.name} was not found.",
            f"There is no such file in {path.absolute().parent}.",
            "Check the path after --from.",
        )
    names = {"dicom_id": "id", "report": "generated"}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return table.rename(columns=names)[["id", "generated"]]
    except (ValueError, KeyError):
        return None  # no CSV, or other columns


def _fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 of the table in the form in which it was published."""
    published = table[["generated", "id"]].set_axis(
        ["report", "dicom_id"], axis="columns"
    )
    text = published.to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _matches(path: Path, source: Source) -> bool:
    table = _read(path)
    return table is not None and _fingerprint(table) == source.sha256


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _terminal() -> bool:
    """A progress bar is for people."""
    return sys.stderr.isatty()
