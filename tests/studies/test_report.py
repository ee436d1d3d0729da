"""The `report` command: scores, text, caveats, pages, clear errors."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_models import PROMPTS, tiny_base

from llamaxr_utils.__main__ import main
from llamaxr_utils.course import artifacts
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.course.run import WARNING
from llamaxr_utils.datasets.conditions import CONDITIONS
from llamaxr_utils.llm import generate
from llamaxr_utils.studies import report
from llamaxr_utils.studies.report import about_text

pytestmark = pytest.mark.usefixtures("one_thread")


def table(**means: float) -> pd.DataFrame:
    """A score table: every point at .5, every mean .1 unless given."""
    found = pd.DataFrame(
        {"frontal": 0.1, "lateral": 0.1, "mean": 0.1, "point": 0.5},
        index=pd.Index(CONDITIONS, name="condition"),
    )
    for name, value in means.items():
        found.loc[name.replace("_", " "), ["frontal", "mean"]] = value
    found["named"] = found["mean"] >= found["point"]
    return found


def kinds(report: str, scores: pd.DataFrame, **options) -> list[str]:
    return [kind for kind, _ in about_text(report, scores, **options)]


# --- caveats ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "scores", "expected"),
    [("The heart is enlarged.", {"Cardiomegaly": 0.9}, []),
     ("The lungs are clear.", {}, []),
     ("No pleural effusion.", {"Edema": 0.8, "Effusion": 0.7},
      ["denied", "not stated"]),
     # To deny consolidation is not to deny every opacity.
     ("No focal consolidation.", {"Lung Opacity": 0.8}, ["not stated"]),
     ("The lungs are clear.", {"Lung Opacity": 0.8}, ["denied"]),
     # Other words for the same shadow state it.
     ("There is a consolidation.", {"Infiltration": 0.9}, []),
     ("There is a granuloma.", {"Nodule": 0.9}, []),
     ("A pacemaker is in place.", {}, ["beyond the scores"]),
     ("XXXX lungs are clear.", {}, ["placeholder"])],
)
def test_the_text_is_held_against_the_scores(report, scores, expected):
    assert sorted(set(kinds(report, table(**scores)))) == expected


def test_a_finding_without_support_is_named_with_its_sentence():
    said = about_text("The lungs are clear. There may be a small effusion.",
                      table(Effusion=0.4))
    ((kind, line),) = said
    assert kind == "unsupported"
    assert "There may be a small effusion." in line
    assert "Effusion 0.40 (operating point 0.50)" in line


def test_an_empty_report_is_said_to_be_empty(tmp_path):
    assert kinds(" ", table()) == ["empty"]
    assert "(empty)" in report.as_text(a_draft(""))
    assert "(empty)" in page_of(a_draft(""), tmp_path)


def test_a_condition_without_an_operating_point_is_never_named():
    from llamaxr_utils.vision import backbones

    model = backbones.build("densenet-small@random")
    points = dict.fromkeys(CONDITIONS, 0.0) | {"Hernia": 2.0}
    grey = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    found = report.score_table(model, {"frontal": grey}, points)
    assert not found.loc["Hernia", "named"]
    assert found.drop("Hernia")["named"].all()
    assert found["lateral"].isna().all()
    assert (found["mean"] == found["frontal"]).all()
    assert "beyond the scores" in kinds("There is a hiatal hernia.", found)


# --- the pages --------------------------------------------------------------


def a_draft(text="The heart is <b>enlarged</b> & big. A mass <i>x</i>."):
    grey = np.full((64, 64), 120, np.uint8)
    heat = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    scores = table(Cardiomegaly=0.9)
    return report.Draft(
        text, "### Input:\n<x>", scores, about_text(text, scores),
        {"frontal": (grey, heat, "Cardiomegaly")},
        {"frontal image": "<img src=x>.png", "backbone": "densenet@x"})


def page_of(draft, folder):
    report.write_page(draft, folder / "draft.html")
    return (folder / "draft.html").read_text()


def test_the_page_is_escaped_and_loads_nothing(tmp_path):
    page = page_of(a_draft(), tmp_path)
    assert page.index(WARNING) < page.index("<h1>")
    assert "<b>enlarged" not in page and "&lt;b&gt;enlarged" in page
    assert "<img src=x>" not in page and "&lt;x&gt;" in page
    assert "<script" not in page and "default-src 'none'" in page
    places = re.findall(r'<[^>]*(?:src|href)="?([^">]{0,14})', page)
    assert places == ["data:image/jpe"] * 2
    assert page.count('<img alt="') == 2
    assert "<mark>A mass &lt;i&gt;x&lt;/i&gt;.</mark>" in page
    assert "densenet@x" in page and "prefers-color-scheme: dark" in page


def test_the_text_fits_80_columns_and_says_the_same():
    text = report.as_text(a_draft("The heart is enlarged. " * 9 + "Mass."))
    assert WARNING in text.splitlines()[1]
    assert max(map(len, text.splitlines())) <= 80
    assert "unsupported" in text and "* Cardiomegaly" in text
    assert "–" in report.as_text(a_draft()._replace(
        scores=table().assign(lateral=np.nan)))


# --- the command ------------------------------------------------------------


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """runs/smoke up to notebook 04, with a tiny base of one minute ago."""
    from llamaxr_utils.llm import finetune
    from llamaxr_utils.vision import backbones

    runs = tmp_path_factory.mktemp("draft") / "runs"
    folder, studies = runs / "smoke", pd.DataFrame({"study_id": ["CXR1"]})
    base = tiny_base(tmp_path_factory.mktemp("base"))
    model, tokenizer = finetune.load_in_4bit(base)
    model = finetune.add_lora(model)
    network = backbones.build("densenet-small@random")
    points = pd.DataFrame({"condition": CONDITIONS, "operating_point": 0.4,
                           "train_prevalence": 0.1})
    knobs = {"images": "phantom", "RESIZE": "squash", "BACKEND": "peft",
             "SCORE_FORMAT": "names", "BASE": "random-llama", "RANK": 16}

    def save(name, value, *inputs):
        if isinstance(value, pd.DataFrame):
            missing = [c for c in artifacts.ARTIFACTS[name].columns
                       if c not in value]
            value = value.assign(**dict.fromkeys(missing, ""))
        artifacts.save(folder, name, value, inputs=inputs, parameters=knobs,
                       writer=artifacts.ARTIFACTS[name].writer)

    save("studies", studies)
    save("backbone", lambda place: backbones.save(network, place), "studies")
    save("image_scores", studies, "backbone")
    save("operating_points", points, "image_scores")
    save("tokenizer", tokenizer.save_pretrained, "studies")
    save("prompts", studies, "operating_points", "tokenizer")
    save("base_model", lambda place: shutil.copytree(base, place), "prompts")
    save("adapter", model.save_pretrained, "prompts", "base_model")
    return runs


@pytest.fixture
def place(small_run, tmp_path, monkeypatch):
    """The run, a data folder, and two X-ray-like pictures."""
    monkeypatch.setenv("LLAMAXR_RUNS", str(small_run))
    monkeypatch.setenv("LLAMAXR_DATA", str(tmp_path / "data"))
    rng = np.random.default_rng(0)
    for name in ("frontal", "lateral"):
        pixels = rng.integers(0, 255, (80, 70), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def test_the_command_writes_text_and_page(place, capsys, monkeypatch):
    row = {"generated": "The heart is enlarged.", "finished": True}
    monkeypatch.setattr(generate, "generate_reports",
                        lambda *a, **k: pd.DataFrame([row]))
    files = [str(place / "frontal.png"), str(place / "lateral.png")]
    code = main(["report", *files, "--profile", "smoke", "--text",
                 "--html", str(place / "out.html")])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "random network" in said.out and "trained on phantoms" in said.out
    assert "view missing" not in said.out
    assert "densenet-small@random, 64 x 64" in said.out
    assert "Loading weights" not in said.err
    page = (place / "out.html").read_text()
    assert page.count('<img alt="') == 4
    for shown in (said.out, page):
        assert "The heart is enlarged." in shown and "random-llama" in shown


def test_one_view_is_enough_and_the_other_is_missed(place):
    found = report.write_draft({"frontal": place / "frontal.png"}, "smoke")
    assert "view missing" in [kind for kind, _ in found.caveats]
    assert found.prompt.endswith("### Response:\n")
    assert set(found.pictures) == {"frontal"}
    assert PROMPTS  # the prompt is in the format that the base was made for


def refused(capsys, *arguments: str) -> str:
    assert main(["report", *arguments, "--profile", "smoke"]) == 1
    return capsys.readouterr().err


def test_files_that_are_missing_equal_or_no_images(place, capsys):
    good, bad = str(place / "frontal.png"), place / "bad.png"
    bad.write_text("no picture")
    shutil.copy(good, place / "copy.png")
    assert "was not found" in refused(capsys, str(place / "x.png"))
    assert "was not found" in refused(capsys, str(place))
    assert "same image" in refused(capsys, good, str(place / "copy.png"))
    assert "bad.png could not be read" in refused(capsys, str(bad))


def test_a_stale_run_is_refused(place, small_run, monkeypatch, capsys):
    shutil.copytree(small_run, place / "old")
    monkeypatch.setenv("LLAMAXR_RUNS", str(place / "old"))
    (place / "old/smoke/prompts.parquet").unlink()
    said = refused(capsys, str(place / "frontal.png"))
    assert "03_build_prompts" in said


def test_a_view_that_the_prompt_cannot_leave_out(place, monkeypatch):
    load = report.load_models
    monkeypatch.setattr(report, "load_models", lambda *a: load(*a)._replace(
        score_format="paper"))
    with pytest.raises(CourseError, match="No scores for the lateral view"):
        report.write_draft({"frontal": place / "frontal.png"}, "smoke")
