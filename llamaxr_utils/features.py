"""Images -> 18 scores a view, by condition name; heatmaps.

Scores are what the backbone returns: rescaled so that 0.5 is an operating
point, not probabilities. This module maps them by name and never by place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import backbones
from .conditions import CONDITIONS, VIEWS, by_name
from .errors import CourseError
from .images import missing_views, read_grey, read_views


def score_views(
    model: Any, views: pd.DataFrame, resize: str = "squash"
) -> pd.DataFrame:
    """Scores of every view of a ``views`` table.

    Parameters
    ----------
    model
        A backbone (`backbones.build`, `load`, `load_released`).
    views : DataFrame
        Schema ``views``.
    resize : {"squash", "crop"}

    Returns
    -------
    DataFrame
        Schema ``image_scores``: ``study_id``, ``view``, ``backbone``, and a
        float column in [0, 1] for each of the 18 conditions. A view that is
        missing or unreadable is a row of NaN. ``attrs["unreadable"]`` lists
        (path, reason).

    Raises
    ------
    CourseError
        If all images got the same scores (the range was wrong).
    """
    grey, table = read_views(views, model.resolution, resize)
    named = _named(model, grey)
    scores = pd.concat([table[["study_id", "view"]], named], axis=1)
    absent = missing_views(table.assign())
    lost = views[~views["study_id"].isin(table["study_id"])]
    extra = pd.DataFrame(
        [(s, v) for s in lost["study_id"].unique() for v in VIEWS],
        columns=["study_id", "view"],
    )
    scores = pd.concat([scores, absent, extra], ignore_index=True)
    scores.insert(2, "backbone", model.full_name)
    order = {s: i for i, s in enumerate(views["study_id"].unique())}
    scores["order"] = scores["study_id"].map(order)
    scores = scores.sort_values(["order", "view"]).drop(columns="order")
    scores = scores.reset_index(drop=True)
    scores.attrs["unreadable"] = table.attrs["unreadable"]
    return scores


def _named(model: Any, grey: np.ndarray) -> pd.DataFrame:
    outputs = backbones.predict(model, grey)
    check_spread(outputs)
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
    elif backbone == backbones.RELEASED:
        model = backbones.load_released(Path(weights or ""))
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
    rows = [by_name(row, model.pathologies) for row in outputs]
    table = pd.DataFrame(rows, columns=list(CONDITIONS))
    table.insert(0, "path", [str(p) for p in paths])
    table.insert(1, "backbone", model.full_name)
    return table


def auc_table(
    scores: pd.DataFrame, labels: pd.DataFrame, least: int = 10
) -> pd.DataFrame:
    """Area under the ROC curve per condition and view.

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
        ``condition``, ``view``, ``positives``, ``auc``.
    """
    from sklearn.metrics import roc_auc_score

    rows = []
    for view in VIEWS:
        part = scores[scores["view"] == view].dropna(subset=list(CONDITIONS))
        truth = labels.reindex(part["study_id"])
        for condition in CONDITIONS:
            positive = truth[condition].to_numpy()
            if min(positive.sum(), (1 - positive).sum()) < least:
                continue
            auc = roc_auc_score(positive, part[condition])
            rows.append((condition, view, int(positive.sum()), auc))
    return pd.DataFrame(
        rows, columns=["condition", "view", "positives", "auc"]
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


def heatmap(model: Any, grey: np.ndarray, condition: str) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., 2017) of one condition on one image.

    The gradient is that of the *logit*: behind ``op_norm`` it can vanish.

    Parameters
    ----------
    grey : ndarray of uint8, shape (size, size)
    condition : str

    Returns
    -------
    ndarray of float32, shape (size, size), in [0, 1]
    """
    import torch
    from captum.attr import LayerAttribution, LayerGradCam

    target = [
        name.replace("_", " ") for name in model.pathologies
    ].index(condition)
    layer = model.features.norm5
    cam = LayerGradCam(lambda x: backbones.logits(model, x), layer)
    batch = backbones.to_batch(grey[None])
    heat = cam.attribute(batch, target=target, relu_attributions=True)
    heat = LayerAttribution.interpolate(heat, grey.shape, "bilinear")
    heat = heat.detach()[0, 0]
    top = heat.max()
    return (heat / top if top > 0 else torch.zeros_like(heat)).numpy()
