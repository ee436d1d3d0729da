"""The notebooks: the form of every page, and one run of all of them.

The run is profile ``smoke`` through the real runner, with no network: in a
network namespace of its own where that is permitted, and in any case with
sockets that refuse to leave the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import FIXTURES

from llamaxr_utils.course import artifacts, pageform, pages, profiles, run

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Seconds that the smoke run of all eleven notebooks may take.
SMOKE_LIMIT = 400


def test_all_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == list(run.NOTEBOOKS)
    assert len(NOTEBOOKS) == 11


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_form_of_the_page(path):
    assert pageform.problems(pages.read(path), path.stem) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_tidy_has_nothing_to_do(path, tmp_path):
    copy = Path(shutil.copy(path, tmp_path / path.name))
    assert pages.tidy(copy) is False, "run `make tidy`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_knobs_are_those_of_the_profiles(path):
    declared = pageform.Page(pages.read(path), path.stem).declared
    knobs = declared.keys() - pageform.FOR_START.keys()
    assert knobs == profiles.knob_table(path.stem).keys()


# --- profile smoke ----------------------------------------------------------


def offline(command: list[str]) -> list[str]:
    """The command without any network device, where that is permitted."""
    try:
        allowed = subprocess.run(["unshare", "-n", "true"], check=False)
    except FileNotFoundError:
        return command
    return command if allowed.returncode else ["unshare", "-n", *command]


def course(runs: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The course of profile smoke, offline, in a run folder of its own."""
    guard = str(FIXTURES / "offline")
    command = [sys.executable, "-m", "llamaxr_utils", "course"]
    return subprocess.run(
        offline([*command, "--profile", "smoke", *arguments]),
        cwd=ROOT,
        env={
            **os.environ,
            "LLAMAXR_RUNS": str(runs),
            "LLAMAXR_DATA": str(runs / "data"),
            "PYTHONPATH": os.pathsep.join([guard, str(ROOT)]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Folder and output of one smoke run of all notebooks; its seconds."""
    assert len(NOTEBOOKS) == 11, "notebooks are not all there"
    runs = tmp_path_factory.mktemp("smoke")
    began = time.perf_counter()
    done = course(runs)
    assert done.returncode == 0, done.stdout
    return runs / "smoke", done.stdout, time.perf_counter() - began


def test_the_guard_takes_the_network_away():
    """192.0.2.1 is an address for documentation; nobody answers there."""
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(FIXTURES / "offline")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OSError: the network was wanted" in done.stderr


def test_smoke_runs_every_notebook_offline_and_in_time(smoke):
    _, out, seconds = smoke
    for notebook in run.NOTEBOOKS:
        assert f"{notebook}: ran (" in out
    assert seconds < SMOKE_LIMIT


def test_smoke_writes_every_artifact(smoke):
    folder = smoke[0]
    for name in artifacts.ARTIFACTS:
        artifacts.load(folder, name)


def test_executed_copies_hold_no_error(smoke):
    for notebook in run.NOTEBOOKS:
        path = smoke[0] / "notebooks" / f"{notebook}.ipynb"
        cells = json.loads(path.read_text("utf-8"))["cells"]
        kinds = {
            output["output_type"]
            for cell in cells
            for output in cell.get("outputs", [])
        }
        assert "error" not in kinds
        assert kinds, f"{notebook} shows nothing"


def test_a_second_smoke_run_skips_all(smoke):
    done = course(smoke[0].parent)
    assert done.returncode == 0, done.stdout
    for notebook in run.NOTEBOOKS:
        assert f"{notebook}: skipped (" in done.stdout
