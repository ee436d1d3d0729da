"""Files from elsewhere: X-rays, weights, published predictions; all checked.

pooch downloads; what arrives is whole and is what it should be, or it is not
kept. Nothing of it is part of this repository, and nothing is fetched unless
a command asks for it.

X-rays: Demner-Fushman et al. 2016, https://openi.nlm.nih.gov/faq#collection.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd

from ..course import artifacts
from ..course.errors import CourseError
from ..course.run import cache_folder, data_folder
from . import images
from .reports import r2gen_split

TIMEOUT = 30
#: Bytes that stay free, whatever is fetched.
SPARE = 50_000_000
#: From so many bytes on, a file has a progress bar.
LARGE = 5_000_000


# --- one file ---------------------------------------------------------------


class DownloadError(CourseError):
    """A server's fault: its answer (404) as `status`, 0 if it had none."""

    status = 0


def download(url: str, sha256: str, size: int, folder: Path) -> Path:
    """Download one file; it is whole and the one expected, or not there.

    Parameters
    ----------
    sha256 : str
        "" if none is published: then only the length is checked.
    size : int
        Bytes, 0 if not known; free space is checked before one is written.
    folder : path
        Made if it is missing. The file keeps its name, and one of this name
        that is there and right is not fetched again.
    """
    import pooch
    from requests.exceptions import RequestException

    name, host = PurePosixPath(urlsplit(url).path).name, urlsplit(url).hostname
    check_space(folder, size, name)
    pooch.get_logger().setLevel("ERROR")
    # As it is: requests would unpack a .tgz on the way.
    get = pooch.HTTPDownloader(
        progressbar=size > LARGE and sys.stderr.isatty(), chunk_size=1 << 16,
        timeout=TIMEOUT, headers={"Accept-Encoding": "identity"},
    )  # fmt: skip
    known = f"sha256:{sha256}" if sha256 else None
    try:
        with artifacts.disk_errors(folder / name):
            saved = pooch.retrieve(url, known, name, folder, downloader=get)
            return Path(saved)
    except RequestException as error:
        status = getattr(error.response, "status_code", 0)
        why = (
            f"There is no connection to {host}, or it broke off "
            f"({type(error).__name__}). Behind a proxy set HTTPS_PROXY."
        )
        if status:
            why = f"The server answered: {error}."
        cause: Exception = error
    except ValueError as error:  # pooch: another checksum
        why = (
            f"{host} sent a file whose SHA-256 is not the pinned one: a web "
            "page, a download cut short, or a changed file."
        )
        status, cause = 0, error
    failed = DownloadError(
        f"{name} could not be downloaded.",
        why,
        f"Try again; `wget -c {url}` goes on where it stopped, and then "
        "name the file with --from FILE. Or name a copy with --mirror URL.",
    )
    failed.status = status
    raise failed from cause


def check_space(folder: Path, size: int, name: str) -> None:
    """Refuse to begin what the disk cannot hold: `size` bytes and some."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < size + SPARE:
        raise CourseError(
            f"There is not enough space for {name}.",
            f"It needs {size / 1e6:,.0f} MB and some to spare; "
            f"{free / 1e6:,.0f} MB are free.",
            "Free some, or move the data folder with LLAMAXR_DATA.",
        )


# --- archives ---------------------------------------------------------------

ARCHIVE_SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar")
#: In an unpacked folder: the archive that it came from.
NOTE = ".unpacked"
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error,
    lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
)  # fmt: skip


class BadArchive(CourseError):
    """A broken archive: another copy is needed."""


def is_archive(name: str) -> bool:
    """Whether a file name or the path of an address is an archive's."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack_images(archive: Path, target: Path) -> Path:
    """Copy the images out of a .zip, .tar or .tgz: all of them, or none.

    A folder that is there is taken to be complete, unless it says that it
    came from another archive (or another state of this one).
    """
    info, note = archive.stat(), target / NOTE
    origin = f"{archive.name} {info.st_size} {info.st_mtime_ns}"
    by_hand = target.is_dir() and not note.exists()
    if by_hand or note.exists() and note.read_text("utf-8") == origin:
        return target

    def fill(part: Path) -> None:
        part.mkdir(parents=True)
        for place, _, read in members:
            file = part.joinpath(*place)
            file.parent.mkdir(exist_ok=True)
            with read() as source, file.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        (part / NOTE).write_text(origin, "utf-8")

    try:
        is_zip = archive.name.lower().endswith(".zip")
        open_it = zipfile.ZipFile if is_zip else tarfile.open
        with closing(open_it(archive)) as content:
            members = list(_images_in(content))
            check_space(target, sum(m[1] for m in members), archive.name)
            artifacts.write_whole(target, fill)
    except _BROKEN as error:
        raise BadArchive(
            f"{archive.name} could not be unpacked.",
            f"{error}. The download may have been cut.",
            "Download it again; nothing was changed.",
        ) from error
    return target


def _images_in(content: Any) -> Iterator[tuple[tuple, int, Callable]]:
    """Folder and name, bytes, and how to read them, of an archive's images.

    Only these two words are taken from the archive, and no file of a path
    that leads out, is hidden or goes through a link: nothing can escape.
    """
    if isinstance(content, zipfile.ZipFile):
        entries = [
            (e.filename, e.file_size, partial(content.open, e))
            for e in content.infolist()
        ]
    else:
        entries = [
            (e.name, e.size, partial(content.extractfile, e))
            for e in content if e.isreg()
        ]  # fmt: skip
    for name, size, read in entries:
        path = PurePosixPath(name.replace("\\", "/"))
        hidden = any(part.startswith(".") for part in path.parts)
        if path.is_absolute() or ":" in name or hidden:
            continue
        if path.suffix.lower() in images.IMAGE_SUFFIXES:
            yield path.parts[-2:], size, read


# --- the X-rays of IU X-ray, from OpenI or a mirror of it -------------------

LICENCE = (
    "Indiana University chest X-ray collection (OpenI), CC BY-NC-ND 4.0: "
    "name the source, no commercial use, publish no altered image."
)
COLLECTION = "https://openi.nlm.nih.gov/imgs/collections"
ARCHIVE = "NLMCXR_png.tgz"
#: About: OpenI publishes neither sizes nor checksums.
ARCHIVE_BYTES, IMAGE_BYTES = 1_360_000_000, 250_000
SEED = 42
NOT_THERE = (403, 404, 410)
#: Failures in a row that end a run.
GIVE_UP = 10


def home() -> Path:
    """Where fetched images lie: `images.find_images` looks there."""
    return cache_folder() / images.FETCHED


def image_address(image_id: str) -> str:
    """Public address of one image, 512 pixels wide, in a folder by the
    study's number modulo 401 (public pages show 253/253, 154/2961)."""
    number = int(image_id.split("_")[0].removeprefix("CXR"))
    base = COLLECTION.replace("collections", "512")
    return f"{base}/{number % 401}/{number}/{image_id}.png"


def wanted_images(studies: int | None = None) -> list[str]:
    """Images of the published list: all, or those of so many of R2Gen's
    2,955 studies, a seeded sample; a larger sample holds the smaller ones."""
    ids = images.known_views()["image_id"]
    if studies is None:
        return list(ids)
    order = r2gen_split()["study_id"].sample(frac=1, random_state=SEED)
    chosen = set(order[:studies])
    return [i for i in ids if i.split("_")[0] in chosen]


def fetch_xrays(
    studies: int | None = None,
    mirror: str = "",
    origin: str = "",
    say: Callable[[str], object] = print,
) -> dict[str, str]:
    """Bring the wanted images into `home()`; what is there is not fetched.

    Parameters
    ----------
    studies : int, optional
        Default: the whole collection, as one archive where there is one.
    mirror : str
        Address of an archive, or of a folder that holds `ARCHIVE` or single
        images, ``<image_id>.png`` or ``.jpg``. Default: OpenI.
    origin : str
        Instead: an archive or a folder on this machine; all of it is taken.

    Returns
    -------
    dict
        Missing image id -> why.
    """
    wanted = wanted_images(studies)
    reasons: dict[str, str] = {}
    if origin:
        reasons = _take_local(Path(origin))
    elif missing(wanted) and is_archive(urlsplit(mirror).path):
        _take_archive(mirror, say)
    elif missing(wanted):
        if studies is None:
            url = f"{(mirror or COLLECTION).rstrip('/')}/{ARCHIVE}"
            try:
                _take_archive(url, say)
            except DownloadError as error:
                if not mirror or error.status not in NOT_THERE:
                    raise
                say("the mirror has no archive: single images")
        reasons = _take_singles(missing(wanted), mirror, say)
    other = f"not in {PurePosixPath(origin or mirror).name}"
    return {i: reasons.get(i, other) for i in missing(wanted)}


def missing(wanted: list[str]) -> list[str]:
    """Those of the wanted images that are not on disk."""
    there = set(images.find_images()["image_id"])
    return [i for i in wanted if i not in there]


def summary(wanted: list[str], reasons: dict[str, str]) -> str:
    """What is there, what is missing and why, and the licence."""
    there = set(images.find_images()["image_id"])
    views = images.known_views().set_index("image_id")["view"]
    listed = views[views.index.isin(there)].value_counts()
    counts = ", ".join(f"{n:,} {view}" for view, n in listed.items())
    there_now = len(wanted) - len(reasons)
    lines = [f"Wanted: {len(wanted):,} images, {there_now:,} are there."]
    lines[0] += f" Of all {len(views):,} listed: {counts or 'none'}."
    for reason, count in Counter(reasons.values()).most_common(5):
        first = next(i for i, why in reasons.items() if why == reason)
        lines.append(f"Missing {count:,} (first {first}): {reason}")
    return "\n".join([*lines, LICENCE])


def _workshop() -> Path:
    """Half-done work: hidden, so that no half-written file counts."""
    return home() / ".work"


def _take_local(origin: Path) -> dict[str, str]:
    if origin.is_dir():
        return _keep(origin, shutil.copyfile)
    if not (origin.is_file() and is_archive(origin.name)):
        raise CourseError(
            f"{origin.name} is no folder and no archive of images.",
            f"Archives end in {', '.join(ARCHIVE_SUFFIXES)}.",
            "Check the path after --from.",
        )
    unpacked = unpack_images(origin, _workshop() / f"{origin.name}.images")
    reasons = _keep(unpacked, shutil.move)
    shutil.rmtree(unpacked)
    return reasons


def _take_archive(url: str, say: Callable[[str], object]) -> None:
    """Download, unpack and keep an archive; once an address."""
    taken = home() / ".archives"
    if taken.exists() and url in taken.read_text("utf-8").splitlines():
        return
    size = ARCHIVE_BYTES if url.startswith(COLLECTION) else 0
    say(f"fetching {url} (no checksum is published: its length, the sums "
        "inside it and its images are checked)")  # fmt: skip
    check_space(home(), 2 * size, url)  # packed and unpacked
    archive = download(url, "", size, _workshop())
    try:
        _take_local(archive)
    except BadArchive:
        archive.unlink()  # or the next run would take it for whole
        raise
    with taken.open("a", encoding="utf-8") as lines:
        lines.write(f"{url}\n")
    shutil.rmtree(_workshop())


def _keep(folder: Path, bring: Callable[..., object]) -> dict[str, str]:
    """Copy or move every image under `folder` that is not there yet to
    `home()`; returns those that are no whole image, with the reason."""
    there = set(images.find_images()["image_id"])
    table = images.find_images(folder)
    table, reasons = table[~table["image_id"].isin(there)], {}
    for image_id, file in zip(table["image_id"], table["path"]):
        saved = home() / f"{image_id}{file.suffix.lower() or '.dcm'}"
        if fault := images.fault(file):
            reasons[image_id] = fault
        else:
            artifacts.write_whole(saved, partial(bring, file))
    return reasons


def _take_singles(
    ids: list[str], mirror: str, say: Callable[[str], object]
) -> dict[str, str]:
    """One file an image; those that fail are listed, and the rest go on."""
    from tqdm import tqdm

    check_space(home(), 0 if mirror else len(ids) * IMAGE_BYTES, "the images")
    if ids:
        say(f"fetching {len(ids):,} images one by one")
    reasons: dict[str, str] = {}
    failures, fetched = 0, 0
    for image_id in tqdm(ids, disable=not sys.stderr.isatty()):
        try:
            _take_single(image_id, mirror.rstrip("/"))
            failures, fetched = 0, fetched + 1
        except DownloadError as error:
            reasons[image_id] = error.why.split(" for url")[0]
            failures += error.status not in NOT_THERE or not fetched
            if failures == GIVE_UP:
                raise CourseError(
                    f"Stopped after {fetched:,} of {len(ids):,} images: "
                    + error.what,
                    error.why,
                    "What was fetched is kept, the same command goes on. "
                    + error.do,
                ) from error
    shutil.rmtree(_workshop() / "single", ignore_errors=True)
    return reasons


def _take_single(image_id: str, mirror: str) -> None:
    """Fetch and check one image, from OpenI or under a mirror's names."""
    # The list of views' own source calls the first study's CXR1_IM-0001-...
    names = dict.fromkeys([image_id, image_id.replace("CXR1_1_", "CXR1_")])
    urls = [image_address(image_id)]
    if mirror:
        ends = (".png", ".jpg")
        urls = [f"{mirror}/{name}{end}" for name in names for end in ends]
    for url in urls:
        try:
            file = download(url, "", 0, _workshop() / "single")
            break
        except DownloadError as error:
            if error.status not in NOT_THERE or url == urls[-1]:
                raise
    if fault := images.fault(file):
        file.unlink()
        raise DownloadError(
            f"{file.name} is damaged.", fault, "Try another mirror."
        )
    file.replace(home() / f"{image_id}{file.suffix}")


# --- published weights and predictions --------------------------------------

#: The network of the paper (section 3.4).
PAPER = "densenet121-res224-all"


class Published(NamedTuple):
    """One public file."""

    url: str
    size: int  #: bytes, about; exact where `sha256` is whole
    sha256: str = ""  #: whole, its first digits, or "" where none is known
    saves: str = ""  #: predictions: name of the table that `fetch` writes
    licence: str = ""


#: Predictions of other systems.
SOURCES: dict[str, Published] = {
    # Nicolson et al. 2023. The bytes were not at hand: the checksum is that
    # of the same 590 pairs in the same order, in the file's format. Its
    # length, beginning and end are those of a public copy of the file.
    "cvt2distilgpt2": Published(
        "https://raw.githubusercontent.com/aehrc/cvt2distilgpt2/"
        "8cf4c8dcafe92ebf50d5a1d4ebbc7c3f0b7e2d87/experiment/iu_x_ray_chen/"
        "test_iu_x_ray_chen_cvt2distilgpt2/trial_0/generated_reports/"
        "test_reports_epoch-0_16-05-2023_12-46-42.csv",
        139_099,
        "a39c41e058f747ad5fabb9b5466f6e04d0f930c8fb3a1b3dc09a3180db56f85d",
        "cvt2distilgpt2_iu_test.csv",
        "GPL-3 repository",
    ),
}
#: torchvision puts the first digits of the SHA-256 into its file names.
IMAGENET = {
    "resnet50-imagenet": Published(
        "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        102_540_417,
        "11ad3fa6",
    ),
    "efficientnet-b0-imagenet": Published(
        "https://download.pytorch.org/models/"
        "efficientnet_b0_rwightman-7f5810bc.pth",
        21_444_401,
        "7f5810bc",
    ),
}
#: What is known of torchxrayvision's files beyond its own list.
PINNED = {
    PAPER: (
        28_382_008,
        "56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899",
    ),
    "resnet50-res512-all": (94_000_000, ""),
}


@cache
def table() -> dict[str, Published]:
    """Name -> weights, for every network that can be fetched."""
    from torchxrayvision.models import model_urls

    # Names without a resolution are short ones for the same files.
    return {
        name: Published(known["weights_url"], *PINNED.get(name, (28_400_000,)))
        for name, known in model_urls.items()
        if "-res" in name
    } | IMAGENET


def facts(name: str) -> tuple[list[str], list[float]]:
    """Names of a network's outputs and its operating points, as
    torchxrayvision lists them; "" belongs to no condition."""
    from torchxrayvision.models import model_urls

    known = model_urls[name]
    return list(known["labels"]), [float(p) for p in known["op_threshs"]]


def file_name(name: str) -> str:
    """Name of a published file."""
    known = SOURCES.get(name) or table()[name]
    return PurePosixPath(urlsplit(known.url).path).name


def fetch(name: str, origin: str = "") -> Path:
    """Get a published file into the cache, whole and checked.

    Parameters
    ----------
    name : str
        A key of `SOURCES` or `table`.
    origin : str
        Empty: where it is published. ``http(s)://``: a mirror, the folder
        that holds the file. Else the file on this machine.

    Returns
    -------
    Path
        Weights as they are; predictions as a table ``id``, ``generated``.
    """
    known = SOURCES.get(name) or table().get(name)
    if known is None:
        names = ["openi", "smollm2-135m", *SOURCES, *table()]
        raise CourseError(
            f"{name!r} cannot be fetched.",
            f"The kit knows {', '.join(names)}.",
            "Choose one of these.",
        )
    place = cache_folder() / ("predictions" if known.saves else "weights")
    file, url = place / file_name(name), known.url
    if origin.startswith(("http://", "https://")):
        url = f"{origin.rstrip('/')}/{file.name}"
    elif origin:
        _check(name, known, _find(name, Path(origin)))
        artifacts.write_whole(file, partial(shutil.copyfile, origin))
    if url != known.url or not origin:
        whole = known.sha256 if len(known.sha256) == 64 else ""
        _check(name, known, download(url, whole, known.size, place))
    if not known.saves:
        return file
    columns = {"dicom_id": "id", "report": "generated"}
    predictions = pd.read_csv(file, dtype=str, keep_default_na=False)
    predictions = predictions.rename(columns=columns)[["id", "generated"]]
    saved = cache_folder() / known.saves
    artifacts.write_whole(saved, partial(predictions.to_csv, index=False))
    return saved


def state_dict(name: str, file: Path | None = None) -> dict[str, Any]:
    """The tensors of a published network.

    Parameters
    ----------
    name : str
        A key of `table`.
    file : path, optional
        The published file; by default it is looked for in ``data/weights/``
        and the cache. It is read once, and kept as safetensors.
    """
    from safetensors.torch import load_file, save_file

    kept = cache_folder() / "weights" / f"{name}.safetensors"
    if file is None and kept.is_file():
        return load_file(kept)
    path = _find(name, file)
    _check(name, table()[name], path)
    state = {
        key: value.contiguous()
        for key, value in _read(name, path).items()
        if key != "op_threshs"
    }
    artifacts.write_whole(kept, partial(save_file, state))
    return state


def _find(name: str, file: Path | None) -> Path:
    places = (data_folder() / "weights", cache_folder() / "weights")
    paths = [file] if file else [place / file_name(name) for place in places]
    for path in paths:
        if path.is_file():
            return path
    raise CourseError(
        f"{paths[0].name} of {name} is not on this machine.",
        "It is published by others and is not part of the kit.",
        f"Fetch it (python -m llamaxr_utils fetch {name}), put "
        f"{(SOURCES | table())[name].url} into data/weights/, or set "
        'BACKBONE = "densenet-small@iu-train".',
    )


def _check(name: str, known: Published, path: Path) -> None:
    sha256 = artifacts.sha256(path)
    if not sha256.startswith(known.sha256):  # "" where none was published
        raise CourseError(
            f"{path.name} is not the released file of {name}.",
            f"Its SHA-256 is {sha256[:16]}..., not {known.sha256[:16]}..., "
            f"its length {path.stat().st_size:,} bytes, not {known.size:,}. "
            "A weight file can hold code, so it was not opened.",
            f"Remove it and get it again from {known.url}.",
        )


def _read(name: str, path: Path) -> dict[str, Any]:
    """Tensors of a checked file: a state dict or a pickled module."""
    import torch

    # A pickled module is code. One whose whole hash is pinned may run it; of
    # the others only the classes below are let in.
    whole = len(table()[name].sha256) == 64
    try:
        with torch.serialization.safe_globals(_classes()):
            content = torch.load(
                path, map_location="cpu", weights_only=not whole
            )
    except Exception as error:
        raise CourseError(
            f"{path.name} could not be read as weights.",
            str(error).splitlines()[0],
            f"Remove it and get it again from {table()[name].url}.",
        ) from error
    if isinstance(content, dict):
        return content
    for module in content.modules():  # pickled by an old torch
        module.__dict__.setdefault("_non_persistent_buffers_set", set())
    return content.state_dict()


def _classes() -> list[Any]:
    """What a pickled DenseNet of torchxrayvision is made of."""
    from torch import nn
    from torchxrayvision import models

    parts = (nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear)
    own = (models._DenseBlock, models._DenseLayer, models._Transition)
    return [models.DenseNet, *own, *parts, nn.MaxPool2d, nn.AvgPool2d, set]
