"""Statements of paper and notebook against data, and the closing table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.datasets import downloads, reports
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER
from llamaxr_utils.studies import ledger, statements
from llamaxr_utils.studies.audit import Measured

NOTEBOOK = Path(__file__).parents[2] / "notebooks/08_audit_protocol.ipynb"


@pytest.fixture(scope="module")
def studies():
    return reports.load_studies()


# --- d, e -------------------------------------------------------------------


@pytest.fixture
def scored_studies():
    rng = np.random.default_rng(0)
    ids = [f"CXR{i}" for i in range(60)]
    words = ["heart", "lung", "clear", "rib", "nodule", "effusion", "normal"]
    texts = [" ".join(rng.choice(words, 6)) for _ in ids]
    vectors = pd.DataFrame(rng.random((60, 36)), index=ids)
    return vectors, pd.Series(texts, index=ids)


def test_d_repeated_rows_leak_and_single_rows_do_not(scored_studies):
    leaky = statements.repeated_rows(*scored_studies, copies=3)
    clean = statements.repeated_rows(*scored_studies, copies=1)
    assert leaky.answer == "a split by row leaks"
    assert 0.8 < leaky.table.iloc[0, 1] <= 1
    assert leaky.effect["METEOR"] > 0.2
    assert "not a multiple of 3" in leaky.verdict
    assert clean.answer == "a split by row does not leak"
    assert clean.table.iloc[0, 1] == 0


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        (870, "the log fits all rows"),
        (610, "the log fits the training 70%"),
        (60, "the log fits neither"),
    ],
)
def test_e1_the_steps_tell_the_rows(steps, answer):
    found = statements.rows_trained(2780, steps)
    assert found.answer == answer
    assert statements.AS_SAVED in found.verdict


def test_e2_only_reports_written_for_their_studies_lose_by_shuffling():
    own = [f"word{i} lesion{i} seen{i} here{i} ." for i in range(40)]
    fixed = ["The lungs are clear ."] * 40
    found = statements.shuffled_outputs(own, {"fixed": fixed}, 50)
    assert found.answer == "shuffling changes nothing for fixed"
    assert found.effect == {"BLEU-4": 0, "ROUGE-L": 0, "METEOR": 0}
    found = statements.shuffled_outputs(own, {"tied": own}, 50)
    assert found.answer == "shuffling lowers every score"
    assert found.effect["METEOR"] > 0.5


# --- g ----------------------------------------------------------------------


def test_g_the_saved_cleaner_turns_denials_and_a_careful_one_does_not():
    texts = ["No pleural effusion. The heart is normal.", "No pneumothorax."]
    found = statements.lost_negations(texts)
    assert found.answer == "the cleaner loses negations"
    assert found.table.set_index("finding").loc["Pleural Effusion"].tolist()
    assert "2 reports" in found.verdict
    kept = statements.lost_negations(texts, str.lower)
    assert kept.answer == "the cleaner keeps negations"


# --- h, i -------------------------------------------------------------------


def test_h_figure_4_fits_torchxrayvisions_order():
    spread = ledger.data("score_spread")
    assert list(spread["condition"]) == list(NATIVE_ORDER)
    found = statements.score_order(ledger.data("figure_4_scores"), spread)
    assert found.answer == "the numbers fit torchxrayvision's order"
    assert found.table["random orders that fit as well"][0] < 0.01


def test_h_numbers_in_the_order_of_the_names_turn_the_verdict():
    spread = ledger.data("score_spread").set_index("condition")
    printed = pd.DataFrame({"first": spread["mean"], "second": spread["mean"]})
    found = statements.score_order(
        printed.loc[list(CONDITIONS)], spread.reset_index(), 200
    )
    assert found.answer == "the numbers fit the alphabetical order"


def image_scores(studies):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((len(studies), 18)), columns=CONDITIONS)
    return table.assign(
        study_id=studies["study_id"].to_numpy(), view="frontal", backbone="x"
    )


def test_i_the_description_of_the_weights_decides(studies):
    some = studies.assign(split=studies["split_r2gen"])
    scores = image_scores(some)
    own = statements.released_extractor()
    found = statements.extractor(own, scores, some)
    assert found.answer == "the extractor has seen OpenI"
    assert "mean AUC" in found.verdict
    other = statements.extractor("nih-chexpert", scores, some)
    assert other.answer == "the extractor has not seen OpenI"


def test_i_too_few_studies_are_said_to_be_too_few(studies):
    some = studies.assign(split=studies["split_r2gen"]).head(12)
    found = statements.extractor("openi", image_scores(some), some)
    assert "too few studies" in found.verdict


# --- j, k, l ----------------------------------------------------------------


def test_j_the_rates_are_computed_and_a_log_decides():
    found = ledger.learning_rates()
    assert found.answer == "computed, not trained"
    assert found.table["steps"].tolist() == [195, 870]
    assert "10_compare_designs" in found.verdict
    log = pd.DataFrame({"learning_rate": [2e-6, 2e-4], "loss": [2.0, 1.5]})
    assert ledger.learning_rates(log).answer == "the small rate learns less"
    log["loss"] = [1.5, 1.5]
    assert ledger.learning_rates(log).answer == "the small rate learns as much"


def test_j_the_log_is_read_where_notebook_10_puts_it(tmp_path):
    assert ledger.rate_log(tmp_path) is None
    head = "design,images,seed,val_loss\nlr-2e-6,phantom,1,2.0\n"
    (tmp_path / "designs.csv").write_text(head)
    assert ledger.rate_log(tmp_path) is None  # one rate is no comparison
    other = head + "stated,phantom,2,1.5\n"
    (tmp_path / "designs.csv").write_text(other)
    assert ledger.rate_log(tmp_path) is None  # nor are two seeds
    rows = other + "stated,phantom,1,1.5\nbeam,phantom,1,9\n"
    (tmp_path / "designs.csv").write_text(rows)
    log = ledger.rate_log(tmp_path)
    assert log["learning_rate"].tolist() == [2e-6, 2e-4]
    assert log["loss"].tolist() == [2.0, 1.5]


def test_k_the_papers_examples_are_found_by_their_words(studies):
    fragments = ledger.data("paper_fragments")
    assert fragments["fragment"].str.split().str.len().max() <= 12
    found = ledger.paper_examples(fragments, studies)
    at = found.table.set_index("printed in")["study"]
    assert at["Figure 4"] == "CXR24"
    assert at[["Table 6, first", "Table 6, second"]].tolist() == [
        "CXR3660",
        "CXR3282",
    ]
    assert found.answer == "a result of the paper is not in R2Gen's test list"
    all_test = studies.assign(split_r2gen="test")
    found = ledger.paper_examples(fragments, all_test)
    assert found.answer.startswith("no traced result is outside")


def test_l_counts_what_this_run_measured(tmp_path):
    quoted = ledger.data("unmeasured")
    empty = ledger.never_measured(quoted, ledger.measured_here(tmp_path))
    assert empty.answer == "0 of 4 measured"
    (tmp_path / "records").mkdir()
    (tmp_path / "records/04_finetune_qlora.json").write_text(
        '{"peak_memory_gb": 3.0, "seconds": 120}'
    )
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/clinical.csv").write_text(
        "system,hallucinations\nthis run,0.5\n"
    )
    found = ledger.never_measured(quoted, ledger.measured_here(tmp_path))
    assert found.answer == "3 of 4 measured"
    assert found.table["this run"].tolist()[:2] == [3.0, 2.0]


# --- the ledger, and whose reports ------------------------------------------


def test_the_ledger_has_a_row_for_every_claim_and_says_what_was_not_run():
    one = Measured("a", "yes", "Why.", pd.DataFrame(), {"METEOR": 0.1})
    table = ledger.ledger({"a": one}).set_index("item")
    assert list(table.index) == [
        *"abcd", "e1", "e2", *"fghijkl"
    ]
    assert table.loc["a", ["measured here", "METEOR"]].tolist() == ["yes", 0.1]
    assert (table["measured here"].drop("a") == "not run").all()
    assert table[["claim", "paper", "notebook"]].ne("").all(axis=None)


def test_published_predictions_are_preferred_and_named(folders):
    own = pd.DataFrame(
        {"study_id": ["CXR1"] * 3, "reference": "A.", "generated": list("xyz"),
         "model": ["tuned", "tuned", "base"],
         "scores_from": ["own", "shuffled", "own"]}
    )
    whose, table = ledger.choose_predictions(own, "this run")
    assert (whose, table["generated"].tolist()) == ("this run", ["x"])
    path = folders.parent / "data" / downloads.SOURCES["cvt2distilgpt2"].saves
    path.parent.mkdir(exist_ok=True)
    path.write_text("id,generated\nCXR1_IM-0001,The lungs are clear.\n")
    whose, table = ledger.choose_predictions(own, "this run")
    assert whose == "CvT2DistilGPT2, as published"
    assert table["study_id"].tolist() == ["CXR1"]


# --- notebook 08 ------------------------------------------------------------


def cells():
    found = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return [("".join(c["source"]), c) for c in found]


def test_notebook_08_needs_no_torch():
    """Its imports and its text sections, torch and transformers out of
    reach."""
    code = (
        "import sys\n"
        "class Gone:\n"
        "    @staticmethod\n"
        "    def find_spec(name, *_):\n"
        "        if name.split('.')[0] in ('torch', 'transformers'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Gone)\n"
        + cells()[2][0]
        + "\nstatements.lost_negations(['No pneumothorax.'])"
        "\nstatements.released_extractor()"
        "\nstudies = reports.load_studies()"
        "\naudit.r2gen_list(studies, {}, 2)"
        "\nledger.paper_examples(ledger.data('paper_fragments'), studies)"
        "\nstatements.score_order(ledger.data('figure_4_scores'),"
        " ledger.data('score_spread'), 10)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_notebook_08_measures_every_row_of_the_ledger():
    text = "\n".join(source for source, _ in cells())
    for item in ledger.data("ledger")["item"]:
        assert f'found["{item}"]' in text, item
