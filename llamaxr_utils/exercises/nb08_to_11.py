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


A, B, C = {"Edema"}, {"Hernia"}, {"Edema", "Fracture"}


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
    "08a": (same_as(
        rows_in_log, (12, 3, 8), (5, 5, 32), (870, 10, 32), read=tuple,
        of="steps, epochs, batch = "), rows_in_log),
    "08c": (same_as(
        lost, ("There is no edema.",), ("No pleural effusion.",),
        ("XXXX are normal.",), ("Six ribs, no fracture in the hip.",),
        read=list), lost),
    "09a": (same_as(
        grounding_gap, ([A, B, {"Mass"}],) * 2, ([A] * 3, [A] * 3),
        ([C, set(), B, A], [A, B, B, C]), read=float, of="said, truth = "),
        grounding_gap),
    "10a": (same_as(
        seed_interval, ([0.1, 0.2, 0.3],), ([0.1, 0.4],),
        ([0.3, 0.1, 0.2, 0.4, 0.0],), read=np.array, of="values "),
        seed_interval),
    "11a": (same_as(
        verdict, (0.3, 0.2, 0.4, True), (0.3, 0.1, 0.2, True),
        (0.3, 0.2, 0.4, False), (None, 0.2, 0.4, True),
        (0.3, None, None, True), (0.3, None, None, False),
        (0.3, 0.3, 0.4, True), (0.0, 0.0, 0.1, True),
        of="paper, low, high, same = "), verdict),
}
