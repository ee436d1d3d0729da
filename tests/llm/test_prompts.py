"""The paper's prompt to the letter, score formats, operating points."""

from __future__ import annotations

import ast
import hashlib
import math

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER, VIEWS
from llamaxr_utils.llm import prompts

#: Figure 4 of the paper, typed from it and independent of the module.
FIGURE_4 = (
    "Below is an instruction that describes a task, paired with an input that "
    "provides further context. Write a response that appropriately completes "
    "the request.\n"
    "\n"
    "### Instruction:\n"
    "Generate a medical report based on the given classification scores from "
    "a patient's X-ray, which includes two views: Frontal and Lateral. The "
    "classification scores consist of 18 values for each view, representing "
    "the confidence scores for 18 different medical conditions. For both the "
    "Frontal and Lateral views, these conditions are as follows: Atelectasis, "
    "Cardiomegaly, Consolidation, Edema, Effusion, Emphysema, Enlarged "
    "Cardiomediastinum, Fibrosis, Fracture, Hernia, Infiltration, Lung "
    "Lesion, Lung Opacity, Mass, Nodule, Pleural Thickening, Pneumonia, and "
    "Pneumothorax. The first 18 values correspond to the Frontal view, while "
    "the remaining 18 values correspond to the Lateral view.\n"
    "\n"
    "### Input:\n"
    "{input}\n"
    "\n"
    "### Response:\n"
)
SHA256 = "d2fb32134a0d8e1bb3caee132296d523b90e978c825b1d8052f58417bd8a3074"
NEVER = dict.fromkeys(CONDITIONS, 2.0)


def study(frontal=0.2, lateral=0.3, **changed):
    """Scores of a study; ``Edema=0.9`` changes it in both views."""
    views = dict(zip(VIEWS, (frontal, lateral)))
    return {
        view: {name: changed.get(name, value) for name in CONDITIONS}
        for view, value in views.items()
    }


def numbers(prompt: str) -> list[float]:
    return ast.literal_eval(
        prompt.split("### Input:\n")[1].split("\n\n### Response:")[0]
    )


# --- the paper's words ------------------------------------------------------


def test_template_and_instruction_are_figure_4s():
    mine = prompts.TEMPLATE.replace("{instruction}", prompts.INSTRUCTION)
    assert mine == FIGURE_4
    assert hashlib.sha256(mine.encode()).hexdigest() == SHA256


def test_the_whole_prompt_of_a_study():
    prompt = prompts.build_prompt(study())
    listed = str([0.2] * 18 + [0.3] * 18)
    assert prompt == FIGURE_4.replace("{input}", listed)


def test_the_instruction_names_the_conditions_in_the_papers_order():
    places = [prompts.INSTRUCTION.index(name) for name in CONDITIONS]
    assert places == sorted(places)
    listed = prompts.INSTRUCTION.split("as follows: ")[1].split(". The")[0]
    names = listed.replace(" and ", " ").split(", ")
    assert names == list(CONDITIONS)


# --- the order of the numbers -----------------------------------------------


@pytest.mark.parametrize(
    ("score_format", "order"),
    [("paper", CONDITIONS), ("as-printed", NATIVE_ORDER)],
)
@pytest.mark.parametrize("view", VIEWS)
def test_one_score_changes_one_number_in_its_place(score_format, order, view):
    plain = numbers(prompts.build_prompt(study(), score_format))
    assert len(plain) == 36
    for condition in CONDITIONS:
        scores = study()
        scores[view][condition] = 0.875
        changed = numbers(prompts.build_prompt(scores, score_format))
        differing = [i for i in range(36) if changed[i] != plain[i]]
        place = list(order).index(condition) + 18 * VIEWS.index(view)
        assert differing == [place]
        assert changed[place] == 0.875


def test_as_printed_is_the_papers_text_over_other_numbers():
    scores = {
        view: {name: place / 100 for place, name in enumerate(NATIVE_ORDER)}
        for view in VIEWS
    }
    printed = prompts.build_prompt(scores, "as-printed")
    assert prompts.INSTRUCTION in printed
    assert numbers(printed)[:18] == [place / 100 for place in range(18)]
    assert numbers(prompts.build_prompt(scores, "paper"))[1] == 0.10


def test_numbers_of_numpy_are_plain_numbers():
    scores = study()
    scores["frontal"] = {n: np.float64(0.5) for n in CONDITIONS}
    assert "np." not in prompts.build_prompt(scores)


# --- missing views ----------------------------------------------------------

NO_LATERAL = {
    "absent": {"frontal": study()["frontal"]},
    "NaN": {**study(), "lateral": dict.fromkeys(CONDITIONS, math.nan)},
    "None": {**study(), "lateral": None},
    "empty": {**study(), "lateral": {}},
}


@pytest.mark.parametrize("score_format", prompts.NUMBERS)
@pytest.mark.parametrize("way", NO_LATERAL)
def test_numbers_cannot_say_that_a_view_is_missing(score_format, way):
    with pytest.raises(CourseError) as caught:
        prompts.build_prompt(NO_LATERAL[way], score_format)
    assert "lateral" in caught.value.what
    assert "names" in caught.value.do


@pytest.mark.parametrize("way", NO_LATERAL)
def test_names_use_the_view_that_is_there(way):
    points = dict(NEVER, Edema=0.2)
    scores = NO_LATERAL[way]
    assert "findings: edema\n" in prompts.build_prompt(
        scores, "names", points
    )


@pytest.mark.parametrize(
    "scores", [{}, {v: dict.fromkeys(CONDITIONS, math.nan) for v in VIEWS}]
)
def test_names_say_that_nothing_is_available(scores):
    prompt = prompts.build_prompt(scores, "names", NEVER)
    assert "findings: not available\n" in prompt


def test_nothing_above_its_point_is_not_the_same_as_no_image():
    prompt = prompts.build_prompt(study(), "names", NEVER)
    assert "findings: no finding\n" in prompt
    assert "not available" not in prompt


# --- names ------------------------------------------------------------------


def test_names_are_in_the_papers_order_and_in_words():
    points = dict(NEVER, **{"Pleural Thickening": 0.1, "Edema": 0.1})
    prompt = prompts.build_prompt(study(), "names", points)
    assert "findings: edema, pleural thickening\n" in prompt


def test_the_mean_of_both_views_counts_and_the_point_itself_is_above():
    scores = study(frontal=0.25, lateral=0.75)
    points = {name: 0.5 for name in CONDITIONS}
    assert prompts.names_above(scores, points) == list(CONDITIONS)
    points = {name: 0.5 + 1e-9 for name in CONDITIONS}
    assert prompts.names_above(scores, points) == []


def test_names_need_points_and_formats_are_known():
    with pytest.raises(ValueError, match="needs operating points"):
        prompts.build_prompt(study(), "names")
    with pytest.raises(CourseError, match="'digits' is not known"):
        prompts.build_prompt(study(), "digits")


# --- words that say how sure, and numbers of two decimals -------------------


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0.39, "no finding"),
        (0.4, "possible edema"),
        (0.59, "possible edema"),
        (0.61, "likely edema"),
        (0.81, "clear edema"),
        (1.0, "clear edema"),
    ],
)
def test_strength_is_the_way_from_the_operating_point_to_one(score, words):
    points = dict(NEVER, Edema=0.4)
    prompt = prompts.build_prompt(study(Edema=score), "strength", points)
    assert f"findings: {words}\n" in prompt


def test_pairs_begin_at_the_floor_and_keep_the_order():
    points = dict(NEVER, Edema=0.6, Hernia=0.6, Mass=0.6)
    scores = study(0, 0, Hernia=0.309, Edema=0.718, Mass=0.29)
    prompt = prompts.build_prompt(scores, "pairs", points)
    assert "findings: edema 0.72, hernia 0.31\n" in prompt
    nothing = prompts.build_prompt(study(0, 0), "pairs", points)
    assert "findings: no finding\n" in nothing
    assert "not available" in prompts.build_prompt({}, "pairs", points)


def test_two_decimals_change_the_numbers_alone():
    scores = study(0.123456, 0.9, Edema=0.005)
    short = prompts.build_prompt(scores, "two-decimals")
    exact = prompts.build_prompt(scores, "paper")
    assert "[0.12, 0.12, 0.12, 0.01, 0.12," in short
    assert numbers(short) == pytest.approx(numbers(exact), abs=0.00501)
    assert short.split("[")[0] == exact.split("[")[0]
    assert len(short) < len(exact)


def test_the_published_notebooks_prompt():
    scores = study(0.123456, 0.9, Edema=0.0051)
    prompt = prompts.build_prompt(scores, "published-notebook")
    order = numbers(prompts.build_prompt(scores, "as-printed"))
    assert prompts.SHORT_INSTRUCTION in prompt
    assert "0.123, " in prompt and "0.005, " in prompt
    assert numbers(prompt) == [round(value, 3) for value in order]


# --- operating points -------------------------------------------------------


def f_beta(said, truth, beta):
    hits = (said & truth.astype(bool)).sum()
    weight = said.sum() + beta**2 * truth.sum()
    return (1 + beta**2) * hits / max(weight, 1)


def brute_force(score, truth, beta):
    """The best F-beta that any threshold reaches."""
    best = 0.0
    for threshold in [*score, score.max() + 1]:
        best = max(best, f_beta(score >= threshold, truth, beta))
    return best


def data(seed, n=40, decimals=1):
    """Random studies; few decimals make ties."""
    rng = np.random.default_rng(seed)
    scores = {
        f"s{i}": {
            view: dict(zip(CONDITIONS, rng.random(18).round(decimals)))
            for view in VIEWS
        }
        for i in range(n)
    }
    labels = {
        study_id: dict(zip(CONDITIONS, (rng.random(18) < 0.3).astype(int)))
        for study_id in scores
    }
    return scores, labels


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_operating_points_reach_the_best_f_beta(seed, decimals, beta):
    scores, labels = data(seed, decimals=decimals)
    table = prompts.operating_points(scores, labels, beta)
    table = table.set_index("condition")
    means = pd.DataFrame(
        {s: prompts.mean_scores(v) for s, v in scores.items()}
    ).T
    truth = pd.DataFrame(labels).T
    assert list(table.index) == list(CONDITIONS)
    for condition, row in table.iterrows():
        best = brute_force(
            means[condition].to_numpy(), truth[condition].to_numpy(), beta
        )
        assert row["train_f_beta"] == pytest.approx(best)
        said = means[condition] >= row["operating_point"]
        reached = f_beta(said, truth[condition], beta)
        assert reached == pytest.approx(best)  # really, not on paper
        assert row["train_prevalence"] == truth[condition].mean()


def test_a_condition_without_a_positive_study_is_never_named():
    scores, labels = data(1)
    for study_id in labels:
        labels[study_id]["Hernia"] = 0
        scores[study_id]["frontal"]["Hernia"] = 1.0
        scores[study_id]["lateral"]["Hernia"] = 1.0
    table = prompts.operating_points(scores, labels).set_index("condition")
    assert table.loc["Hernia", "train_f_beta"] == 0
    points = table["operating_point"].to_dict()
    assert all(
        "Hernia" not in prompts.names_above(s, points)
        for s in scores.values()
    )


def test_studies_without_label_or_image_have_no_say():
    scores, labels = data(2)
    table = prompts.operating_points(scores, labels)
    scores["unlabelled"] = study(frontal=1.0, lateral=1.0)
    scores["blind"] = {}
    labels["blind"] = dict.fromkeys(CONDITIONS, 1)
    labels["nowhere"] = dict.fromkeys(CONDITIONS, 1)
    pd.testing.assert_frame_equal(
        prompts.operating_points(scores, labels), table
    )


# --- the table --------------------------------------------------------------


def words(texts):
    """A tokenizer of words with a start token."""
    return {"input_ids": [[0, *text.split()] for text in texts]}


@pytest.fixture
def studies():
    rows = [
        ("CXR1", "train", "The heart is big."),
        ("CXR2", "test", "Nothing to see."),
        ("CXR3", "none", "Never used."),
        ("CXR4", "val", "One view only."),
        ("CXR5", "train", "No image at all."),
    ]
    return pd.DataFrame(rows, columns=["study_id", "split", "findings"])


@pytest.fixture
def scores():
    return {
        "CXR1": study(Cardiomegaly=0.9),
        "CXR2": study(),
        "CXR3": study(),
        "CXR4": {"frontal": study()["frontal"]},
    }


@pytest.mark.parametrize(
    ("score_format", "kept", "left_out"),
    [
        ("names", ["CXR1", "CXR2", "CXR4"], 0),
        ("paper", ["CXR1", "CXR2"], 1),
        ("as-printed", ["CXR1", "CXR2"], 1),
        ("two-decimals", ["CXR1", "CXR2"], 1),
        ("pairs", ["CXR1", "CXR2", "CXR4"], 0),
    ],
)
def test_the_prompts_of_a_split(studies, scores, score_format, kept, left_out):
    points = dict(NEVER, Cardiomegaly=0.5)
    table, count = prompts.prompt_table(
        studies, scores, score_format, points, words
    )
    assert list(table["study_id"]) == kept
    assert count == left_out
    assert list(table["split"]) == [
        studies.set_index("study_id")["split"][s] for s in kept
    ]
    assert table["completion"].iloc[0] == "The heart is big."
    assert set(table["score_format"]) == {score_format}
    assert table["prompt"].iloc[0] == prompts.build_prompt(
        scores["CXR1"], score_format, points
    )
    lengths = [1 + len(p.split()) for p in table["prompt"]]
    assert list(table["n_prompt_tokens"]) == lengths


def test_scores_go_through_the_artifact_by_name():
    row = {"study_id": "CXR1", "view": "frontal", "backbone": "x"}
    row |= {name: place / 100 for place, name in enumerate(NATIVE_ORDER)}
    found = prompts.by_study(pd.DataFrame([row]))
    assert found["CXR1"]["frontal"]["Pneumothorax"] == 0.03
    assert "lateral" not in found["CXR1"]


# --- answers and tokens -----------------------------------------------------


def test_the_answer_is_what_follows_the_last_header():
    prompt = prompts.build_prompt(study())
    assert prompts.answer(prompt + " The heart is big. \n") == (
        "The heart is big."
    )
    assert prompts.answer(prompt) == ""
    assert prompts.answer(prompt + "One.\n### Response:\nTwo.") == "Two."
    assert prompts.answer("The heart is big.") == "The heart is big."
