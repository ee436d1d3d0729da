"""The paper's equations as notebook 06 writes them, against the libraries."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import test_metrics
from conftest import run_cells
from nltk.translate.bleu_score import sentence_bleu
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

PAIRS = [pair[:2] for pair in test_metrics.PAIRS] + [
    ("old rib fractures on the left side are healed",
     "the lungs are clear and the rib fractures on the left are old")]
# No run of some length matches: log 0.
pytestmark = pytest.mark.filterwarnings("ignore")
#: Neither stems nor synonyms.
EXACT = SimpleNamespace(stem=lambda word: word, synsets=lambda word: [])


@pytest.fixture(scope="module")
def equations():
    return run_cells("06-08b", "06-08e", np=np, Counter=Counter)


@pytest.mark.parametrize("pair", PAIRS, ids=range(len(PAIRS)))
def test_the_equations_are_the_libraries(equations, pair):
    reference, candidate = (text.split() for text in pair)
    for order in range(1, min(4, len(candidate)) + 1):
        expected = sentence_bleu([reference], candidate, (1 / order,) * order)
        value = equations["bleu"](*pair, order=order)
        assert value == pytest.approx(expected, abs=1e-9)
    f1 = RougeScorer(["rougeL"]).score(*pair)["rougeL"].fmeasure
    assert equations["rouge_l"](*pair, 1) == pytest.approx(f1, abs=1e-12)
    coco = Rouge().calc_score([pair[1]], [pair[0]])
    assert equations["rouge_l"](*pair, 1.2) == pytest.approx(coco, abs=1e-12)
    expected = single_meteor_score(reference, candidate, stemmer=EXACT,
                                   wordnet=EXACT, alpha=0.9, beta=3, gamma=0.5)
    value = equations["meteor"](*pair, 0.9, 3, 0.5)
    assert value == pytest.approx(expected, abs=1e-12)


def test_equation_6_as_printed_rewards_repetition(equations):
    pair = "the lungs are clear", "the the the the"
    assert equations["bleu"](*pair, clip=False, order=1) == pytest.approx(1)
    assert equations["bleu"](*pair, order=1) == pytest.approx(0.25)
