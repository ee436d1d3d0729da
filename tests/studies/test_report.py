"""The `report` command: scores, text, caveats, pages, clear errors."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import keep
from nbformat import v4
from PIL import Image

from llamaxr_utils.__main__ import main
from llamaxr_utils.course.run import WARNING
from llamaxr_utils.datasets.conditions import CONDITIONS
from llamaxr_utils.llm import finetune, generate
from llamaxr_utils.studies import report
from llamaxr_utils.vision import backbones


def table(**means: float) -> pd.DataFrame:
    """A score table: every point at .5, every mean .1 unless given."""
    scores = pd.DataFrame(
        {"frontal": 0.1, "lateral": np.nan, "mean": 0.1, "point": 0.5},
        index=pd.Index(CONDITIONS, name="condition"))
    for name, value in means.items():
        scores.loc[name, ["frontal", "mean"]] = value
    return scores.assign(named=scores["mean"] >= scores["point"])


@pytest.mark.parametrize(("text", "scores", "expected"), [
    ("The heart is enlarged.", {"Cardiomegaly": 0.9}, []),
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
    ("There may be a small effusion.", {"Effusion": 0.4}, ["unsupported"]),
    (" ", {}, ["empty"]),
    ("XXXX lungs are clear.", {}, ["placeholder"])])
def test_the_text_is_held_against_the_scores(text, scores, expected):
    kinds = {kind for kind, _ in report.about_text(text, table(**scores))}
    assert sorted(kinds) == expected


def a_draft(text="The heart is <b>enlarged</b> & big. A mass <i>x</i>."):
    grey = np.full((64, 64), 120, np.uint8)
    heat = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    scores = table(Cardiomegaly=0.9)
    return report.Draft(
        text, "### Input:\n<x>", scores, report.about_text(text, scores),
        {"frontal": (grey, heat, "Cardiomegaly")},
        {"frontal image": "<img src=x>.png", "backbone": "densenet@x"})


def test_the_page_warns_first_and_marks_what_nothing_supports(tmp_path):
    report.write_page(a_draft(), tmp_path / "draft.html")
    page = (tmp_path / "draft.html").read_text()
    assert page.index(WARNING) < page.index("<h1>")
    assert page.count('<img alt="') == 2
    assert "<mark>A mass &lt;i&gt;x&lt;/i&gt;.</mark>" in page


def test_the_text_fits_80_columns_and_says_the_same():
    text = report.as_text(a_draft("The heart is enlarged. " * 9 + "Mass."))
    assert WARNING in text.splitlines()[1]
    assert max(map(len, text.splitlines())) <= 80
    assert "unsupported" in text and "* Cardiomegaly" in text
    assert "–" in text and "(empty)" in report.as_text(a_draft(""))


def test_a_notebook_s_page_has_formulas_and_links_and_no_script():
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    text = ("Let $c$ be `$5`, [next](08_audit_protocol.ipynb), "
            "[words](glossary.md), $x_1_2$.\n\n$$\\frac{P}{R} < 1$$")
    page = v4.new_notebook(cells=[
        v4.new_markdown_cell(text),
        v4.new_code_cell("'$a$'", outputs=[v4.new_output(
            "display_data", widget | {"text/plain": "40 of 40"})]),
        v4.new_code_cell("import os", metadata={
            "jupyter": {"source_hidden": True}})])
    body = report.without_script(page)
    assert body.count("<math") == 2 and body.count("<mfrac") == 1
    assert 'display="block"' in body and "<code>x_1_2</code>" in body
    assert "<code>$5</code>" in body and "$a$" in body
    assert re.findall('href="([^"#]+)"', body) == [
        "08_audit_protocol.html", "glossary.html"]
    assert "<script" not in body and "import" not in body


@pytest.fixture(scope="module")
def small_run(base, tmp_path_factory):
    runs = tmp_path_factory.mktemp("draft") / "runs"
    studies = pd.DataFrame({"study_id": ["CXR1"]})
    model, tokenizer = finetune.load_in_4bit(base)
    model = finetune.add_lora(model)
    network = backbones.build("densenet-small@random")
    points = pd.DataFrame({
        "condition": CONDITIONS, "train_prevalence": 0.1,
        "operating_point": [2 if c == "Hernia" else 0 for c in CONDITIONS]})
    knobs = {"images": "phantom", "RESIZE": "squash", "BACKEND": "peft",
             "SCORE_FORMAT": "names", "BASE": "random-llama", "RANK": 16}
    for name, value, *inputs in (
        ("studies", studies),
        ("backbone", lambda place: backbones.save(network, place), "studies"),
        ("image_scores", studies, "backbone"),
        ("operating_points", points, "image_scores"),
        ("tokenizer", tokenizer.save_pretrained, "studies"),
        ("prompts", studies, "operating_points", "tokenizer"),
        ("base_model", lambda place: shutil.copytree(base, place), "prompts"),
        ("adapter", model.save_pretrained, "prompts", "base_model"),
    ):
        keep(runs / "smoke", name, value, *inputs, **knobs)
    return runs


@pytest.fixture
def place(small_run, folders, tmp_path):
    """A copy of the run, a data folder, and two X-ray-like pictures."""
    shutil.copytree(small_run, folders)
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
    page = place / "out.html"
    code = main(["report", *files, "--profile", "smoke", "--html", str(page)])
    text, errors = capsys.readouterr()
    assert code == 0, errors
    assert "random network" in text and "trained on phantoms" in text
    assert "view missing" not in text and "Loading weights" not in errors
    assert "densenet-small@random, 64 x 64" in text
    html = page.read_text()
    assert html.count('<img alt="') == 4
    for shown in (text, html):
        assert "The heart is enlarged." in shown and "random-llama" in shown


def test_one_view_is_enough_and_the_other_is_missed(place):
    """A condition without an operating point is never named."""
    draft = report.write_draft({"frontal": place / "frontal.png"}, "smoke")
    assert "view missing" in dict(draft.caveats)
    assert set(draft.pictures) == {"frontal"}
    scores = draft.scores
    assert scores["lateral"].isna().all()
    assert (scores["mean"] == scores["frontal"]).all()
    assert list(scores.index[~scores["named"]]) == ["Hernia"]
    caveats = report.about_text("There is a hiatal hernia.", scores)
    assert "beyond the scores" in dict(caveats)


def test_what_cannot_be_read_is_refused(place, capsys):
    frontal, record = place / "frontal.png", place / "runs/smoke/prompts.json"
    Image.open(frontal).save(place / "copy.jpg")

    def refused(*files) -> str:
        command = ["report", *map(str, files), "--profile", "smoke"]
        assert main(command) == 1
        return capsys.readouterr().err

    assert "runs could not be read" in refused(place / "runs")
    assert "same image" in refused(frontal, place / "copy.jpg")
    facts = record.read_text()
    record.write_text(facts.replace('"RANK"', '"DRAFT"'))
    assert "without DRAFT" in refused(frontal)
    # A format that has no word for a missing view; a run out of date.
    record.write_text(facts.replace('"names"', '"paper"'))
    assert "No scores for the lateral view" in refused(frontal)
    record.with_suffix(".parquet").unlink()
    assert "03_build_prompts" in refused(frontal)
