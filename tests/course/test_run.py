"""`start` and `finish`: knobs, folders, messages, records."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from llamaxr_utils.course import artifacts, machine, run
from llamaxr_utils.course.errors import CourseError

NOTEBOOK = "03_build_prompts"
TABLE = {
    "SCORE_FORMAT": {"about": "how", "paper": "paper", "else": "names"},
    "SEED": {"about": "of all", "else": 42},
}


@pytest.fixture(autouse=True)
def small_profiles(monkeypatch, folders):
    """Two knobs of our own, so that profiles.yaml may change."""
    known = json.loads(json.dumps(run.declared()))
    known["notebooks"] = {NOTEBOOK: TABLE}
    monkeypatch.setattr(run, "declared", lambda: known)


def begin(profile="smoke", **options):
    return run.start(NOTEBOOK, profile, **options)


def put(folder, name, writer):
    columns = artifacts.ARTIFACTS[name].columns
    row = pd.DataFrame({column: ["x"] for column in columns})
    artifacts.save(folder, name, row, writer=writer)


# --- profiles ---------------------------------------------------------------


def test_the_profiles_file_is_sound(monkeypatch):
    monkeypatch.undo()
    known = run.declared()
    names = {"smoke", "cpu", "laptop", "t4", "a100", "paper", "author"}
    assert set(known["profiles"]) == names
    assert set(known["notebooks"]) <= set(run.NOTEBOOKS)
    for notebook, table in known["notebooks"].items():
        for knob, row in (table or {}).items():
            assert knob.isupper(), (notebook, knob)
            columns = {column.removesuffix("-real") for column in row}
            others = {"else", "about", "says"}
            assert columns <= names | others, (notebook, knob)
            assert len(row["about"]) > 5
            assert "else" in row or names <= set(row), (notebook, knob)
    for profile in ("smoke", "cpu", "laptop"):
        assert known["profiles"][profile]["images"] == "phantom"


def test_one_folder_is_one_run():
    for profile, images, name in (
        ("cpu", None, "cpu"),
        ("cpu", "phantom", "cpu"),
        ("cpu", "real", "cpu-real"),
        ("t4", "real", "t4"),
        ("t4", "phantom", "t4-phantom"),
    ):
        assert run.run_name(profile, images) == name


def test_an_unknown_profile_or_source_of_images():
    with pytest.raises(CourseError, match="no profile 'fast'") as caught:
        begin("fast")
    assert "smoke, cpu, laptop, t4, a100, paper, author" in caught.value.why
    with pytest.raises(CourseError, match="IMAGES = 'xrays' is not known"):
        begin(images="xrays")


# --- knobs ------------------------------------------------------------------


def test_the_profile_or_the_reader_sets_a_knob_beside_the_papers(capsys):
    nb = begin("cpu", change={"SEED": 0})
    assert (nb.SCORE_FORMAT, nb.SEED) == ("names", 0)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["SCORE_FORMAT", "names", "≠", "paper", "how"] in lines
    assert ["SEED", "0", "≠", "42", "of", "all"] in lines
    assert begin("paper").SCORE_FORMAT == "paper"
    assert "≠" not in capsys.readouterr().out


def test_a_change_of_no_knob_names_the_nearest():
    with pytest.raises(CourseError, match="SCOREFORMAT is no knob") as caught:
        begin(change={"SCOREFORMAT": "paper"})
    assert caught.value.do == "Did you mean SCORE_FORMAT?"
    with pytest.raises(AttributeError, match="EPOCHS is not a knob"):
        _ = begin().EPOCHS


# --- inputs -----------------------------------------------------------------


def test_inputs_that_are_missing_or_there(folders, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setenv(run.IN_COURSE, "1")
        with pytest.raises(CourseError, match="studies was not") as caught:
            begin("cpu", reads=["studies", "image_scores"])
    assert "01_explore_data" in caught.value.why
    assert "make course FROM=01" in caught.value.do
    put(folders / "smoke", "studies", "01_explore_data")
    begin(reads=["studies"])
    assert "Inputs: studies [OK]" in capsys.readouterr().out
    monkeypatch.setattr(run.sys, "executable", "false")  # nothing is made
    with pytest.raises(CourseError, match="image_scores was not found"):
        begin(reads=["image_scores"])
    assert "running 01 to 02 first" in capsys.readouterr().out


# --- finish -----------------------------------------------------------------


def test_finish_records_what_was_read_and_written(folders, capsys):
    put(folders / "smoke", "image_scores", "02_extract_features")
    nb = begin(reads=["image_scores"])
    nb.load("image_scores")
    columns = artifacts.ARTIFACTS["prompts"].columns
    nb.save("prompts", pd.DataFrame({c: ["x"] for c in columns}))
    nb.file("tables", "tokens.csv").write_text("a\n1\n")
    nb.finish()
    record = run.read_record(folders / "smoke", NOTEBOOK)
    folder = folders / "smoke"
    assert record["knobs"] == {"SCORE_FORMAT": "names", "SEED": 42}
    assert record["inputs"] == {
        "image_scores": artifacts.sha256(folder / "image_scores.parquet")
    }
    assert record["outputs"] == {
        name: artifacts.sha256(folder / name)
        for name in ("prompts.parquet", "tables/tokens.csv")
    }
    assert record["seconds"] >= 0 and record["peak_memory_gb"] > 0
    made = artifacts.manifest(folder, "prompts")
    assert list(made["inputs"]) == ["image_scores"]
    assert made["parameters"]["images"] == "phantom"
    out = capsys.readouterr().out
    assert "tables/tokens.csv" in out
    assert "Next: 04_finetune_qlora" in out
    assert "not for diagnosis" in out


def test_what_an_interrupted_run_left_whole_is_taken_once(folders):
    columns = artifacts.ARTIFACTS["prompts"].columns
    table = pd.DataFrame({c: ["x"] for c in columns})
    nb = begin()
    assert nb.unfinished("prompts") is None
    nb.save("prompts", table)  # and then the run stops
    assert begin(change={"SEED": 1}).unfinished("prompts") is None
    again = begin()
    assert again.unfinished("prompts") == nb.folder / "prompts.parquet"
    again.finish()
    assert begin().unfinished("prompts") is None  # a whole run is done anew


def test_phantom_runs_say_so_and_real_ones_do_not():
    assert begin("cpu").title_note == " (phantom images)"
    assert begin("cpu", images="real").title_note == ""
    assert "phantom images" in begin("cpu").stamp
    assert "seed 42" in begin("cpu").stamp


# --- folders ----------------------------------------------------------------


def test_a_read_only_data_folder_moves_the_caches(
    folders, tmp_path, monkeypatch
):
    assert run.cache_folder() == tmp_path / "data"
    monkeypatch.setattr(run.os, "access", lambda *_: False)
    assert run.cache_folder() == folders / "cache"


def test_the_clone_is_found_from_inside_its_notebooks(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / f"{run.NOTEBOOKS[0]}.ipynb").write_text("")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert run.project_folder() == tmp_path
    monkeypatch.delenv("LLAMAXR_RUNS")
    assert run.runs_folder() == tmp_path / "runs"


def test_the_device_comes_with_a_reason():
    device, dtype, reason = machine.pick_device()
    assert device in ("cuda", "mps", "cpu")
    assert dtype in ("float32", "float16", "bfloat16") and reason
