"""The notebooks: the form of every page, and one run of all of them.

The run is profile ``smoke`` through the real runner, with sockets that refuse
to leave the machine.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import publish
import pytest
from conftest import FIXTURES, TABLES

from llamaxr_utils.course import artifacts, run, runner

ROOT = Path(__file__).parents[1]
GUARD = str(FIXTURES / "offline")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMOKE_LIMIT = 1200  #: seconds of the smoke run, on a busy core
PAGES = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
PARAMETERS = """\
PROFILE = "cpu"  # t4 on a free Colab GPU, a100 on an A100
IMAGES = None  # phantom (drawings) or real (X-rays on your disk)
CHANGE = {}  # any knob of the table below, e.g. {"SEED": 1}"""


@PAGES
def test_the_form_of_the_page(path):
    """Title, setup, imports, parameters, start; an end. And as it is
    committed: no outputs, the same setup cell."""
    page, first = runner.read(path), runner.read(NOTEBOOKS[0])
    sources = [cell.source for cell in page.cells]
    kinds = [cell.cell_type for cell in page.cells]
    assert kinds[:5] == ["markdown", *["code"] * 4]
    assert sources[0].startswith(f"# {int(path.stem[:2])} ")  # no badge yet
    for row in ("You will learn", "Reads", "Writes", "Paper items", "Time"):
        assert f"| {row} |" in sources[0]
    assert sources[3] == PARAMETERS and page.cells[3].metadata.tags == [
        "parameters"]
    call = f'nb = start("{path.stem}", PROFILE, IMAGES, CHANGE'
    assert sources[4].startswith(call)
    assert "## What we saw" in "".join(sources)
    assert sources[-1] == "nb.finish()"
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    assert not any(c.outputs or c.execution_count for c in code), "make tidy"
    assert sources[1] == first.cells[1].source


def test_an_address_is_written_everywhere_and_taken_out_again(tmp_path):
    files = [*NOTEBOOKS, ROOT / "pyproject.toml", ROOT / "CITATION.cff"]
    copies = [tmp_path / file.relative_to(ROOT) for file in files]
    copies[0].parent.mkdir()
    for file, copy in zip(files, copies, strict=True):
        shutil.copyfile(file, copy)
    with pytest.raises(SystemExit, match="no address"):
        publish.publish(tmp_path, "https://example.org/a/b")
    url = "https://github.com/ana/llama-xr"
    publish.publish(tmp_path, "https://github.com/ben/kit")
    publish.publish(tmp_path, url)  # it takes the first one's place
    for copy in copies:
        text = copy.read_text("utf-8")
        notebook = copy.suffix == ".ipynb"
        assert text.count("ana/llama-xr") == (3 if notebook else 1), copy
        assert (f'url = \\"{url}\\"' if notebook else f'"{url}"') in text
    publish.publish(tmp_path, "")
    for file, copy in zip(files, copies, strict=True):
        assert copy.read_bytes() == file.read_bytes()


@PAGES
def test_cells_are_short_plain_python(path):
    code = [c for c in runner.read(path).cells if c.cell_type == "code"]
    lines = [len(re.findall(r"(?m)^ *\S", cell.source)) for cell in code]
    assert np.median(lines) <= 6 and np.percentile(lines, 90) < 15.5
    for position, cell in enumerate(code):
        tree = ast.parse(cell.source)
        if position:  # the setup cell is Colab's
            assert len(cell.source.splitlines()) <= 20
        imports = (ast.Import, ast.ImportFrom)
        if any(isinstance(node, imports) for node in ast.walk(tree)):
            assert position in (0, 1), "imports stand in the second cell"
        for node in ast.walk(tree):
            if isinstance(node, (ast.If, ast.IfExp)):
                assert "PROFILE" not in ast.unparse(node.test), "make a knob"


@PAGES
def test_knobs_are_declared_and_read_and_paper_items_saved_once(path):
    cells = runner.read(path).cells
    text = "\n".join(c.source for c in cells if c.cell_type == "code")
    read = set(re.findall(r"\bnb\.([A-Z][A-Z_]+)\b", text))
    assert read - {"SEED"} == run.knob_table(path.stem).keys() - {"SEED"}
    saved, tagged = [], []
    for cell in cells:
        saved += re.findall(r'\bitem="([^"]+)"', cell.source)
        tags = cell.metadata.get("tags", [])
        tagged += [t[6:] for t in tags if t.startswith("paper:")]
    assert saved == tagged and len(set(saved)) == len(saved)


def test_links_between_pages_lead_somewhere():
    pages = [*NOTEBOOKS, *ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    links = [(page, link) for page in pages for link in re.findall(
        r"\]\(([^)\s:#]+)[)#]", page.read_text("utf-8"))]
    assert len(links) > 20
    for page, link in links:
        assert (page.parent / link).exists(), (page.name, link)


def course(runs: Path) -> subprocess.CompletedProcess:
    """The course of profile smoke, offline, in a run folder of its own."""
    command = [sys.executable, "-m", "llamaxr_utils", "course"]
    place = {"LLAMAXR_RUNS": str(runs), "LLAMAXR_DATA": str(runs / "data"),
             "PYTHONPATH": os.pathsep.join([GUARD, str(ROOT)])}
    return subprocess.run(
        [*command, "--profile", "smoke"], cwd=ROOT,
        env=os.environ | place, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Folder and output of one smoke run of all notebooks; its seconds."""
    assert [path.stem for path in NOTEBOOKS] == list(run.NOTEBOOKS)
    runs = tmp_path_factory.mktemp("smoke")
    (TABLES / "meteor").mkdir(exist_ok=True)
    (runs / "data").mkdir()
    (runs / "data" / "meteor").symlink_to(TABLES / "meteor")
    began = time.perf_counter()
    done = course(runs)
    assert done.returncode == 0, done.stdout
    return runs / "smoke", done.stdout, time.perf_counter() - began


def test_smoke_runs_offline_in_time_and_writes_every_artifact(smoke):
    folder, out, seconds = smoke
    for notebook in run.NOTEBOOKS:
        assert f"{notebook}: ran (" in out
        cells = runner.read(runner.executed_path(folder, notebook)).cells
        kinds = {o.output_type for c in cells for o in c.get("outputs", [])}
        assert kinds and "error" not in kinds, notebook
    for name in artifacts.ARTIFACTS:
        artifacts.load(folder, name)
    assert seconds < SMOKE_LIMIT


def test_the_course_ends_with_three_numbers_and_a_page_of_results(smoke):
    folder, out, _ = smoke
    for words in ("findings F1 ", "grounding gap ", "BLEU-4 ", "index.html"):
        assert words in out
    index = (folder / "index.html").read_text("utf-8")
    for page in re.findall(r'href="(\w[^":]*)"', index):
        assert (folder / page).is_file(), page
    assert index.count("not for diagnosis") >= 2
    assert not re.search('<a [^>]*></a>|<h2>:', index)  # each has a title
    for notebook in run.NOTEBOOKS:
        page = (folder / "notebooks" / f"{notebook}.html").read_text("utf-8")
        assert "not for diagnosis" in page
        assert "default-src 'none'" in page
        assert "<script" not in page and "$$" not in page
        assert not re.search(r'src="https?:', page)


def test_a_second_smoke_run_skips_all(smoke):
    done = course(smoke[0].parent)
    assert done.returncode == 0, done.stdout
    for notebook in run.NOTEBOOKS:
        assert f"{notebook}: skipped (" in done.stdout
