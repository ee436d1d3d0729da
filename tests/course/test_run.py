"""`start` and `finish`: knobs, folders, messages, records."""

import json

import pytest
from test_artifacts import save, table

from llamaxr_utils.course import artifacts, run
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


def test_the_profiles_file_is_sound(monkeypatch):
    monkeypatch.undo()
    known = run.declared()
    names = set(known["profiles"])
    for notebook, knobs in known["notebooks"].items():
        for knob, row in (knobs or {}).items():
            columns = {column.removesuffix("-real") for column in row}
            columns -= {"else", "about", "says"}
            assert columns <= names, (notebook, knob)
            assert "else" in row or names <= set(row), (notebook, knob)


def test_one_folder_is_one_run_of_a_known_profile_and_images():
    for profile, images, name in (
            ("cpu", None, "cpu"), ("cpu", "phantom", "cpu"),
            ("cpu", "real", "cpu-real"), ("t4", "real", "t4"),
            ("t4", "phantom", "t4-phantom")):
        assert run.run_name(profile, images) == name
    with pytest.raises(CourseError, match="smoke, cpu, laptop, t4, a100"):
        begin("fast")
    with pytest.raises(CourseError, match="on images 'xrays'"):
        begin(images="xrays")


def test_the_profile_or_the_reader_sets_a_knob_beside_the_papers(capsys):
    nb = begin("cpu", change={"SEED": 0})
    assert (nb.SCORE_FORMAT, nb.SEED) == ("names", 0)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["SCORE_FORMAT", "names", "≠", "paper", "how"] in lines
    assert ["SEED", "0", "≠", "42", "of", "all"] in lines
    assert begin("paper").SCORE_FORMAT == "paper"
    assert "≠" not in capsys.readouterr().out


def test_a_change_of_no_knob_names_the_nearest():
    with pytest.raises(CourseError, match="Did you mean SCORE_FORMAT"):
        begin(change={"SCOREFORMAT": "paper"})
    with pytest.raises(AttributeError, match="EPOCHS is not a knob"):
        _ = begin().EPOCHS


def test_finish_records_what_was_read_and_written(folders, capsys):
    folder = folders / "smoke"
    save(folder, "image_scores", inputs=[])
    nb = begin(reads=["image_scores"])
    assert "Inputs: image_scores [OK]" in capsys.readouterr().out
    nb.load("image_scores")
    nb.save("prompts", table("prompts"))
    nb.file("tables", "tokens.csv").write_text("a\n1\n")
    nb.finish()
    record = run.read_record(folder, NOTEBOOK)
    assert record["knobs"] == {"SCORE_FORMAT": "names", "SEED": 42}
    assert record["inputs"] == {
        "image_scores": artifacts.sha256(folder / "image_scores.parquet")}
    assert record["outputs"] == {
        name: artifacts.sha256(folder / name)
        for name in ("prompts.parquet", "tables/tokens.csv")}
    made = artifacts.manifest(folder, "prompts")
    assert list(made["inputs"]) == ["image_scores"]
    assert nb.made_with("prompts", "images") == "phantom"
    with pytest.raises(CourseError, match="does not say its NEWER"):
        nb.made_with("prompts", "NEWER")
    out = capsys.readouterr().out
    assert "Next: 04_finetune_qlora" in out and "not for diagnosis" in out
    assert "phantom images · seed 42" in nb.stamp


def test_what_was_made_of_the_same_facts_is_made_once(folders):
    made = []

    def make(part):
        made.append(part)
        part.write_text(str(len(made)))

    paths = [run.kept("bases", facts, make) for facts in ((1, 2), (1, 2), 3)]
    assert [path.read_text() for path in paths] == ["1", "1", "2"]


def test_a_clone_is_known_from_inside_its_notebooks(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / f"{run.NOTEBOOKS[0]}.ipynb").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert run.project_folder() == tmp_path
