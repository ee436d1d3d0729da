"""Grade a class: what `check` printed in executed notebooks, as one table.

Submissions are read, never run; `run_again` runs a copy in a fresh kernel.
With ``LLAMAXR_STUDENT=ana`` in a student's environment the exercises draw
their random inputs by that name, and `check` prints a receipt that only this
name gives. It shows a copied notebook, not a determined cheat.
"""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import pandas as pd

from . import exercises, run, runner
from .errors import problem

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
    for path in sorted(Path(folder).rglob("[!.]*.ipynb")):
        first, *deeper = path.relative_to(folder).parts
        for notebook in run.NOTEBOOKS:
            if path.stem.startswith(notebook[:2]) and first[0] != ".":
                own = path.stem.removeprefix(notebook).strip("_- ")
                files[first if deeper else own or path.stem, notebook] = path
    if not files:
        raise problem("no submissions", folder=folder)
    return files


def grade(folder: str | Path, again: bool = False,
          limit: int = 600) -> pd.DataFrame:
    """One row a student and exercise, as in `COLUMNS`: ``correct``, ``not
    yet``, ``not attempted`` or ``missing`` (no verdict in the notebook);
    seconds its cell took (NaN: not recorded); and what a teacher should look
    at. `again` runs every submission first, `limit` seconds a cell."""
    rows, files = [], read_submissions(folder)
    for (student, notebook), path in files.items():
        try:
            cells = (run_again(path, student, limit) if again
                     else nbformat.read(path, as_version=4)).cells
            found = dict(pair for cell in cells for pair in _verdicts(cell))
            note = ""
        except Exception as error:  # noqa: BLE001 (a stranger's file)
            found, note = {}, f"cannot be read: {type(error).__name__}"
        for name in exercises.of_notebook(notebook[:2]):
            verdict = found.get(name, ("missing", None, "", ""))
            rows.append((student, name, *verdict, note))
    table = pd.DataFrame(rows, columns=[*COLUMNS[:4], "receipt", "code",
                                        "note"])
    owners = {exercises.receipt(name, student): student
              for student, name in table[COLUMNS[:2]].to_numpy()}
    owner = table["receipt"].map(owners).fillna("nobody here")
    strange = table["receipt"].ne("") & owner.ne(table["student"])
    table["note"] += ("receipt of " + owner).where(strange, "")
    written = table[table["outcome"].eq("correct") & table["code"].ne("")]
    alike = written.groupby(["exercise", "code"])["student"].transform(
        lambda names: ", ".join(names) if len(names) > 1 else "")
    for row, names in alike[alike != ""].items():
        table.loc[row, "note"] += f" same code: {names}"
    return table.assign(note=table["note"].str.strip())[COLUMNS].sort_values(
        COLUMNS[:2], ignore_index=True)


def _verdicts(cell: Any) -> Iterator[tuple[str, tuple]]:
    """Of each exercise that a cell checks: outcome, seconds, receipt and the
    functions, without comments, docstrings and layout."""
    said = "".join(str(output.get("text", ""))
                   for output in cell.get("outputs", ()))
    times = cell.metadata.get("execution", {})
    busy, idle = (pd.to_datetime(times.get(f"iopub.status.{end}"),
                                 errors="coerce") for end in ("busy", "idle"))
    seconds = (idle - busy).total_seconds() if busy and idle else None
    for name, outcome, receipt in _VERDICT.findall(said):
        yield name, (outcome, seconds, receipt, _code(cell.source))


def _code(source: str) -> str:
    """"" where functions have less than three statements in all."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # edited since
        return ""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for each in functions:
        each.body = each.body[ast.get_docstring(each) is not None :]
    size = sum(isinstance(n, ast.stmt) for f in functions for n in ast.walk(f))
    return "\n".join(map(ast.unparse, functions)) if size > 3 else ""


def run_again(path: Path, student: str, limit: int) -> nbformat.NotebookNode:
    """Run a copy of a submission in a fresh kernel, beside the course's
    notebooks; a cell that fails or takes too long ends nothing."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    named = patch.dict(os.environ, {exercises.STUDENT: student})
    with named, runner.kernel_surroundings() as config:
        place = {"path": str(run.project_folder() / "notebooks")}
        return NotebookClient(
            notebook, timeout=limit, interrupt_on_timeout=True,
            allow_errors=True, kernel_name="python3", config=config,
            resources={"metadata": place}).execute()
