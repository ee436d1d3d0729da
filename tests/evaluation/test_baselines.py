"""Baselines: exact where they claim to be, and never out of thin air."""

from __future__ import annotations

import time

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets.conditions import CONDITIONS
from llamaxr_utils.evaluation import baselines

TEXTS = [
    "The lungs are clear. The heart is normal.",
    "The lungs are clear. There is no effusion.",
    "The lungs are clear. The heart is normal. There is no effusion.",
    "A large mass fills the left upper lobe.",
    "A large mass fills the left upper lobe.",
    "Sternal wires are broken.",
]


def made_up_reports(n, seed=0):
    rng = np.random.default_rng(seed)
    words = np.array([f"word{i}" for i in range(500)])
    return [
        " ".join(words[rng.zipf(1.6, rng.integers(10, 60)) % 500])
        for _ in range(n)
    ]


def test_most_frequent_report():
    assert baselines.most_frequent(TEXTS) == TEXTS[3]
    assert baselines.most_frequent(["b", "a", "", "", ""]) == "b"


@pytest.mark.parametrize("texts", [TEXTS, made_up_reports(25)])
def test_medoid_is_the_one_that_the_library_finds(texts):
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    means = [
        np.mean([rouge.score(r, c)["rougeL"].fmeasure for r in texts])
        for c in texts
    ]
    best = texts[int(np.argmax(means))]
    assert baselines.medoid(texts, "llamaxr") == best


def test_medoid_counts_repeated_reports():
    assert baselines.medoid(TEXTS) == TEXTS[0]
    assert baselines.medoid(TEXTS + [TEXTS[5]] * 20) == TEXTS[5]


def test_medoid_of_a_training_split_is_quick():
    texts = made_up_reports(2069)
    start = time.perf_counter()
    assert baselines.medoid(texts) in texts
    assert time.perf_counter() - start < 15


def test_random_reports_follow_the_seed():
    first = baselines.random_reports(TEXTS, 50, seed=1)
    assert first == baselines.random_reports(TEXTS, 50, seed=1)
    assert first != baselines.random_reports(TEXTS, 50, seed=2)
    assert len(first) == 50 and set(first) <= set(TEXTS)


def test_nearest_neighbour_takes_the_nearest_report():
    train = np.eye(6)
    test = train[[5, 0]] * 0.9
    found = baselines.nearest_neighbour(train, TEXTS, test)
    assert found == [TEXTS[5], TEXTS[0]]


def test_tied_neighbours_are_settled_by_their_medoid():
    train = np.zeros((6, 2))
    train[3:] = 1
    found = baselines.nearest_neighbour(train, TEXTS, np.array([[0, 0.1]]))
    assert found == [baselines.medoid(TEXTS[:3])] == [TEXTS[2]]


@pytest.mark.parametrize(
    ("train", "texts", "test", "message"),
    [
        (np.eye(2), ["a", "b"], np.eye(3), "do not fit"),
        (np.eye(2), ["a"], np.eye(2), "2 training vectors, but 1"),
        (np.eye(2) * np.nan, ["a", "b"], np.eye(2), "missing values"),
    ],
)
def test_vectors_that_do_not_fit(train, texts, test, message):
    with pytest.raises(CourseError, match=message):
        baselines.nearest_neighbour(train, texts, test)


def test_template_has_one_sentence_a_condition():
    assert set(baselines.SENTENCES) == set(CONDITIONS)
    assert len(set(baselines.SENTENCES.values())) == len(CONDITIONS)
    assert all(s.count(".") == 1 for s in baselines.SENTENCES.values())
    said = baselines.template_report(["Mass", "Edema"])
    sentences = baselines.SENTENCES
    assert said == f"{sentences['Edema']} {sentences['Mass']}"
    assert baselines.template_report([]) == baselines.NORMAL_REPORT
    with pytest.raises(CourseError, match="Not a condition: Gallstone"):
        baselines.template_report(["Gallstone"])


@pytest.mark.parametrize(
    "baseline", [baselines.most_frequent, baselines.medoid]
)
def test_no_training_report(baseline):
    with pytest.raises(CourseError, match="no training report"):
        baseline(["", " ", None])
    with pytest.raises(CourseError, match="no training report"):
        baselines.random_reports([], 3)


def test_medoid_of_an_unknown_protocol():
    with pytest.raises(CourseError, match="not known"):
        baselines.medoid(TEXTS, "bleu")
