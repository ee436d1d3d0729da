"""Grade a class: what `check` printed in executed notebooks, as one table.

Submissions are read, never run; `run_again` runs a copy in a fresh kernel.
With ``LLAMAXR_STUDENT=ana`` in a student's environment the exercises draw
their random inputs by that name, and `check` prints a receipt that only this
name gives. It shows a copied notebook, not a determined cheat.
"""

import ast
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import nbformat
import pandas as pd

from . import exercises, run, runner
from .errors import CourseError


class Verdict(NamedTuple):
    """What a cell says of an exercise."""

    outcome: str = "missing"
    receipt: str = ""
    seconds: float = math.nan
    code: str = ""


COLUMNS = ["student", "exercise", "outcome", "seconds", "note"]
#: `check` folds its lines; the next verdict ends a text without a receipt.
_VERDICT = re.compile(
    r"^(\d\d[a-z]) · (correct|not yet|not attempted)"
    r"(?:(?:(?!^\d\d[a-z] · ).)*?\[receipt\s([0-9a-f]{8})\])?",
    re.MULTILINE | re.DOTALL)


def read_submissions(folder: str | Path) -> dict[tuple[str, str], Path]:
    """(student, notebook) -> file: ``ana/04_finetune_qlora.ipynb``, in deeper
    folders too, or ``04_finetune_qlora_ana.ipynb``. CourseError where there
    is none."""
    files = {}
    for path in sorted(Path(folder).rglob("*.ipynb")):
        place = path.relative_to(folder)
        if any(part.startswith(".") for part in place.parts):
            continue
        for notebook in run.NOTEBOOKS:
            if path.stem.startswith(notebook[:2]):
                name = path.stem.removeprefix(notebook).strip("_- ")
                student = place.parts[0] if len(place.parts) > 1 else name
                files[student or path.stem, notebook] = path
    if not files:
        raise CourseError(
            f"There is no notebook of the course in {folder}.",
            "A submission is a file such as ana/04_finetune_qlora.ipynb.",
            "Name the folder that holds a folder for each student.")
    return files


def grade(folder: str | Path, again: bool = False,
          limit: int = 600) -> pd.DataFrame:
    """One row a student and exercise, as in `COLUMNS`: ``correct``, ``not
    yet``, ``not attempted`` or ``missing`` (no verdict in the notebook);
    seconds its cell took (NaN: not recorded); and what a teacher should look
    at. `again` runs every submission first, `limit` seconds a cell."""
    rows, answers = [], defaultdict(list)
    files = read_submissions(folder)
    students = {student for student, _ in files}
    for (student, notebook), path in files.items():
        try:
            cells = (run_again(path, student, limit) if again
                     else nbformat.read(path, as_version=4)).cells
            verdicts = {name: verdict for cell in cells
                        for name, verdict in _verdicts(cell)}
        except Exception as error:  # noqa: BLE001 (a stranger's file)
            rows.append([student, notebook[:2], "missing", math.nan,
                         f"cannot be read: {type(error).__name__}"])
            continue
        for name in exercises.of_notebook(notebook[:2]):
            verdict = verdicts.get(name, Verdict())
            if verdict.outcome == "correct" and verdict.code:
                answers[name, verdict.code].append(student)
            rows.append([student, name, verdict.outcome, verdict.seconds,
                         _whose(verdict.receipt, name, student, students)])
    table = pd.DataFrame(rows, columns=COLUMNS)
    for (name, _), same in answers.items():
        if len(same) > 1:
            these = table["exercise"].eq(name) & table["student"].isin(same)
            table.loc[these, "note"] += f" same code: {', '.join(same)}"
    table["note"] = table["note"].str.strip()
    return table.sort_values(["student", "exercise"], ignore_index=True)


def _verdicts(cell: Any) -> Iterator[tuple[str, Verdict]]:
    """Each exercise that a cell checks, and the verdict."""
    said = "".join(str(output.get("text", ""))
                   for output in cell.get("outputs", ()))
    times = cell.metadata.get("execution", {})
    ends = pd.to_datetime([times.get("iopub.status.busy"),
                           times.get("iopub.status.idle")], errors="coerce")
    seconds = (ends[1] - ends[0]).total_seconds()
    for name, outcome, receipt in _VERDICT.findall(said):
        yield name, Verdict(outcome, receipt, seconds, _code(cell.source))


def _code(source: str) -> str:
    """The functions of a cell, without comments, docstrings and layout; ""
    where there is none, or less than three statements in all."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for each in functions:
        if ast.get_docstring(each) is not None:
            each.body = each.body[1:]
    size = sum(isinstance(n, ast.stmt) for each in functions
               for n in ast.walk(each))
    return "\n".join(map(ast.unparse, functions)) if size > 3 else ""


def _whose(receipt: str, name: str, student: str, students: set[str]) -> str:
    """What a receipt says about its owner; "" if all is well."""
    if not receipt or receipt == exercises.receipt(name, student):
        return ""
    owner = [each for each in sorted(students)
             if receipt == exercises.receipt(name, each)]
    return f"receipt of {owner[0] if owner else 'nobody here'}"


def run_again(path: Path, student: str, limit: int) -> nbformat.NotebookNode:
    """Run a copy of a submission in a fresh kernel, beside the course's
    notebooks; a cell that fails or takes too long ends nothing."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    named = patch.dict(os.environ, {exercises.STUDENT: student})
    with named, runner.kernel_surroundings() as config:
        client = NotebookClient(
            notebook, timeout=limit, interrupt_on_timeout=True,
            allow_errors=True, kernel_name="python3", config=config,
            resources={"metadata": {
                "path": str(run.project_folder() / "notebooks")}})
        return client.execute()
