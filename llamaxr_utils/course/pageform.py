"""The form of a notebook page: `problems` says what breaks it.

A page has fixed opening cells, one cell of parameters, short cells, no
outputs and one place for each paper item. This module reads source text: it
runs nothing, and does not judge what a page teaches.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from nbformat import NotebookNode

from .pages import badge, setup_source, tags

MAX_LINES, MAX_LINES_90, MAX_COLUMNS = 20, 15, 79
#: Parameters of every notebook, used up by `start`, and how they are
#: committed; every other parameter is a knob, committed as None.
FOR_START = {"PROFILE": "cpu", "IMAGES": None, "MAKE_INPUTS": True}
#: Rows of the table in the first cell.
TABLE_ROWS = ("You will learn", "Reads", "Writes", "Paper items", "Time")


# --- a page, parsed ---------------------------------------------------------


class Page:
    """A notebook with its code parsed; what the rules look at."""

    def __init__(self, nb: NotebookNode, name: str):
        self.name, self.cells = name, nb.cells
        self.code = [
            (i, c) for i, c in enumerate(nb.cells) if c.cell_type == "code"
        ]

    @cached_property
    def trees(self) -> dict[int, ast.Module]:
        """Cell number -> syntax tree; cells that don't parse are left out."""
        found = {}
        for i, cell in self.code:
            try:
                found[i] = ast.parse(cell.source)
            except SyntaxError:
                pass
        return found

    def walk(self, kind: Any) -> Iterator[tuple[int, Any]]:
        """(cell number, node) for every syntax node of a kind."""
        for i, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, kind):
                    yield i, node

    def calls(self, *names: str) -> Iterator[tuple[int, ast.Call]]:
        for i, node in self.walk(ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in names:
                yield i, node

    def tagged(self, tag: str) -> list[int]:
        return [i for i, cell in self.code if tag in tags(cell)]

    @cached_property
    def declared(self) -> dict[str, ast.expr]:
        """Parameter -> its value, of the cell tagged ``parameters``."""
        return {
            target.id: node.value
            for i in self.tagged("parameters")
            for node in self.trees.get(i, ast.Module([], [])).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    @cached_property
    def passed(self) -> set[str]:
        """Names that the call of `start` is given."""
        return {
            node.id
            for _, call in self.calls("start")
            for node in ast.walk(call)
            if isinstance(node, ast.Name)
        }


def unread(nb: NotebookNode, names: Iterable[str]) -> list[str]:
    """Of these parameters, those not declared or not handed to `start`."""
    page = Page(nb, "")
    return [n for n in names if n not in page.declared.keys() & page.passed]


# --- the rules: each yields sentences ---------------------------------------


def syntax(page: Page) -> Iterator[str]:
    for i, _ in page.code:
        if i not in page.trees:
            yield f"cell {i}: not plain Python (no % or ! lines)"


def opening(page: Page) -> Iterator[str]:
    kinds = [c.cell_type for c in page.cells[:5]]
    if kinds != ["markdown"] + ["code"] * 4:
        yield (
            "the first cells are not title, setup, imports, parameters, start"
        )
        return
    head = page.cells[0].source
    if not head.startswith(badge(page.name) + "\n"):
        yield "cell 0: no Colab badge in the first line (`make tidy`)"
    if not re.search(rf"^# {int(page.name[:2])} \S", head, re.MULTILINE):
        yield f"cell 0: no title `# {int(page.name[:2])} ...`"
    for row in TABLE_ROWS:
        if not re.search(rf"^\|\W*{row}", head, re.MULTILINE):
            yield f"cell 0: the table has no row {row!r}"
    if re.search(r"!\[\s*\]\(", head.replace(badge(page.name), "")):
        yield "cell 0: a picture without alt text"
    if page.cells[1].source != setup_source():
        yield "cell 1: not the setup cell (`make tidy`)"
    body = page.trees[2].body if 2 in page.trees else []
    if not all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body):
        yield "cell 2: imports and nothing else belong here"
    if page.tagged("parameters")[:1] != [3]:
        yield "cell 3: not tagged parameters"
    call = next((c for i, c in page.calls("start") if i == 4), None)
    first = call.args[:1] if call else []
    if not first or getattr(first[0], "value", None) != page.name:
        yield f'cell 4: no call of start("{page.name}", PROFILE, ...)'


def one_parameters_cell(page: Page) -> Iterator[str]:
    if len(page.tagged("parameters")) != 1:
        yield f"{len(page.tagged('parameters'))} cells tagged parameters"


def literals(page: Page) -> Iterator[str]:
    for i in page.tagged("parameters"):
        for node in page.trees[i].body if i in page.trees else []:
            try:
                assert isinstance(node, ast.Assign)
                ast.literal_eval(node.value)
            except (AssertionError, ValueError):
                yield f"cell {i}: parameters are NAME = literal, one a line"
    for name, value in page.declared.items():
        committed = FOR_START.get(name)
        if getattr(value, "value", ...) != committed:
            yield f"{name} is committed as {committed!r}, for the profile"


def knobs(page: Page) -> Iterator[str]:
    asked = {
        node.attr
        for _, node in page.walk(ast.Attribute)
        if isinstance(node.value, ast.Name) and node.value.id == "nb"
    }
    starts = {i for i, _ in page.calls("start")}
    bare = {
        node.id
        for i, node in page.walk(ast.Name)
        if i not in starts and isinstance(node.ctx, ast.Load)
    }
    for name in FOR_START:
        if name not in page.declared:
            yield f"{name} is not declared"
    for name in page.declared:
        if name not in page.passed:
            yield f"{name} is declared but not passed to start()"
        if name not in (*FOR_START, "SEED") and name not in asked:
            yield f"{name} is declared but never read as nb.{name}"
        if name in bare:
            yield f"{name} is used bare, where it may be None: nb.{name}"
    for name in asked:
        if name.isupper() and name not in page.declared:
            yield f"nb.{name} is read but not declared"


def imports(page: Page) -> Iterator[str]:
    for i, _ in page.walk((ast.Import, ast.ImportFrom)):
        if i not in (1, 2):
            yield f"cell {i}: imports belong in cell 2"


def lengths(page: Page) -> Iterator[str]:
    counts = []
    for i, cell in page.code:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if i != 1:
            counts.append(len(lines))
        if len(lines) > MAX_LINES:
            yield f"cell {i}: {len(lines)} lines, {MAX_LINES} at most"
        if max(map(len, lines), default=0) > MAX_COLUMNS:
            yield f"cell {i}: a line over {MAX_COLUMNS} columns"
    high = sorted(counts)[math.ceil(0.9 * len(counts)) - 1] if counts else 0
    if high > MAX_LINES_90:
        yield f"90th percentile {high} lines a cell, {MAX_LINES_90} at most"


def no_outputs(page: Page) -> Iterator[str]:
    for i, cell in page.code:
        if cell.get("outputs") or cell.get("execution_count"):
            yield f"cell {i}: outputs or a count (`make tidy`)"


def ids(page: Page) -> Iterator[str]:
    found = [cell.get("id") for cell in page.cells]
    if None in found or len(set(found)) < len(found):
        yield "cells without an id of their own (`make tidy`)"


def ending(page: Page) -> Iterator[str]:
    sources = [cell.source for cell in page.cells]
    if not sources or sources[-1].strip() != "nb.finish()":
        yield "the last cell is not nb.finish()"
    seen = re.compile(r"^## What we saw", re.MULTILINE)
    if not any(map(seen.search, sources)):
        yield 'no section "## What we saw"'


def branches(page: Page) -> Iterator[str]:
    for i, node in page.walk((ast.If, ast.IfExp, ast.While, ast.Match)):
        test = node.subject if isinstance(node, ast.Match) else node.test
        words = re.findall(r"\w+", ast.unparse(test).lower())
        if any(word == "profile" or "smoke" in word for word in words):
            yield f"cell {i}: a branch on the profile; make it a knob"


def items(page: Page) -> Iterator[str]:
    saved: Counter[str] = Counter()
    for i, call in page.calls("save_table", "save_figure"):
        for keyword in call.keywords:
            if keyword.arg != "item":
                continue
            item = str(getattr(keyword.value, "value", None))
            saved[item] += 1
            if f"paper:{item}" not in tags(page.cells[i]):
                yield f"cell {i}: item {item!r} without the tag paper:{item}"
    for i, cell in page.code:
        for tag in tags(cell):
            if tag.startswith("paper:") and not saved[tag[6:]]:
                yield f"cell {i}: tag {tag}, but nothing is saved as it"
    for item, count in saved.items():
        if count > 1:
            yield f"paper item {item!r} is saved {count} times"


RULES: tuple[Callable[[Page], Iterator[str]], ...] = (
    (syntax, opening, one_parameters_cell, literals, knobs, imports)
    + (lengths, no_outputs, ids, ending, branches, items)
)


def problems(nb: NotebookNode, name: str) -> list[str]:
    """What breaks the form of a page.

    Parameters
    ----------
    nb : NotebookNode
        As `read` gives it.
    name : str
        The notebook's file name without ``.ipynb``.

    Returns
    -------
    list of str
        Sentences, each with the cell and what to do; empty if all is well.
    """
    page = Page(nb, name)
    return [text for rule in RULES for text in rule(page)]
