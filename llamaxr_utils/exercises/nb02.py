"""Exercises of notebook 02: the AUC by counting pairs, the mistake it does not
see, and what 0.5 means."""

import numpy as np

from ..course.exercises import Exercise, choice, expect


def auc(positive, negative):
    """Share of the pairs in which the positive one is scored higher."""
    pairs = np.subtract.outer(np.asarray(positive), np.asarray(negative))
    return (pairs > 0).mean() + 0.5 * (pairs == 0).mean()


def _auc(answer):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    few, many = rng.normal(1, 1, 20).round(1), rng.normal(0, 1, 50).round(1)
    truth = [1] * 20 + [0] * 50
    expect("positive [.9, .8], negative [.1]", answer([0.9, 0.8], [0.1]), 1.0)
    expect("positive [.1], negative [.2, .3]", answer([0.1], [0.2, 0.3]), 0.0)
    expect("positive [.5], negative [.5]: a tie", answer([0.5], [0.5]), 0.5)
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


EXERCISES = {
    "02a": Exercise(_auc, auc, """
        Take every positive with every negative: how often is the positive one
        higher?

        A tie counts one half.

        `np.subtract.outer(positive, negative)` holds all differences; count
        those above 0, and half of those that are 0.
        """,
        "The AUC is this probability, and nothing about a threshold; "
        "scikit-learn's number is the same."),
    "02b": Exercise(choice("b", {
        "a": "The mean AUC hardly moved: in a sick chest many outputs rise "
             "together, whatever their names.",
        "c": "The spread catches the wrong range. The wrong order keeps "
             "every number, and so the spread.",
    }), "b", """
        Which numbers of the last table are far apart?

        Only one of the three asks whether the *name* is right.
        """,
        "Test names by a number that depends on names."),
    "02c": Exercise(_rescale, rescale, """
        Two straight lines meet at the operating point: one from (0, 0) to
        (point, 0.5), one from there to (1, 1).

        The first is `p / (2 * point)`.

        The second is the first, seen from the other end: replace `p` by `1 -
        p` and `point` by `1 - point`, and take the result from 1. `np.where`
        chooses.
        """,
        "torchxrayvision's `op_norm` does the same: with an operating point "
        "of .03, an output of .04 is shown as .505. It is above the point, "
        "and no even chance."),
}
