"""Exercises of the second course, notebooks 08 to 11: which ruler, which
list, which report follows its image."""

import numpy as np

from ..course.exercises import Exercise, choice, same_as


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


EXERCISES: dict[str, Exercise] = {
    "08a": Exercise(same_as(
        rows_in_log, (12, 3, 8), (5, 5, 32), (870, 10, 32), read=tuple,
        of="steps, epochs, batch = "), rows_in_log, """
        How many steps has an epoch? All its batches are full but the last.

        The fewest rows put a single one into the last batch, the most fill it.
        """,
        "The log fits 2,753 to 2,784 rows: all 2,780, not 70 % of them."),
    "08b": Exercise(choice("a", {
        "b": "70 % of the rows give fewer steps: the log did notice it.",
        "c": "That is the direct check, where both lists are public.",
    }), "a", """
        A model that knows a report by heart finds it by the study's own
        scores. What does it write for another's?
        """,
        "A report known by heart is lost with another study's scores, so a "
        "leak gives a large gap. The swap test needs studies never seen."),
    "08c": Exercise(same_as(
        lost, ("There is no edema.",), ("No pleural effusion.",),
        ("XXXX are normal.",), ("Six ribs, no fracture in the hip.",),
        read=list), lost, """
        What is left of a word, without stop or comma, when its x goes?

        `word.strip(".,")`; without its x, `XXXX` has no letter left. One word
        is spared: "no", exactly so, in lower case.
        """,
        'A sentence that begins with "No" says the opposite afterwards.'),
    "09a": Exercise(same_as(
        grounding_gap, ([A, B, {"Mass"}],) * 2, ([A] * 3, [A] * 3),
        ([C, set(), B, A], [A, B, B, C]), read=float, of="said, truth = "),
        grounding_gap, """
        Count the matches of the pairs, `len(a & b)`, and those of every report
        with every reference.

        The second count holds the first. What remains are n (n - 1) pairs of
        different studies; a swap makes n of them.

        `2 * (right - met / (n - 1)) / both`, where `both` counts all findings.
        """,
        "No shuffle is drawn, so nobody can draw a lucky one."),
    "09b": Exercise(choice("b", {
        "a": "All may change in words and none in findings.",
        "c": "Sampling makes any model look diverse.",
    }), "b", """
        Two of the three are high for a writer that draws its words by chance.
        """,
        "Only the gap asks whether a change was for the better."),
    "10a": Exercise(same_as(
        seed_interval, ([0.1, 0.2, 0.3],), ([0.1, 0.4],),
        ([0.3, 0.1, 0.2, 0.4, 0.0],), read=np.array, of="values "),
        seed_interval, """
        `np.std(values, ddof=1)` has n - 1 in the denominator.

        The quantile is `stats.t.ppf(0.975, len(values) - 1)`: 4.3 for three
        seeds, not 1.96.
        """,
        "With three seeds an interval is more than twice as wide as a normal "
        "one. Half of the differences between designs lie inside it."),
    "10b": Exercise(choice("b", {
        "a": "The most grounded design is not the highest in BLEU-4.",
        "c": "It is the dearest: its prompt has some 550 tokens, not 20.",
    }), "b", """
        Find the point furthest right in BLEU-4. What is its gap?
        """,
        "It wins by writing nearly the same normal report for everyone."),
    "11a": Exercise(same_as(
        verdict, (0.3, 0.2, 0.4, True), (0.3, 0.1, 0.2, True),
        (0.3, 0.2, 0.4, False), (None, 0.2, 0.4, True),
        (0.3, None, None, True), (0.3, None, None, False),
        (0.3, 0.3, 0.4, True), (0.0, 0.0, 0.1, True),
        of="paper, low, high, same = "), verdict, """
        Ask the four questions in the order of the words, and return at once.

        `low is None` means that there was no run. An end that equals the
        paper's number still holds it.
        """,
        "Most numbers of a paper never reach the third question: without its "
        "test list nothing is comparable."),
    "11b": Exercise(choice("c", {
        "a": "It would be a number for R2Gen's list, and the paper does not "
             "say that this is its list.",
        "b": "More samples draw the interval more exactly; it stays one of "
             "other studies.",
    }), "c", """
        Which word does the rule of 11a give in each case?

        A score belongs to texts and to a list of studies.
        """,
        "Predictions can be scored again by anyone, in seconds and under "
        "every ruler. They weigh a few hundred kilobytes."),
}
