"""Chest images: found on disk or drawn, one of each view, read as bytes.

A study gets its frontal and its lateral image from a published list of views
(``data/views.csv``); it wins over the DICOM headers, which call most laterals
PA. An image that the list does not know is shown to a small classifier.
Never is "the first image" taken to be the frontal one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..course.machine import cores
from ..course.run import cache_folder, data_folder
from . import phantoms
from .conditions import VIEWS
from .reports import DATA, bundled_archive, load_studies, r2gen_split

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")
#: Folder in the cache where `downloads` puts the X-rays that it fetches.
FETCHED = "openi"
LISTED = "published list"
RESIZE = ("squash", "crop")
#: torchxrayvision's range: ``xrv.datasets.normalize(image, maxval=255)``.
LOW, HIGH = -1024.0, 1024.0
#: CXR2_IM-0652-1001, CXR894_IM-2404-0001-0001; the first study's images
#: have a number more (CXR1_1_IM-0001-3001), Kaggle's copy has no "CXR".
_OPENI = re.compile(r"(?:CXR)?(\d+)(?:_1)?(_IM-\d{4}(?:-\d+){1,2})")


# --- files ------------------------------------------------------------------


def known_views() -> pd.DataFrame:
    """``image_id``, ``view`` (frontal, lateral): 7,426 of 7,470 images, as
    published with the Kaggle copy of the collection."""
    return pd.read_csv(DATA / "views.csv")


def openi_id(stem: str) -> str | None:
    """OpenI's image id for a file name without its ending, or None; Kaggle's
    ``2_IM-0652-1001.dcm`` is OpenI's ``CXR2_IM-0652-1001``."""
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
        and image; one row an image. ``image_id`` is OpenI's; under R2Gen's
        names (layout ``r2gen``), whose numbers within a study tell no view,
        it is ``CXR2384_IM-0942/0``. ``attrs["ignored"]``: image files under
        other names, as paths.
    """
    r2gen = set(r2gen_split()["r2gen_id"])
    rows: dict[str, tuple[str, str, Path, str]] = {}
    ignored = []
    for file in (file for root in _roots(folder) for file in _files(root)):
        image_id, layout = openi_id(file.stem), "openi"
        if file.stem.isdecimal() and file.parent.name in r2gen:
            image_id, layout = f"{file.parent.name}/{file.stem}", "r2gen"
        if image_id is None:
            ignored.append(str(file))
        else:
            study_id = image_id.split("_")[0]
            rows.setdefault(image_id, (study_id, image_id, file, layout))
    table = pd.DataFrame(
        sorted(rows.values(), key=lambda row: (int(row[0][3:]), row[1])),
        columns=["study_id", "image_id", "path", "layout"],
    )
    table.attrs["ignored"] = ignored
    return table


def find_xrays(folder: Path | None = None) -> dict[str, Path]:
    """OpenI's image id -> file, of the images whose name tells their id."""
    images = find_images(folder)
    known = images[images["layout"] != "r2gen"]
    if known.empty:
        others = len(images) + len(images.attrs["ignored"])
        raise CourseError(
            f"No X-rays were found under {(folder or data_folder()).name}/.",
            "They are known by their OpenI id (CXR1_1_IM-0001-3001.png), in "
            f"any sub-folder or archive; {others} images there have other "
            "names.",
            "Get them with `python -m llamaxr_utils fetch openi`, put them "
            "into data/, or set LLAMAXR_DATA to their folder.",
        )
    return dict(zip(known["image_id"], known["path"], strict=True))


def _roots(folder: Path | None) -> Iterator[Path]:
    from .downloads import is_archive, unpack_images

    top = folder or data_folder()
    yield top
    if folder is None and not cache_folder().is_relative_to(top):
        yield cache_folder() / FETCHED  # the data folder is read-only
    for archive in sorted(top.glob("*")):
        if is_archive(archive.name):
            name = re.sub(r"(\.tar)?\.\w+$", "", archive.name)
            yield unpack_images(archive, cache_folder() / name)


def _files(root: Path) -> Iterator[Path]:
    """Image files in order, without hidden (half-written, macOS's) ones and
    without the drawings in the cache."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f != "phantoms"
        )
        for name in sorted(n for n in names if not n.startswith(".")):
            file = Path(place, name)
            bare = not file.suffix and file.is_file() and _is_dicom(file)
            if file.suffix.lower() in IMAGE_SUFFIXES or bare:
                yield file


def fault(file: Path) -> str:
    """Why a file is no whole image, "" if it is one: PNG by its checksums,
    JPEG by reading all of it, DICOM by its beginning."""
    from PIL import Image

    try:
        if not _is_dicom(file):
            with Image.open(file) as image:
                image.verify() if image.format == "PNG" else image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return f"no whole image: {str(error).replace(str(file), file.name)}"
    return ""


def locate(path: str) -> Path:
    """The file behind ``views.path``: in the data folder or the cache."""
    for base in (data_folder(), cache_folder()):
        if (base / path).exists():
            return base / path
    raise CourseError(
        f"The image {Path(path).name} is gone.",
        "The table `views` lists it, but it is not in the data folder.",
        "Run 01_explore_data again (FORCE=1), or set LLAMAXR_DATA back.",
    )


def _relative(path: Path) -> str:
    for base in (data_folder(), cache_folder()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return str(path)


# --- views ------------------------------------------------------------------


def choose_views(image_ids: pd.DataFrame) -> pd.DataFrame:
    """One frontal and one lateral image a study, the lowest image number:
    ``study_id``, ``image_id`` -> the same and ``view``, studies in their
    given order. Images that the list of views does not know are left out."""
    known = image_ids.merge(known_views(), on="image_id", how="inner")
    first = _first_of_each(known.assign(view_source=LISTED))
    return first[["study_id", "image_id", "view"]]


def _first_of_each(images: pd.DataFrame) -> pd.DataFrame:
    """A frontal and a lateral a study: listed ones first, then by number."""
    ranked = images.assign(
        order=pd.factorize(images["study_id"])[0],
        unlisted=images["view_source"].ne(LISTED),
    ).sort_values(["unlisted", "image_id"], kind="stable")
    first = ranked.drop_duplicates(["study_id", "view"])
    first = first.sort_values(["order", "view"])
    return first.drop(columns=["order", "unlisted"]).reset_index(drop=True)


def draw_views(
    studies: pd.DataFrame,
    image_ids: pd.DataFrame,
    size: int,
    progress: Callable[[int, int], object] | None = None,
) -> pd.DataFrame:
    """Phantoms of `size` pixels for the views that the real studies have:
    schema ``views``, ``image_source`` phantom."""
    views = choose_views(
        image_ids[image_ids["study_id"].isin(studies["study_id"])]
    )
    wanted = studies[studies["study_id"].isin(views["study_id"])]
    home = cache_folder() / "phantoms"
    pictures = phantoms.draw_studies(
        wanted, home, size=size, workers=cores(), progress=progress
    )
    views = views.merge(pictures, on=["study_id", "view"])
    views["path"] = [_relative(Path(path)) for path in views["path"]]
    return views.assign(view_source=LISTED, image_source="phantom")


def xray_views(
    image_ids: pd.DataFrame, folder: Path | None = None
) -> pd.DataFrame:
    """Schema ``views`` for X-rays on disk: the lowest frontal and lateral
    image *that is there*. Images without a published view (a few of OpenI's;
    all under R2Gen's names) are classified, and ``view_source`` says so, with
    the accuracy. ``attrs["unreadable"]``: list of (path, reason)."""
    files = find_images(folder)
    if files.empty:
        find_xrays(folder)  # raises, and says what was looked for
    numbered = files[files["layout"].eq("r2gen")]
    numbered = numbered[numbered["study_id"].isin(image_ids["study_id"])]
    others = image_ids.merge(files.drop(columns="study_id"), on="image_id")
    there = pd.concat([others, numbered]).merge(
        known_views(), on="image_id", how="left"
    )
    there["view_source"] = LISTED
    unlisted, lost = there["view"].isna(), []
    if unlisted.any():
        grey, unknown = read_views(there[unlisted], VIEW_SIZE)
        lost = [(_relative(Path(path)), why)
                for path, why in unknown.attrs["unreadable"]]  # fmt: skip
        if len(unknown):
            model, source = view_model(files)
            unknown["view"] = model.predict(_view_features(grey))
            unknown["view_source"] = source
        there = pd.concat([there[~unlisted], unknown])
    views = _first_of_each(there).assign(image_source="IU X-ray")
    views["path"] = [_relative(Path(path)) for path in views["path"]]
    columns = ["study_id", "image_id", "view", "path"]
    views = views[[*columns, "view_source", "image_source"]]
    views.attrs = {"unreadable": lost}
    return views


@lru_cache(maxsize=1)
def _headers() -> pd.DataFrame:
    """``Rows``, ``Columns``, ``View Position`` of 7,469 images, by image id:
    the table of DICOM headers inside torchxrayvision's wheel."""
    path = bundled_archive().with_name("nlmcxr_dicom_metadata.csv.gz")
    names = ["imageid", "Rows", "Columns", "View Position"]
    table = pd.read_csv(path, usecols=names)
    # OpenI's reports name the first study's images with a number more.
    first = re.compile(r"^CXR1_(?=IM)")
    table["image_id"] = table.pop("imageid").str.replace(
        first, "CXR1_1_", regex=True
    )
    return table.set_index("image_id")


def view_disagreements() -> pd.DataFrame:
    """Images whose DICOM header names another view than the published list:
    ``image_id``, ``published`` (frontal, lateral), ``dicom`` (the header's
    View Position: AP and PA are frontal, the rest lateral).
    ``attrs["compared"]``: how many images both sources name (a third of the
    headers say nothing)."""
    headers = _headers()["View Position"].dropna().rename("dicom")
    both = known_views().merge(headers, on="image_id")
    frontal = both["dicom"].isin(["AP", "PA"])
    differ = both[frontal != both["view"].eq("frontal")]
    table = differ.rename(columns={"view": "published"})
    table = table.sort_values("image_id").reset_index(drop=True)
    table.attrs["compared"] = len(both)
    return table


# --- one file -> a grey square of bytes -------------------------------------


def read_grey(
    path: str | Path,
    size: int,
    resize: str = "squash",
    shape: tuple[float, float] | None = None,
) -> np.ndarray:
    """One image as uint8 grey values, (size, size): air dark, bone bright.

    Parameters
    ----------
    path : path
        PNG, JPEG or another format of Pillow's, or DICOM. Colour becomes
        luminance, transparent parts black; a turn noted in EXIF is made.
    resize : {"squash", "crop"}
        ``squash`` changes the aspect ratio (the paper); ``crop`` takes the
        central square (torchxrayvision's examples).
    shape : (rows, columns), optional
        Of the radiograph that a *square* file was squashed from: ``crop``
        then takes the radiograph's central square. Other files still have
        their shape, and it is ignored.

    Notes
    -----
    More than 8 bits are scaled, not clipped: white is ``2**bits - 1`` for
    the fewest bits (8 to 16) that hold the largest value, so 12-bit values
    stored in 16 bits are not read sixteen times too dark.
    """
    from PIL import Image

    _check_resize(resize)
    try:
        dicom = Path(path).suffix.lower() == ".dcm" or _is_dicom(path)
        grey = _read_dicom(path) if dicom else _read_picture(path, size)
    except CourseError:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise _unreadable(path, f"{error or type(error).__name__}.") from error
    box = _central_square(grey.size, shape) if resize == "crop" else None
    square = grey.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(square)


def _check_resize(resize: str) -> None:
    if resize not in RESIZE:
        raise CourseError(
            f"RESIZE = {resize!r} is not known.",
            "Images are squashed (the paper) or cropped.",
            'Set RESIZE to "squash" or "crop".',
        )


def _unreadable(path: str | Path, why: str) -> CourseError:
    return CourseError(
        f"{Path(path).name} could not be read.",
        why,
        "Get the image again, or remove it: its view then counts as missing.",
    )


def _central_square(
    file_size: tuple[int, int], shape: tuple[float, float] | None
) -> tuple[float, float, float, float]:
    """The box of the file that is the radiograph's central square."""
    width, height = file_size
    rows, columns = shape if shape and width == height else (height, width)
    side = min(rows, columns)
    across, down = width * side / columns, height * side / rows
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


def _read_picture(path: str | Path, size: int) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        # A large JPEG is decoded small, at four times what is asked for.
        image.draft(None, (4 * size, 4 * size))
        if image.mode == "F":
            raise ValueError("it holds fractions, whose range is not known")
        turned = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            return Image.fromarray(_to_bytes(np.asarray(turned)))
        if image.has_transparency_data:
            turned = turned.convert("RGBA")
            black = Image.new("RGBA", turned.size, "black")
            turned = Image.alpha_composite(black, turned)
        return turned.convert("L")


def _to_bytes(values: np.ndarray, most: int = 16) -> np.ndarray:
    """Whole numbers from 0 up -> uint8; `most` is the bits they may have."""
    bits = min(max(int(values.max()).bit_length(), 8), most)
    scaled = values * (255.0 / (2**bits - 1))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def _is_dicom(path: str | Path) -> bool:
    """By its magic number: many such files have no ending."""
    with open(path, "rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _read_dicom(path: str | Path) -> Any:
    """A radiograph in DICOM as torchxrayvision's ``utils.read_xray_dcm`` reads
    it: the whole range of stored values, no window of the header (half of IU
    X-ray has none), and MONOCHROME1, or a negative rescale slope, inverted.
    Beyond it signed values are shifted to begin at 0, and values that need
    fewer bits than the header allows are not read dark.
    """
    import pydicom
    from PIL import Image

    data = pydicom.dcmread(path, force=True)
    kind = data.get("PhotometricInterpretation", "no image")
    frames = int(data.get("NumberOfFrames") or 1)
    if not kind.startswith("MONOCHROME") or "PixelData" not in data:
        raise ValueError(f"it is no grey radiograph in DICOM, but {kind}")
    if frames > 1:
        raise ValueError(f"it holds {frames} frames; a radiograph has one")
    values = data.pixel_array.astype(np.int32)  # names a missing decoder
    if data.PixelRepresentation:
        values -= min(int(values.min()), 0)
    grey = _to_bytes(values, int(data.BitsStored))
    slope = float(data.get("RescaleSlope") or 1)
    inverted = (kind == "MONOCHROME1") != (slope < 0)
    return Image.fromarray(255 - grey if inverted else grey)


def read_views(
    views: pd.DataFrame, size: int, resize: str = "squash"
) -> tuple[np.ndarray, pd.DataFrame]:
    """All images of a ``views`` table, uint8 of shape (n, size, size).

    Files that can't be read are left out, and listed with their reason.
    ``crop`` gives X-rays that were squashed to a square their own shape
    back, by the DICOM headers' rows and columns, before it cuts.

    Returns
    -------
    (ndarray, DataFrame)
        The images in the order of the rows that could be read; the table of
        those rows, with ``attrs["unreadable"]``: list of (path, reason).
    """
    _check_resize(resize)  # here, or it would look like a broken file
    grey = np.empty((len(views), size, size), np.uint8)
    shapes = _shapes(views) if resize == "crop" else [None] * len(views)

    def read(row: int) -> str:
        try:
            file = locate(views["path"].iloc[row])
            grey[row] = read_grey(file, size, resize, shapes[row])
        except CourseError as error:
            return error.why
        return ""

    with ThreadPoolExecutor(cores()) as pool:  # decoding frees the GIL
        reasons = np.array(list(pool.map(read, range(len(views)))), object)
    whole = reasons == ""
    table = views[whole].reset_index(drop=True)
    table.attrs["unreadable"] = list(
        zip(views["path"][~whole], reasons[~whole], strict=True)
    )
    return (grey if whole.all() else grey[whole]), table


def _shapes(views: pd.DataFrame) -> list[tuple[int, int] | None]:
    """(rows, columns) of X-rays, by their ids, before any resizing; a
    phantom is a square of its own."""
    if "image_id" not in views:
        return [None] * len(views)
    headers = _headers()
    known = dict(zip(headers.index, zip(headers["Rows"], headers["Columns"])))
    sources = views.get("image_source", pd.Series("", views.index))
    return [
        None if source == "phantom" else known.get(image_id)
        for image_id, source in zip(views["image_id"], sources, strict=True)
    ]


# --- the range that the network expects -------------------------------------


def to_model_range(grey: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 in [-1024, 1024], as torchxrayvision expects.

    In [-1, 1] its networks give every image the same scores
    (torchxrayvision issue 89).
    """
    if grey.dtype != np.uint8:
        raise ValueError(f"grey values are bytes (uint8), not {grey.dtype}")
    return grey.astype(np.float32) * ((HIGH - LOW) / 255.0) + LOW


def check_range(batch: np.ndarray) -> None:
    """Refuse a batch that cannot be in torchxrayvision's range.

    That is: values not finite; beyond 1024 by more than a quarter (room for
    a change of contrast); all within (-4, 4), which no grey value comes to
    (127 and 128 of 255 are -4.02 and 4.02): [0, 1], [-1, 1], ImageNet's mean
    and deviation; or all from 0 to 255.
    """
    batch = np.asarray(batch)
    if not batch.size:
        return
    low, high = float(batch.min()), float(batch.max())
    largest = max(-low, high)
    possible = np.isfinite(largest) and 4 <= largest <= 1.25 * HIGH
    if not possible or 0 <= low and high <= 255:
        raise CourseError(
            f"The pixel values of this batch go from {low:g} to {high:g}.",
            f"torchxrayvision's networks expect [{LOW:g}, {HIGH:g}]. In a "
            "wrong range they run without an error and give every image "
            "nearly the same scores (torchxrayvision issue 89).",
            "Read images with images.read_grey() and turn them into the "
            "range with images.to_model_range().",
        )


# --- frontal or lateral? A classifier for images that no list knows ---------

#: Pixels of an image that is classified, and of the grid that is looked at.
VIEW_SIZE, GRID = 64, 16
#: Studies to train and to measure on; a fifth of them is held out.
VIEW_STUDIES = {"X-rays": 625, "phantoms": 200}
#: With fewer known X-rays of either view, phantoms teach better.
LEAST = 50


def view_model(files: pd.DataFrame) -> tuple[Any, str]:
    """A logistic regression of `_view_features` trained now, in seconds: on
    the X-rays whose view is published if `files` (`find_images`) has enough
    of them, else on phantoms; and its accuracy on a fifth of the studies,
    which was held out, in words."""
    from sklearn.linear_model import LogisticRegression

    table, source = files.merge(known_views(), on="image_id"), "X-rays"
    if table["view"].value_counts().reindex(VIEWS).fillna(0).min() < LEAST:
        source = "phantoms"
        few = load_studies().sample(VIEW_STUDIES[source], random_state=1)
        home = cache_folder() / source
        table = phantoms.draw_studies(few, home, size=VIEW_SIZE, workers=1)
    studies = table["study_id"].drop_duplicates()
    order = studies.sample(frac=1, random_state=1).head(VIEW_STUDIES[source])
    grey, table = read_views(table[table["study_id"].isin(order)], VIEW_SIZE)
    test = table["study_id"].isin(order.head(round(len(order) / 5)))
    features, view = _view_features(grey), table["view"]
    # C: from 0.003 to 0.1 the accuracy on real images moves by 0.003.
    model = LogisticRegression(C=0.03, max_iter=500)
    model.fit(features[~test], view[~test])
    right = model.score(features[test], view[test])
    return model, (
        f"classifier (accuracy {right:.3f} on {sum(test)} held-out {source})"
    )


def _view_features(grey: np.ndarray) -> np.ndarray:
    """What is alike in the left and the right half of a picture, and what
    differs: float (n, GRID * GRID), of block means of mean 0 and deviation 1.
    A frontal is nearly symmetric, a lateral is not; it does not matter which
    way a lateral faces."""
    n, size = len(grey), grey.shape[1] // GRID
    blocks = grey.reshape(n, GRID, size, GRID, size).mean((2, 4))
    flat = blocks.reshape(n, GRID * GRID)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat = flat / (flat.std(axis=1, keepdims=True) + 1e-3)
    left, right = np.split(flat.reshape(n, GRID, GRID), 2, axis=2)
    right = right[:, :, ::-1]
    parts = [(left + right) / 2, np.abs(left - right) / 2]
    return np.concatenate(parts, axis=2).reshape(n, GRID * GRID)
