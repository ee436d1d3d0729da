"""Grounding: writers whose grounding is known, and the card that tells."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import run_cells

from llamaxr_utils.course import plots
from llamaxr_utils.datasets.conditions import CONDITIONS
from llamaxr_utils.evaluation import baselines, clinical
from llamaxr_utils.llm import prompts
from llamaxr_utils.llm.generate import swap
from llamaxr_utils.studies import grounding

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
    return [baselines.template_report([])] * len(scores)


def half_grounded(scores):
    """Knows every second condition and is deaf to the others."""
    rest = dict.fromkeys(set(CONDITIONS) - set(HALF), 0.0)
    return grounded([one.assign(**rest) for one in scores])


REFERENCES = grounded(SCORES)


def card(write, **settings):
    settings = {"n_samples": 200, "n_dose": 20, "n_doses": 3} | settings
    return grounding.grounding_report(write, SCORES, REFERENCES, STATUS,
                                      **settings)


@pytest.fixture(scope="module")
def cards():
    writers = (grounded, half_grounded, blind)
    return {write.__name__: card(write) for write in writers}


KNOWN = len(set(SINGLE) & set(HALF))  # found of ten, no false alarm


@pytest.mark.parametrize(("writer", "f1", "changed", "gap", "top", "steep"), [
    # Only one of the ten normal studies leaves another's report as it is.
    # Each abnormal study has a finding of its own: nothing is right by luck.
    ("grounded", 1, 1 - 90 / 380, 1, 0.1, 18),
    ("half_grounded", 2 * KNOWN / (KNOWN + 10), None, None, 1 - KNOWN / 10, 9),
    ("blind", 0, 0, 0, 1, 0)])
def test_the_card_has_the_known_values(cards, writer, f1, changed, gap, top,
                                       steep):
    get = cards[writer].get
    assert get(grounding.ANY, "findings F1, own") == pytest.approx(f1)
    assert get(grounding.COMMONEST, grounding.TOP) == top
    assert get(grounding.COMMONEST, "its share of normal studies") == 1
    assert get(grounding.DOSE, grounding.STEEP) == steep
    assert (get(grounding.DOSE, grounding.RISE) == 0) == (writer == "blind")
    if gap is None:  # between the two
        assert 0 < get(grounding.ANY, grounding.GAP, "low")
        assert get(grounding.ANY, grounding.GAP) < 1
        return
    assert get(grounding.ANY, grounding.CHANGED) == changed
    assert get(grounding.ANY, grounding.GAP) == gap
    assert get(grounding.ANY, grounding.GAP, "high") == gap


def test_the_verdict_follows_from_the_numbers(cards):
    first = {k: grounding.verdict(one)[0] for k, one in cards.items()}
    assert first == {
        "grounded": "The reports follow the scores.",
        "half_grounded": "The reports follow the scores, in part.",
        "blind": "The reports do not measurably follow the scores.",
    }
    assert "18 of 18" in grounding.verdict(cards["grounded"])[3]
    line = grounding.verdict(cards["blind"])[2]
    assert "100% of the abnormal studies: a collapse" in line


def test_nothing_reported_is_no_f1():
    rows = grounding.all_swaps(["Clear lungs."] * 3, ["Clear."] * 3, 20)
    one = grounding.Card(pd.DataFrame(rows), None, [])
    assert np.isnan(one.get(grounding.ANY, grounding.GAP))
    lines = grounding.verdict(one)
    assert lines[1].startswith("No condition is reported")
    assert "do not measurably" in lines[0] and len(lines) == 2


def test_all_swaps_are_the_mean_of_many():
    rng = np.random.default_rng(0)
    scores = [clinical.true_scores(dict(zip(CONDITIONS, row)))
              for row in rng.integers(0, 2, (60, 18)) * (rng.random(18) < .4)]
    own, truth = grounded(scores), half_grounded(scores)
    a = {row["measure"]: row["value"]
         for row in grounding.all_swaps(truth, own, 200)}
    assert a["findings F1, own"] == pytest.approx(clinical.micro_f1(
        clinical.finding_counts(truth, own).sum(axis=0)))
    counts = [clinical.finding_counts(truth, [own[i] for i in swap(60, k)])
              for k in range(300)]
    each = [clinical.micro_f1(one.sum(axis=0)) for one in counts]
    error = np.std(each) / len(each) ** 0.5
    assert 0 < abs(a["findings F1, shuffled"] - np.mean(each)) < 4 * error


def test_a_dose_moves_one_condition_in_both_views():
    seen = []

    def spy(scores):
        seen.extend(scores)
        return grounded(scores)

    table = grounding.dose_response(spy, SCORES[:2], [0, 1], ["Edema", "Mass"])
    assert table["mentioned"].tolist() == [False, False, True, True] * 2
    for one, row in zip(seen, table.itertuples(), strict=True):
        before = SCORES[row.study]
        assert (one[row.condition] == row.dose).all() and len(one) == 2
        rest = before.columns.drop(row.condition)
        assert one[rest].equals(before[rest])
    assert (SCORES[0]["Edema"] == 0).all()  # nothing was changed in place


def test_notebook_09s_writer_decodes_each_prompt_once():
    decoded = []

    def generate_reports(model, tokenizer, texts, progress, **settings):
        decoded.append((list(texts), settings))
        return {"generated": [text.split("\n")[1] for text in texts]}

    first, normal = (prompts.build_prompt(one, "names", POINTS)
                     for one in (SCORES[0], SCORES[-1]))
    write = run_cells(
        "09-08b", asked=pd.DataFrame({"prompt": [normal]}),
        own=pd.DataFrame({"generated": ["as before"]}), prompts=prompts,
        plots=plots, model=None, tokenizer=None, score_format="names",
        generate=SimpleNamespace(generate_reports=generate_reports),
        threshold=POINTS, settings={"batch_size": 3})["write"]
    report = first.split("\n")[1]
    three = write([SCORES[0], SCORES[-1], SCORES[0]])
    assert three == [report, "as before", report]
    write(SCORES[:2])
    assert decoded[0] == ([first], {"batch_size": 3})
    assert len(decoded[1][0]) == 1
