"""How good the 18 scores are: AUC with intervals, calibration, names.

Works on scores and labels alone; how the scores are made is in `features`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..datasets.conditions import CONDITIONS, VIEWS


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
