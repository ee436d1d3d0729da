"""The printed equations against the libraries, and where they part."""

from __future__ import annotations

import math
import warnings

import pytest
from nltk.translate.bleu_score import sentence_bleu
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

from llamaxr_utils.evaluation import equations
from llamaxr_utils.evaluation.meteor import JarWordNet

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
    ("the aorta is tortuous", "a granuloma lies in one lobe"),
    ("the scar is old", "the scar"),
]
CHANCE = [f"{i}-{pair[1][:12]}" for i, pair in enumerate(PAIRS)]


class NoStems:
    def stem(self, word):
        return word


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("pair", PAIRS, ids=CHANCE)
def test_bleu_is_nltks_without_smoothing_once_it_clips(pair, order):
    reference, candidate = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = (1 / order,) * order
        expected = sentence_bleu(
            [reference.split()], candidate.split(), weights
        )
    found = equations.bleu(reference, candidate, order, clip=True)
    assert found == pytest.approx(expected, abs=1e-9)


def test_equation_6_as_printed_rewards_repetition():
    reference, said = "the lungs are clear", "the the the the"
    assert equations.bleu(reference, said, order=1) == 1.0
    assert equations.bleu(reference, said, order=1, clip=True) == 0.25
    # Where nothing is repeated, both are the same.
    pair = PAIRS[1]
    assert equations.bleu(*pair) == equations.bleu(*pair, clip=True)


def test_brevity_penalty_by_hand():
    # Equation 5: two of four words, all of them right.
    found = equations.bleu("the scar is old", "the scar", order=2)
    assert found == pytest.approx(math.exp(1 - 4 / 2))


@pytest.mark.parametrize("pair", PAIRS, ids=CHANCE)
def test_rouge_l_is_rouge_scores_at_beta_1_and_cocos_at_1_2(pair):
    reference, candidate = pair
    f1 = RougeScorer(["rougeL"]).score(reference, candidate)["rougeL"]
    assert equations.rouge_l(*pair) == pytest.approx(f1.fmeasure, abs=1e-12)
    coco = Rouge().calc_score([candidate], [reference])
    found = equations.rouge_l(*pair, beta=1.2)
    assert found == pytest.approx(coco, abs=1e-12)


def test_beta_matters_where_lengths_differ():
    pair = PAIRS[5]
    assert equations.rouge_l(*pair, beta=1.2) < equations.rouge_l(*pair)
    assert equations.rouge_l(*PAIRS[0]) == 1.0


@pytest.mark.parametrize("pair", PAIRS, ids=CHANCE)
def test_meteor_is_nltks_on_exact_matches(pair):
    reference, candidate = (text.split() for text in pair)
    expected = single_meteor_score(
        *(reference, candidate),
        stemmer=NoStems(),
        wordnet=JarWordNet(None),
        alpha=0.9,
        beta=3,
        gamma=0.5,
    )
    assert equations.meteor(*pair) == pytest.approx(expected, abs=1e-12)


def test_meteor_by_hand():
    # Four of five words in two chunks: "the heart", "is enlarged".
    found = equations.meteor(
        "the heart size is enlarged", "the heart is enlarged"
    )
    mean = 1.0 * 0.8 / (0.9 * 1.0 + 0.1 * 0.8)
    assert found == pytest.approx(mean * (1 - 0.5 * (2 / 4) ** 3))


@pytest.mark.parametrize(
    "score", [equations.bleu, equations.rouge_l, equations.meteor]
)
def test_nothing_in_common_and_empty_texts_score_zero(score):
    for pair in (("heart", "lung"), ("", "lung"), ("heart", ""), ("", "")):
        assert score(*pair) == 0.0


@pytest.mark.parametrize("pair", PAIRS, ids=CHANCE)
def test_the_table_beside_the_libraries_agrees_with_itself(pair):
    table = equations.beside_libraries(*pair)
    with_library = table.dropna(subset=["library value"])
    assert len(with_library) == 4
    expected = with_library["library value"].tolist()
    assert with_library["value"].tolist() == pytest.approx(expected, abs=1e-9)
    assert set(table["equations"]) == {"4-7", "8-10", "11-15"}
