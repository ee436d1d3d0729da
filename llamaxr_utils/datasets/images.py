"""The frontal and the lateral image of a study, from drawings or X-rays.

Says which view each image shows, picks one of each, and reads them
(`pixels`). It finds no files (`layouts`) and computes no scores (`features`).

The list of views (``data/views.csv``) holds ids and views as published with
the Kaggle copy of the collection; it wins over the DICOM headers, which call
most laterals PA. Images that it does not know are shown to a classifier
(`view_model`). Never is "the first image" taken to be the frontal one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..course.machine import cores
from ..course.run import cache_folder, data_folder
from . import phantoms, pixels, view_model
from .conditions import VIEWS
from .layouts import find_images, find_xrays, known_views
from .reports import bundled_archive

LISTED = "published list"
#: One image; they live in `pixels`, and callers of `images` need them too.
read_grey, to_model_range = pixels.read_grey, pixels.to_model_range


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
    first = _first_of_each(known.assign(view_source=LISTED))
    return first[["study_id", "image_id", "view"]]


def _first_of_each(images: pd.DataFrame) -> pd.DataFrame:
    """A frontal and a lateral a study: listed ones first, then by number."""
    listed = images["view_source"].ne(LISTED)
    ranked = images.assign(listed=listed)
    ranked = ranked.sort_values(["listed", "image_id"], kind="stable")
    first = ranked.drop_duplicates(["study_id", "view"])
    order = {s: i for i, s in enumerate(images["study_id"].unique())}
    first = first.assign(order=first["study_id"].map(order))
    first = first.sort_values(["order", "view"])
    return first.drop(columns=["listed", "order"]).reset_index(drop=True)


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
    views["view_source"] = LISTED
    views["image_source"] = "phantom"
    return views


def xray_views(
    image_ids: pd.DataFrame, folder: Path | None = None
) -> pd.DataFrame:
    """Schema ``views`` for X-rays on disk.

    Only images that are there take part: if the lowest frontal image is
    missing, the next one is used. Images without a published view (a few of
    OpenI's; all under R2Gen's names) are classified, and ``view_source``
    says so, with the classifier's accuracy.

    Raises
    ------
    CourseError
        If there are no X-rays.
    """
    files = find_images(folder)
    if files.empty:
        find_xrays(folder)  # raises, and says what was looked for
    named = image_ids.merge(files.drop(columns="study_id"), on="image_id")
    numbered = files[files["layout"].eq("r2gen")]
    numbered = numbered[numbered["study_id"].isin(image_ids["study_id"])]
    there = pd.concat([named, numbered]).merge(
        known_views(), on="image_id", how="left"
    )
    there["view_source"] = LISTED
    unknown = there["view"].isna()
    lost: list[tuple[str, str]] = []
    if unknown.any():
        model = view_model.for_this_machine(folder, files)
        found, lost = _classified(model, there[unknown])
        there = pd.concat([there[~unknown], found])
    views = _first_of_each(there).drop(columns="layout")
    views["path"] = [_relative(Path(p)) for p in views["path"]]
    views["image_source"] = "IU X-ray"
    views = views[
        ["study_id", "image_id", "view", "path", "view_source", "image_source"]
    ]
    views.attrs = {"unreadable": lost}  # without those of `files`
    return views


def _classified(
    model: view_model.ViewModel, files: pd.DataFrame
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The readable files with their views; (path, reason) of the others."""
    pictures, kept, lost = [], [], []
    for row, path in enumerate(files["path"]):
        try:
            pictures.append(read_grey(path, view_model.SIZE))
            kept.append(row)
        except CourseError as error:
            lost.append((_relative(Path(path)), error.why))
    files = files.iloc[kept].copy()
    if kept:
        found = view_model.classify(model, np.stack(pictures))
        files["view"] = found["view"].to_numpy()
        files["view_source"] = str(model)
    return files, lost


# --- what the DICOM headers say ---------------------------------------------


@lru_cache(maxsize=1)
def _headers() -> pd.DataFrame:
    """``rows``, ``columns``, ``position`` of 7,469 images, by image id: from
    the table of DICOM headers inside torchxrayvision's wheel."""
    names = {
        "imageid": "image_id",
        "Rows": "rows",
        "Columns": "columns",
        "View Position": "position",
    }
    path = bundled_archive().with_name("nlmcxr_dicom_metadata.csv.gz")
    table = pd.read_csv(path, usecols=list(names)).rename(columns=names)
    # OpenI's reports name the first study's images with a number more.
    table["image_id"] = table["image_id"].str.replace(
        r"^CXR1_(?=IM)", "CXR1_1_", regex=True
    )
    return table.set_index("image_id")


def radiograph_shapes() -> dict[str, tuple[int, int]]:
    """Image id -> (rows, columns) of the radiograph, before any resizing."""
    headers = _headers()
    shapes = zip(headers["rows"], headers["columns"], strict=True)
    return dict(zip(headers.index, shapes, strict=True))


def view_disagreements() -> pd.DataFrame:
    """Images whose DICOM header names another view than the published list.

    Returns
    -------
    DataFrame
        ``image_id``, ``published`` (frontal, lateral), ``dicom`` (the
        header's View Position: AP and PA are frontal, the rest lateral). A
        third of the headers say nothing, and those are not listed.
        ``attrs["compared"]``: how many images both sources name.
    """
    headers = _headers()["position"].dropna().rename("dicom")
    both = known_views().merge(headers, on="image_id")
    frontal = both["dicom"].isin(["AP", "PA"])
    differ = both[frontal != both["view"].eq("frontal")]
    table = differ.rename(columns={"view": "published"})
    table = table.sort_values("image_id").reset_index(drop=True)
    table.attrs["compared"] = len(both)
    return table


# --- files ------------------------------------------------------------------


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
    pixels.check_resize(resize)  # here, or it would look like a broken file
    grey = np.empty((len(views), size, size), np.uint8)

    def read(row: int) -> str:
        try:
            file = locate(views["path"].iloc[row])
            grey[row] = read_grey(file, size, resize, shapes[row])
        except CourseError as error:
            return error.why
        return ""

    shapes = _shapes(views) if resize == "crop" else [None] * len(views)
    with ThreadPoolExecutor(cores()) as pool:  # decoding frees the GIL
        reasons = np.array(list(pool.map(read, range(len(views)))), object)
    whole = reasons == ""
    table = views[whole].reset_index(drop=True)
    table.attrs["unreadable"] = list(
        zip(views["path"][~whole], reasons[~whole], strict=True)
    )
    return (grey if whole.all() else grey[whole]), table


def _shapes(views: pd.DataFrame) -> list[tuple[int, int] | None]:
    """Of X-rays, by their ids; a phantom is a square of its own."""
    if "image_id" not in views:
        return [None] * len(views)
    known = radiograph_shapes()
    drawn = views.get("image_source", pd.Series("", views.index))
    return [
        None if source == "phantom" else known.get(image_id)
        for image_id, source in zip(views["image_id"], drawn, strict=True)
    ]


def missing_views(views: pd.DataFrame) -> pd.DataFrame:
    """``study_id``, ``view`` of the views that a study does not have."""
    all_views = pd.MultiIndex.from_product(
        [views["study_id"].unique(), VIEWS], names=["study_id", "view"]
    )
    there = pd.MultiIndex.from_frame(views[["study_id", "view"]])
    return all_views.difference(there).to_frame(index=False)
