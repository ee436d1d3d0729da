"""The one exception that readers of the course meet.

Not for programming mistakes, which stay ordinary Python exceptions.
"""

from collections.abc import Collection


def printable(text: object) -> str:
    """A text without what a terminal obeys or turns around."""
    return "".join(c if c.isprintable() or c == "\n" else " "
                   for c in str(text))


class CourseError(Exception):
    """A problem the reader can solve, in three sentences: what happened,
    why, and what to do (a command, a notebook, a file to look at)."""

    def __init__(self, what: str, why: str, do: str):
        super().__init__(what, why, do)
        self.what, self.why, self.do = what, why, do

    def __str__(self) -> str:
        # A name's own line break begins no part.
        parts = (printable(part).replace("\n", f"\n{'':8}")
                 for part in (self.what, self.why, self.do))
        return "\n  What: {}\n  Why:  {}\n  Do:   {}".format(*parts)


def refuse_unknown(knob: str, value: str, known: Collection[str]) -> None:
    """A `CourseError` that lists what there is, unless `value` is known."""
    if value not in known:
        raise CourseError(
            f"{knob} = {value!r} is not known.",
            f"There are {', '.join(known)}.",
            f"Set {knob} to one of them.")
