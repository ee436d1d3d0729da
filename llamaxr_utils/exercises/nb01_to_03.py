"""Exercises of notebooks 01 to 03: which test reports could be written by
heart, the AUC by counting pairs, what 0.5 means, and from a score to a word.
"""

import numpy as np
import pandas as pd

from ..course.exercises import cases, expect, seed
from ..datasets.conditions import VIEWS, best_f_beta
from ..datasets.reports import normalise


def verbatim_share(test, train):
    """Share of the test texts that stand, normalised, in train."""
    known = {normalise(text) for text in train}
    return sum(normalise(text) in known for text in test) / len(test)


def _verbatim(answer):
    train = ["The lungs are clear.", "Heart size is normal."]
    for case, (test, right) in cases("01a").items():
        expect(case, answer(test, train), right)


def auc(positive, negative):
    """Share of the pairs in which the positive one is scored higher."""
    pairs = np.subtract.outer(np.asarray(positive), np.asarray(negative))
    return (pairs > 0).mean() + 0.5 * (pairs == 0).mean()


def _auc(answer):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed())
    few, many = rng.normal(1, 1, 20).round(1), rng.normal(0, 1, 50).round(1)
    truth = [1] * 20 + [0] * 50
    for case, (*given, right) in cases("02a").items():
        expect(case, answer(*given), right)
    right = float(roc_auc_score(truth, [*few, *many]))
    expect("20 and 50 random scores, with ties", answer(few, many), right)


def rescale(p, point):
    """0 stays 0, the operating point becomes 0.5, 1 stays 1."""
    below, above = p / (2 * point), 1 - (1 - p) / (2 * (1 - point))
    return np.where(p < point, below, above)


def _rescale(answer):
    import torch
    from torchxrayvision.models import op_norm

    p = np.linspace(0, 1, 11, dtype="float32")
    for point in (0.5, 0.2, 0.03):
        right = op_norm(torch.tensor(p)[:, None], torch.tensor([[point]]))
        expect(f"outputs 0, .1, .2 ... 1, operating point {point}",
               np.asarray(answer(p, point)), right.numpy().ravel())


def names_above(scores, points):
    """Conditions whose mean over the known views is at or above its point.

    `scores`: DataFrame, a row a view (NaN: not known), a column a condition;
    `points`: condition -> point.
    """
    means = scores.mean()  # leaves NaN out
    return [name for name in scores if means[name] >= points[name]]


def best_point(scores, truth):
    """The score that, as a threshold, has the highest F1."""
    scores, truth = np.asarray(scores), np.asarray(truth, bool)
    f1 = {}
    for point in scores:
        named = scores >= point
        f1[point] = 2 * (named & truth).sum() / (named.sum() + truth.sum())
    return max(f1, key=f1.get)


def _names(answer):
    points = {"Cardiomegaly": 0.5, "Edema": 0.3}
    for case, (*views, right) in cases("03a").items():
        scores = pd.DataFrame(views, VIEWS, list(points))
        expect(case, list(answer(scores, points)), right)


def _point(answer):
    for case, (*given, right) in cases("03b").items():
        expect(case, float(answer(*given)), right)
    rng = np.random.default_rng(1 + seed())
    truth = rng.random(60) < 0.2
    scores = np.round(rng.random(60) + 0.3 * truth, 3)
    best = best_f_beta(scores, truth, 1.0)
    expect("60 random scores", float(answer(scores, truth)), float(best[0]))


EXERCISES = {
    "01a": (_verbatim, verbatim_share),
    "02a": (_auc, auc),
    "02c": (_rescale, rescale),
    "03a": (_names, names_above),
    "03b": (_point, best_point),
}
