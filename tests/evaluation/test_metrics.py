"""The scoring protocols: to the digit, and on every odd input."""

from __future__ import annotations

import gzip
import json
import math
import os
import sys

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.evaluation import meteor, metrics
from llamaxr_utils.evaluation.metrics import score_reports

PEER = os.environ.get("LLAMAXR_PEER_CSV")
needs_java = pytest.mark.skipif(
    meteor.java_version() is None, reason="METEOR 1.5 needs Java")
PROTOCOLS = ("llamaxr", "r2gen")
NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "METEOR"]

# Reference, candidate, then counted by hand: candidate and reference
# length, clipped n-gram matches, the n-grams of the candidate, the longest
# common subsequence of stems (llamaxr) and of words (r2gen), METEOR's
# matched words and chunks.
PAIRS = [
    ("the heart is normal in size", "the heart is enlarged",
     (4, 6), (3, 2, 1, 0), (4, 3, 2, 1), 3, 3, 3, 1),
    ("both lungs are clear", "both lungs are clear",
     (4, 4), (4, 3, 2, 1), (4, 3, 2, 1), 4, 4, 4, 1),
    # one stem: effusion(s)
    ("small pleural effusions are seen", "small pleural effusion is seen",
     (5, 5), (3, 1, 0, 0), (5, 4, 3, 2), 4, 3, 4, 2),
    # clipping: the repeated word counts once
    ("heart size normal", "heart heart heart",
     (3, 3), (1, 0, 0, 0), (3, 2, 1, 1), 1, 1, 1, 1),
    # the same words in another order
    ("no effusion or pneumothorax", "no pneumothorax or effusion",
     (4, 4), (4, 0, 0, 0), (4, 3, 2, 1), 2, 2, 4, 4),
]
REFERENCES = [pair[0] for pair in PAIRS]
CANDIDATES = [pair[1] for pair in PAIRS]


def f_score(lcs, candidate, reference, beta):
    p, r = lcs / candidate, lcs / reference
    return (1 + beta**2) * p * r / (r + beta**2 * p) if lcs else 0.0


def brevity(candidate, reference):
    return min(1.0, math.exp(1 - reference / candidate))


def root(values):
    """Geometric means of the first 1, 2, 3, 4 values."""
    return [math.prod(values[:n]) ** (1 / n) for n in (1, 2, 3, 4)]


def test_llamaxr_equals_hand_computed_values():
    expected = []
    for _, _, (c, r), matches, grams, stems, _, m, chunks in PAIRS:
        # Method 1: where nothing matches, a tenth of a match.
        precision = [(k or 0.1) / n for k, n in zip(matches, grams)]
        bleu = [brevity(c, r) * value for value in root(precision)]
        mean = (m / c) * (m / r) / (0.9 * m / c + 0.1 * m / r)
        meteor_ = mean * (1 - 0.5 * (chunks / m) ** 3)
        expected.append([*bleu, f_score(stems, c, r, 1.0), meteor_])
    scores = score_reports(REFERENCES, CANDIDATES)
    values = scores["per_report"][NAMES].to_numpy()
    np.testing.assert_allclose(values, expected, atol=1e-6)
    for name, mean in zip(NAMES, np.mean(expected, axis=0)):
        assert scores[name] == pytest.approx(mean, abs=1e-6)


def test_r2gen_equals_hand_computed_values(no_java):
    lengths = np.sum([pair[2] for pair in PAIRS], axis=0)
    matches = np.sum([pair[3] for pair in PAIRS], axis=0)
    # No floor of one here: the three-word candidate has no 4-gram.
    grams = np.sum([pair[4] for pair in PAIRS], axis=0) - [0, 0, 0, 1]
    bleu = [brevity(*lengths) * v for v in root(matches / grams)]
    rouge = [f_score(pair[6], *pair[2], 1.2) for pair in PAIRS]
    scores = score_reports(REFERENCES, CANDIDATES, "r2gen", (), "none")
    values = [scores[name] for name in NAMES[:5]]
    np.testing.assert_allclose(values, [*bleu, np.mean(rouge)], atol=1e-6)
    texts = ["the lungs are both clear", "old rib fractures on one side"]
    same = score_reports(texts, texts, "r2gen", vocabulary=())
    assert same["CIDEr"] == pytest.approx(10)
    nothing = metrics.bleu_statistics(["lungs clear"], [""])
    assert (metrics.bleu_from_statistics(nothing) == 0).all()


@pytest.mark.skipif(not PEER, reason="LLAMAXR_PEER_CSV is not set")
@needs_java
def test_published_figures_of_a_peer():
    """CvT2DistilGPT2's README, from its published predictions."""
    peer = pd.read_csv(PEER)
    scores = score_reports(peer["reference"], peer["generated"], "r2gen")
    expected = [0.47341, 0.30362, 0.22399, 0.17524, 0.37611, 0.19991]
    values = [scores[name] for name in NAMES]
    np.testing.assert_allclose(values, expected, atol=0.00001)
    statistics = np.stack(scores["per_report"]["meteor_stats"])
    again = meteor.meteor_from_statistics(statistics.sum(axis=0))
    assert again == pytest.approx(scores["METEOR"], abs=1e-9)


ODD = {
    "empty": "", "blank": " \t ", "dots": "...", "none": None, "nan": math.nan,
    "plain": "the lungs are clear",
    "line breaks": "the lungs\r\nare\u2028clear\n",
    "nul": "the\x00lungs are clear",
    "escape": "the\x1blungs\x7fare clear\ud800",
    "separator": "the lungs ||| are clear",
    "non-ascii": "the lungs are clear – größe 正常",
    "long": "the lungs are clear " * 2500,
}
EMPTY = list(ODD)[:5]


@pytest.mark.parametrize(
    "protocol", ["llamaxr", pytest.param("r2gen", marks=needs_java)])
def test_odd_candidates(protocol, capfd, monkeypatch):
    # The numbers differ, or all of CIDEr's weights would be 0.
    references = [f"the lungs are clear {i}" for i in range(len(ODD) + 1)]
    candidates = [*ODD.values(), references[-1]]
    scores = score_reports(references, candidates, protocol, vocabulary=())
    assert capfd.readouterr().out == ""
    assert scores["record"]["n_empty_candidates"] == len(EMPTY)
    json.dumps(scores["record"])
    table = scores["per_report"][:-1].set_index(pd.Index(ODD))
    table = table[["BLEU-1", "ROUGE-L", "METEOR"]]
    assert (table.loc[EMPTY] == 0).all(axis=None)
    assert (table.drop(index=EMPTY) > 0).all(axis=None)
    for same in ("line breaks", "nul", "escape"):
        np.testing.assert_array_equal(table.loc[same], table.loc["plain"])
    assert (table.loc["long"] < table.loc["plain"]).all()
    if protocol == "llamaxr":
        return
    assert scores["record"]["n_cut_for_meteor"] == 1
    each = scores["per_report"]["METEOR"]
    assert each[len(ODD)] == 1
    # The corpus figure comes from sums, it is not the mean.
    assert abs(scores["METEOR"] - each.mean()) > 0.01
    statistics = np.stack(scores["per_report"]["meteor_stats"])
    again = meteor.meteor_from_statistics([*statistics, statistics.sum(0)])
    # The perfect pair adds no chunk: the jar's sum is not the plain one.
    np.testing.assert_allclose(again, [*each, scores["METEOR"]], atol=1e-9)
    assert statistics[-1, 20] == 0
    monkeypatch.setattr(meteor, "PIECE", 5)
    pieces = score_reports(references, candidates, protocol, vocabulary=())
    assert pieces["METEOR"] == pytest.approx(scores["METEOR"], abs=1e-12)
    np.testing.assert_array_equal(pieces["per_report"]["METEOR"], each)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_single_pairs_empty_references_any_cleaning(protocol, no_java):
    scores = score_reports(["No effusion."], ["No effusion."], protocol)
    assert scores["record"]["n"] == len(scores["per_report"]) == 1
    assert scores["ROUGE-L"] == 1 and not scores.get("CIDEr")
    references = ["the lungs are clear", None, "...", "the heart is large"]
    scores = score_reports(references, references, protocol)
    assert scores["record"]["n_dropped"] == 2
    assert list(scores["per_report"].index) == [0, 3]
    pair = ["The Lungs are clear."], ["the lungs are clear"]
    bleu = {name: score_reports(*pair, protocol, (), name)["BLEU-1"]
            for name in metrics.CLEANINGS}
    assert bleu["r2gen"] == pytest.approx(1) and bleu["none"] < 0.6
    for texts in ((["...", ""], ["a", "b"]), ([], [])):
        with pytest.raises(CourseError, match="no pair to score"):
            score_reports(*texts, protocol)
    with pytest.raises(ValueError):
        score_reports(["a b", "c d"], ["a b"], protocol)


def test_unknown_words_and_the_cut_touch_references_only(no_java):
    words = [f"word{i}" for i in range(70)]
    text = " ".join(words)

    def bleu_1(**options):
        return score_reports([text], [text], "r2gen", **options)["BLEU-1"]

    # The candidate has 71 words (a full stop is added), 59 count.
    assert bleu_1(vocabulary=words) == pytest.approx(59 / 71)
    assert bleu_1(vocabulary=words[:20]) == pytest.approx(20 / 71)
    unknown = score_reports(
        [text], ["<unk> " * 71], "r2gen", words[:1], "none")
    assert unknown["BLEU-1"] == pytest.approx(58 / 71)
    bundled = metrics.r2gen_vocabulary()
    assert len(bundled) == 759 and "<unk>" not in bundled
    assert {".", "xxxx", "pneumothorax"} <= bundled


def test_r2gen_cleaning_and_the_authors_that_loses_the_negation():
    for text, cleaned in {
        "Clear lungs. No effusion.": "clear lungs . no effusion .",
        "1. Mild edema. 2. Old scar.": "mild edema . old scar .",
        "Well-expanded; (left/right) T-11..": "well-expanded leftright t-11 .",
        'The "normal" heart\'s size': "the normal hearts size .",
        "size of 2.5 cm seen": "size of 25 cm seen .",
        "": ".",
    }.items():
        assert metrics.clean_r2gen(text) == cleaned
    cleaned = metrics.clean_author("No focal XXXX or pneumothorax. T-11 ok.")
    assert cleaned == "focal pneumothora."


def test_paraphrases_of_the_words_at_hand(folders, monkeypatch):
    kept = [("clear", "lungs clear"), ("n't do", "clear"), ("café", "10 mm"),
            ("ap", "a - p"), ("do not", "don't")]
    others = [("clear", "zebra"), ("gazelle", "clear"), ("777", "clear")]
    whole = folders.parent / "whole.gz"
    with gzip.open(whole, "wt", encoding="utf-8") as table:
        for a, b in [*kept, *others]:
            print(0.5, a, b, sep="\n", file=table)
    monkeypatch.setattr(meteor, "PARAPHRASES", whole)
    monkeypatch.setattr(meteor, "cache_folder", lambda: folders.parent)
    words = meteor.words_of(["Lungs clear, 10mm.", "A.P. don't"])
    table, lacks = meteor.paraphrases(words)
    assert lacks == {"zebra", "gazelle", "777"}
    lines = gzip.decompress(table.read_bytes()).decode().splitlines()
    assert list(zip(lines[1::3], lines[2::3], strict=True)) == kept
    whole.unlink()  # fewer words, and none of any table, need no new one
    words = frozenset({"clear", "clearopathy"})
    assert meteor.paraphrases(words) == (table, lacks)


def locked():
    raise CourseError("a table could not be written", "locked", "unlock")


@pytest.mark.parametrize(("name", "broken"), [
    ("cache_folder", locked),  # where no table can be kept
    ("COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])])
def test_meteor_alone_is_lost_where_java_is_silent_or_has_no_table(
        name, broken, monkeypatch):
    monkeypatch.setattr(meteor, "_running", [])
    monkeypatch.setattr(meteor, name, broken)
    monkeypatch.setattr(metrics, "java_version", lambda: "17")
    monkeypatch.setattr(meteor, "TIMEOUT", 0.05)
    scores = score_reports(REFERENCES, CANDIDATES, "r2gen", vocabulary=())
    assert scores["METEOR"] is None and scores["BLEU-1"] > 0
    assert "METEOR stopped (" in scores["record"]["java"]
    assert scores["per_report"]["METEOR"].isna().all()


def test_synonyms_come_from_the_jar_and_the_record_says_so():
    # Words that are their own stems: nltk looks stems up.
    scores = score_reports(["the scar is old"], ["the mark is old"])
    assert scores["record"]["synonyms"].startswith("WordNet 3.0 table of the")
    # Four words matched in one chunk, not three in two.
    assert scores["METEOR"] == pytest.approx(1 - 0.5 / 4**3)
    reader = meteor.wordnet()

    def synonyms(word):
        return {lemma.name() for synset in reader.synsets(word)
                for lemma in synset.lemmas()}

    assert "large" in synonyms("big") and "large" in synonyms("biggest")
    assert "lung" in synonyms("lungs") and "vertebra" in synonyms("vertebrae")
    assert synonyms("qwertz") == set()
