"""The paper's prompt to the letter, score formats, operating points."""

import ast
import hashlib
import math

import numpy as np
import pandas as pd
import pytest
from conftest import run_cells

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER, VIEWS
from llamaxr_utils.llm import prompts

#: Of Figure 4 as it was typed from the paper, template and instruction.
SHA256 = "d2fb32134a0d8e1bb3caee132296d523b90e978c825b1d8052f58417bd8a3074"
NEVER = pd.Series(2.0, CONDITIONS)  # as notebooks give it


def study(frontal=0.2, lateral=0.3, **changed):
    """Scores of a study; ``Edema=0.9`` changes it in both views."""
    values = [[frontal] * 18, [lateral] * 18]
    return pd.DataFrame(values, VIEWS, CONDITIONS).assign(**changed)


def numbers(prompt: str) -> list[float]:
    return ast.literal_eval(
        prompt.split("### Input:\n")[1].split("\n\n### Response:")[0])


def test_the_prompt_of_a_study_is_figure_4s():
    prompt = prompts.build_prompt(study())
    blank = prompt.replace(str([0.2] * 18 + [0.3] * 18), "{input}")
    assert hashlib.sha256(blank.encode()).hexdigest() == SHA256
    named = prompts.INSTRUCTION.split("as follows: ")[1].split(". The")[0]
    assert named.replace(" and ", " ").split(", ") == list(CONDITIONS)


@pytest.mark.parametrize(("score_format", "order"), [
    ("paper", CONDITIONS), ("two-decimals", CONDITIONS),
    ("as-printed", NATIVE_ORDER), ("published-notebook", NATIVE_ORDER)])
@pytest.mark.parametrize("view", VIEWS)
def test_one_score_changes_one_number_in_its_place(score_format, order, view):
    plain = numbers(prompts.build_prompt(study(), score_format))
    assert len(plain) == 36
    for condition in CONDITIONS:
        scores = study()
        scores.loc[view, condition] = 0.88
        changed = numbers(prompts.build_prompt(scores, score_format))
        place = list(order).index(condition) + 18 * VIEWS.index(view)
        assert changed == [*plain[:place], 0.88, *plain[place + 1 :]]


def test_formats_differ_in_instruction_and_decimals_alone():
    scores = study(0.123456, 0.9, Edema=0.0051)
    exact, printed, short, notebook = (
        prompts.build_prompt(scores, name) for name in (
            "paper", "as-printed", "two-decimals", "published-notebook"))
    assert "[0.12, 0.12, 0.12, 0.01, 0.12," in short
    assert exact.split("[")[0] == short.split("[")[0] == printed.split("[")[0]
    assert prompts.SHORT_INSTRUCTION in notebook
    assert "0.123, " in notebook and "0.005, " in notebook
    assert numbers(notebook) == [round(x, 3) for x in numbers(printed)]


@pytest.mark.parametrize("scores", [
    pytest.param(study().loc[["frontal"]], id="absent"),
    pytest.param(study(lateral=math.nan), id="NaN")])
def test_a_missing_view(scores):
    """Numbers can't say it; names use the view that is there."""
    for score_format in prompts.NUMBERS:
        with pytest.raises(CourseError, match="the lateral view"):
            prompts.build_prompt(scores, score_format)
    told = prompts.build_prompt(scores, "names", dict(NEVER, Edema=0.2))
    assert "findings: edema\n" in told
    many = pd.concat({"CXR1": scores, "CXR2": study()})
    assert prompts.both_views(many, ["CXR2", "CXR1"]).tolist() == [
        [0.2] * 18 + [0.3] * 18, [0.2] * 36]


def test_names_are_in_the_papers_order_and_in_words():
    points = dict(NEVER, **{"Pleural Thickening": 0.1, "Edema": 0.1})
    prompt = prompts.build_prompt(study(), "names", points)
    assert "findings: edema, pleural thickening\n" in prompt
    assert prompts.build_prompt(study(), "names", NEVER) == prompts.BLANK
    assert "findings: no finding\n" in prompts.BLANK
    for scores in (study().iloc[:0], study(math.nan, math.nan)):
        prompt = prompts.build_prompt(scores, "names", NEVER)
        assert "findings: not available\n" in prompt


def test_the_mean_of_both_views_counts_and_the_point_itself_is_above():
    scores = study(frontal=0.25, lateral=0.75)
    for point, names in ((0.5, list(CONDITIONS)), (0.5 + 1e-9, [])):
        points = dict.fromkeys(CONDITIONS, point)
        assert prompts.names_above(scores, points) == names


def f_beta(said, truth, beta):
    hits = (said & truth.astype(bool)).sum()
    weight = said.sum() + beta**2 * truth.sum()
    return (1 + beta**2) * hits / max(weight, 1)


def data(seed, decimals=1):
    """Random studies; few decimals make ties."""
    rng, ids = np.random.default_rng(seed), [f"s{i}" for i in range(40)]
    scores = pd.DataFrame(rng.random((80, 18)).round(decimals),
                          pd.MultiIndex.from_product([ids, VIEWS]), CONDITIONS)
    truth = (rng.random((40, 18)) < 0.3).astype(int)
    truth[:, CONDITIONS.index("Hernia")] = 0
    return scores, pd.DataFrame(truth, ids, CONDITIONS)


@pytest.mark.parametrize(("seed", "decimals", "beta"), [
    (0, 1, 1.0), (1, 1, 2.0), (2, 9, 1.0), (3, 9, 2.0)])
def test_operating_points_reach_the_best_f_beta(seed, decimals, beta):
    """The best that any threshold reaches, and really, not on paper."""
    scores, labels = data(seed, decimals=decimals)
    table = prompts.operating_points(scores, labels, beta)
    means, truth = scores.groupby(level=0).mean(), labels.sort_index()
    assert list(table["condition"]) == list(CONDITIONS)
    for row in table.itertuples():
        score, true = means[row.condition], truth[row.condition]
        best = max(f_beta(score >= point, true, beta)
                   for point in [*score, score.max() + 1])
        assert row.train_f_beta == pytest.approx(best)
        reached = f_beta(score >= row.operating_point, true, beta)
        assert reached == pytest.approx(best)
        assert row.train_prevalence == true.mean()
        if not true.any():  # then it is never named
            assert row.train_f_beta == 0 and row.operating_point > 1


@pytest.mark.parametrize(("train_on", "named"), [
    ("scores", set()), ("labels", {"Cardiomegaly"}), ("stated", {"Effusion"})])
def test_training_prompts_name_what_was_asked_for(train_on, named):
    """By notebook 03, of a study whose report and headings disagree."""
    studies = pd.DataFrame({
        "study_id": ["CXR1", "CXR2"], "split": ["train", "test"],
        "mesh": [["Cardiomegaly/mild"], ["normal"]],
        "findings": ["There is a small left pleural effusion.", "Clear."],
    })
    both = pd.MultiIndex.from_product([studies["study_id"], VIEWS])
    scores = pd.DataFrame(0.5, both, CONDITIONS)
    space = run_cells("03-02", "03-22f")
    given = space["training_scores"](train_on, studies, scores)
    lateral = given.loc["CXR1", "lateral"]
    assert {*lateral.index[lateral == 1]} == named
    assert (given.loc["CXR2"] == 0.5).all(axis=None)  # test: from the image
    assert (scores == 0.5).all(axis=None)  # not changed


def test_a_draft_is_a_neighbours_report_and_never_the_own():
    studies = pd.DataFrame({
        "study_id": list("abc"), "split": ["train", "train", "test"],
        "findings": ["Large heart.", "Small effusion.", "Not to be read."]})
    space = run_cells("03-02", "03-drafts", scores=pd.concat(
        {"a": study(0.1), "b": study(0.9), "c": study(0.8)}))
    assert space["drafts"](studies, 0.01) == [
        "Small effusion.", "Large heart.", "Small effusion."]


def test_scores_go_through_the_artifact_by_name():
    row = {"study_id": "CXR1", "view": "frontal", "backbone": "x"}
    row |= {name: place / 100 for place, name in enumerate(NATIVE_ORDER)}
    scores = prompts.by_study(pd.DataFrame([row]))
    assert scores.loc["CXR1", "frontal"]["Pneumothorax"] == 0.03
    assert list(scores.columns) == list(CONDITIONS)
