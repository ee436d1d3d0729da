"""Exercises of notebook 01: which test reports could be written by heart, and
where one constant report looks good."""

from ..course.exercises import Exercise, choice, expect
from ..datasets.reports import normalise


def verbatim_share(test, train):
    """Share of the test texts that stand, normalised, in train."""
    known = {normalise(text) for text in train}
    return sum(normalise(text) in known for text in test) / len(test)


def _verbatim(answer):
    train = ["The lungs are clear.", "Heart size is normal."]
    for case, test, right in (
        ("two texts, one of them in train", ["The lungs are clear.", "No."],
         0.5),
        ("other capitals and blanks", ["the  lungs are CLEAR."], 1.0),
        ("part of a training text", ["The lungs"], 0.0),
        ("the same test text twice", ["No.", "No.", train[1]], 1 / 3),
    ):
        expect(case, answer(test, train), right)


EXERCISES = {
    "01a": Exercise(_verbatim, verbatim_share, """
        Put the training texts into a set first: a lookup in a list of 2,000 is
        2,000 comparisons.

        Both sides need `reports.normalise`, or a capital letter makes two
        texts of one.

        `sum(normalise(t) in known for t in test) / len(test)`
        """,
        "About half of R2Gen's test reports can be written by heart."),
    "01b": Exercise(choice("a", {
        "b": "The other 420 resemble training: nearly half of them are "
             "abnormal, and one normal text misses all of those.",
        "c": "Look at the two bars of `normal` again: they are far apart.",
    }), "a", """
        A constant normal report is right for normal studies. Which part has
        more of them?

        Compare `normal` in the last two rows of the table.
        """,
        "So a result on `head(170)` flatters every model, the constant one "
        "most."),
}
