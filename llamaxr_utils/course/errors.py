"""The one exception that readers of the course meet.

Every message has three parts: what happened, why, and what to do about it.
It is not for programming mistakes, which stay ordinary Python exceptions.
"""

from __future__ import annotations


class CourseError(Exception):
    """A problem the reader can solve.

    Parameters
    ----------
    what : str
        What happened, in one sentence.
    why : str
        The reason.
    do : str
        The next step: a command, a notebook to run, a file to look at.
    """

    def __init__(self, what: str, why: str, do: str):
        super().__init__(f"{what} {why} {do}")
        self.what, self.why, self.do = what, why, do

    def __str__(self) -> str:
        return f"\n  What: {self.what}\n  Why:  {self.why}\n  Do:   {self.do}"
