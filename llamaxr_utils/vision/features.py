"""Images -> 18 scores a view, by condition name.

Scores are what the backbone returns: rescaled so that 0.5 is an operating
point, not probabilities. This module maps them by name and never by place.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course.artifacts import write_whole
from ..course.errors import problem
from ..datasets.conditions import CONDITIONS, VIEWS
from ..datasets.images import read_grey, read_views
from ..datasets.reports import DATA
from . import backbones

#: Batches between two saves of unfinished work.
SAVE_EVERY = 32


def score_views(model: Any, views: pd.DataFrame, resize: str = "squash",
                batch_size: int | None = None,
                part: Path | None = None) -> pd.DataFrame:
    """Scores of every view of a ``views`` table.

    Schema ``image_scores``: a float in [0, 1] for each condition. A view that
    is missing or unreadable is a row of NaN; ``attrs["unreadable"]`` is a
    list of (path, reason). `batch_size` is by default 8 from 224 pixels on,
    where larger ones are slower on a CPU, else 32. `part`: parquet file of
    the work done so far: the same call after a kill goes on from there.
    """
    size = batch_size or (8 if model.resolution >= 224 else 32)
    key = _key(model, views, resize) if part else ""
    batches = _resume(part, key)
    places = range(sum(map(len, batches)), len(views), size)
    for count, first in enumerate(places, 1):
        rows = views[first : first + size]
        grey, rows = read_views(rows, model.resolution, resize)
        scores = by_condition(model, backbones.predict(model, grey, size))
        lost = pd.DataFrame(rows.attrs["unreadable"], columns=["path", "why"])
        scored = pd.concat([rows[["study_id", "view"]], scores], axis=1)
        batches.append(pd.concat([scored, lost]))
        if part and count % SAVE_EVERY == 0:
            so_far = pd.concat(batches, ignore_index=True).assign(key=key)
            write_whole(part, so_far.to_parquet)
    table = pd.concat(batches, ignore_index=True)
    unreadable = table["why"].notna()
    scored = table.loc[~unreadable].drop(columns=["path", "why"])
    check_spread(scored[list(CONDITIONS)].to_numpy())
    every_view = pd.MultiIndex.from_product(
        [views["study_id"].unique(), VIEWS], names=["study_id", "view"])
    scores = scored.set_index(every_view.names).reindex(every_view)
    scores = scores.reset_index()
    scores.insert(2, "backbone", model.full_name)
    lost = table.loc[unreadable, ["path", "why"]]
    scores.attrs["unreadable"] = list(lost.itertuples(index=False, name=None))
    if part:
        part.unlink(missing_ok=True)
    return scores


def _key(model: Any, views: pd.DataFrame, resize: str) -> str:
    """What unfinished work belongs to: weights, images, reading."""
    digest = hashlib.sha256(f"{model.full_name} {resize}".encode())
    digest.update("\n".join(views["path"]).encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _resume(part: Path | None, key: str) -> list[pd.DataFrame]:
    with suppress(OSError, ValueError, KeyError):  # not there, or damaged
        table = pd.read_parquet(part) if part else pd.DataFrame()
        if (table.pop("key") == key).all():
            return [table]
    return []


def by_condition(model: Any, outputs: np.ndarray) -> pd.DataFrame:
    """Outputs (n, 18) named by the network's own ``pathologies``, a column a
    condition in the order of `CONDITIONS`."""
    table = pd.DataFrame(outputs, columns=model.pathologies, dtype=float)
    return table[list(CONDITIONS)]


def check_spread(outputs: np.ndarray) -> None:
    """Refuse scores that are the same for every image."""
    if len(outputs) > 1 and np.ptp(outputs, axis=0).max() < 1e-4:
        raise problem("no spread")


def score_images(paths: Sequence[str | Path],
                 backbone: str = backbones.RELEASED,
                 weights: str | Path | None = None,
                 batch_size: int = 8) -> pd.DataFrame:
    """Scores of image files: ``path``, ``backbone``, the 18 conditions.

    `weights` is the file of the released network or a folder of
    `backbones.save`. Without it `backbone` is the released network, or random
    where its name says so (``@random``); else ValueError.
    """
    if weights and Path(weights).is_dir():
        model = backbones.load(Path(weights))
    elif backbone == backbones.RELEASED:
        model = backbones.load_released(Path(weights) if weights else None)
    elif weights is None and backbone.endswith("@random"):
        model = backbones.build(backbone)
    else:
        raise ValueError(f"There are no weights for {backbone}")
    grey = np.stack([read_grey(p, model.resolution) for p in paths])
    outputs = backbones.predict(model, grey, batch_size)
    check_spread(outputs)
    table = by_condition(model, outputs)
    table.insert(0, "path", [str(p) for p in paths])
    table.insert(1, "backbone", model.full_name)
    return table


def auc_table(scores: pd.DataFrame, labels: pd.DataFrame,
              least: int = 10) -> pd.DataFrame:
    """Area under the ROC curve per condition and view, with its interval.

    `scores` have the schema ``image_scores``; `labels` the index
    ``study_id`` and a 0/1 column per condition. Conditions with fewer than
    `least` positives or negatives are left out. Columns: ``condition``,
    ``view``, ``positives``, ``auc``, ``low``, ``high``.
    """
    names, rows = list(CONDITIONS), []
    for view in VIEWS:
        part = scores[scores["view"].eq(view)].dropna(subset=names, how="all")
        truth = labels.reindex(part["study_id"])[names].astype(bool)
        for condition in names:
            ill = truth[condition].to_numpy()
            if min(ill.sum(), (~ill).sum()) < least:
                continue
            score = part[condition].to_numpy()
            interval = auc_interval(score[ill], score[~ill])
            rows.append((condition, view, int(ill.sum()), *interval))
    columns = ["condition", "view", "positives", "auc", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def auc_interval(positive: np.ndarray,
                 negative: np.ndarray) -> tuple[float, float, float]:
    """AUC of two groups of scores, and its 95 % interval after DeLong et al.
    (Biometrics 44, 1988)."""
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


def printed_scores() -> np.ndarray:
    """The numbers of Figure 4 (CXR24), (2, 18): first half, second half."""
    table = pd.read_csv(DATA / "figure_4_scores.csv")
    return table[["first", "second"]].to_numpy().T
