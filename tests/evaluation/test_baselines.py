"""Baselines: exact where they claim to be, and never out of thin air."""

from types import SimpleNamespace

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer

from llamaxr_utils.datasets.conditions import CONDITIONS, FINDING_OF
from llamaxr_utils.evaluation import baselines, clinical, metrics

TEXTS = [
    "The lungs are clear. The heart is normal.",
    "The lungs are clear. There is no effusion.",
    "The lungs are clear. The heart is normal. There is no effusion.",
    "A large mass fills the left upper lobe.",
    "A large mass fills the left upper lobe.",
    "Sternal wires are broken.",
]


def test_medoid_is_the_one_that_the_library_finds():
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(500)])
    random = [" ".join(words[rng.zipf(1.6, rng.integers(10, 60)) % 500])
              for _ in range(25)]
    cleaned = SimpleNamespace(
        tokenize=lambda text: metrics.clean_r2gen(text).split())
    rouge = RougeScorer(["rougeL"], tokenizer=cleaned)
    for texts in (TEXTS, random):
        means = [np.mean([rouge.score(r, c)["rougeL"].fmeasure
                          for r in texts]) for c in texts]
        best = texts[int(np.argmax(means))]
        assert baselines.medoid(texts) == best
    assert baselines.medoid(TEXTS) == TEXTS[0]
    assert baselines.medoid(TEXTS + [TEXTS[5]] * 20) == TEXTS[5]


def test_utility_by_bleu_is_nltks():
    clean = [metrics.clean_r2gen(text).split() for text in TEXTS]
    smooth = SmoothingFunction().method2
    expected = [[sentence_bleu([r], c, smoothing_function=smooth)
                 for r in clean] for c in clean]
    utility = baselines.utilities(TEXTS, "BLEU-4")
    np.testing.assert_allclose(utility, expected, atol=1e-12)


def test_consensus_lies_between_the_neighbour_and_the_constant():
    train, utility = np.arange(6.0)[:, None], baselines.utilities(TEXTS)
    near, crowd, everyone = (
        baselines.consensus(-abs(train - train.T) / tau, TEXTS, utility)
        for tau in (0.01, 4, np.inf))
    assert near == TEXTS
    assert set(everyone) == {baselines.medoid(TEXTS)}
    weights = np.exp(-np.abs(train - train.T) / 4)
    best = [max(range(6), key=lambda i: row @ utility[i]) for row in weights]
    assert crowd == [TEXTS[i] for i in best]
    assert crowd != near and len(set(crowd)) > 1


def test_nearest_neighbour_and_ties():
    train = np.eye(6)
    near = baselines.nearest_neighbour(train, TEXTS, train[[5, 0]] * 0.9)
    assert near == [TEXTS[5], TEXTS[0]]
    train = np.zeros((6, 2))
    train[3:] = 1
    tied = baselines.nearest_neighbour(train, TEXTS, np.array([[0, 0.1]]))
    assert tied == [baselines.medoid(TEXTS[:3])] == [TEXTS[2]]


def test_template_has_one_sentence_a_condition():
    sentences = baselines.SENTENCES
    report = baselines.template_report(["Mass", "Edema"])
    assert report == f"{sentences['Edema']} {sentences['Mass']}"
    assert tuple(sentences) == (*CONDITIONS, "none")
    assert not clinical.present(baselines.template_report([]))
    for condition, sentence in list(sentences.items())[:-1]:
        assert FINDING_OF[condition] in clinical.present(sentence)
