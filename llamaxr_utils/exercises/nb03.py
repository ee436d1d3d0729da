"""Exercises of notebook 03: from the scores of two views to words, and where
the operating points come from."""

import numpy as np
import pandas as pd

from ..course.exercises import Exercise, expect
from ..datasets.conditions import VIEWS, best_f_beta


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
    nan = float("nan")
    for case, frontal, lateral, right in (
        ("means .6 and .2", (0.7, 0.2), (0.5, 0.2), ["Cardiomegaly"]),
        ("means exactly at their points", (0.4, 0.3), (0.6, 0.3),
         ["Cardiomegaly", "Edema"]),
        ("frontal .9 and lateral .0: the mean counts", (0.9, 0), (0, 0), []),
        ("no lateral view", (0.6, 0.1), (nan, nan), ["Cardiomegaly"]),
        ("no view at all", (nan, nan), (nan, nan), []),
    ):
        scores = pd.DataFrame([frontal, lateral], VIEWS, list(points))
        expect(case, list(answer(scores, points)), right)


def _point(answer):
    expect("scores [.1, .4, .6], true [0, 1, 1]",
           float(answer([0.1, 0.4, 0.6], [0, 1, 1])), 0.4)
    expect("scores [.9, .5, .1], true [1, 0, 0]",
           float(answer([0.9, 0.5, 0.1], [1, 0, 0])), 0.9)
    rng = np.random.default_rng(1)
    truth = rng.random(60) < 0.2
    scores = np.round(rng.random(60) + 0.3 * truth, 3)
    best = best_f_beta(scores, truth, 1.0)
    expect("60 random scores", float(answer(scores, truth)), float(best[0]))


EXERCISES = {
    "03a": Exercise(_names, names_above, """
        First the mean of both views for each condition, then the comparison.

        A view that is missing is NaN: leave it out of the mean. With no view
        there is nothing to name.

        At the point counts as above: `>=`.
        """,
        "These few words are all that the language model learns of the "
        "image."),
    "03b": Exercise(_point, best_point, """
        Only the scores themselves can be the best threshold: between two of
        them nothing changes.

        F1 = 2 · hits / (named + true). Try every score as the point.

        `named = scores >= point`, then `(named & truth).sum()`; keep the point
        of the highest F1.
        """,
        "A point chosen on the test split would flatter the words, so it is "
        "set on training studies alone."),
}
