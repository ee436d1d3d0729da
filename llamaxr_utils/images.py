"""The frontal and the lateral image of a study, from drawings or X-rays.

Finds image files, says which view each one shows, and reads one into the
range that torchxrayvision expects. It computes no scores (`features`).

The list of views (``data/views.csv``) holds ids and views as published with
the Kaggle copy of the collection; it disagrees with some DICOM headers and
is the better source, under the reports' image ids. Never is "the first
image" taken to be the frontal one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from . import phantoms
from .conditions import VIEWS
from .downloads import IMAGE_SUFFIXES, unpack_images
from .errors import CourseError
from .machine import cores
from .reports import DATA
from .run import cache_folder, data_folder

RESIZE = ("squash", "crop")
#: torchxrayvision's range: ``xrv.datasets.normalize(image, maxval=255)``.
LOW, HIGH = -1024.0, 1024.0


def known_views() -> pd.DataFrame:
    """``image_id``, ``view`` (frontal, lateral): 7,426 of 7,470 images."""
    return pd.read_csv(DATA / "views.csv")


def choose_views(image_ids: pd.DataFrame) -> pd.DataFrame:
    """One frontal and one lateral image a study: the lowest image number.

    Parameters
    ----------
    image_ids : DataFrame
        ``study_id``, ``image_id`` (`reports.load_image_ids`).

    Returns
    -------
    DataFrame
        ``study_id``, ``image_id``, ``view``; studies in their given order.
        Images that the list of views does not know are left out.
    """
    known = image_ids.merge(known_views(), on="image_id", how="inner")
    known = known.sort_values("image_id", kind="stable")
    first = known.groupby(["study_id", "view"], as_index=False).first()
    order = {s: i for i, s in enumerate(image_ids["study_id"].unique())}
    first["order"] = first["study_id"].map(order)
    first = first.sort_values(["order", "view"]).drop(columns="order")
    return first[["study_id", "image_id", "view"]].reset_index(drop=True)


def draw_views(
    studies: pd.DataFrame,
    image_ids: pd.DataFrame,
    size: int,
    progress: Callable[[int, int], object] | None = None,
) -> pd.DataFrame:
    """Phantoms for the views that the real studies have.

    Parameters
    ----------
    studies : DataFrame
        ``study_id``, ``mesh``.
    image_ids : DataFrame
        ``study_id``, ``image_id``.
    size : int
        Pixels; draw at the resolution that the model reads.

    Returns
    -------
    DataFrame
        Schema ``views``; ``image_source`` is ``phantom``.
    """
    views = choose_views(
        image_ids[image_ids["study_id"].isin(studies["study_id"])]
    )
    wanted = studies[studies["study_id"].isin(views["study_id"])]
    home = cache_folder() / "phantoms"
    drawn = phantoms.draw_studies(
        wanted, home, size=size, workers=cores(), progress=progress
    )
    views = views.merge(drawn, on=["study_id", "view"])
    views["path"] = [
        Path(p).relative_to(cache_folder()).as_posix() for p in views["path"]
    ]
    views["view_source"] = "published list"
    views["image_source"] = "phantom"
    return views


def find_xrays(folder: Path | None = None) -> dict[str, Path]:
    """Image id -> file, for every X-ray under a folder.

    A zip archive of images is unpacked once, into the cache, with its paths
    checked. Names are those of OpenI (``CXR1_1_IM-0001-3001.png``) or of
    the Kaggle copy (``1_IM-0001-3001.dcm.png``).

    Raises
    ------
    CourseError
        If there are no images, or an archive is broken or not safe.
    """
    folder = folder or data_folder()
    roots = [folder]
    for archive in sorted(folder.glob("*.zip")):
        roots.append(unpack_images(archive, cache_folder() / archive.stem))
    known = set(known_views()["image_id"])
    found = {}
    for root in roots:
        for file in sorted(root.rglob("*")):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                image_id = _image_id(file.stem)
                if image_id in known:
                    found[image_id] = file
    if not found:
        raise CourseError(
            f"No X-rays were found under {folder.name}/.",
            "IMAGES = \"real\" reads IU X-ray images named by their OpenI id "
            "(CXR1_1_IM-0001-3001.png), in any sub-folder or in a .zip.",
            "Put them into data/, or set LLAMAXR_DATA to their folder; "
            'IMAGES = "phantom" needs none.',
        )
    return found


def _image_id(stem: str) -> str:
    """Image id of a file name without its ending."""
    image_id = stem.removesuffix(".dcm")
    if not image_id.startswith("CXR"):
        image_id = f"CXR{image_id}"
    # Only the first study's images have a number more in their names.
    return image_id.replace("CXR1_IM-", "CXR1_1_IM-")


def xray_views(
    image_ids: pd.DataFrame, folder: Path | None = None
) -> pd.DataFrame:
    """Schema ``views`` for X-rays on disk.

    Only images that are there take part: if the lowest frontal image is
    missing, the next one is used.
    """
    found = find_xrays(folder)
    views = choose_views(image_ids[image_ids["image_id"].isin(found)])
    views["path"] = [_relative(found[i]) for i in views["image_id"]]
    views["view_source"] = "published list"
    views["image_source"] = "IU X-ray"
    return views


def _relative(path: Path) -> str:
    for base in (data_folder(), cache_folder()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return str(path)


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


def read_grey(path: str | Path, size: int, resize: str = "squash"):
    """One image as uint8 grey values.

    Parameters
    ----------
    path : path
        8- or 16-bit PNG, or JPEG; colour is turned to grey.
    size : int
        Height and width of the result.
    resize : {"squash", "crop"}
        ``squash`` changes the aspect ratio (the paper); ``crop`` takes the
        central square (torchxrayvision's examples).

    Returns
    -------
    ndarray of uint8, shape (size, size)

    Raises
    ------
    CourseError
        For a file that is no image, or an unknown `resize`.
    """
    from PIL import Image, UnidentifiedImageError

    _check_resize(resize)
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bit: scale, do not clip
                wide = np.asarray(image, dtype=np.float32) / 257.0
                grey = Image.fromarray(wide.clip(0, 255).astype(np.uint8))
            else:
                grey = image.convert("L")
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        raise CourseError(
            f"{Path(path).name} could not be read.",
            f"{error}.",
            "Get the image again, or remove the file: its view then counts "
            "as missing.",
        ) from error
    if resize == "crop":
        side = min(grey.size)
        left, top = ((length - side) // 2 for length in grey.size)
        grey = grey.crop((left, top, left + side, top + side))
    if grey.size != (size, size):
        grey = grey.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(grey)


def _check_resize(resize: str) -> None:
    if resize not in RESIZE:
        raise CourseError(
            f"RESIZE = {resize!r} is not known.",
            "Images are squashed (the paper) or cropped.",
            'Set RESIZE to "squash" or "crop".',
        )


def to_model_range(grey: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 in [-1024, 1024], as torchxrayvision expects.

    In [-1, 1] its networks give every image the same scores
    (torchxrayvision issue 89).
    """
    return grey.astype(np.float32) * ((HIGH - LOW) / 255.0) + LOW


def read_views(
    views: pd.DataFrame, size: int, resize: str = "squash"
) -> tuple[np.ndarray, pd.DataFrame]:
    """All images of a ``views`` table, uint8 of shape (n, size, size).

    Files that can't be read are left out, and listed with their reason.

    Returns
    -------
    (ndarray, DataFrame)
        The images in the order of the rows that could be read; the table of
        those rows, with ``attrs["unreadable"]``: list of (path, reason).
    """
    _check_resize(resize)  # here, or it would look like a broken file
    pictures, kept, unreadable = [], [], []
    for row, path in enumerate(views["path"]):
        try:
            pictures.append(read_grey(locate(path), size, resize))
            kept.append(row)
        except CourseError as error:
            unreadable.append((path, error.why))
    table = views.iloc[kept].reset_index(drop=True)
    table.attrs["unreadable"] = unreadable
    shape = (0, size, size)
    return (np.stack(pictures) if pictures else np.zeros(shape, "u1")), table


def missing_views(views: pd.DataFrame) -> pd.DataFrame:
    """``study_id``, ``view`` of the views that a study does not have."""
    all_views = pd.MultiIndex.from_product(
        [views["study_id"].unique(), VIEWS], names=["study_id", "view"]
    )
    there = pd.MultiIndex.from_frame(views[["study_id", "view"]])
    return all_views.difference(there).to_frame(index=False)
