"""Four words with a rule, and the paper's Tables 1 and 3 that carry them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course import tables
from llamaxr_utils.course.run import Run
from llamaxr_utils.evaluation import metrics, published, score

NOTEBOOK = Path(__file__).parents[2] / "notebooks/06_evaluate_reports.ipynb"
METRICS = list(published.METRICS)
GO = "make course PROFILE=paper"
TERMS = {"paper_split": "random", "split": "random", "images": "real",
         "command": GO}


@pytest.mark.parametrize(
    ("numbers", "change", "word", "reason"),
    [
        ((0.433, 0.43, 0.42, 0.44), {}, "reproduced", "inside"),
        # 0.433 as the paper rounds
        ((0.433, 0.43, 0.4334, 0.44), {}, "reproduced", "inside"),
        ((0.433, 0.43, 0.40, 0.433), {}, "reproduced", "inside"),
        ((0.433, 0.43, 0.4336, 0.44), {}, "differs", "outside"),
        ((0.433, 0.41, 0.40, 0.4325), {}, "differs", "outside"),
        # Not even where the number is the paper's to the last digit.
        ((0.433, 0.433, 0.42, 0.44), {"split": "r2gen"}, "not comparable",
         "split: random"),
        ((0.433, 0.433, 0.42, 0.44), {"images": "phantom"}, "not comparable",
         "drawings"),
        ((np.nan, 0.4, 0.3, 0.5), {}, "not comparable", "prints no number"),
        ((0.4, 0.4, None, np.nan), {}, "not comparable", "no interval"),
        # Not run comes first.
        ((0.433, np.nan, None, None), {"images": "phantom"}, "not run", GO),
    ],
)
def test_the_rule(numbers, change, word, reason):
    verdict, why = published.verdict(*numbers, **TERMS | change)
    assert verdict == word and reason in why


# --- beside the paper -------------------------------------------------------


def beside(paper="CvT-DistilGPT2", paper_split=None, **changes):
    row = {"system": "this run", "protocol": "r2gen", "split": "r2gen",
           "images": "real", "n": 590, "metric": "METEOR", "value": 0.2,
           "low": 0.19, "high": 0.21, "note": ""}
    table = published.compare_with_paper(
        pd.DataFrame([row | changes]), paper=paper, paper_split=paper_split)
    return table.set_index("metric")


def test_a_public_system_can_be_reproduced():
    table = beside()
    assert table.loc["METEOR", "verdict"] == "reproduced"  # the paper: 0.193
    assert table.loc["METEOR", "difference"] == pytest.approx(0.007)
    assert table.loc["BLEU-4", "verdict"] == "not run"
    assert table.loc["BLEU-4", "why"] == GO
    other = beside(value=0.3, low=0.29, high=0.31)
    assert other.loc["METEOR", "verdict"] == "differs"
    for change in ({"images": "phantom"}, {"split": "random"}, {"n": 100}):
        meteor = beside(**change).loc["METEOR"]
        assert meteor["verdict"] == "not comparable"
        assert np.isnan(meteor["difference"])


def test_the_papers_own_row_needs_an_assumption_that_is_said():
    own = {"protocol": "llamaxr", "value": 0.336, "low": 0.33, "high": 0.34}
    strict = beside("LLaMA-XR", **own).loc["METEOR"]
    assert strict["verdict"] == "not comparable"
    assert "no list published" in strict["why"]
    taken = beside("LLaMA-XR", "r2gen", **own).loc["METEOR"]
    assert taken["verdict"] == "reproduced"
    assert "taking the paper's split to be r2gen" in taken["why"]
    assert set(beside("LLaMA-XR")["verdict"]) == {"not run"}  # protocol r2gen
    meteor = beside("R2Gen", value=None, low=None, high=None,
                    note="needs Java").loc["METEOR"]
    assert tuple(meteor[["verdict", "why"]]) == ("not run", "needs Java")


# --- Tables 1 and 3 ---------------------------------------------------------


def test_table_1_has_the_papers_rows_and_two_columns_more():
    table = published.table_1().set_index("method")
    results = set(published.published_results()["system"])
    assert len(table) == 21 and set(table.index) - results == {"RadCouncil"}
    assert results < set(table.index)
    public = table["predictions public"].eq("yes")
    assert list(table.index[public]) == ["CvT-DistilGPT2"]
    assert table.loc["R2Gen", "split public"] == "yes"


@pytest.fixture(scope="module")
def summary():
    texts = [f"The {a} is {b} and clear." for a in ("heart", "chest", "lung")
             for b in ("large", "small", "old", "new")] * 2
    systems = {"this run": [t[:-7] for t in texts],
               "constant": texts[:1] * 24}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "java_version", lambda: None)
        results = {
            (system, protocol): metrics.score_reports(texts, reports, protocol)
            for protocol in ("r2gen", "llamaxr")
            for system, reports in systems.items()}
    return score.summarise(results, split="r2gen test", images="phantom",
                           n_samples=50, seed=1)


@pytest.fixture(scope="module")
def cells():
    """The functions that notebook 06 makes Table 3 with."""
    names = {"pd": pd, "published": published}
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["id"] in ("06-29b", "06-29d"):
            exec("".join(cell["source"]), names)  # noqa: S102
    return names


def test_table_3_quotes_the_papers_20_rows_then_this_runs(summary, cells):
    table = cells["table_3_rows"](summary, " (phantom images)")
    # Protocol, split, images and origin: never a bare number.
    for column in ("protocol", "split", "images", "origin", "system"):
        assert table[column].notna().all() and table[column].ne("").all()
    quoted = table[table["origin"] == "quoted"].set_index("system")
    printed = published.published_results().set_index("system")
    pd.testing.assert_frame_equal(quoted[METRICS], printed[METRICS])
    assert quoted.loc["LLaMA-XR", "protocol"] == "llamaxr"
    assert (quoted["protocol"] == "llamaxr").sum() == 1
    ends = [c for c in table if c.endswith((" low", " high"))]
    assert quoted[ends].isna().all(axis=None)
    assert list(quoted.index[quoted["n"] == 590]) == list(
        printed.index[printed.index.isin(published.ON_R2GEN_SPLIT)])
    computed = table[table["origin"] == "computed here"]
    assert len(computed) == 4 and computed.index.min() == 20
    assert set(computed["images"]) == {"phantom"}
    assert set(computed["n"]) == {24}
    value = summary.set_index(["system", "protocol", "metric"])["value"]
    ours = computed[computed["system"] == "this run (phantom images)"]
    for row in ours.to_dict("records"):
        expected = value["this run", row["protocol"], "ROUGE-L"]
        assert row["ROUGE-L"] == pytest.approx(expected)
        assert row["ROUGE-L low"] <= row["ROUGE-L"] <= row["ROUGE-L high"]


def test_the_page_shows_text_and_the_csv_keeps_numbers(
    folders, summary, cells
):
    nb = Run("06_evaluate_reports", "cpu", None)
    table = cells["table_3_rows"](summary, " (note)")
    shown = cells["readable_table_3"](table)
    assert shown.set_index("system").loc["DCL", "BLEU-1"] == "–"
    cell = shown.set_index(["system", "protocol"])["BLEU-1"]
    assert "[" in cell["this run (note)", "r2gen"]
    tables.save_table(nb, table, item="table-3", title="Table 3", shown=shown)
    page = nb.file("tables", "table-3.md").read_text()
    assert "(phantom images)" in page and "0.433" in page
    assert "| this run (note) |" in page
    kept = pd.read_csv(nb.file("tables", "table-3.csv"))
    assert kept["METEOR"].dtype == float and "METEOR low" in kept
