"""The one exception that readers of the course meet.

Not for programming mistakes, which stay ordinary Python exceptions.
"""

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import yaml


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


@lru_cache(maxsize=1)
def _texts() -> dict[str, dict[str, str]]:
    path = Path(__file__).parents[1] / "data" / "errors.yaml"
    return yaml.safe_load(path.read_text("utf-8"))


def problem(name: str, /, **facts: object) -> CourseError:
    """The `CourseError` of this name in ``data/errors.yaml``, the `facts` in
    the places of the braces; it is for the caller to raise."""
    what, why, do = (part.format_map(facts).strip()
                     for part in _texts()[name].values())
    return CourseError(what, why, do)


def refuse_unknown(knob: str, value: str, known: Collection[str]) -> None:
    """A `CourseError` that lists what there is, unless `value` is known."""
    if value not in known:
        raise problem(
            "unknown value", knob=knob, value=value, known=", ".join(known))
