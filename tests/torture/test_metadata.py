"""Broken files of the kit's own, folders by variables, two runs at once."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from llamaxr_utils.course import artifacts, run, runner
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import finetune
from llamaxr_utils.vision import features

FILES = ("records/02_extract_features.json", "image_scores.json",
         "notebooks/02_extract_features.ipynb", "studies.json")
BROKEN = [b"", b"{", b'{"seconds": 1, "outp', b"{}", b"[]", b"null", b'"a"',
          b"NaN", b"[" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
          b"\xff\xfe{}", b"\0", b'{"schema_version": 2}', None]  # a folder
WRONG = (None, 1, float("nan"), "x", [], {}, [1], {"x": 1}, {"studies": 1})


def fake(source, target, parameters):
    """What a notebook leaves behind."""
    nb = run.start(source.stem, "smoke")
    if source.stem != run.NOTEBOOKS[0]:
        nb.load("studies")
    name = "image_scores" if nb.inputs else "studies"
    columns = artifacts.ARTIFACTS[name].columns
    nb.save(name, artifacts.pd.DataFrame(columns=columns))
    artifacts.write_json(target, {"nbformat": 4, "cells": []})
    nb.finish()


@pytest.fixture
def course(folders, monkeypatch):
    """A function that runs 01 and 02; both are up to date."""
    monkeypatch.setattr(runner, "execute", fake)
    run_both = lambda: [*runner.run_course("smoke", last="02").values()]
    assert run_both() == ["ran"] * 2
    return run_both


def put(path, content):
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_not_there(course, folders, name, content):
    put(folders / "smoke" / name, content)
    assert sorted(course()) == ["ran", "skipped"]
    assert course() == ["skipped"] * 2


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("key", (
    "outputs inputs knobs seconds state sha256 peak_memory_gb parameters "
    "cells schema_version").split())
@pytest.mark.parametrize("name", FILES)
def test_a_field_of_another_type(course, folders, name, key, wrong):
    content = json.loads((folders / "smoke" / name).read_text())
    artifacts.write_json(folders / "smoke" / name, content | {key: wrong})
    with suppress(CourseError):
        artifacts.load(folders / "smoke", "image_scores")
    assert "ran" in course() or key != "schema_version" or wrong == 1
    assert course() == ["skipped"] * 2


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt"])
@pytest.mark.parametrize(("broken", "last"), [(9, 6), (6, 3)])
def test_a_checkpoint_and_what_rests_on_it(
    tmp_path, name, content, broken, last
):
    for step in (3, 6, 9):
        place = tmp_path / f"checkpoint-{step}"
        artifacts.write_json(place / "trainer_state.json", {
            "global_step": step, "max_steps": 9, "log_history": [],
            "best_model_checkpoint": str(tmp_path / f"checkpoint-{step - 3}")
            if step > 3 else None})
        artifacts.pd.to_pickle(0, place / "optimizer.pt", "zip")
    put(tmp_path / f"checkpoint-{broken}" / name, content)
    assert finetune.last_checkpoint(tmp_path).name == f"checkpoint-{last}"
    assert not (tmp_path / "checkpoint-9").exists()


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_broken_scores_are_computed_again(tmp_path, content):
    artifacts.pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "part")
    assert features._resume(tmp_path / "part", "key") == []
    put(tmp_path / "part", content)
    assert features._resume(tmp_path / "part", "key") == []


@pytest.mark.parametrize(("content", "line"), [
    (b"", 1), (b"profiles: {}", 1), (b"[]", 1), (b"profiles: {}\n\tx: 1", 2),
    (b"a: 1\nb: [\n", 3), (b"a:\n- \xff\n", 2), (b"a: 1\n \x07", 2),
    (b"profiles: []\nnotebooks: {}\nstated: {}", 1), (b"[" * 999, 1),
    (b"a: 1\n" * 3 + b"b: !!python/object:os.system 1", 4)])
def test_broken_profiles_name_their_line(tmp_path, monkeypatch, content, line):
    monkeypatch.setattr(run, "__file__", str(tmp_path / "course" / "run.py"))
    (tmp_path / "profiles.yaml").write_bytes(content)
    with pytest.raises(CourseError, match=rf"profiles.yaml .*\n.*Line {line}"):
        run.declared.__wrapped__()


@pytest.mark.parametrize("given", ["", " ", "a", "./a/b", "../a", "~/a", "~"])
@pytest.mark.parametrize("variable", ["RUNS", "DATA"])
def test_a_folder_is_the_same_from_everywhere(monkeypatch, given, variable):
    monkeypatch.setenv(f"LLAMAXR_{variable}", given)
    monkeypatch.setenv("HOME", "/h")
    expected = given.strip().replace("~", "/h") or variable.lower()
    root = run.project_folder()
    for place in (root, root / "notebooks"):
        monkeypatch.chdir(place)
        folder = getattr(run, f"{variable.lower()}_folder")()
        assert folder == root / expected


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("name", ["t", "t" * 99])
def test_temporary_folders(tmp_path, monkeypatch, name, writable):
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    monkeypatch.setattr(runner.os, "access", lambda *_: writable)
    with runner.kernel_surroundings() as config:
        assert bool(config) == (writable or name == "t")
        here = Path(os.environ["JUPYTER_RUNTIME_DIR"]).parent
        assert here == (Path("/tmp") if writable else tmp_path / name)


HOLD = """
import sys, time; from pathlib import Path
from llamaxr_utils.course.runner import one_writer
with one_writer(Path(sys.argv[1])): print("held", flush=True), time.sleep(99)
"""


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_second_run_is_told_who_holds_it(course, folders, end):
    note = folders / "smoke/records/.holder.json"
    with subprocess.Popen([sys.executable, "-c", HOLD, folders / "smoke"],
                          text=True, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CourseError, match=f"{other.pid}, .*, since 2"):
            course()
        for content in BROKEN[:-1]:
            put(note, content)
            with pytest.raises(CourseError, match="runs notebooks there"):
                course()
        getattr(other, end)()
    assert course() == ["skipped"] * 2
