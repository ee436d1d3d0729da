"""Notebook 08's audit: each verdict follows from its numbers, and turns."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import cells, run_cells

from llamaxr_utils.evaluation import metrics
from llamaxr_utils.studies import audit

pytestmark = pytest.mark.usefixtures("no_java")
QUOTED = audit.quoted_rows().set_index("system")[list(metrics.METRICS)]
PAPER = {"quoted": QUOTED, "paper": QUOTED.loc["LLaMA-XR"],
         "others": QUOTED.drop("LLaMA-XR")}
SETTINGS = SimpleNamespace(SEED=0, SPLITS=40, RESAMPLES=20, title_note="")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    import matplotlib.pyplot as plt

    name = "llamaxr_utils.course.plots.save_figure"
    monkeypatch.setattr(name, lambda nb, fig, *_, **__: plt.close(fig))


def section(item, *names, **given):
    """What a section of the notebook measures, in words, and its space."""
    space = run_cells("08-02", *names,
                      **{"measured": {}, "nb": SETTINGS} | given)
    return space["measured"][item], space


@pytest.mark.parametrize(("r2gen", "llamaxr", "words"), [
    (0.224, 0.354, ("0.224, above the best quoted 0.218", "above its 0.336",
                    "ROUGE-L 0.354, not above its 0.433")),
    (0.200, 0.336, ("not above the best", "not above its 0.336")),
    (np.nan, 0.354, ("METEOR 1.5 needs Java",))])
def test_a_constant_is_above_the_quoted_rows_or_not(r2gen, llamaxr, words):
    scores = {(f"constant by {metric}", protocol): dict.fromkeys(
        metrics.METRICS, value) for metric in ("BLEU-4", "ROUGE-L")
        for protocol, value in (("r2gen", r2gen), ("llamaxr", llamaxr))}
    text, space = section("constant", "08-10", "08-10s", scores=scores,
                          constants={name for name, _ in scores}, **PAPER)
    assert all(part in text for part in words)
    exceeds = space["table"].loc["METEOR", "constant by BLEU-4 exceeds"]
    assert exceeds.split()[0] == {0.224: "16", 0.2: "9"}.get(r2gen, "0")


@pytest.mark.parametrize(("steps", "word"), [
    (870, "fit all rows"), (610, "fit 70 % of the rows;"), (1, "fit none")])
def test_the_steps_tell_the_rows(monkeypatch, steps, word):
    monkeypatch.setattr(audit, "LOGGED_STEPS", steps)
    text, space = section("leak", "08-14v", train_and_test=lambda c, share: (
        share, share))
    assert word in text and "1.000 instead of 0.700" in text
    assert space["table"]["steps"].tolist() == [610, 870, 1830]


@pytest.mark.parametrize(("clean", "share"), [(None, 67), (str.lower, 0)])
def test_the_cleaner_decides_about_no(monkeypatch, clean, share):
    if clean:
        monkeypatch.setattr(metrics, "clean_author", clean)
    texts = ["No pleural effusion. The heart is normal.", "No pneumothorax."]
    text, space = section(
        "lost No", "08-24", "08-24v", text_of=pd.Series(texts),
        studies=pd.DataFrame({"split_r2gen": ["test", "test"]}))
    assert text.startswith(f"{share}% of the denied findings")
    assert text.endswith('"no", 0% would')
    assert set(space["states"].columns) > {"absent", "present"}


@pytest.mark.parametrize("dealt", [False, True])
def test_r2gens_list_is_not_random_until_it_is_dealt_out(studies, dealt):
    studies = studies.copy()
    if dealt:
        listed = studies["split_r2gen"] != "none"
        columns = ["findings", "status"]
        mixed = studies.loc[listed, columns].sample(frac=1, random_state=4)
        studies.loc[listed, columns] = mixed.to_numpy()
    shuffle = np.random.default_rng(0).permutation
    text, _ = section("test list", "08-12", "08-12p", studies=studies,
                      shuffle=shuffle)
    assert f"is {'like' if dealt else 'not like'} a random one" in text


def test_a_factor_is_one_score_over_the_other():
    """Of means that double the factor is 2, and so are the ends."""
    part = pd.DataFrame({"ROUGE-L": [0.1, 0.3], "METEOR": [0.2, 0.4]})
    one = dict.fromkeys(part, 1.0)
    scores = {("same", "llamaxr"): one | {"per_report": 2 * part},
              ("same", "r2gen"): one | {"per_report": part}}
    space = run_cells("08-02", "08-08", nb=SETTINGS, scores=scores,
                      systems=["same"])
    ratio = space["ratios"]["same"]
    for name in ("value", "low", "high"):
        assert ratio[name] == pytest.approx([2, 2])
    assert space["by_ruler"] == pytest.approx([2])


def test_figure_4_fits_the_order_in_which_it_stands():
    order = run_cells("08-02", "08-order")["better_order"]()
    assert order.startswith("torchxrayvision's")


def test_the_papers_examples_and_the_scores_of_its_table_4(studies):
    assert audit.traced(studies) == ["Table 6, first: CXR3660 (train)",
                                     "Table 6, second: CXR3282 (test)"]
    inside = studies.assign(split_r2gen="val")
    assert "CXR3660 (val)" in audit.traced(inside)[0]
    assert audit.table_4(studies) < 0.01
    longer = studies.assign(findings=studies["findings"] + " The spine bends.")
    assert audit.table_4(longer) > 0.1


def test_the_ledger_and_the_smaller_findings_name_what_is_measured():
    source = cells("08")
    ledger, smaller = map(audit.data, ("ledger", "smaller_findings"))
    assert ledger.ne("").all(axis=None) and smaller.ne("").all(axis=None)
    assert set(smaller["item"]) <= set(ledger["item"])
    assert all(f'"{item}": ' in source["08-32-b"] for item in smaller["item"])
    measured = [item for item in ledger["item"] if any(
        f'"{item}"' in text for text in source.values())]
    assert len(measured) == len(ledger) - 2  # the prompt, the learning rate
