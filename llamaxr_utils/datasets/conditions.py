"""The 18 conditions: their names, the paper's order, torchxrayvision's order.

Scores travel by condition *name* through the whole kit; position counts only
in the text of the paper's prompt. Also here: what the report labeller calls
each condition, and the rule that cuts its score in two.
"""

from pathlib import Path

import numpy as np
import pandas as pd

_TABLE = pd.read_csv(Path(__file__).parents[1] / "data" / "conditions.csv",
                     index_col="condition")["finding"]
#: torchxrayvision's order of outputs (``datasets.default_pathologies``).
NATIVE_ORDER: tuple[str, ...] = tuple(_TABLE.index)

#: The paper's order (section 3.1, also the order that Figure 4's text
#: promises): alphabetical.
CONDITIONS: tuple[str, ...] = tuple(sorted(NATIVE_ORDER))

#: Condition -> what the report labeller (`evaluation.findings`) calls it.
FINDING_OF: dict[str, str] = _TABLE.sort_index().to_dict()
#: The findings of the 18 conditions: 15 names.
CONDITION_FINDINGS = tuple(dict.fromkeys(FINDING_OF.values()))
#: Finding -> the conditions that can name it. A granuloma is a nodule that
#: is known to be old (`mesh.FILES`).
NAMED_BY: dict[str, list[str]] = {
    finding: [c for c in CONDITIONS if FINDING_OF[c] == finding]
    for finding in CONDITION_FINDINGS
} | {"Granuloma": ["Nodule"]}

VIEWS: tuple[str, str] = ("frontal", "lateral")


def best_f_beta(score: np.ndarray, truth: np.ndarray,
                beta: float = 1.0) -> tuple[float, float] | None:
    """The rule ``score >= threshold`` of best F-beta.

    Recall counts `beta` times as much as precision (van Rijsbergen,
    Information Retrieval, 1979, chapter 7). `score` is float, `truth` 0 and
    1, both of shape (n,). Returns the threshold and F-beta, in [0, 1]; None
    when nothing is positive.
    """
    if not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    positives, square = np.arange(1, len(order) + 1), beta**2
    f_beta = (1 + square) * hits / (positives + square * truth.sum())
    # A threshold can only stand where the score changes.
    last = np.append(np.diff(score[order]) != 0, True)
    best = int(np.argmax(np.where(last, f_beta, -1.0)))
    return float(score[order][best]), float(f_beta[best])
