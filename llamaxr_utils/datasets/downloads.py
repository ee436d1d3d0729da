"""Files from elsewhere: fetched whole, resumed when cut, checked.

A thin layer over pooch: what is fetched is whole and is what it should be,
or it is not there. Nothing of it is part of this repository, and nothing is
fetched unless a command asks for it. What the files mean is not known here.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

import pandas as pd

from ..course.errors import CourseError
from ..course.files import disk_errors, write_whole

TIMEOUT = 30
#: Attempts in a row without progress; seconds before the second, doubled.
TRIES, PAUSE = 4, 0.25
#: Bytes that stay free, whatever is fetched.
SPARE = 50_000_000
#: From so many bytes on, a file has a progress bar.
LARGE = 5_000_000


class DownloadError(CourseError):
    """A server's fault: its answer (404) as `status`, 0 if it had none."""

    status = 0
    offline = False  #: no connection was made at all


class Source(NamedTuple):
    """A public file, pinned."""

    url: str
    sha256: str
    size: int  #: bytes
    saves: str  #: name of the table that `fetch` writes
    licence: str


#: What `fetch` knows.
SOURCES: dict[str, Source] = {
    # Nicolson et al. 2023. The bytes were not at hand: the checksum is that
    # of the same 590 pairs in the same order, in the file's format. Its
    # length, beginning and end are those of a public copy of the file.
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
        Where the table is written, as `Source.saves`; one that is there and
        right is not fetched again.
    origin : str
        Empty: the pinned address. ``http(s)://``: a mirror, the file itself
        or the folder that it lies in. Else a local copy, as published or as
        a table ``id``, ``generated``.

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
    there = not origin and saved.is_file()
    if there and _fingerprint(_read(saved)) == source.sha256:
        return saved
    if origin and not origin.startswith(("http://", "https://")):
        table, why = _read(Path(origin)), f"{Path(origin).name} holds"
    else:
        url = origin or source.url
        file = PurePosixPath(urlsplit(source.url).path).name
        if origin and not urlsplit(url).path.endswith(".csv"):
            url = f"{url.rstrip('/')}/{file}"
        with TemporaryDirectory() as place:
            raw = download(url, source.sha256, source.size, Path(place))
            table, why = _read(raw), "The server sent"
    if _fingerprint(table) != source.sha256:
        raise CourseError(
            f"This is not the published file of {name}.",
            f"{why} other predictions than those pinned (SHA-256 "
            f"{source.sha256[:12]}...).",
            "Get the file again; `score` takes any predictions file as it "
            "is, without `fetch`.",
        )
    write_whole(saved, lambda part: table.to_csv(part, index=False))
    return saved


def download(
    url: str, known_sha256: str, size: int, folder: Path, copies: int = 1
) -> Path:
    """Download one file; it is whole and the one expected, or not there.

    A transfer that breaks off goes on where it stopped, in this call or in
    the next one with the same `folder`, if the server can (``Range``); else
    it begins again. `TRIES` attempts without progress end it.

    Parameters
    ----------
    known_sha256 : str
        "" if none is published: then only the length is checked.
    size : int
        Bytes, 0 if not known; free space is checked before one is written.
    folder : path
        Made if it is missing. The file keeps its name.
    copies : int
        Room for so many times the file (2: it will be unpacked).

    Raises
    ------
    CourseError
        Not enough space; `DownloadError`: no connection, another file.
    """
    import pooch
    from requests.exceptions import HTTPError, RequestException

    name = PurePosixPath(urlsplit(url).path).name
    check_space(folder, size * copies, name)
    pooch.get_logger().setLevel("ERROR")

    def resume(url: str, output: str, _: object) -> None:
        part = Path(folder) / f".{name}.part"
        _persist(url, part, copies)
        part.replace(output)

    known = f"sha256:{known_sha256}" if known_sha256 else None
    cause: Exception
    do = "Try again. "
    try:
        saved = pooch.retrieve(url, known, name, folder, downloader=resume)
        return Path(saved)
    except HTTPError as error:
        cause, what = error, f"{name} is not at {_host(url)}."
        why = f"The server answered: {error}."
    except RequestException as error:
        cause, what = error, f"{name} could not be downloaded."
        why = f"There is no connection to {_host(url)}, or it broke off "
        why += f"({type(error).__name__})."
        do = "Check the network, behind a proxy HTTPS_PROXY. "
    except ValueError as error:  # a web page; pooch: another checksum
        cause, what = error, f"{_host(url)} sent something else than {name}."
        why = "It is a web page, perhaps a proxy's, or its SHA-256 is not "
        why += "the pinned one: a download cut short, or a changed file."
    do += "Get the file on another machine and name it with --from FILE, or "
    failed = DownloadError(what, why, f"{do}name a copy with --mirror URL.")
    answer = getattr(cause, "response", None)
    failed.status = getattr(answer, "status_code", 0)
    failed.offline = _is_offline(cause)
    raise failed from cause


def _persist(url: str, part: Path, copies: int) -> None:
    """`_transfer` until `part` is whole; the last error if it never is."""
    from requests.exceptions import RequestException

    longest, tries = 0, 0
    while True:
        try:
            return _transfer(url, part, copies)
        except RequestException as error:
            length = part.stat().st_size if part.exists() else 0
            tries = 0 if length > longest else tries + 1
            longest = max(longest, length)
            code = getattr(error.response, "status_code", 0)
            refused = 400 <= code < 500 and code != 429
            if refused or _is_offline(error) or tries >= TRIES:
                raise
            time.sleep(PAUSE * 2**tries)


def _transfer(url: str, part: Path, copies: int) -> None:
    """One connection: the rest of `part`, or all of it."""
    from requests import ConnectionError as Broken
    from requests import get
    from tqdm import tqdm
    from urllib3.exceptions import HTTPError

    of = part.with_suffix(".of")  # the version that the part is a part of
    version = of.read_text("utf-8") if of.exists() and part.exists() else ""
    had = part.stat().st_size if version else 0
    ask = {"Accept-Encoding": "identity"}
    if had:
        ask |= {"Range": f"bytes={had}-", "If-Range": version}
    with get(url, headers=ask, stream=True, timeout=TIMEOUT) as answer:
        sent, code = answer.headers, answer.status_code
        said = sent.get("Content-Range", "")
        if code == 416 and said == f"bytes */{had}":
            return of.unlink()  # it was whole already
        if code == 416 or (code == 206) != said.startswith(f"bytes {had}-"):
            of.unlink(missing_ok=True)
            raise Broken("the file has changed: from the start")
        answer.raise_for_status()
        if sent.get("Content-Type", "").startswith("text/html"):
            raise ValueError("a web page")
        had = had if code == 206 else 0
        rest = int(sent.get("Content-Length", 0))
        check_space(part.parent, rest * copies, part.name[1:-5])
        tag = sent.get("ETag", "W/")
        tag = sent.get("Last-Modified", "") if tag.startswith("W/") else tag
        with (
            disk_errors(part),
            part.open("ab" if had else "wb") as file,
            tqdm(total=had + rest, initial=had, unit="B", unit_scale=True,
                 disable=rest < LARGE or not sys.stderr.isatty()) as bar,
        ):  # fmt: skip
            of.write_text(tag, "utf-8")
            try:  # as sent: requests would unpack a .tgz on the way
                for block in answer.raw.stream(1 << 16, decode_content=False):
                    bar.update(file.write(block))
            except HTTPError as error:
                raise Broken(str(error)) from error
    of.unlink()


def _is_offline(error: Exception) -> bool:
    """No address, no route, no proxy: another attempt will not help."""
    from requests import exceptions as of
    from urllib3.exceptions import NewConnectionError

    reason = getattr(error.args[0] if error.args else None, "reason", None)
    never = of.ProxyError, of.SSLError, of.ConnectTimeout
    return isinstance(error, never) or isinstance(reason, NewConnectionError)


def check_space(folder: Path, size: int, name: str) -> None:
    """Refuse to begin what the disk cannot hold.

    It needs `size` bytes and some spare, or raises a `CourseError`.
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


def _read(path: Path) -> pd.DataFrame:
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
        return pd.DataFrame(columns=["id", "generated"])  # another file


def _fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 of the table in the form in which it was published."""
    published = table[["generated", "id"]].set_axis(
        ["report", "dicom_id"], axis="columns"
    )
    text = published.to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _host(url: str) -> str:
    return urlsplit(url).hostname or url
