"""The paper's equations as notebook 06 writes them, against the libraries."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from nltk.translate.bleu_score import sentence_bleu
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

NOTEBOOK = Path(__file__).parents[2] / "notebooks/06_evaluate_reports.ipynb"
PAIRS = [
    ("the heart is normal and the lungs are clear",) * 2,
    (
        "there is a small left pleural effusion and the heart is enlarged",
        "the heart is enlarged there is a small pleural effusion",
    ),
    (
        "no focal consolidation no effusion and no pneumothorax is seen",
        "no no no no effusion is seen",
    ),
    (
        "old rib fractures on the left side are healed",
        "the lungs are clear and the rib fractures on the left are old",
    ),
    ("the scar is old", "the scar"),
]
either = pytest.mark.parametrize("pair", PAIRS, ids=range(len(PAIRS)))


class Exact:
    """Neither stems nor synonyms."""

    def stem(self, word):
        return word

    def synsets(self, word):
        return []


@pytest.fixture(scope="module")
def equations():
    """The functions that the notebook's cells define."""
    names = {"np": np, "Counter": Counter}
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["id"].startswith("06-08") and cell["source"][0][:4] == "def ":
            exec("".join(cell["source"]), names)  # noqa: S102
    return names


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():  # no run of some length matches: log 0
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@either
def test_bleu_is_nltks_without_smoothing_once_it_clips(equations, pair, order):
    reference, candidate = (text.split() for text in pair)
    if len(candidate) < order:
        return
    weights = (1 / order,) * order
    expected = sentence_bleu([reference], candidate, weights)
    value = equations["bleu"](*pair, order=order)
    assert value == pytest.approx(expected, abs=1e-9)


def test_equation_6_as_printed_rewards_repetition(equations):
    pair = "the lungs are clear", "the the the the"
    assert equations["bleu"](*pair, clip=False, order=1) == pytest.approx(1)
    assert equations["bleu"](*pair, order=1) == pytest.approx(0.25)


@either
def test_rouge_l_is_rouge_scores_at_beta_1_and_cocos_at_1_2(equations, pair):
    f1 = RougeScorer(["rougeL"]).score(*pair)["rougeL"].fmeasure
    assert equations["rouge_l"](*pair, 1) == pytest.approx(f1, abs=1e-12)
    coco = Rouge().calc_score([pair[1]], [pair[0]])
    assert equations["rouge_l"](*pair, 1.2) == pytest.approx(coco, abs=1e-12)


@either
def test_meteor_is_nltks_on_exact_matches(equations, pair):
    expected = single_meteor_score(
        *(text.split() for text in pair),
        stemmer=Exact(), wordnet=Exact(), alpha=0.9, beta=3, gamma=0.5)
    value = equations["meteor"](*pair, 0.9, 3, 0.5)
    assert value == pytest.approx(expected, abs=1e-12)
