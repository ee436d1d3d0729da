"""Grounding: writers whose grounding is known, and the card that tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course import tables
from llamaxr_utils.course.run import start
from llamaxr_utils.datasets.conditions import (
    CONDITION_FINDINGS,
    CONDITIONS,
    FINDING_OF,
    NAMED_BY,
    VIEWS,
)
from llamaxr_utils.evaluation import baselines, clinical
from llamaxr_utils.evaluation.findings import FINDINGS
from llamaxr_utils.llm import prompts
from llamaxr_utils.llm.generate import swap
from llamaxr_utils.studies import grounding

NOTEBOOK = Path(__file__).parents[2] / "notebooks/09_test_grounding.ipynb"
POINTS = dict.fromkeys(CONDITIONS, 0.5)
#: One condition a finding, so that no finding is named twice.
SINGLE = ["Atelectasis", "Cardiomegaly", "Edema", "Effusion", "Emphysema",
          "Fibrosis", "Fracture", "Hernia", "Pneumothorax", "Lung Opacity"]
HALF = CONDITIONS[::2]


def labels_of(*present):
    return {name: int(name in present) for name in CONDITIONS}


#: Ten abnormal studies, each with one condition of its own; ten normal ones.
LABELS = [labels_of(name) for name in SINGLE] + [labels_of()] * 10
SCORES = [clinical.true_scores(one) for one in LABELS]
STATUS = ["abnormal"] * 10 + ["normal"] * 10


def grounded(scores):
    """Writes a sentence for each condition whose score reaches 0.5."""
    named = [prompts.names_above(one, POINTS) for one in scores]
    return [baselines.template_report(names or []) for names in named]


def blind(scores):
    return [baselines.NORMAL_REPORT] * len(scores)


def half_grounded(scores):
    """Knows every second condition and is deaf to the others."""
    rest = dict.fromkeys(set(CONDITIONS) - set(HALF), 0.0)
    return grounded([one.assign(**rest) for one in scores])


REFERENCES = grounded(SCORES)


def card(write, **settings):
    settings = {"n_samples": 200, "n_dose": 20, "labels": LABELS} | settings
    return grounding.grounding_report(
        write, SCORES, REFERENCES, STATUS, **settings
    )


@pytest.fixture(scope="module")
def cards():
    writers = (grounded, half_grounded, blind)
    return {write.__name__: card(write) for write in writers}


# --- the card ---------------------------------------------------------------


def test_the_card_of_a_grounded_writer_has_the_known_values(cards):
    get = cards["grounded"].get
    donors = swap(20, 3407)
    differ = [REFERENCES[i] != REFERENCES[j] for i, j in enumerate(donors)]
    assert get(grounding.ANY, grounding.CHANGED) == np.mean(differ)
    assert get(grounding.OTHER, grounding.CHANGED) == 1
    assert get(grounding.ANY, "findings F1, own") == 1
    # Each abnormal study has a finding of its own: nothing is right by luck.
    assert get(grounding.ANY, "findings F1, shuffled") == 0
    assert get(grounding.OTHER, grounding.GAP) == 1
    assert get("called abnormal", "abnormal studies with a condition") == 1
    assert get("called abnormal", "normal studies") == 0
    assert get(grounding.COMMONEST, "its share of normal studies") == 1
    assert get(grounding.COMMONEST, grounding.TOP) == 0.1
    assert get("frontal view alone", "reports changed against both") == 0
    assert get("lateral view alone", "findings F1") == 1
    assert get(grounding.DOSE, grounding.STEEP) == 18
    assert get(grounding.DOSE, "steps at which a rate falls") == 0


def test_the_card_of_a_blind_writer_is_flat(cards):
    get = cards["blind"].get
    for test in (grounding.ANY, grounding.OTHER):
        assert get(test, grounding.CHANGED) == 0
        assert [get(test, grounding.GAP, c) for c in
                ("value", "low", "high")] == [0, 0, 0]
    assert get(grounding.COMMONEST, grounding.TOP) == 1
    assert get(grounding.DOSE, grounding.RISE) == 0
    assert get(grounding.DOSE, grounding.STEEP) == 0


def test_the_card_of_a_half_grounded_writer_lies_between(cards):
    get = cards["half_grounded"].get
    known = len(set(SINGLE) & set(HALF))  # found of ten, no false alarm
    f1 = 2 * known / (2 * known + 10 - known)
    assert get(grounding.ANY, "findings F1, own") == pytest.approx(f1)
    assert 0 < get(grounding.ANY, grounding.GAP, "low")
    assert get(grounding.ANY, grounding.GAP) < 1
    assert get(grounding.DOSE, grounding.STEEP) == 9
    share = get("called abnormal", "abnormal studies with a condition")
    assert share == known / 10
    assert get(grounding.COMMONEST, grounding.TOP) == 1 - known / 10


def test_the_verdict_follows_from_the_numbers(cards):
    first = {k: grounding.verdict(one)[0] for k, one in cards.items()}
    assert first == {
        "grounded": "The reports follow the scores.",
        "half_grounded": "The reports follow the scores, in part.",
        "blind": "The reports do not measurably follow the scores.",
    }
    assert "18 of 18" in grounding.verdict(cards["grounded"])[3]
    assert "100% of the abnormal studies: a collapse" in grounding.verdict(
        cards["blind"]
    )[4]


def test_nothing_reported_is_no_f1():
    rows = grounding.swap_test(["Clear lungs."] * 3, ["Clear."] * 3,
                               ["Clear."] * 3, n_samples=20)
    one = grounding.Card(pd.DataFrame(rows), None, [])
    assert np.isnan(one.get(grounding.ANY, grounding.GAP))
    lines = grounding.verdict(one)
    assert lines[2].startswith("No condition is reported")
    assert "do not measurably" in lines[0] and len(lines) == 3


# --- probes -----------------------------------------------------------------


def test_donors_are_of_the_other_status_and_used_evenly():
    status = np.array(["normal"] * 7 + ["abnormal"] * 3 + ["not indexed"] * 2)
    donors = grounding.other_status(status, seed=1)
    assert not (status[donors] == status).any()
    assert "not indexed" not in set(status[donors])
    assert np.bincount(donors[:7], minlength=12)[7:10].tolist() in (
        [3, 2, 2], [2, 3, 2], [2, 2, 3],
    )  # fmt: skip
    assert len(set(donors[7:10])) == 3
    assert (donors == grounding.other_status(status, seed=1)).all()
    assert (donors != grounding.other_status(status, seed=2)).any()


def curve(rates, condition="Edema"):
    """A dose response with these mention rates over ten studies."""
    return pd.DataFrame([
        (condition, FINDING_OF[condition], dose, study,
         study < round(10 * rate))
        for dose, rate in enumerate(rates) for study in range(10)
    ], columns=["condition", "finding", "dose", "study", "mentioned"])


@pytest.mark.parametrize(
    ("rates", "rise", "rho", "falling"),
    [
        ([0, 0.2, 0.4, 1], 1, 1, 0),
        ([1, 0.6, 0.3, 0], -1, -1, 1),
        ([0.4] * 4, 0, np.nan, 0),
        ([0, 0, 1, 1], 1, 0.894427, 0),  # a threshold: ties in the ranks
        ([0, 1, 0, 1], 1, 0.447214, 1 / 3),
    ],
)
def test_monotonicity_of_known_curves(rates, rise, rho, falling):
    row = grounding.monotonicity(curve(rates)).iloc[0]
    got = row[["rise", "rho", "falling"]].astype(float).tolist()
    assert got == pytest.approx([rise, rho, falling], nan_ok=True, abs=1e-6)


def test_a_dose_moves_one_condition_in_both_views():
    seen = []

    def spy(scores):
        seen.extend(scores)
        return grounded(scores)

    table = grounding.dose_response(spy, SCORES[:2], [0, 1], ["Edema", "Mass"])
    assert table["mentioned"].tolist() == [False] * 2 + [True] * 2 + [
        False] * 2 + [True] * 2
    for one, row in zip(seen, table.itertuples(), strict=True):
        before = SCORES[row.study]
        assert (one[row.condition] == row.dose).all() and len(one) == 2
        rest = before.columns.drop(row.condition)
        assert one[rest].equals(before[rest])
    assert (SCORES[0]["Edema"] == 0).all()  # nothing was changed in place


@pytest.fixture
def decoded(monkeypatch):
    """Prompts that the model was asked for; its reports repeat the input."""
    asked = []

    def fake(model, tokenizer, texts, progress=None, **settings):
        asked.append((list(texts), settings))
        return pd.DataFrame({"generated": [t.split("\n")[1] for t in texts]})

    monkeypatch.setattr(grounding, "generate_reports", fake)
    return asked


def test_a_model_decodes_each_prompt_once_and_none_it_knows(decoded):
    normal = prompts.build_prompt(SCORES[-1], "names", POINTS)
    write = grounding.model_writer(None, None, "names", POINTS,
                                {normal: "as before"}, batch_size=3)
    first = write([SCORES[0], SCORES[-1], SCORES[0]])
    assert first == ["findings: atelectasis", "as before"] + first[:1]
    write([SCORES[0], SCORES[1]])
    assert [len(texts) for texts, _ in decoded] == [1, 1]
    assert decoded[0][1] == {"batch_size": 3}


def test_numbers_cannot_say_that_a_view_is_missing(decoded):
    assert grounding.one_view(grounded, SCORES, "frontal") == REFERENCES
    write = grounding.model_writer(None, None, "paper", POINTS)
    assert grounding.one_view(write, SCORES, "frontal") is None
    rows = card(write, n_dose=0).rows
    alone = rows[rows["test"].str.endswith("view alone")]
    assert len(alone) == 4 and alone["value"].isna().all()


# --- from texts alone -------------------------------------------------------


@pytest.mark.parametrize("write", [grounded, half_grounded, blind])
def test_texts_give_the_card_of_their_writer(write, cards):
    own = write(SCORES)
    shuffled = [own[i] for i in swap(20, 3407)]
    one = grounding.texts_report(REFERENCES, own, shuffled, STATUS, 200)
    whole = cards[write.__name__]
    for test, measure in (
        (grounding.ANY, grounding.CHANGED),
        (grounding.ANY, grounding.GAP),
        (grounding.COMMONEST, grounding.TOP),
    ):
        assert one.get(test, measure) == whole.get(test, measure)
    assert one.dose is None
    assert len(grounding.verdict(one)) == 4


# --- what the conditions can say --------------------------------------------


def test_every_condition_has_a_finding_that_its_sentence_states():
    assert set(FINDING_OF) == set(CONDITIONS)
    assert len(CONDITION_FINDINGS) == 15
    assert set(NAMED_BY) <= set(FINDINGS[1:])
    for condition, sentence in baselines.SENTENCES.items():
        assert FINDING_OF[condition] in clinical.present(sentence)


def test_findings_are_counted_when_present_only():
    truth = ["The heart is enlarged. There is a pneumothorax.", "Scoliosis."]
    said = ["The heart is enlarged. Possible pneumonia. No pneumothorax.",
            "There is pulmonary edema."]
    counts = clinical.finding_counts(truth, said)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert clinical.micro_f1(counts.sum(axis=0)) == pytest.approx(0.5)


# --- the card of notebook 05 -------------------------------------------------


@pytest.mark.parametrize("write", [grounded, blind])
def test_the_card_of_a_collapsed_model_says_so(write, folders):
    """Its many different reports, whatever it is told, do not help it."""
    path = NOTEBOOK.with_name("05_generate_reports.ipynb")
    source = {cell["id"]: "".join(cell["source"])
              for cell in json.loads(path.read_text("utf-8"))["cells"]}
    texts = write(SCORES)
    if write is blind:  # 20 reports that differ in words alone
        texts = [f"{text} View {i}." for i, text in enumerate(texts)]
    reports = pd.DataFrame({"generated": texts})
    ids = [f"S{i}" for i in range(20)]
    space = {
        "pd": pd, "grounding": grounding, "tables": tables, "plain": reports,
        "own": reports, "donors": swap(20, 3407), "decoding": "greedy",
        "test": pd.DataFrame({"study_id": ids, "completion": REFERENCES,
                              "prompt": [str(s) for s in SCORES]}),
        "studies": pd.DataFrame({"study_id": ids, "status": STATUS}),
        "nb": start("05_generate_reports", "smoke"),
    }
    for name in ("05-16b", "05-17"):
        exec(source[name], space)  # noqa: S102
    card = space["card"].set_index("swap test")["this run"]
    assert ("no sign" in card["grounding gap"]) == (write is blind)
    if write is blind:
        assert card["greedy reports that differ"] == "100%"
        assert card["different greedy reports"] == 20


# --- the slider of notebook 09 ----------------------------------------------


def test_the_strip_marks_what_changed_and_escapes_what_was_written():
    """The notebook's own cells, with a writer that writes HTML."""
    class Run:
        stamp = "profile <cpu>"

    source = {cell["id"]: "".join(cell["source"]) for cell in
              json.loads(NOTEBOOK.read_text("utf-8"))["cells"]}
    space: dict = {}
    exec(source["09-02"], space)  # noqa: S102
    space |= {
        "write": lambda scores: [f"<b>x</b> always. {text}"
                                 for text in grounded(scores)],
        "own_scores": [SCORES[1]], "status": ["normal"], "nb": Run,
        "points": pd.DataFrame({"train_prevalence": [0.2, 0.1]},
                               index=["Cardiomegaly", "Edema"]),
    }
    code = source["09-33"] + "\n" + source["09-33b"]
    exec(code.replace("HTML(", "page = HTML(", 1), space)  # noqa: S102
    page = space["page"].data
    assert "1.00 → 0" in page and "0.00 → 1" in page
    assert f"<mark>{baselines.SENTENCES['Edema']}</mark>" in page
    assert f"<del>{baselines.SENTENCES['Cardiomegaly']}</del>" in page
    assert "<b>" not in page and "&lt;b&gt;x" in page and "&lt;cpu&gt;" in page
    assert "not for diagnosis" in page


# --- what training prompts name ---------------------------------------------


def two_studies():
    """One for training whose report and headings disagree, one for test."""
    studies = pd.DataFrame(
        {
            "study_id": ["CXR1", "CXR2"],
            "split": ["train", "test"],
            "mesh": [["Cardiomegaly/mild"], ["normal"]],
            "findings": ["There is a small left pleural effusion.", "Clear."],
        }
    )
    both = pd.MultiIndex.from_product([studies["study_id"], VIEWS])
    return studies, pd.DataFrame(0.5, both, CONDITIONS)


@pytest.mark.parametrize(
    ("train_on", "named"),
    [
        ("scores", set()),
        ("labels", {"Cardiomegaly"}),
        ("stated", {"Effusion"}),
    ],
)
def test_training_prompts_name_what_was_asked_for(train_on, named):
    studies, scores = two_studies()
    given = clinical.training_scores(train_on, studies, scores)
    lateral = given.loc["CXR1", "lateral"]
    assert {*lateral.index[lateral == 1]} == named
    assert (given.loc["CXR2"] == 0.5).all(axis=None)  # test: from the image
    assert (scores == 0.5).all(axis=None)  # not changed
