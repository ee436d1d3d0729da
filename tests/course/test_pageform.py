"""Every rule of the page form fires on its broken notebook, and only there.

The notebooks in fixtures/notebooks are named after the rule that they break;
``good`` breaks none. SETUP and BADGE in them stand for the real ones.
"""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import FIXTURES

from llamaxr_utils.course import pageform, pages
from llamaxr_utils.course.errors import CourseError

NAME = "03_build_prompts"
BROKEN = {
    "syntax": "cell 6: not plain Python",
    "opening--order": "not title, setup, imports, parameters, start",
    "opening--badge": "no Colab badge",
    "opening--title": "no title `# 3 ...`",
    "opening--table": "no row 'Reads'",
    "opening--alt-text": "without alt text",
    "opening--setup": "not the setup cell",
    "opening--imports": "cell 2: imports and nothing else",
    "opening--parameters": "cell 3: not tagged parameters",
    "opening--start": 'no call of start("03_build_prompts"',
    "one_parameters_cell": "2 cells tagged parameters",
    "literals--derived": "NAME = literal",
    "literals--value": "SCORE_FORMAT is committed as None",
    "literals--profile": "PROFILE is committed as 'cpu'",
    "knobs--missing": "IMAGES is not declared",
    "knobs--not-passed": "SCORE_FORMAT is declared but not passed",
    "knobs--unread": "never read as nb.SCORE_FORMAT",
    "knobs--bare": "SCORE_FORMAT is used bare",
    "knobs--undeclared": "nb.EPOCHS is read but not declared",
    "imports": "cell 6: imports belong in cell 2",
    "lengths--cell": "cell 6: 21 lines, 20 at most",
    "lengths--columns": "cell 6: a line over 79 columns",
    "lengths--percentile": "90th percentile 16 lines",
    "no_outputs--output": "cell 6: outputs or a count",
    "no_outputs--count": "cell 6: outputs or a count",
    "ids": "without an id of their own",
    "ending--finish": "the last cell is not nb.finish()",
    "ending--what-we-saw": 'no section "## What we saw"',
    "branches--profile": "cell 6: a branch on the profile",
    "branches--smoke": "cell 6: a branch on the profile",
    "items--no-tag": "without the tag paper:table-3",
    "items--no-save": "nothing is saved as it",
    "items--twice": "'table-3' is saved 2 times",
}


def fixture(name: str):
    nb = pages.read(FIXTURES / "notebooks" / f"{name}.ipynb")
    for cell in nb.cells[:3]:
        if cell.source == "SETUP":
            cell.source = pages.setup_source()
        cell.source = cell.source.replace("BADGE", pages.badge(NAME))
    return nb


def test_a_good_page_has_no_problems():
    assert pageform.problems(fixture("good"), NAME) == []


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_fires_on_its_broken_page(name):
    page = pageform.Page(fixture(name), NAME)
    rule = getattr(pageform, name.partition("--")[0])
    assert rule in pageform.RULES
    assert any(BROKEN[name] in text for text in rule(page))
    # And it is the rule, not the fixture: the good page passes it.
    assert list(rule(pageform.Page(fixture("good"), NAME))) == []


def test_every_rule_has_been_seen_to_fail():
    seen = {name.partition("--")[0] for name in BROKEN}
    assert seen == {rule.__name__ for rule in pageform.RULES}
    files = {p.stem for p in (FIXTURES / "notebooks").glob("*.ipynb")}
    assert files == {*BROKEN, "good"}


def test_unread_names_what_has_no_effect():
    nb = fixture("good")
    assert pageform.unread(nb, ["PROFILE", "SCORE_FORMAT"]) == []
    assert pageform.unread(nb, ["PROFILE", "EPOCHS"]) == ["EPOCHS"]
    nb = fixture("knobs--not-passed")
    assert pageform.unread(nb, ["SCORE_FORMAT"]) == ["SCORE_FORMAT"]


@pytest.fixture
def untidy(tmp_path):
    return shutil.copy(FIXTURES / "untidy.ipynb", tmp_path / f"{NAME}.ipynb")


def test_tidy_makes_a_good_page_and_then_changes_nothing(untidy):
    assert pages.tidy(untidy) is True
    assert pageform.problems(pages.read(untidy), NAME) == []
    before = untidy.read_bytes()
    assert pages.tidy(untidy) is False
    assert untidy.read_bytes() == before


def test_tidy_keeps_ids_and_derives_the_missing_ones(untidy):
    pages.tidy(untidy)
    ids = [cell.id for cell in pages.read(untidy).cells]
    # The fixture's cells 4 and 5 share an id; setup was put in at 1.
    assert ids[:7] == [
        *("03-00", "03-setup", "03-02", "03-03", "03-04", "my-id", "03-06"),
    ]


def test_tidy_writes_the_same_bytes_whoever_ran_the_notebook(untidy):
    pages.tidy(untidy)
    first = untidy.read_bytes()
    nb = json.loads(first)
    nb["metadata"]["kernelspec"]["name"] = "conda-env-mine"
    nb["cells"][5]["metadata"] = {"jupyter": {"source_hidden": True}}
    nb["cells"][6]["execution_count"] = 12
    nb["cells"][1]["source"] = "# an older setup cell"
    untidy.write_text(json.dumps(nb))
    assert pages.tidy(untidy) is True
    assert untidy.read_bytes() == first


def test_badge_and_setup_follow_the_address_in_pyproject(
    untidy, tmp_path, monkeypatch
):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_explore_data.ipynb").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/a-lab/course"\n'
    )
    monkeypatch.chdir(tmp_path)
    pages.tidy(untidy)
    nb = pages.read(untidy)
    assert f"a-lab/course/blob/main/notebooks/{NAME}" in nb.cells[0].source
    assert "https://github.com/a-lab/course" in nb.cells[1].source


def test_what_is_no_notebook_is_said_so(tmp_path):
    path = tmp_path / "01_explore_data.ipynb"
    path.write_text('{"cells": [')
    with pytest.raises(CourseError, match="not a Jupyter notebook"):
        pages.read(path)


def test_setup_cell_does_nothing_where_the_kit_is_there(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the setup cell wanted to install")

    monkeypatch.setattr("subprocess.run", refuse)
    exec(pages.setup_source(), {})
