"""One rule for cutting scores in two: the threshold of best F-beta.

Used for the operating points of a network and for the words of a prompt.
"""

from __future__ import annotations

import numpy as np


def best_f_beta(
    score: np.ndarray, truth: np.ndarray, beta: float = 1.0
) -> tuple[float, float] | None:
    """The best rule ``score >= threshold``.

    Parameters
    ----------
    score : ndarray of float, shape (n,)
    truth : ndarray of 0 and 1, shape (n,)
    beta : float
        Recall counts beta times as much as precision (van Rijsbergen,
        Information Retrieval, 1979, chapter 7).

    Returns
    -------
    (float, float) or None
        Threshold and F-beta, in [0, 1]; None when nothing is positive.
    """
    if not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    named, square = np.arange(1, len(order) + 1), beta**2
    f_beta = (1 + square) * hits / (named + square * truth.sum())
    # A threshold can only stand where the score changes.
    last = np.append(np.diff(score[order]) != 0, True)
    best = int(np.argmax(np.where(last, f_beta, -1.0)))
    return float(score[order][best]), float(f_beta[best])
