"""The audit's scores: each verdict follows from its data, and turns."""

from __future__ import annotations

import pytest

from llamaxr_utils.datasets import reports
from llamaxr_utils.evaluation.metrics import score_reports
from llamaxr_utils.studies import audit

NORMAL = "The heart is normal in size . The lungs are clear ."
TEXTS = [
    NORMAL,
    "The heart is enlarged . No pleural effusion is seen .",
    "There is a nodule in the left lung . The heart is normal .",
    "Low lung volumes . No focal consolidation or effusion .",
]


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR 1.5 takes seconds to start, and no verdict here needs it."""
    name = "llamaxr_utils.evaluation.metrics.java_version"
    monkeypatch.setattr(name, lambda: None)


@pytest.fixture(scope="module")
def studies():
    return reports.load_studies()


def faked(**meteor):
    """Results with these METEORs by protocol, in each its own cleaning."""
    scores = {"BLEU-4": 0.1, "ROUGE-L": 0.3}
    return {
        ("llamaxr", "none"): {**scores, "METEOR": meteor["llamaxr"]},
        ("r2gen", "r2gen"): {**scores, "METEOR": meteor["r2gen"]},
    }


# --- a ----------------------------------------------------------------------


def test_a_the_verdict_turns_with_the_gap_between_the_rulers():
    high = audit.same_predictions(faked(llamaxr=0.302, r2gen=0.200))
    low = audit.same_predictions(faked(llamaxr=0.202, r2gen=0.200))
    assert high.answer == "the ruler gives the gain"
    assert "+51%" in high.verdict and "+54%" in high.verdict
    assert high.effect["METEOR"] == pytest.approx(0.102)
    assert low.answer == "the ruler does not give the gain"


@pytest.mark.parametrize("meteor", [None, 0.0])
def test_a_without_java_or_a_common_word_nothing_is_claimed(meteor):
    found = audit.same_predictions(faked(llamaxr=0.3, r2gen=meteor))
    assert found.answer == "not measurable here" and not found.effect


def test_a_scores_every_protocol_and_cleaning():
    found = audit.same_predictions(audit.score_all(TEXTS, TEXTS[::-1]))
    assert len(found.table) == 6
    assert len(found.table[["BLEU-4", "ROUGE-L"]].drop_duplicates()) > 2


# --- b ----------------------------------------------------------------------


def test_b_a_constant_reaches_a_claim_where_references_are_alike():
    train = [NORMAL] * 6 + TEXTS
    alike, medoid = audit.constant_report(train, [NORMAL] * 5, 50)
    assert alike.answer.endswith("the claimed ROUGE-L and METEOR")
    assert medoid["ROUGE-L"] > 0.9
    other = ["Sternotomy wires and surgical clips project midline."] * 5
    apart, _ = audit.constant_report(train, other, 50)
    assert apart.answer == "no constant report reaches a claimed number"
    assert apart.effect["METEOR"] < 0


def test_b_columns_without_xxxx_leave_these_pairs_out():
    train = [NORMAL] * 6 + TEXTS
    references = [NORMAL, "XXXX XXXX seen ."]
    table = audit.constant_report(train, references, 50)[0].table
    medoid = table.iloc[0]
    assert medoid["METEOR, no XXXX"] > medoid["METEOR"]


def test_b_the_best_meteor_is_a_longer_report_than_the_shortest():
    long = NORMAL + " There is no pleural effusion or pneumothorax ."
    train = [NORMAL, long, long + " No fracture ."] * 4
    assert audit.best_meteor(train) != NORMAL


# --- c ----------------------------------------------------------------------


def test_c_r2gens_list_is_not_random_and_agrees_with_what_is_known(studies):
    found = audit.r2gen_list(studies, {}, n_splits=10)
    assert found.answer == "R2Gen's test list is not like a random one"
    whole, first, rest = found.table.iloc[:3].itertuples(index=False)
    assert [round(100 * x) for x in whole[2:]] == [52, 47]
    assert [round(100 * x) for x in first[2:]] == [88, 96]
    assert [round(100 * x) for x in rest[2:]] == [37, 27]
    assert (first.n, rest.n) == (170, 420)


def test_c_studies_dealt_out_at_random_turn_the_verdict(studies):
    mixed = studies.copy()
    listed = mixed["split_r2gen"] != "none"
    columns = ["findings", "status"]
    mixed.loc[listed, columns] = (
        mixed.loc[listed, columns].sample(frac=1, random_state=4).to_numpy()
    )
    found = audit.r2gen_list(mixed, {}, n_splits=40)
    assert found.answer == "R2Gen's test list is like a random one"


def test_c_a_system_is_scored_by_part(studies):
    listed = reports.r2gen_split().query("split == 'test'")["study_id"]
    ids = [*listed[:3], *listed[300:303]]
    texts = [NORMAL] * 3 + [TEXTS[1]] * 3
    result = score_reports(texts, [NORMAL] * 6, "r2gen", vocabulary=[])
    found = audit.r2gen_list(studies, {"mine": (ids, result)}, n_splits=2)
    _, first, rest, *_ = found.table["mine: BLEU-4"]
    assert first > 0.9 > rest
    assert found.effect["BLEU-4"] == pytest.approx(first - rest)


# --- f ----------------------------------------------------------------------


def test_f_dropping_xxxx_raises_or_lowers_with_the_data():
    references = [NORMAL, NORMAL, "XXXX of the XXXX .", TEXTS[2]]
    good = score_reports(references, [NORMAL] * 4)
    found = audit.selections(good, references, range(4), n_draws=20, n=2)
    assert found.answer == "dropping XXXX raises the score"
    assert found.table.loc[1, "n"] == 3
    bad = score_reports(references, ["Clips ."] * 2 + references[2:])
    found = audit.selections(bad, references, range(4), n_draws=20, n=2)
    assert found.answer == "dropping XXXX does not raise the score"


def test_f_the_first_of_the_list_are_taken_by_their_place():
    references = [TEXTS[1], NORMAL, NORMAL]
    result = score_reports(references, [NORMAL] * 3)
    table = audit.selections(result, references, [2, 0, 1], 5, n=2).table
    assert table.loc[2, "ROUGE-L"] == pytest.approx(1.0)


def test_f_nothing_is_said_when_every_reference_has_xxxx():
    references = ["XXXX seen .", "No XXXX ."]
    result = score_reports(references, [NORMAL] * 2)
    found = audit.selections(result, references, [0, 1])
    assert found.answer == "not measurable here"


# --- how it is shown --------------------------------------------------------


def test_a_section_is_shown_as_table_and_bold_verdict():
    found = audit.same_predictions(faked(llamaxr=0.3, r2gen=0.2))
    shown = found._repr_markdown_()
    assert shown.startswith("| protocol | cleaning |")
    assert "\n\n**a · the ruler gives the gain.** The same texts" in shown
