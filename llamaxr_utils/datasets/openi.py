"""The X-rays of IU X-ray, fetched from OpenI or a mirror of it.

The whole collection as one archive, or single images for a sample of its
studies. What is there is not fetched again, and a killed run goes on where
it was. It does not read images (`pixels`) or find them (`layouts`).

Data: Demner-Fushman et al. 2016, https://openi.nlm.nih.gov/faq#collection.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ..course.errors import CourseError
from ..course.files import write_whole
from ..course.run import cache_folder
from . import layouts
from .downloads import DownloadError, check_space, download
from .reports import r2gen_split

LICENCE = (
    "Indiana University chest X-ray collection (OpenI), CC BY-NC-ND 4.0: "
    "name the source, no commercial use, publish no altered image."
)
COLLECTION = "https://openi.nlm.nih.gov/imgs/collections"
IMAGES, REPORTS = "NLMCXR_png.tgz", "NLMCXR_reports.tgz"
#: About: OpenI publishes neither sizes nor checksums.
ARCHIVE_BYTES, IMAGE_BYTES = 1_360_000_000, 250_000
N_REPORTS, SEED = 3955, 42
NOT_THERE = (403, 404, 410)
#: Failures in a row, and "not there" before any success, that end a run.
GIVE_UP, NEVER_THERE = 10, 200


def home() -> Path:
    """Where fetched images lie: `find_xrays` looks there."""
    return cache_folder() / layouts.FETCHED


def image_address(image_id: str) -> str:
    """Public address of one image, 512 pixels wide.

    Images lie in folders by the study's number modulo 401 (read from
    addresses on public pages: 253/253, 154/2961).
    """
    number = int(image_id.split("_")[0].removeprefix("CXR"))
    base = COLLECTION.replace("collections", "512")
    return f"{base}/{number % 401}/{number}/{image_id}.png"


def wanted_images(studies: int | None = None) -> list[str]:
    """Images of the published list: all, or those of a sample of studies.

    Parameters
    ----------
    studies : int, optional
        So many of R2Gen's 2,955 studies, a seeded sample; a larger sample
        holds the smaller ones.
    """
    ids = layouts.known_views()["image_id"]
    if studies is None:
        return list(ids)
    if studies < 1:
        raise CourseError(
            f"--studies {studies} asks for no study.",
            "It is the number of studies whose images are fetched.",
            "Give a number from 1 to 2955, or --all.",
        )
    order = r2gen_split()["study_id"].sample(frac=1, random_state=SEED)
    chosen = set(order[:studies])
    return [i for i in ids if i.split("_")[0] in chosen]


def fetch(
    studies: int | None = None,
    mirror: str = "",
    origin: str = "",
    say: Callable[[str], object] = print,
) -> dict[str, str]:
    """Bring the wanted images into `home()`.

    Parameters
    ----------
    studies : int, optional
        Default: the whole collection, as one archive where there is one.
    mirror : str
        Address of an archive, or of a folder that holds `IMAGES` or single
        images, ``<image_id>.png`` or ``.jpg``. Default: OpenI.
    origin : str
        Instead: an archive or a folder on this machine; all of it is taken.
    say : callable
        Told what is being done.

    Returns
    -------
    dict
        Missing image id -> why.

    Raises
    ------
    CourseError
        No connection, no space, an archive that is broken or not safe.
        What was fetched before is kept.
    """
    wanted = wanted_images(studies)
    reasons: dict[str, str] = {}
    if origin:
        reasons = _take_local(Path(origin))
    elif missing(wanted) and layouts.is_archive(urlsplit(mirror).path):
        _take_archive(mirror, say)
    elif missing(wanted):
        if studies is None:
            url = f"{(mirror or COLLECTION).rstrip('/')}/{IMAGES}"
            _take_archive(url, say, may_lack=bool(mirror))
        reasons = _take_singles(missing(wanted), mirror, say)
    other = f"not in {PurePosixPath(origin or mirror).name}"
    return {i: reasons.get(i, other) for i in missing(wanted)}


def missing(wanted: Iterable[str]) -> list[str]:
    """Those of the wanted images that are not on disk."""
    there = set(layouts.find_images()["image_id"])
    return [i for i in wanted if i not in there]


def fetch_reports(mirror: str = "") -> Path | None:
    """OpenI's archive of reports; None where the mirror has none.

    torchxrayvision's wheel holds the same archive, so nothing needs it.
    """
    saved, work = home() / REPORTS, _workshop() / "reports"
    if saved.exists():
        return saved
    url = f"{(mirror or COLLECTION).rstrip('/')}/{REPORTS}"
    try:
        file = download(url, "", 0, work)
        with tarfile.open(file) as content:  # to its end, with its checksum
            whole = sum(name.endswith(".xml") for name in content.getnames())
        return file.replace(saved) if whole == N_REPORTS else None
    except (CourseError, tarfile.TarError, OSError, EOFError, zlib.error):
        return None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def summary(wanted: list[str], reasons: dict[str, str]) -> str:
    """What is there, what is missing and why, and the licence."""
    images = layouts.find_images()
    views = layouts.known_views().set_index("image_id")["view"]
    listed = views[views.index.isin(images["image_id"])]
    counts = ", ".join(f"{n:,} {v}" for v, n in listed.value_counts().items())
    there = len(wanted) - len(reasons)
    lines = [
        f"Wanted: {len(wanted):,} images, {there:,} are there.",
        f"List of views: {len(views):,} images, {len(listed):,} are there"
        + (f" ({counts})." if counts else "."),
    ]
    for reason, count in Counter(reasons.values()).most_common(5):
        first = next(i for i, why in reasons.items() if why == reason)
        lines.append(f"Missing {count:,} (first {first}): {reason}")
    others = len(images) - len(listed)
    if others:
        lines.append(f"{others:,} more images are there, view not listed.")
    return "\n".join([*lines, LICENCE])


# --- ways to get images -----------------------------------------------------


def _workshop() -> Path:
    """Half-done work: hidden, so that no half-written file counts."""
    return home() / ".work"


def _take_local(origin: Path) -> dict[str, str]:
    if origin.is_dir():
        return _keep(origin, move=False)
    if not (origin.is_file() and layouts.is_archive(origin.name)):
        raise CourseError(
            f"{origin.name} is no folder and no archive of images.",
            f"Archives end in {', '.join(layouts.ARCHIVE_SUFFIXES)}.",
            "Check the path after --from.",
        )
    unpacked = _workshop() / layouts.stem(origin.name)
    reasons = _keep(layouts.unpack_images(origin, unpacked), move=True)
    shutil.rmtree(unpacked)
    return reasons


def _take_archive(url: str, say, may_lack: bool = False) -> None:
    """Download, unpack and keep an archive; once an address."""
    taken = home() / ".archives"
    if taken.exists() and url in taken.read_text("utf-8").splitlines():
        return
    size = ARCHIVE_BYTES if url.startswith(COLLECTION) else 0
    say(f"fetching {url} (no checksum is published: its length, the sums "
        "inside it and its images are checked)")  # fmt: skip
    try:
        archive = download(url, "", size, _workshop(), copies=2)
    except DownloadError as error:
        if may_lack and error.status in NOT_THERE:
            return say("the mirror has no archive: single images")
        raise
    try:
        unpacked = _workshop() / layouts.stem(archive.name)
        say(f"unpacking {archive.name}")
        _keep(layouts.unpack_images(archive, unpacked), move=True)
    except layouts.BadArchive:
        archive.unlink()  # or the next run would take it for whole
        raise
    with taken.open("a", encoding="utf-8") as lines:
        lines.write(f"{url}\n")
    shutil.rmtree(_workshop())


def _keep(folder: Path, move: bool) -> dict[str, str]:
    """Every image under `folder` that is not there yet -> `home()`.

    Returns the images that were not taken, with the reason.
    """
    there = set(layouts.find_images()["image_id"])
    found = layouts.find_images(folder).set_index("image_id")["path"]
    files = {i: file for i, file in found.items() if i not in there}
    if not move:  # by people: these may be half a file
        check_space(home(), sum(f.stat().st_size for f in files.values()),
                    folder.name)  # fmt: skip
    reasons = {}
    for image_id, file in files.items():
        saved = home() / f"{image_id}{file.suffix.lower() or '.dcm'}"
        saved.parent.mkdir(parents=True, exist_ok=True)
        if move:
            file.replace(saved)
        elif problem := layouts.fault(file):
            reasons[image_id] = problem
        else:
            write_whole(saved, partial(shutil.copyfile, file))
    return reasons


def _take_singles(ids: list[str], mirror: str, say) -> dict[str, str]:
    """One file an image; those that fail are listed, and the rest go on."""
    from tqdm import tqdm

    check_space(home(), 0 if mirror else len(ids) * IMAGE_BYTES, "the images")
    if ids:
        say(f"fetching {len(ids):,} images one by one")
    reasons: dict[str, str] = {}
    endings, row, fetched = [".png", ".jpg"], 0, 0
    for image_id in tqdm(ids, disable=not sys.stderr.isatty()):
        try:
            used = _take_single(image_id, mirror, endings)
            endings.sort(key=lambda ending: ending != used)  # first, next time
            row, fetched = 0, fetched + 1
        except DownloadError as error:
            reasons[image_id] = error.why.split(" for url")[0]
            row += error.status not in NOT_THERE
            hopeless = not fetched and len(reasons) == NEVER_THERE
            if error.offline or row == GIVE_UP or hopeless:
                raise CourseError(
                    f"Stopped after {fetched:,} of {len(ids):,} images: "
                    + error.what,
                    error.why,
                    "What was fetched is kept, the same command goes on. "
                    + error.do,
                ) from error
    shutil.rmtree(_workshop() / "single", ignore_errors=True)
    return reasons


def _take_single(image_id: str, mirror: str, endings: list[str]) -> str:
    """Fetch and check one image; returns its file's ending."""
    # The list of views' own source calls the first study's CXR1_IM-0001-...
    names = dict.fromkeys([image_id, image_id.replace("CXR1_1_", "CXR1_")])
    base = mirror.rstrip("/")
    urls = [f"{base}/{name}{end}" for name in names for end in endings]
    urls = urls if mirror else [image_address(image_id)]
    for url in urls:
        try:
            file = download(url, "", 0, _workshop() / "single")
        except DownloadError as error:
            if error.status in NOT_THERE and url != urls[-1]:
                continue
            raise
        if problem := layouts.fault(file):
            file.unlink()
            raise DownloadError(
                f"{file.name} is damaged.", problem, "Try another mirror."
            )
        file.replace(home() / f"{image_id}{file.suffix}")
        return file.suffix
    raise AssertionError("the last address returns or raises")
