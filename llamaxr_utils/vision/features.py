"""Images -> 18 scores a view, by condition name.

Scores are what the backbone returns: rescaled so that 0.5 is an operating
point, not probabilities. This module maps them by name and never by place.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..course.files import write_whole
from ..datasets import downloads
from ..datasets.conditions import CONDITIONS, VIEWS, by_name
from ..datasets.images import missing_views, read_grey, read_views
from . import backbones

#: Batches between two saves of unfinished work.
SAVE_EVERY = 32


class Work(NamedTuple):
    """What has been scored so far."""

    outputs: list[np.ndarray]  #: (n, 18), the network's own order
    rows: list[int]  #: of the ``views`` table
    unreadable: list[tuple[str, str]]  #: path, reason


def score_views(
    model: Any,
    views: pd.DataFrame,
    resize: str = "squash",
    batch_size: int | None = None,
    part: Path | None = None,
) -> pd.DataFrame:
    """Scores of every view of a ``views`` table.

    Images are read ahead by two threads while the network works.

    Parameters
    ----------
    model
        A backbone (`backbones.build`, `load`, `load_released`).
    views : DataFrame
        Schema ``views``.
    resize : {"squash", "crop"}
    batch_size : int, optional
        By default 8 from 224 pixels on, where larger batches are slower on
        a CPU, else 32.
    part : path, optional
        File (``.npz``) for the work done as long as it is not finished: the
        same call after a kill goes on from there.

    Returns
    -------
    DataFrame
        Schema ``image_scores``: ``study_id``, ``view``, ``backbone``, and a
        float column in [0, 1] for each of the 18 conditions. A view that is
        missing or unreadable is a row of NaN, and so is a column that the
        network does not know. ``attrs["unreadable"]`` lists (path, reason).

    Raises
    ------
    CourseError
        If all images got the same scores (the range was wrong).
    """
    size = batch_size or (8 if model.resolution >= 224 else 32)
    key = _key(model, views, resize) if part else ""
    work = _resume(part, key)

    def read(first: int) -> tuple[np.ndarray, pd.DataFrame]:
        rows = views.iloc[first : first + size]
        numbers = np.arange(first, first + len(rows))
        return read_views(rows.assign(row=numbers), model.resolution, resize)

    done = len(work.rows) + len(work.unreadable)
    places = range(done, len(views), size)
    for count, (grey, rows) in enumerate(_ahead(read, places), 1):
        work.outputs.append(backbones.predict(model, grey, size))
        work.rows.extend(rows["row"])
        work.unreadable.extend(rows.attrs["unreadable"])
        if part and count % SAVE_EVERY == 0:
            _keep(part, key, work)
    outputs = np.concatenate(work.outputs)
    check_spread(outputs)
    scores = _one_row_a_view(views, views.iloc[work.rows], outputs, model)
    scores.attrs["unreadable"] = work.unreadable
    if part:
        part.unlink(missing_ok=True)
    return scores


def _ahead(
    read: Callable[[int], Any], places: Iterable[int], depth: int = 4
) -> Iterator[Any]:
    """``map(read, places)``, a few reads ahead of the reader."""
    waiting: deque = deque()
    with ThreadPoolExecutor(2) as pool:
        for place in places:
            waiting.append(pool.submit(read, place))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _key(model: Any, views: pd.DataFrame, resize: str) -> str:
    """What unfinished work belongs to: weights, images, reading."""
    digest = hashlib.sha256(f"{model.full_name} {resize}".encode())
    digest.update("\n".join(views["path"]).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _keep(part: Path, key: str, work: Work) -> None:
    facts = json.dumps({"key": key, "unreadable": work.unreadable})
    outputs = np.concatenate(work.outputs)
    part.parent.mkdir(parents=True, exist_ok=True)

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, facts=facts, outputs=outputs, rows=work.rows)

    write_whole(part, write)


def _resume(part: Path | None, key: str) -> Work:
    if part and part.is_file():
        with np.load(part) as kept:  # arrays alone, no pickle
            facts = json.loads(str(kept["facts"]))
            if facts["key"] == key:
                lost = [(path, why) for path, why in facts["unreadable"]]
                return Work([kept["outputs"]], kept["rows"].tolist(), lost)
    return Work([np.zeros((0, len(CONDITIONS)), np.float32)], [], [])


def _one_row_a_view(
    views: pd.DataFrame, read: pd.DataFrame, outputs: np.ndarray, model: Any
) -> pd.DataFrame:
    """Both views of every study, in the order of `views`; NaN where there
    is no picture."""
    table = read[["study_id", "view"]].reset_index(drop=True)
    scores = pd.concat([table, _named(model, outputs)], axis=1)
    lost = views[~views["study_id"].isin(table["study_id"])]
    extra = pd.DataFrame(
        [(s, v) for s in lost["study_id"].unique() for v in VIEWS],
        columns=["study_id", "view"],
    )
    scores = pd.concat([scores, missing_views(table), extra])
    scores.insert(2, "backbone", model.full_name)
    order = {s: i for i, s in enumerate(views["study_id"].unique())}
    scores["order"] = scores["study_id"].map(order)
    scores = scores.sort_values(["order", "view"]).drop(columns="order")
    return scores.reset_index(drop=True)


def _named(model: Any, outputs: np.ndarray) -> pd.DataFrame:
    rows = [by_name(row, model.pathologies) for row in outputs]
    return pd.DataFrame(rows, columns=list(CONDITIONS))


def check_spread(outputs: np.ndarray) -> None:
    """Refuse scores that are the same for every image."""
    if len(outputs) > 1 and np.ptp(outputs, axis=0).max() < 1e-4:
        raise CourseError(
            "Every image got the same scores.",
            "The network did not see the images: pixel values outside "
            "[-1024, 1024] or squeezed into [-1, 1] do this "
            "(torchxrayvision issue 89).",
            "Read images with images.read_grey() and "
            "images.to_model_range().",
        )


def score_images(
    paths: Sequence[str | Path],
    backbone: str = backbones.RELEASED,
    weights: str | Path | None = None,
    batch_size: int = 8,
) -> pd.DataFrame:
    """Scores of image files, one row a path.

    Parameters
    ----------
    paths : sequence of path
    backbone : str
        Full name. One of the course is random without `weights`, and is
        only made so where the name says so (``@random``).
    weights : path, optional
        Weight file of the released network, or a folder of
        `backbones.save`.
    batch_size : int

    Returns
    -------
    DataFrame
        ``path``, ``backbone`` and the 18 conditions.

    Raises
    ------
    CourseError
        No images; weights that are not there or not those of `backbone`.
    """
    if not len(paths):
        raise CourseError(
            "There is no image to score.",
            "The list of paths is empty.",
            "Pass at least one path.",
        )
    if weights is not None and Path(weights).is_dir():
        model = backbones.load(Path(weights))
    elif backbone in downloads.table():
        file = Path(weights) if weights else None
        model = backbones.load_released(backbone, file)
    elif weights is None and backbone.endswith("@random"):
        model = backbones.build(backbone)
    else:
        raise CourseError(
            f"There are no weights for {backbone}.",
            f"weights = {weights} is not a folder of a trained network; "
            "random scores would go by a trained network's name.",
            "Pass the folder `backbone` of a run, or run "
            "02_extract_features.",
        )
    grey = np.stack([read_grey(p, model.resolution) for p in paths])
    outputs = backbones.predict(model, grey, batch_size)
    check_spread(outputs)
    table = _named(model, outputs)
    table.insert(0, "path", [str(p) for p in paths])
    table.insert(1, "backbone", model.full_name)
    return table
