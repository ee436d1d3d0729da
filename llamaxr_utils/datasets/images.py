"""Chest images: found on disk or drawn, one of each view, read as bytes.

A study gets its frontal and its lateral image from a published list of views
(``data/views.csv``); it wins over the DICOM headers, which call most laterals
PA. Never is "the first image" taken to be the frontal one.
"""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from ..course.errors import CourseError, problem, refuse_unknown
from ..course.machine import cores
from ..course.run import cache_folder, data_folder
from . import phantoms
from .mesh import DATA

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")
#: Folder in the cache where `downloads` puts the X-rays that it fetches.
FETCHED = "openi"
LISTED = "published list"
#: torchxrayvision's range: ``xrv.datasets.normalize(image, maxval=255)``.
LOW, HIGH = -1024.0, 1024.0
#: 43 cm at a tenth of a millimetre, squared, are 18 million.
MOST_PIXELS = 50_000_000
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow refuses twice as many
#: CXR2_IM-0652-1001, CXR894_IM-2404-0001-0001; the first study's images
#: have a number more (CXR1_1_IM-0001-3001), Kaggle's copy has no "CXR".
_OPENI = re.compile(r"(?:CXR)?(\d+)(?:_1)?(_IM-\d{4}(?:-\d+){1,2})")


# --- files ------------------------------------------------------------------

def known_views() -> pd.DataFrame:
    """``image_id``, ``view`` (frontal, lateral): 7,426 of 7,470 images, as
    published with the Kaggle copy of the collection."""
    return pd.read_csv(DATA / "views.csv")


def openi_id(stem: str) -> str | None:
    """OpenI's image id for a file name without its ending, or None:
    ``CXR2_IM-0652-1001``, in the Kaggle copy ``2_IM-0652-1001.dcm``."""
    if match := _OPENI.fullmatch(stem.removesuffix(".dcm")):
        number, rest = match.groups()
        return f"CXR{number}{'_1' if number == '1' else ''}{rest}"
    return None


def find_images() -> pd.DataFrame:
    """Every image of the collection in the data folder and in what ``fetch
    openi`` brought, whatever its layout; archives directly in the data folder
    are unpacked once, into the cache.

    Returns ``image_id`` (OpenI's), ``path`` (Path).
    """
    files = [file for root in _roots() for file in image_files(root)]
    table = pd.DataFrame({"image_id": [openi_id(file.stem) for file in files],
                          "path": files}, dtype=object)
    return table.dropna().drop_duplicates("image_id", ignore_index=True)


def _roots() -> Iterator[Path]:
    from .downloads import is_archive, unpack_images

    top = data_folder()
    yield top
    if not cache_folder().is_relative_to(top):
        yield cache_folder() / FETCHED  # the data folder is read-only
    for archive in sorted(top.glob("*")):
        if is_archive(archive.name):
            name = re.sub(r"(\.tar)?\.\w+$", "", archive.name)
            yield unpack_images(archive, cache_folder() / name)


def image_files(root: Path) -> Iterator[Path]:
    """Image files in order, without hidden (half-written, macOS's) ones and
    without the drawings in the cache."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f != "phantoms")
        for name in sorted(names):
            is_image = name.lower().endswith(IMAGE_SUFFIXES)
            if is_image and not name.startswith("."):
                yield Path(place, name)


def locate(path: str) -> Path:
    """The file behind ``views.path``: in the data folder or the cache."""
    for base in (data_folder(), cache_folder()):
        if (base / path).exists():
            return base / path
    raise problem("image is gone", file=Path(path).name)


def _relative(path: str | Path) -> str:
    for base in (data_folder(), cache_folder()):
        if Path(path).is_relative_to(base):
            return Path(path).relative_to(base).as_posix()
    return str(path)


# --- views ------------------------------------------------------------------

def choose_views(image_ids: pd.DataFrame) -> pd.DataFrame:
    """``study_id``, ``image_id``, ``view``: one frontal and one lateral a
    study, of its images (`reports.load_image_ids`) the one of the lowest
    number. Images that the list of views does not know are left out."""
    images = image_ids.merge(known_views(), on="image_id")
    images["order"] = pd.factorize(images["study_id"])[0]
    images = images.sort_values(["order", "view", "image_id"])
    first = images.drop_duplicates(["order", "view"], ignore_index=True)
    return first[["study_id", "image_id", "view"]]


def draw_views(studies: pd.DataFrame, image_ids: pd.DataFrame, size: int,
               progress: Callable[[int, int], object] | None = None
               ) -> pd.DataFrame:
    """Schema ``views``: phantoms of `size` pixels, drawn from ``mesh`` of
    `studies`, for the views that the real studies have."""
    views = choose_views(image_ids).merge(studies[["study_id", "mesh"]])
    home = cache_folder() / "phantoms"
    paths = phantoms.draw_files(views, home, size, progress)
    views["path"] = [_relative(path) for path in paths]
    views = views.drop(columns="mesh")
    return views.assign(view_source=LISTED, image_source="phantom")


def xray_views(image_ids: pd.DataFrame) -> pd.DataFrame:
    """Schema ``views`` for the X-rays on disk: `choose_views` of those that
    are there. For a missing image the next one is used."""
    files = find_images()
    if files.empty:
        raise problem("no X-rays", folder=data_folder().name)
    there = image_ids[image_ids["image_id"].isin(files["image_id"])]
    views = choose_views(there).merge(files, on="image_id")
    views["path"] = views["path"].map(_relative)
    return views.assign(view_source=LISTED, image_source="IU X-ray")


# --- one file -> a grey square of bytes -------------------------------------

def read_grey(path: str | Path, size: int,
              resize: str = "squash") -> np.ndarray:
    """One PNG, JPEG or DICOM as uint8 (size, size): air dark, bone bright.

    `resize`: "squash" changes the aspect ratio (the paper), "crop" takes the
    central square (torchxrayvision's examples). Of more than 8 bits the
    fewest (up to 16) that hold the largest value are white.
    """
    grey = read_picture(path, size).convert("L")
    corner = (np.array(grey.size) - min(grey.size)) / 2
    square = (*corner, *(corner + min(grey.size)))
    box = square if resize == "crop" else None
    picture = grey.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(picture)


def read_picture(path: str | Path, size: int) -> Any:
    """The same as it is, grey or in colour, in bytes; a large JPEG is decoded
    small, at four times `size`. What it holds counts, not what it is called;
    CourseError for all else, and for more than `MOST_PIXELS`."""
    file = Path(path)
    try:
        if not file.is_file():  # a pipe would be waited for
            raise ValueError("There is no such file")
        with file.open("rb") as start:
            if start.read(132).endswith(b"DICM"):
                return _read_dicom(file)
        # Only these: for others Pillow may start a program (Ghostscript).
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            image.draft(None, (4 * size, 4 * size))
            if image.mode.startswith("I"):  # more than 8 bits
                return Image.fromarray(_to_bytes(np.asarray(image)))
            return ImageOps.exif_transpose(image)
    except Exception as error:  # damaged files raise nearly anything
        why = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            why = "It holds no PNG, JPEG or DICOM"
        raise problem("image", file=file.name, why=why) from error


def _read_dicom(file: Path) -> Any:
    """The first frame as its header says: modality LUT or rescaling, the
    first VOI LUT or window, then MONOCHROME1 inverted; padding is black."""
    from pydicom import dcmread, pixels
    from pydicom.filereader import read_file_meta_info

    if read_file_meta_info(file).TransferSyntaxUID.is_deflated:
        raise ValueError("It is deflated, to any length. Save it without")
    data = dcmread(file, stop_before_pixels=True)
    count = data.Rows * data.Columns * data.SamplesPerPixel
    if count > MOST_PIXELS:
        raise ValueError(f"{count:,} pixels are more than {MOST_PIXELS:,}")
    stored = pixels.pixel_array(file, index=0)
    kind = data.PhotometricInterpretation
    if kind == "PALETTE COLOR" or stored.itemsize > 2:
        raise ValueError("It has a palette, or more than 16 bits")
    if stored.ndim > 2:
        return Image.fromarray(_to_bytes(stored))
    padded = stored == data.get("PixelPaddingValue")
    stored = np.where(padded, stored[~padded].min(), stored)
    table = _shown(data, np.iinfo(stored.dtype))
    grey = _to_bytes(stored) if table is None else _to_bytes(table)[stored]
    is_negative = table is None and data.get("RescaleSlope", 1) < 0
    grey = 255 - grey if is_negative != (kind == "MONOCHROME1") else grey
    return Image.fromarray(np.where(padded, np.uint8(0), grey))


def _shown(data: Any, limits: Any) -> np.ndarray | None:
    """What a DICOM header makes of every stored value, negative ones last;
    None where it only rescales, which alone changes no picture."""
    from pydicom import pixels

    every = np.r_[0 : limits.max + 1, limits.min : 0]
    values = pixels.apply_modality_lut(every, data)
    for item in data.get("VOILUTSequence") or ():
        item.LUTDescriptor[2] = 16  # pydicom's index has as many bits
        values = np.rint(values).astype(int)
    shown = pixels.apply_voi_lut(values, data)
    if shown is values:
        return shown if "ModalityLUTSequence" in data else None
    if shown.dtype.kind == "f":  # a window: from its one end to the other
        black, white = shown[values.argmin()], shown[values.argmax()]
        shown = (shown - black) / ((white - black) or 1) * 65535
    return shown


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Whole numbers -> uint8; signed ones begin at their lowest."""
    values = values.astype(np.int32) - min(int(values.min()), 0)
    bits = min(max(int(values.max()).bit_length(), 8), 16)
    scaled = values * (255.0 / (2**bits - 1))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def read_views(views: pd.DataFrame, size: int,
               resize: str = "squash") -> tuple[np.ndarray, pd.DataFrame]:
    """All images of a ``views`` table, uint8 (n, size, size), and the rows
    that could be read, in the same order; ``attrs["unreadable"]`` of the
    rows is a list of (path, reason)."""
    refuse_unknown("RESIZE", resize, ("squash", "crop"))
    grey = np.empty((len(views), size, size), np.uint8)

    def read(row: int) -> str:
        try:
            file = locate(views["path"].iloc[row])
            grey[row] = read_grey(file, size, resize)
        except CourseError as error:
            return error.why
        return ""

    with ThreadPoolExecutor(cores()) as pool:  # decoding frees the GIL
        reasons = np.array(list(pool.map(read, range(len(views)))), object)
    whole = reasons == ""
    table = views[whole].reset_index(drop=True)
    lost = zip(views["path"][~whole], reasons[~whole])
    table.attrs["unreadable"] = list(lost)
    return (grey if whole.all() else grey[whole]), table


def to_model_range(grey: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 in [-1024, 1024], as torchxrayvision expects."""
    if grey.dtype != np.uint8:
        raise ValueError(f"grey values are bytes (uint8), not {grey.dtype}")
    return grey.astype(np.float32) * ((HIGH - LOW) / 255.0) + LOW


def check_range(batch: np.ndarray) -> None:
    """Refuse [0, 1], [-1, 1], ImageNet's mean and deviation, [0, 255] and
    more than torchxrayvision's range (with a quarter's room for a change of
    contrast). No grey value comes to (-4, 4): 127 is -4.02, 128 is 4.02."""
    low, high = float(batch.min()), float(batch.max())
    possible = 4 <= max(-low, high) <= 1.25 * HIGH  # False for NaN
    steps = (batch - LOW) * (255.0 / (HIGH - LOW))
    of_bytes = np.abs(steps - np.rint(steps)).max() < 0.01  # a dull picture
    if not possible or 0 <= low and high <= 255 and not of_bytes:
        raise problem("wrong range", low=low, high=high, least=LOW, most=HIGH)
