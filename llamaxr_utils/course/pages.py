"""Notebooks as files: reading them, and the form in which they are kept.

`tidy` strips outputs, keeps cell ids stable and writes what is the same in
every notebook: the Colab badge and the setup cell.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .artifacts import write_whole
from .errors import CourseError
from .run import project_folder

BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/"
    "colab-badge.svg)](https://colab.research.google.com/github/"
    "{repository}/blob/main/notebooks/{name}.ipynb)"
)
#: Colab keeps its own torch and numerics (tests/bench/colab_constraints.py).
SETUP = """\
# Installs the course where it is missing (Colab); keeps Colab's torch. If an
# import fails after it: Runtime > Restart session, then run all again.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("llamaxr_utils") is None:
    url = "https://github.com/{repository}"
    subprocess.run(["git", "clone", "--depth=1", url, "course"], check=True)
    sys.path.append(os.path.abspath("course"))
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    pip += ["-c", "course/constraints-colab.txt"]
    subprocess.run([*pip, "-e", "./course[course]"], check=True)
    pip += ["--no-deps", "torchao", "unsloth", "unsloth_zoo"]
    subprocess.run(pip, check=True)
"""


def read(path: Path) -> NotebookNode:
    """A notebook as it stands in the file, nothing added.

    Raises
    ------
    CourseError
        If the file is no notebook of format 4.
    """
    try:
        # nbformat.read would give cells without an id a random one.
        content = json.loads(Path(path).read_text("utf-8"))
        if content["nbformat"] != 4:
            raise ValueError(f"its format is {content['nbformat']}")
        content["cells"] = [
            {**cell, "source": "".join(cell["source"])}
            for cell in content["cells"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise CourseError(
            f"{Path(path).name} could not be read.",
            f"It is not a Jupyter notebook of format 4 ({error}).",
            "Restore it (`git checkout -- notebooks`).",
        ) from error
    return nbformat.from_dict(content)


def repository() -> str:
    """``OWNER/NAME`` of ``[project.urls] Repository`` in pyproject.toml."""
    path = project_folder() / "pyproject.toml"
    url = tomllib.loads(path.read_text("utf-8"))["project"]["urls"]
    return url["Repository"].removeprefix("https://github.com/").strip("/")


def badge(name: str) -> str:
    """The Colab badge of a notebook, in markdown."""
    return BADGE.format(repository=repository(), name=name)


def setup_source() -> str:
    """Source of the setup cell: the same bytes in every notebook."""
    return SETUP.replace("{repository}", repository()).rstrip("\n")


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def tidy(path: Path) -> bool:
    """Bring a notebook into the form in which it is committed.

    Removes outputs and counts; writes the Colab badge and the setup cell;
    keeps cell ids and gives one to cells without; of metadata only tags and
    the kernel's name stay.

    Returns
    -------
    bool
        True if the file changed.
    """
    path = Path(path)
    nb = read(path)
    if len(nb.cells) < 2 or "setup" not in tags(nb.cells[1]):
        own = f"{path.stem[:2]}-setup"
        nb.cells.insert(1, nbformat.v4.new_code_cell(id=own))
        nb.cells[1].metadata.tags = ["setup"]
    nb.cells[1].source = setup_source()
    head = nb.cells[0].source
    if head.startswith("[![Open in Colab]"):
        head = head.partition("\n")[2].lstrip("\n")
    nb.cells[0].source = f"{badge(path.stem)}\n\n{head}"
    taken: set[str] = set()
    for position, cell in enumerate(nb.cells):
        if not cell.get("id") or cell.id in taken:
            cell.id = f"{path.stem[:2]}-{position:02d}"
            while cell.id in taken:
                cell.id += "b"
        taken.add(cell.id)
        cell.metadata = {"tags": tags(cell)} if tags(cell) else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nb.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    nb.nbformat_minor = 5
    text = nbformat.writes(nbformat.from_dict(nb)) + "\n"
    if text == path.read_text("utf-8"):
        return False
    write_whole(path, lambda part: part.write_text(text, "utf-8"))
    return True
