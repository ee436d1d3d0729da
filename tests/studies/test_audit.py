"""Notebook 08's audit: each verdict follows from its numbers, and turns."""

import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import cells, run_cells

from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER
from llamaxr_utils.evaluation import metrics
from llamaxr_utils.studies import audit

pytestmark = pytest.mark.usefixtures("no_java")
SETTINGS = SimpleNamespace(SEED=0, SPLITS=40, RESAMPLES=20)


def section(item, *names, **given) -> audit.Measured:
    space = run_cells("08-02", *names, measured={}, nb=SETTINGS, **given)
    return space["measured"][item]


@pytest.mark.parametrize(("r2gen", "answer"), [
    (0.200, "the ruler gives the gain"),
    (0.300, "the ruler does not give the gain"),
    (None, "not measurable here")])
def test_a_the_verdict_turns_with_the_gap_between_the_rulers(r2gen, answer):
    same = {"BLEU-4": 0.1, "ROUGE-L": 0.3}
    results = {("llamaxr", "none"): same | {"METEOR": 0.302},
               ("r2gen", "r2gen"): same | {"METEOR": r2gen}}
    table = audit.rows(results, ["protocol", "cleaning"])
    a = section("a", "08-08v", table=table)
    assert a.answer == answer
    assert bool(a.effect) == (answer != "not measurable here")
    if r2gen == 0.2:
        assert "+51%" in a.verdict and "+54%" in a.verdict
        assert a.effect["METEOR"] == pytest.approx(0.102)


@pytest.mark.parametrize("dealt", [False, True])
def test_c_r2gens_list_is_not_random_until_it_is_dealt_out(studies, dealt):
    studies = studies.copy()
    if dealt:
        listed = studies["split_r2gen"] != "none"
        columns = ["findings", "status"]
        mixed = studies.loc[listed, columns].sample(frac=1, random_state=4)
        studies.loc[listed, columns] = mixed.to_numpy()
    c = section("c", "08-12", "08-12b", "08-12v", studies=studies, first={},
                rest={})
    word = "like" if dealt else "not like"
    assert c.answer == f"R2Gen's test list is {word} a random one"
    if not dealt:
        shares = (100 * c.table.iloc[:3, 2:]).round().astype(int)
        assert shares.to_numpy().tolist() == [[52, 47], [88, 96], [37, 27]]
        assert c.table["n"].tolist()[1:3] == [170, 420]


def test_e1_the_steps_tell_the_rows():
    e1 = section("e1", "08-16")
    assert e1.answer == "the log fits all rows"
    assert e1.table["steps"].tolist() == [870, 610]


def test_e2_a_report_for_its_own_study_loses_when_dealt_out_anew():
    texts = [f"The {organ} is {word}." for organ in ("heart", "lung", "aorta")
             for word in ("large", "clear", "normal", "old")]
    given = {"references": texts, "systems": {"same": texts[:1] * 12}}
    e2 = section("e2", "08-20", "08-20v", **given)
    assert e2.answer == "shuffling changes nothing for same"
    assert e2.effect["ROUGE-L"] == 0 == e2.effect["BLEU-4"]
    given["systems"] = {"own": texts}
    e2 = section("e2", "08-20", "08-20v", **given)
    assert e2.effect["ROUGE-L"] > 0.1


@pytest.mark.parametrize(("clean", "word", "n"), [
    (None, "loses", 2), (str.lower, "keeps", 0)])
def test_g_the_cleaner_decides(monkeypatch, clean, word, n):
    if clean:
        monkeypatch.setattr(metrics, "clean_author", clean)
    texts = ["No pleural effusion. The heart is normal.", "No pneumothorax."]
    studies = pd.DataFrame({"findings": texts, "split_r2gen": "test"})
    nothing = {("llamaxr", "author"): {}, ("llamaxr", "none"): {}}
    g = section("g", "08-24", "08-24t", "08-24v", studies=studies,
                results=nothing)
    assert g.answer == f"the cleaner {word} negations"
    turned = g.table.set_index("finding")["then present"]
    assert turned["Pleural Effusion"] == n / 2
    assert f"{n} of " in g.verdict and f"{n} of 2 reports" in g.verdict


def test_h_the_numbers_fit_the_order_in_which_they_stand(monkeypatch):
    order = ["08-26", "08-26b", "08-26v"]
    h = section("h", *order)
    assert h.answer == "the numbers fit torchxrayvision's order"
    assert h.table["random orders that fit as well"][0] < 0.01
    spread = audit.data("score_spread").set_index("condition")
    assert list(spread.index) == list(NATIVE_ORDER)
    by_name = spread.loc[list(CONDITIONS), "mean"].to_numpy()
    printed = pd.DataFrame({"first": by_name, "second": by_name})
    tables = {"score_spread": spread.reset_index(), "figure_4_scores": printed}
    monkeypatch.setattr(audit, "data", tables.get)
    answer = "the numbers fit the alphabetical order"
    assert section("h", *order).answer == answer


@pytest.mark.parametrize(("loss", "word"), [(1.5, "less"), (2, "as much")])
def test_j_the_loss_of_the_log_decides(loss, word):
    losses = pd.Series([2.0, loss], index=[2e-6, 2e-4])
    j = section("j", "08-30", "08-30v", losses=losses)
    assert j.answer == f"the small rate learns {word}"
    assert j.table["steps"].tolist() == [195, 870]


def test_k_the_papers_examples_are_found_by_their_words(studies):
    k = section("k", "08-32", "08-32b", studies=studies)
    study = k.table.set_index("printed in")["study"]
    places = ["Figure 4", "Table 6, first", "Table 6, second"]
    assert study[places].tolist() == ["CXR24", "CXR3660", "CXR3282"]
    assert k.answer == "a result of the paper is not in R2Gen's test list"
    inside = k.table.assign(**{"R2Gen's lists": "test 1"})
    k = section("k", "08-32b", table=inside)
    assert k.answer.startswith("no traced result is outside")


def test_the_ledger_has_a_row_for_every_claim_and_says_what_was_not_run():
    one = audit.Measured("a", "yes", "Why.", pd.DataFrame(), {"METEOR": 0.1})
    space = run_cells("08-02", "08-39", measured={"a": one})
    table = space["lines"].set_index("item")
    assert list(table.index) == [*"abcd", "e1", "e2", *"fghijkl"]
    assert table.loc["a", ["measured here", "METEOR"]].tolist() == ["yes", 0.1]
    assert (table["measured here"].drop("a") == "not run").all()
    assert table[["claim", "paper", "notebook"]].ne("").all(axis=None)
    text = "\n".join(cells("08").values())
    assert all(f'measured["{item}"]' in text for item in table.index)


def test_notebook_08_needs_no_torch():
    """Its imports, its labeller and its reading of torchxrayvision's source,
    with torch and transformers out of reach."""
    source = cells("08")
    code = (
        "import sys\n"
        "class Gone:\n"
        "    @staticmethod\n"
        "    def find_spec(name, *_):\n"
        "        if name.split('.')[0] in ('torch', 'transformers'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Gone)\n"
        + source["08-02"] + "\n" + source["08-24"]
        + "\ndenied_findings(['No pneumothorax.'], metrics.clean_author)\n"
        + source["08-28b"].partition("backbone =")[0]
        + "assert 'openi' in trained_on.lower()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
