"""The course runner, on three tiny notebooks of our own.

They lie in fixtures/course under the names of 01 to 03 and hand tables of
two rows to each other; `base` runs them once for all tests.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import FIXTURES
from test_artifacts import change_a_byte

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course import run, runner
from llamaxr_utils.course.errors import CourseError

TINY = run.NOTEBOOKS[:3]
COMMAND = [sys.executable, "-m", "llamaxr_utils", "course", "--profile",
           "smoke", "--to", "3"]


def poisoned_home(home: Path) -> Path:
    """A home with a kernel that fails and settings that raise."""
    kernel_json = json.dumps({"argv": ["false"], "display_name": "mine"})
    for place in ("share", ".local/share/jupyter", ".jupyter"):
        kernels = home / place / "kernels" / "python3"
        kernels.mkdir(parents=True)
        (kernels / "kernel.json").write_text(kernel_json)
    profile = home / ".ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    for path in (profile / "ipython_kernel_config.py",
                 profile / "startup" / "first.py",
                 home / ".jupyter" / "jupyter_config.py"):
        path.write_text("import os\nos._exit(3)\n")
    return home


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A project whose three notebooks have run, and what was printed: in the
    home of a user whose own kernel and settings are broken."""
    folder = tmp_path_factory.mktemp("base")
    shutil.copytree(FIXTURES / "course", folder / "notebooks")
    home = poisoned_home(tmp_path_factory.mktemp("home"))
    given = {**os.environ, "HOME": str(home), "JUPYTER_PATH": f"{home}/share",
             "LLAMAXR_RUNS": f"{folder}/runs"}
    given.pop("OMP_WAIT_POLICY", None)
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True,
                          check=False, env=given)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture
def project(base, tmp_path, monkeypatch):
    """A copy of `base` to break; we are in it."""
    shutil.copytree(base[0], tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("LLAMAXR_RUNS", str(tmp_path / "project" / "runs"))
    return tmp_path / "project"


def reasons(project: Path) -> list[str]:
    sources = [project / "notebooks" / f"{name}.ipynb" for name in TINY]
    return [runner.why_run(project / "runs" / "smoke", source,
                           runner.state_now(source, "smoke", "phantom"))
            for source in sources]


def set_cell(project: Path, name: str, cell: int, **changes) -> None:
    """Change one cell, counted as in the file."""
    path = project / "notebooks" / f"{name}.ipynb"
    nb = json.loads(path.read_text())
    nb["cells"][cell] |= changes
    path.write_text(json.dumps(nb))


def test_a_line_a_notebook_in_a_fresh_kernel_of_this_interpreter(base):
    folder, out = base
    version = ".".join(map(str, sys.version_info[:3]))
    for number, name in enumerate(TINY, 1):
        assert f"[{number}/3] {name}: not run yet" in out
        assert f"[{number}/3] {name}: ran (" in out
        path = runner.executed_path(folder / "runs" / "smoke", name)
        copy = path.read_text()
        for words in ("profile smoke", f"Python {version}",
                      "OMP_WAIT_POLICY=PASSIVE"):
            assert words in copy
        assert json.loads(copy)["cells"][1]["execution_count"] == 1
        source = (folder / "notebooks" / path.name).read_bytes()
        assert source == (FIXTURES / "course" / path.name).read_bytes()
    assert out.count("s  Make the table") == 3  # a line a section
    assert "takes about" in out and "runs/smoke" in out


def test_a_second_call_runs_nothing_and_force_what_was_chosen(
    project, monkeypatch
):
    ran = []

    def noted(source, target, parameters):
        ran.append(source.stem)
        run.start(source.stem, "smoke").finish()

    monkeypatch.setattr(runner, "execute", noted)
    done = runner.run_course("smoke", last="03")
    assert done == dict.fromkeys(TINY, "skipped") and ran == []
    runner.run_course("smoke", first="02", last="03", force=True)
    assert ran == list(TINY[1:])


def change_outputs_and_ids(project, _):
    stream = {"output_type": "stream", "name": "stdout", "text": ["hello"]}
    set_cell(project, TINY[1], 1, id="x", outputs=[stream],
             metadata={"collapsed": True})


def change_a_cell(project, _):
    set_cell(project, TINY[1], 1, source="import pandas as pd  # mine")


def change_the_profile(project, monkeypatch):
    changed = json.loads(json.dumps(run.declared()))
    changed["notebooks"][TINY[0]]["NEW_KNOB"] = {"else": 1}
    monkeypatch.setattr(run, "declared", lambda: changed)


def damage(project, _):
    change_a_byte(project / "runs" / "smoke" / "studies.parquet")


def run_by_hand(*_):
    nb = run.start(TINY[2], "smoke")
    nb.load("image_scores")
    nb.finish()


def remove(project, _):
    (project / "runs" / "smoke" / "image_scores.parquet").unlink()


@pytest.mark.parametrize(("change", "expected"), [
    (change_outputs_and_ids, ["", "", ""]),
    (change_a_cell, ["", "its source changed", ""]),
    (change_the_profile, ["its knobs changed", "", ""]),
    (run_by_hand, ["", "", "it was run by hand since"]),
    (damage, ["studies.parquet is gone or was changed", None, None]),
    (remove, ["", "image_scores.parquet is gone or was changed", None]),
])
def test_what_changed_is_run_again_and_what_follows(
    project, monkeypatch, change, expected
):
    change(project, monkeypatch)
    for reason, right in zip(reasons(project), expected, strict=True):
        assert reason if right is None else reason == right


def test_from_and_to_by_number_or_name():
    assert runner.choose("4", "06_evaluate_reports") == list(
        run.NOTEBOOKS[3:6])
    with pytest.raises(CourseError, match="from 05 to 03"):
        runner.choose("05", "03")


def test_missing_inputs_are_named_in_a_course_and_made_by_hand(project,
                                                               capsys):
    shutil.rmtree(project / "runs")
    arguments = ["course", "--profile", "smoke", "--from", "02", "--to", "02"]
    assert commands.main(arguments) == 1
    message = capsys.readouterr().err
    assert "What: 02_extract_features stopped in" in message
    assert "studies was not found in runs/smoke." in message
    assert "make course FROM=01 PROFILE=smoke" in message
    nb = run.start(TINY[2], "smoke", reads=["image_scores"])
    assert len(nb.load("image_scores")) == 2
    out = capsys.readouterr().out
    assert "image_scores is not ready: running 01 to 02 first" in out


def test_a_failing_cell_and_a_kernel_that_dies(project, capsys):
    set_cell(project, TINY[1], 5, source="print('before')\n1 / 0")
    with pytest.raises(CourseError) as caught:
        runner.run_course("smoke", last="03")
    error = caught.value
    assert error.what == "02_extract_features stopped in 'Make the table'."
    assert error.why == "ZeroDivisionError: division by zero"
    assert "runs/smoke/notebooks/02_extract_features.ipynb" in error.do
    copy = runner.executed_path(project / "runs" / "smoke", TINY[1])
    assert "ZeroDivisionError" in copy.read_text()
    # It stopped there, and the same command takes it up there.
    assert "[3/3]" not in capsys.readouterr().out
    assert reasons(project)[:2] == ["", "not run yet"]
    set_cell(project, TINY[1], 5, source="import os; os._exit(137)")
    with pytest.raises(CourseError, match="The kernel died"):
        runner.run_course("smoke", last="02")


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_kernel(project, request):
    set_cell(project, TINY[1], 5,
             source="open('here', 'w'); import time\ntime.sleep(60)")
    # A shell in the background (nohup, CI) hands on that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT) as child:
        stop = time.monotonic() + 60
        while not Path("notebooks/here").exists() and time.monotonic() < stop:
            time.sleep(0.1)
        kernels = psutil.Process(child.pid).children(recursive=True)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Stopped. The same command continues." in out
    assert "Traceback" not in out
    assert kernels
    assert not psutil.wait_procs(kernels, timeout=10)[1]
    assert reasons(project)[:2] == ["", "not run yet"]


#: torch beside a torchvision that does not load; threads that sleep.
LIGHT = """
import llamaxr_utils, os, sys
heavy = {'torch', 'torchvision', 'transformers', 'trl', 'peft',
         'pandas', 'matplotlib', 'datasets', 'papermill'}
assert not heavy & set(sys.modules)
from llamaxr_utils.course import machine
waits = lambda: sum(type(f) is machine._BeforeTorchvision
                    for f in sys.meta_path)
assert waits() == 1
import torchvision
assert waits() == 0
import torch
print(torch.ops.torchvision.nms.default.name(), os.environ['OMP_WAIT_POLICY'])
"""


def test_importing_the_kit_is_light_and_torchvision_loads_after_it(
    monkeypatch
):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # a reader's choice stays
    done = subprocess.run([sys.executable, "-c", LIGHT], text=True,
                          capture_output=True, check=False)
    assert done.stdout.strip() == "torchvision::nms ACTIVE", done.stderr
