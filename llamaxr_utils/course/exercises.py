"""Exercises: an answer is checked, a hint given, a solution shown.

`check` tells three outcomes apart: *not attempted* (the stub still returns
``...``), *not yet* (what differs, and on which input), *correct* (and what
it means). What each exercise accepts stands in `llamaxr_utils.exercises`.
"""

import hashlib
import inspect
import os
import textwrap
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml


class NotYet(Exception):
    """What an answer gets wrong, and on which input."""


class NotAttempted(Exception):
    """The answer is still the stub."""


class Exercise(NamedTuple):
    judge: Callable[[Any], None]  #: raises `NotYet`
    solution: Any  #: a function, or a value
    hints: list[str]  #: from a nudge to nearly all
    meaning: str  #: what the right answer says


#: Environment variable: the name of a student in a class.
STUDENT = "LLAMAXR_STUDENT"
#: Hints asked for so far, by exercise.
_asked: Counter = Counter()


@lru_cache(maxsize=1)
def words() -> dict[str, dict]:
    """``data/exercises.yaml``: hints, meanings, cases; whole questions."""
    path = Path(__file__).parents[1] / "data" / "exercises.yaml"
    return yaml.safe_load(path.read_text("utf-8"))


def cases(name: str) -> Any:
    """What an answer is tried on; it may change what it is given."""
    return deepcopy(words()[name]["cases"])


def of_notebook(number: str) -> dict[str, Exercise]:
    """The exercises of a notebook, such as ``"04"``, by name."""
    part = "01_to_03" if number < "04" else (
        "04_to_07" if number < "08" else "08_to_11")
    written = import_module(f"llamaxr_utils.exercises.nb{part}").EXERCISES
    found = {}
    for name, told in words().items():
        if name.startswith(number):
            judge, answer = written.get(name) or (
                choice(told["right"], told["wrong"]), told["right"])
            found[name] = Exercise(judge, answer, told["hints"],
                                   told["meaning"])
    return found


def find(name: str) -> Exercise:
    """The exercise of this name, such as ``"04a"``; ValueError otherwise."""
    try:
        return of_notebook(name[:2])[name]
    except (ModuleNotFoundError, KeyError):
        raise ValueError(f"There is no exercise {name!r}") from None


def seed() -> int:
    """Seed of the random inputs: 0, or one of the student's own."""
    return zlib.crc32(os.environ.get(STUDENT, "").encode())


def receipt(name: str, student: str) -> str:
    """Eight digits that `check` gives this student for this exercise."""
    text = f"{name} {student}".encode()
    return hashlib.blake2b(text, digest_size=4).hexdigest()


def check(name: str, answer: Any) -> None:
    """Print whether `answer`, a function or a value, is right."""
    exercise, help_by = find(name), f'(hint("{name}") helps.)'
    try:
        if callable(exercise.solution) > (callable(answer) or answer is ...):
            raise NotYet("Give the function itself, without parentheses.")
        exercise.judge(_watched(answer))
        verdict = f"correct. {exercise.meaning}"
    except NotAttempted:
        verdict = f"not attempted yet. Replace the ... {help_by}"
    except NotYet as difference:
        verdict = f"not yet. {difference} {help_by}"
    except Exception as error:  # noqa: BLE001 (of the reader's own code)
        line = traceback.extract_tb(error.__traceback__)[-1]
        ours = Path(line.filename).is_relative_to(Path(__file__).parents[1])
        where = "" if ours else f" (in {line.name}, at: {line.line})"
        verdict = f"not yet. {type(error).__name__}: {error}{where} {help_by}"
    if student := os.environ.get(STUDENT):
        verdict += f" [receipt {receipt(name, student)}]"
    _print(f"{name} · {verdict}")


def hint(name: str) -> None:
    """Print the next hint; the same call again says more."""
    hints = find(name).hints
    _asked[name] = min(_asked[name] + 1, len(hints))
    number = _asked[name]
    last = f'Then: solution("{name}").' if number == len(hints) else ""
    _print(f"{name} · hint {number} of {len(hints)}: {hints[number - 1]} "
           f"{last}")


def solution(name: str) -> None:
    """Print one way to do it; others may be as good."""
    answer = find(name).solution
    print(inspect.getsource(answer) if callable(answer) else repr(answer))


def expect(case: str, answer: Any, right: Any, atol: float = 1e-6) -> None:
    """Raise `NotYet`, naming `case`, unless `answer` is `right`: numbers up
    to `atol`, everything else exactly."""
    if isinstance(right, float | np.ndarray):
        shape, wanted = np.shape(answer), np.shape(right)
        if shape != wanted:
            raise NotYet(f"{case}: shape {shape}, expected {wanted}.")
        values = np.asarray(answer, float)
        equal = np.allclose(values, right, rtol=0, atol=atol, equal_nan=True)
    else:
        equal = answer == right
    if not equal:
        raise NotYet(f"{case}: you have {answer!r}, expected {right!r}.")


def same_as(solution: Callable, name: str,
            read: Callable = lambda result: result) -> Callable[[Any], None]:
    """The judge of a function: in every one of the exercise's ``cases`` it
    gives what `solution` gives, both as `read` makes them; ``of`` says what
    the arguments are."""

    def judge(answer: Any) -> None:
        of = words()[name].get("of", "")
        for case in cases(name):
            said, right = of + ", ".join(map(repr, case)), solution(*case)
            expect(said, read(answer(*case)), read(right))

    return judge


def choice(right: str, wrong: dict[str, str]) -> Callable[[Any], None]:
    """The judge of a question with letters; each wrong one is answered."""

    def judge(answer: Any) -> None:
        if str(answer).strip(" ()").lower() != right:
            letters = ", ".join(sorted([right, *wrong]))
            raise NotYet(wrong.get(answer, f"Choose one of {letters}."))

    return judge


def _watched(answer: Any) -> Any:
    """The answer, which must not be or return the stub's ``...``."""
    if answer is ...:
        raise NotAttempted
    if not callable(answer):
        return answer

    @wraps(answer)
    def watched(*args: Any, **options: Any) -> Any:
        if (result := _watched(answer(*args, **options))) is None:
            raise NotYet("Your function returned nothing: is there a return?")
        return result

    return watched


def _print(text: str) -> None:
    print(textwrap.fill(" ".join(text.split()), 78))
