"""Designs: what is read, one row, the log; nothing here needs a real run."""

from types import SimpleNamespace

import log_designs
import numpy as np
import pandas as pd
import pytest
from conftest import keep, run_cells
from scipy import stats
from test_models import tiny_tokenizer

from llamaxr_utils.course import plots
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets.conditions import CONDITIONS, VIEWS
from llamaxr_utils.llm import finetune, prompts
from llamaxr_utils.studies import designs

pytestmark = pytest.mark.usefixtures("no_java")
HEART, CLEAR = "The heart is enlarged.", "The lungs are clear. Normal heart."
N = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Studies with a large heart and normal ones; the scores know, mostly."""
    folder = tmp_path_factory.mktemp("runs") / "cpu"
    rng = np.random.default_rng(0)
    big = rng.random(N) < 0.5
    ids = [f"CXR{i}" for i in range(N)]
    split = np.where(np.arange(N) % 5 == 0, "test", "train")
    split[1::5] = "val"
    studies = pd.DataFrame({
        "study_id": ids,
        "findings": np.where(big, HEART, CLEAR),
        "mesh": [["Cardiomegaly"] if b else ["normal"] for b in big],
        "status": np.where(big, "abnormal", "normal"),
        "split": split,
    })
    scores = pd.DataFrame(rng.random((2 * N, 18)) * 0.3, columns=CONDITIONS)
    scores["Cardiomegaly"] += 0.6 * np.repeat(big, 2)
    scores.insert(0, "study_id", np.repeat(ids, 2))
    scores.insert(1, "view", list(VIEWS) * N)
    scores.insert(2, "backbone", "densenet-small@random")
    keep(folder, "studies", studies, images="phantom")
    keep(folder, "image_scores", scores, images="phantom")
    keep(folder, "tokenizer", tiny_tokenizer().save_pretrained,
         images="phantom", BASE="random-llama")
    return designs.load_data(folder, folder.parent / "scratch")


def design(**changed):
    return designs.designs()["stated"]._replace(**changed)


def test_every_design_can_be_read_and_says_what_it_is():
    table = designs.designs()
    kinds = {"bare", "headings", "names", "prompts", "stated"}
    for one in table.values():
        assert one.score_format in prompts.NUMBERS + prompts.WORDS
        assert one.train_on in ("scores", "labels", "stated")
        assert set(one.pretrain.replace(" ", "").split(",")) <= kinds
    unnamed = {one._replace(name="", about="") for one in table.values()}
    assert len(unnamed) == len(table), "two designs are the same"


def test_prompts_come_from_reports_in_training_and_from_scores_in_tests(data):
    points = dict.fromkeys(CONDITIONS, 2.0)  # the network names none
    given = designs.prompts_of(data, design(), points)
    asked = designs.prompts_of(data, design(), points, "scores")
    texts = data.studies.set_index("study_id")["findings"]
    for study, text in texts.items():
        assert ("cardiomegaly" in given[study]) == (text == HEART)
        assert "no finding" in asked[study]
    blind = data._replace(scores=data.scores.iloc[:0])
    assert designs.prompts_of(blind, design(), points, "scores") == {}
    assert designs.prompts_of(blind, design(), points) == given
    assert designs.training_pairs(blind, given, 1).empty
    with pytest.raises(CourseError, match="'guesses' is not known"):
        designs.prompts_of(data, design(train_on="guesses"), points)
    # A study without a view is left out of numbers.
    first, *rest = data.studies["study_id"]
    less = data._replace(scores=data.scores.drop((first, "lateral")))
    paper = design(score_format="two-decimals", train_on="scores")
    assert set(designs.prompts_of(less, paper, points)) == set(rest)
    assert first in designs.prompts_of(less, design(), points)


def test_pairs_are_of_training_and_validation_studies(data):
    asked = dict.fromkeys(data.studies["study_id"], "### Response:\n")
    pairs = designs.training_pairs(data, asked, 1)
    assert pairs["split"].value_counts().to_dict() == {"train": 24, "val": 8}
    some = designs.training_pairs(data._replace(n_train=12), asked, 1)
    assert some["split"].value_counts().to_dict() == {"train": 12, "val": 3}
    assert list(some["completion"][:12]) == list(pairs["completion"][:12])


def test_numbers_of_a_perfect_and_of_a_constant_writer(data):
    truth = list(data.test["findings"])
    row = designs.measure(data, truth, n_samples=50)
    assert row["f1"] == row["abnormal_called"] == 1
    assert row["normal_called"] == 0
    assert row["gap"] == pytest.approx(row["f1"] - row["f1_shuffled"])
    assert row["gap_low"] > 0
    assert row["bleu4"] == pytest.approx(1, abs=1e-6)
    assert row["bleu4_over_nn_low"] <= row["bleu4_over_nn"]
    row = designs.measure(data, [HEART] * len(truth), n_samples=50)
    assert row["gap"] == 0 and row["distinct"] == 1
    assert row["normal_called"] == row["abnormal_called"] == 1


def test_a_row_from_training_to_numbers(data, monkeypatch):
    monkeypatch.setattr(designs, "NEW_TOKENS", 4)
    one = design(name="small", pretrain_epochs=1)
    base, seconds = log_designs.base_of(one, data, 1)
    data = data._replace(base=base)
    row = designs.run_design(one, data, 1)
    assert row["n"] == len(data.test) == 8
    assert row["tokens"] >= row["prompt_tokens"] > 5
    assert np.isfinite([row["val_loss"], row["bleu4"], row["gap_high"]]).all()
    assert not list((data.scratch / "work").glob("*"))
    monkeypatch.setattr(finetune, "train", None)  # nothing is trained twice
    assert log_designs.base_of(one, data, 1) == (base, seconds)
    again = designs.run_design(one._replace(name="other"), data, 1)
    changed = {k for k in row if row[k] != again[k]}
    assert changed <= {"design", "decode_seconds", "base_seconds"}


@pytest.fixture
def notebook():
    """What notebook 10 has defined once its log is read."""
    nb = SimpleNamespace(images="phantom")
    return run_cells("10-08", "10-08b", pd=pd, stats=stats, plots=plots, nb=nb)


def rows(space, **columns):
    more = dict.fromkeys([*space["MEANS"], *space["HIGHS"], "gap_low"], 0.5)
    return pd.DataFrame(more | columns).assign(images="phantom")


def test_the_interval_over_seeds_is_students(notebook):
    log = rows(notebook, design=["a", "a", "a", "b"], seed=[1, 2, 3, 1],
               gap=[0.1, 0.2, 0.3, 0.15])
    table = notebook["over_seeds"](log).set_index("design")
    assert table.loc["a", "gap"] == pytest.approx(0.2)
    half = 4.3027 * 0.1 / np.sqrt(3)  # t(.975, 2) = 4.3027; sd 0.1
    assert table.loc["a", "gap_to"] == pytest.approx(0.2 + half, abs=1e-5)
    assert np.isnan(table.loc["b", "gap_from"])
    assert list(table["seeds"]) == [3, 1]


def test_goals_come_before_the_gap(notebook):
    log = rows(notebook, design=["loud", "good", "flat"], seed=1,
               gap=[0.4, 0.2, 0.01], normal_called=[0.9, 0.1, 0.1],
               abnormal_called=0.7)
    tables = SimpleNamespace(save_table=lambda *_, **words: None)
    means = notebook["over_seeds"](log)
    goals = run_cells("10-21", "10-21b", pd=pd, means=means, tables=tables,
                      in_words={d: d for d in log["design"]}, nb=None)["goals"]
    assert list(goals["design"]) == ["good", "loud", "flat"]
    assert list(goals["reached"]) == [5, 4, 4]
    assert not goals.set_index("design").loc["flat", "gap"]
