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

from ..course.artifacts import write_whole
from ..course.errors import CourseError
from ..datasets import downloads
from ..datasets.conditions import CONDITIONS, VIEWS, by_name
from ..datasets.images import locate, missing_views, read_grey, read_views
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
    ValueError
        No images; weights that are not there or not those of `backbone`.
    """
    if not len(paths):
        raise ValueError("There is no image to score")
    if weights is not None and Path(weights).is_dir():
        model = backbones.load(Path(weights))
    elif backbone in downloads.table():
        file = Path(weights) if weights else None
        model = backbones.load_released(backbone, file)
    elif weights is None and backbone.endswith("@random"):
        model = backbones.build(backbone)
    else:
        raise ValueError(f"There are no weights for {backbone}")
    grey = np.stack([read_grey(p, model.resolution) for p in paths])
    outputs = backbones.predict(model, grey, batch_size)
    check_spread(outputs)
    table = _named(model, outputs)
    table.insert(0, "path", [str(p) for p in paths])
    table.insert(1, "backbone", model.full_name)
    return table


# --- how good the scores are -------------------------------------------------


def auc_table(
    scores: pd.DataFrame, labels: pd.DataFrame, least: int = 10
) -> pd.DataFrame:
    """Area under the ROC curve per condition and view, with its interval.

    Parameters
    ----------
    scores : DataFrame
        Schema ``image_scores``.
    labels : DataFrame
        Index ``study_id``, a 0/1 column per condition.
    least : int
        Conditions with fewer positives (or negatives) are left out.

    Returns
    -------
    DataFrame
        ``condition``, ``view``, ``positives``, ``auc``, ``low``, ``high``:
        95 % interval after DeLong et al. (Biometrics 44, 1988).
    """
    rows = []
    for view in VIEWS:
        part = scores[scores["view"] == view].dropna(
            subset=list(CONDITIONS), how="all"
        )
        truth = labels.reindex(part["study_id"])
        for condition in CONDITIONS:
            positive = truth[condition].to_numpy().astype(bool)
            said = part[condition].to_numpy()
            if min(positive.sum(), (~positive).sum()) < least:
                continue
            if not np.isnan(said).any():  # a condition the network knows
                found = auc_interval(said[positive], said[~positive])
                rows.append((condition, view, int(positive.sum()), *found))
    names = ["condition", "view", "positives", "auc", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def auc_interval(
    positive: np.ndarray, negative: np.ndarray
) -> tuple[float, float, float]:
    """AUC of two groups of scores, and its 95 % interval (DeLong)."""
    from scipy.stats import rankdata

    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    # Of every case: the share of the other group that it is ranked above.
    above = (ranks[:m] - rankdata(positive)) / n
    below = 1 - (ranks[m:] - rankdata(negative)) / m
    auc = float(above.mean())
    variance = above.var(ddof=1) / m if m > 1 else 0.0
    variance += below.var(ddof=1) / n if n > 1 else 0.0
    half = 1.96 * float(np.sqrt(variance))
    return auc, max(auc - half, 0.0), min(auc + half, 1.0)


def calibration(
    scores: pd.DataFrame, labels: pd.DataFrame, bins: int = 10
) -> pd.DataFrame:
    """How often a condition is there, by the score that it got.

    Returns
    -------
    DataFrame
        ``score`` (middle of the bin), ``share`` with the condition,
        ``values`` (how many scores): all views and conditions together.
    """
    part = scores.dropna(subset=list(CONDITIONS), how="all")
    truth = labels.reindex(part["study_id"])[list(CONDITIONS)].to_numpy()
    said = part[list(CONDITIONS)].to_numpy()
    known = ~np.isnan(said)
    place = np.minimum((said[known] * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": place, "truth": truth[known]})
    found = table.groupby("bin")["truth"].agg(["mean", "size"])
    return pd.DataFrame(
        {
            "score": (found.index + 0.5) / bins,
            "share": found["mean"].to_numpy(),
            "values": found["size"].to_numpy(),
        }
    )


def top_name_right(scores: pd.DataFrame, labels: pd.DataFrame) -> float:
    """Of the views of studies with exactly one condition, the share whose
    highest score (against each condition's median) stands at its name."""
    single = labels[labels.sum(axis=1) == 1]
    values = scores.dropna(subset=list(CONDITIONS))
    above = values[list(CONDITIONS)] - values[list(CONDITIONS)].median()
    above["study_id"] = values["study_id"]
    above = above[above["study_id"].isin(single.index)].set_index("study_id")
    if above.empty:
        return float("nan")
    truth = single.loc[above.index, list(CONDITIONS)].idxmax(axis=1)
    return float((above.idxmax(axis=1) == truth).mean())


# --- the paper's own example: Figure 4, study CXR24 --------------------------

STUDY = "CXR24"
FIGURE_4 = Path(__file__).parents[1] / "data" / "figure_4_scores.csv"


def printed_scores() -> np.ndarray:
    """The numbers of Figure 4, shape (2, 18): first half, second half."""
    return pd.read_csv(FIGURE_4)[["first", "second"]].to_numpy().T


def figure_4_lacks(model: Any, views: pd.DataFrame) -> str:
    """What the check lacks, as a sentence; "" when it can be made."""
    lacks = []
    if model.full_name != downloads.PAPER:
        lacks.append(
            f"the weights of {downloads.PAPER} "
            f"(python -m llamaxr_utils fetch {downloads.PAPER})"
        )
    own = views[views["study_id"].eq(STUDY)]
    if set(own.loc[own["image_source"].ne("phantom"), "view"]) != set(VIEWS):
        lacks.append(
            f"the X-rays of {STUDY} (python -m llamaxr_utils fetch openi, "
            'IMAGES = "real")'
        )
    return f"Figure 4 waits for {' and for '.join(lacks)}." if lacks else ""


def figure_4_readings(model: Any, views: pd.DataFrame) -> pd.DataFrame:
    """Every way of making the 36 numbers, the nearest to the paper's first.

    `model` is the released network, `views` hold both X-rays of CXR24.

    Returns
    -------
    DataFrame
        ``order`` of the scores, ``first`` view, ``range`` of the pixels,
        ``resize``, ``largest difference`` to the printed numbers.
    """
    paths = views[views["study_id"].eq(STUDY)].set_index("view")["path"]
    printed, rows = printed_scores(), []
    for resize in ("squash", "crop"):
        grey = np.stack(
            [
                read_grey(locate(paths[v]), model.resolution, resize)
                for v in VIEWS
            ]
        )
        batch = backbones.to_batch(grey)
        for name, factor in (("[-1024, 1024]", 1.0), ("[-1, 1]", 1 / 1024)):
            scores = backbones.score_batch(model, batch * factor)
            for order, first, made in _orders(scores, model.pathologies):
                off = float(np.abs(made - printed).max())
                rows.append((order, first, name, resize, off))
    names = ["order", "first", "range", "resize", "largest difference"]
    table = pd.DataFrame(rows, columns=names)
    return table.sort_values(names[-1], ignore_index=True)


def _orders(
    scores: np.ndarray, names: list[str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    alphabetical = scores[:, [names.index(c) for c in CONDITIONS]]
    for order, values in (
        ("the network's", scores),
        ("alphabetical", alphabetical),
    ):
        yield order, VIEWS[0], values
        yield order, VIEWS[1], values[::-1]
