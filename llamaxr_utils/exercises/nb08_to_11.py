"""Exercises of the second course, notebooks 08 to 11: which ruler, which
list, which report follows its image."""

from ..course.exercises import Exercise, choice, expect


def rows_in_log(steps, epochs, batch):
    """The fewest and the most rows that give this many steps."""
    return (steps // epochs - 1) * batch + 1, steps // epochs * batch


def _rows_in_log(answer):
    for case in ((12, 3, 8), (5, 5, 32), (870, 10, 32)):
        expect(f"{case}", tuple(answer(*case)), rows_in_log(*case))


def lost(text):
    """The words that the published cleaning drops, in their order."""
    words = [word.strip(".,") for word in text.split()]
    return [word for word in words if word != "no"
            and len(word.replace("x", "").replace("X", "")) <= 2]


def _lost(answer):
    for text in ("There is no edema.", "No pleural effusion.",
                 "XXXX are normal.", "Six ribs, no fracture in the hip."):
        expect(repr(text), list(answer(text)), lost(text))


EXERCISES: dict[str, Exercise] = {
    "08a": Exercise(
        _rows_in_log,
        rows_in_log,
        """
            Every batch of an epoch is full, except perhaps the last.
            The fewest rows put a single one into it.
        """,
        "The log fits 2,753 to 2,784 rows: all 2,780, not 70 % of them.",
    ),
    "08b": Exercise(
        choice("a", {
            "b": "70 % of the rows give fewer steps: the log did notice it.",
            "c": "That is the direct check, where both lists are public.",
        }),
        "a",
        """
            A model that knows a report by heart finds it by the
            study's own scores. What does it write for another's?
        """,
        "A report known by heart is lost with another study's scores, so a "
        "leak gives a large gap. The swap test needs studies never seen.",
    ),
    "08c": Exercise(
        _lost,
        lost,
        """
            `word.strip(".,")`; without its x, `XXXX` has no letter left.
            One word is spared: "no", exactly so, in lower case.
        """,
        "A sentence that begins with \"No\" says the opposite afterwards.",
    ),
}
