"""Exercises of notebook 02: the AUC from its meaning, by counting pairs, and
the mistake that it does not see."""

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


EXERCISES = {
    "02a": Exercise(
        _auc,
        auc,
        """
            Take every positive with every negative: how often is
            the positive one higher?

            A tie counts one half.

            `np.subtract.outer(positive, negative)` holds all
            differences; count those above 0, and half of those
            that are 0.
        """,
        "The AUC is this probability, and nothing about a threshold; "
        "scikit-learn's number is the same.",
    ),
    "02b": Exercise(
        choice(
            "b",
            {
                "a": "The mean AUC hardly moved: in a sick chest many "
                "outputs rise together, whatever their names.",
                "c": "The spread catches the wrong range. The wrong order "
                "keeps every number, and so the spread.",
            },
        ),
        "b",
        """
            Which numbers of the last table are far apart?

            Only one of the three asks whether the *name* is right.
        """,
        "Test names by a number that depends on names.",
    ),
}
