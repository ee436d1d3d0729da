"""Exercises of the second course, notebooks 08 to 11: which ruler, which
list, which report follows its image."""

import numpy as np

from ..course.exercises import same_as


def rows_in_log(steps, epochs, batch):
    """The fewest and the most rows that give this many steps."""
    return (steps // epochs - 1) * batch + 1, steps // epochs * batch


def lost(text):
    """The words that the published cleaning drops, in their order."""
    words = [word.strip(".,") for word in text.split()]
    return [word for word in words if word != "no"
            and len(word.replace("x", "").replace("X", "")) <= 2]


def grounding_gap(said, truth):
    """Findings F1 of the pairs minus its mean over all swaps."""
    right = sum(len(a & b) for a, b in zip(said, truth))
    met = sum(len(a & b) for a in said for b in truth) - right
    both = sum(map(len, [*said, *truth]))
    return 2 * (right - met / (len(said) - 1)) / both


def verdict(paper, low, high, same):
    """One of four words on a number of the paper."""
    if low is None or high is None:
        return "not run"
    if paper is None or not same:
        return "not comparable"
    return "reproduced" if low <= paper <= high else "differs"


def seed_interval(values):
    """The two ends of Student's 95 % interval of their mean."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return np.mean(values) - half, np.mean(values) + half


EXERCISES = {
    "08a": (same_as(rows_in_log, "08a", tuple), rows_in_log),
    "08c": (same_as(lost, "08c", list), lost),
    "09a": (same_as(grounding_gap, "09a", float), grounding_gap),
    "10a": (same_as(seed_interval, "10a", np.array), seed_interval),
    "11a": (same_as(verdict, "11a"), verdict),
}
