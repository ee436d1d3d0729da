"""Files from elsewhere: X-rays, weights, published predictions; all checked.

pooch downloads; what arrives is whole and is what it should be, or it is not
kept. Nothing is fetched unless a command asks for it.
"""

import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import TimeoutError as NoAnswer
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd
from tqdm.auto import tqdm

from ..course import artifacts
from ..course.errors import CourseError, problem
from ..course.run import cache_folder, data_folder
from . import images
from .reports import DATA

#: A download ends: seconds in all and of silence, bytes of the largest file.
DEADLINE, SILENCE, LARGEST = 4 * 3600, 30, 2_000_000_000


def download(url: str, folder: Path, sha256: str = "",
             size: int = LARGEST) -> Path:
    """Download one file, if it is not there; it is whole and the one expected,
    or not kept. Without a published `sha256` only the length is checked."""
    import pooch
    import requests
    from urllib3.exceptions import HTTPError

    place, _, name = url.rpartition("/")
    ends = time.monotonic() + DEADLINE
    # As it is: requests would unpack a .tgz on the way.
    ask = partial(requests.get, url, stream=True, timeout=SILENCE,
                  headers={"Accept-Encoding": "identity"})

    def get(_url: str, file: str, _pooch: Any) -> None:
        # In a thread: a server may send its headers byte by byte, for ever.
        with ThreadPool(1) as thread:
            answer = thread.apply_async(ask).get(2 * SILENCE)
        with (answer, open(file, "wb") as copy,
              tqdm(unit="B", unit_scale=True, disable=None) as bar):
            answer.raise_for_status()
            while part := answer.raw.read1(1 << 20):  # what is there, now
                bar.update(copy.write(part))
                if copy.tell() > size or time.monotonic() > ends:
                    raise requests.Timeout

    pooch.get_logger().setLevel("ERROR")
    known = f"sha256:{sha256}" if sha256 else None
    try:
        with artifacts.disk_errors(folder / name):
            saved = pooch.retrieve(url, known, name, folder, downloader=get)
            return Path(saved)
    except (requests.RequestException, HTTPError, NoAnswer) as error:
        why = (f"There is no connection to {place}, it broke off or has no "
               f"end ({type(error).__name__}). A proxy? Set HTTPS_PROXY.")
        if (answer := getattr(error, "response", None)) is not None:
            why = f"The server answered: {answer.status_code} {answer.reason}."
    except ValueError:
        why = "The file's SHA-256 is not the pinned one."
    raise problem("download", name=name, why=why, url=url)


# --- archives ---------------------------------------------------------------

#: In an unpacked folder: the archive that it came from.
NOTE = ".unpacked"
UNPACKED = 100  #: times its size; images hardly shrink in an archive


def is_archive(name: str) -> bool:
    return name.endswith((".zip", ".tgz", ".tar.gz", ".tar"))


def _members(archive: Path) -> Iterator[tuple[str, int, Any]]:
    """Name, size and content (None: of a link, a device) of the members of an
    archive; folders are none."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as whole:
            yield from ((info.filename, info.file_size, whole.open(info))
                        for info in whole.infolist() if not info.is_dir())
    else:
        with tarfile.open(archive) as whole:
            yield from ((i.name, i.size, i.isreg() and whole.extractfile(i))
                        for i in whole if not i.isdir())


def unpack_images(archive: Path, target: Path) -> Path:
    """Unpack an archive of images: all of it, and nothing outside, or none;
    again only when the archive has changed."""
    note = target / NOTE

    def fill(part: Path) -> None:
        part.mkdir()
        left = info.st_size * UNPACKED
        for name, size, content in _members(archive):
            file = part / name
            left -= size
            inside = file.resolve().is_relative_to(part.resolve())
            if not inside or file.exists() or not content or left < 0:
                raise ValueError(f"{name} leads out, stands twice, is no file "
                                 "or too large")
            if name.lower().endswith(images.IMAGE_SUFFIXES):
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(file, "wb") as copy:
                    shutil.copyfileobj(content, copy)
        (part / NOTE).write_text(origin, "utf-8")

    try:
        if not archive.is_file():  # a pipe would be waited for
            raise ValueError("There is no such file")
        info = archive.stat()
        origin = f"{archive.name} {info.st_size} {info.st_mtime_ns}"
        if not (note.exists() and note.read_text("utf-8") == origin):
            artifacts.write_whole(target, fill)
    except CourseError:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise problem("archive", file=archive.name, error=error) from error
    return target


# --- the X-rays of IU X-ray, from OpenI or a mirror of it -------------------

#: Demner-Fushman et al. 2016, https://openi.nlm.nih.gov/faq#collection.
LICENCE = (
    "Indiana University chest X-ray collection (OpenI), CC BY-NC-ND 4.0: "
    "name the source, no commercial use, publish no altered image.")
OPENI = "https://openi.nlm.nih.gov/imgs/collections"
#: Bytes, about: OpenI publishes neither sizes nor checksums.
ARCHIVE, ARCHIVE_BYTES = "NLMCXR_png.tgz", 1_360_000_000


def home() -> Path:
    """Where fetched images lie: `images.find_images` looks there."""
    return cache_folder() / images.FETCHED


def missing_xrays() -> list[str]:
    """Images of the published list of views that are not on this machine."""
    wanted = images.known_views()["image_id"]
    return list(wanted[~wanted.isin(images.find_images()["image_id"])])


def fetch_xrays(mirror: str = "", origin: str = "") -> list[str]:
    """Bring the collection into `home()`, if an image is missing: `ARCHIVE`
    from OpenI or `mirror` (an address), or `origin`, an archive on this
    machine. Returns the ids of the images that are still missing."""
    workshop = home() / ".work"
    try:
        if not origin and missing_xrays():
            url = f"{mirror.rstrip('/') or OPENI}/{ARCHIVE}"
            origin = str(download(url, workshop))
        if origin:
            unpack_images(Path(origin), home() / Path(origin).stem)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return missing_xrays()


# --- published weights and predictions --------------------------------------


class Published(NamedTuple):
    url: str
    sha256: str
    size: int  #: bytes, at most
    saves: str  #: predictions: name of the table that `fetch` writes
    licence: str


_TABLE = pd.read_csv(DATA / "published_files.csv", keep_default_na=False)
FILES = {name: Published(*row) for name, *row in _TABLE.to_numpy()}
#: Predictions of other systems.
SOURCES = {name: file for name, file in FILES.items() if file.saves}


def file_name(name: str) -> str:
    if name not in FILES:
        raise problem("no such download", name=name, known=", ".join(FILES))
    return PurePosixPath(urlsplit(FILES[name].url).path).name


def fetch(name: str, origin: str = "") -> Path:
    """Get one of `FILES` into the cache, whole and checked: the weights as
    they are, predictions as a table ``id``, ``generated``. `origin`: address
    of the folder that holds it, or the file itself."""
    file = cache_folder() / "weights" / file_name(name)
    if FILES[name].saves:
        file = cache_folder() / "predictions" / file.name
    if origin and "://" not in origin:
        copy = partial(shutil.copyfile, _checked(name, Path(origin)))
        artifacts.write_whole(file, copy)
    else:
        url = f"{origin.rstrip('/')}/{file.name}" if origin else ""
        download(url or FILES[name].url, file.parent, *FILES[name][1:3])
    if not FILES[name].saves:
        return file
    columns = {"dicom_id": "id", "report": "generated"}
    predictions = pd.read_csv(file, dtype=str, keep_default_na=False)
    predictions = predictions[[*columns]].rename(columns=columns)
    saved = cache_folder() / FILES[name].saves
    artifacts.write_whole(saved, partial(predictions.to_csv, index=False))
    return saved


def fill(network: Any, name: str, file: Path | None = None) -> None:
    """Give a network the tensors of a published one: of `file`, or of the
    published file in ``data/weights/`` or the cache; it is read once, and
    kept as safetensors if it fits the network, name by name."""
    import torch
    from safetensors.torch import load_file, save_file

    kept = cache_folder() / "weights" / f"{name}.safetensors"
    if file is None and kept.is_file():
        with suppress(Exception):  # cut, another's: read anew
            return network.load_state_dict(load_file(kept))
    places = (data_folder() / "weights", cache_folder() / "weights")
    paths = [file] if file else [place / file_name(name) for place in places]
    # A pickled module is code: the hash is checked before it is opened.
    model = torch.load(_checked(name, *paths), "cpu", weights_only=False)
    for module in model.modules():  # pickled by an old torch
        module.__dict__.setdefault("_non_persistent_buffers_set", set())
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    state.pop("op_threshs", None)
    network.load_state_dict(state)
    artifacts.write_whole(kept, partial(save_file, state))


def _checked(name: str, *paths: Path) -> Path:
    """The first of the paths that is there, if it is the published file."""
    path = next((path for path in paths if os.path.isfile(path)), None)
    if path is None:
        raise problem(
            "not fetched", file=paths[0].name, name=name, url=FILES[name].url)
    if artifacts.sha256(path) != FILES[name].sha256:
        raise problem(
            "other file", file=path.name, name=name,
            sha256=FILES[name].sha256[:16], url=FILES[name].url)
    return path
