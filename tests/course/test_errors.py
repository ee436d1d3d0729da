"""Texts of errors: each is raised somewhere, with what its braces ask for."""

import ast
from pathlib import Path
from string import Formatter

import llamaxr_utils
from llamaxr_utils.course import errors

PACKAGE = Path(llamaxr_utils.__file__).parent


def test_a_text_is_given_what_its_braces_ask_for():
    given = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(
                    node.func, "id", "") == "problem":
                given[node.args[0].value] = {k.arg for k in node.keywords}
    asked = {name: {field for part in parts.values() for _, field, *_ in
                    Formatter().parse(part) if field}
             for name, parts in errors._texts().items()}
    assert asked == given
    assert all([*parts] == ["what", "why", "do"]
               for parts in errors._texts().values())
