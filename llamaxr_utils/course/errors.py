"""The one exception that readers of the course meet.

Not for programming mistakes, which stay ordinary Python exceptions.
"""


class CourseError(Exception):
    """A problem the reader can solve, in three sentences: what happened,
    why, and what to do (a command, a notebook, a file to look at)."""

    def __init__(self, what: str, why: str, do: str):
        super().__init__(what, why, do)
        self.what, self.why, self.do = what, why, do

    def __str__(self) -> str:
        return f"\n  What: {self.what}\n  Why:  {self.why}\n  Do:   {self.do}"
