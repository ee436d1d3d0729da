"""From scores of systems to tables: intervals, tests, Table 3."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course import tables
from llamaxr_utils.course.artifacts import ARTIFACTS
from llamaxr_utils.evaluation import evaluate, metrics

REFERENCES = [
    "the heart is large and both lungs are clear .",
    "some fluid is seen on the left side of the chest .",
    "a small round spot lies in the upper zone of the lung .",
    "nothing unusual is seen in this picture of the chest .",
    "free air is seen beside the right lung and the heart .",
    "the stomach lies behind the heart and looks large .",
    "old bones and a curved spine are seen in this picture .",
    "the upper zone of the left lung looks small and dense .",
] * 3
GOOD = [text.replace("seen", "found") for text in REFERENCES]
CONSTANT = ["the heart is large and both lungs are clear ."] * len(REFERENCES)
SYSTEMS = {"this run": GOOD, "most frequent": CONSTANT}


def no_java():
    return None


@pytest.fixture(scope="module")
def results():
    """Both systems under both protocols, as on a machine without Java."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "java_version", no_java)
        return {
            (system, protocol): metrics.score_reports(
                REFERENCES, texts, protocol, **extra
            )
            for protocol, extra in (
                ("r2gen", {"vocabulary": ()}),
                ("llamaxr", {}),
            )
            for system, texts in SYSTEMS.items()
        }


@pytest.fixture(scope="module")
def summary(results):
    return evaluate.summarise(
        results, split="r2gen test", images="phantom", n_samples=200, seed=1
    )


# --- the summary ------------------------------------------------------------


def test_every_row_says_how_it_came_about(summary):
    assert set(ARTIFACTS["summary"].columns) <= set(summary.columns)
    columns = ["system", "protocol", "split", "images", "n", "metric"]
    assert summary[columns].notna().all(axis=None)
    assert set(summary["n"]) == {len(REFERENCES)}
    assert set(summary["images"]) == {"phantom"}
    assert not summary.duplicated(["system", "protocol", "metric"]).any()


def test_values_are_those_of_the_scorer(summary, results):
    for row in summary.dropna(subset=["value"]).itertuples():
        result = results[row.system, row.protocol]
        assert row.value == pytest.approx(result[row.metric], abs=1e-6)


def test_intervals_contain_their_value(summary):
    there = summary.dropna(subset=["value"])
    assert len(there) == 2 * 6 + 2 * 6
    assert (there["low"] <= there["value"] + 1e-9).all()
    assert (there["value"] <= there["high"] + 1e-9).all()
    wide = there["high"] - there["low"]
    assert (wide[there["system"] == "most frequent"] > 0).all()


def test_the_seed_decides_the_interval(results, summary):
    again = evaluate.summarise(
        results, split="r2gen test", images="phantom", n_samples=200, seed=1
    )
    pd.testing.assert_frame_equal(again, summary)


def test_without_java_meteor_says_so(summary):
    meteor = summary[summary["metric"] == "METEOR"].set_index("protocol")
    assert meteor.loc["r2gen", "value"].isna().all()
    assert set(meteor.loc["r2gen", "note"]) == {"needs Java"}
    assert meteor.loc["llamaxr", "value"].notna().all()
    shown = evaluate.wide(summary, "r2gen")
    assert set(shown["METEOR"]) == {"needs Java"}


def test_the_wide_table_keeps_the_order(summary):
    shown = evaluate.wide(summary, "llamaxr")
    assert list(shown.index) == list(SYSTEMS)
    assert list(shown.columns) == list(tables.METRICS)
    assert shown["BLEU-4"].str.fullmatch(
        r"0\.\d{3} \[0\.\d\d, [01]\.\d\d\]"
    ).all()
    assert "CIDEr" in evaluate.wide(summary, "r2gen")


# --- tests between systems --------------------------------------------------


@pytest.mark.parametrize("protocol", ["llamaxr", "r2gen"])
def test_a_better_system_is_better(results, protocol):
    table = evaluate.compare(results, "this run", protocol, 200, seed=1)
    assert set(table["other"]) == {"most frequent"}
    assert (table["difference"] > 0).all()
    assert (table["p"] < 0.05).all()
    assert (table["p_holm"] >= table["p"] - 1e-12).all()


def test_a_system_is_not_better_than_itself(results):
    twice = {
        ("a", "llamaxr"): results["this run", "llamaxr"],
        ("b", "llamaxr"): results["this run", "llamaxr"],
    }
    table = evaluate.compare(twice, "a", "llamaxr", 100, seed=1)
    assert (table["difference"].abs() < 1e-12).all()
    assert (table["p_holm"] == 1).all()


def test_systems_are_only_compared_under_one_protocol(results):
    table = evaluate.compare(results, "most frequent", "r2gen", 50, seed=1)
    assert set(table["other"]) == {"this run"}
    assert "METEOR" not in set(table["metric"])  # has no value here


# --- Table 3 ----------------------------------------------------------------


@pytest.fixture(scope="module")
def table_3(summary):
    return evaluate.table_3(summary, "this run", " (phantom images)")


def test_table_3_quotes_the_papers_20_rows(table_3):
    quoted = table_3[table_3["origin"] == "quoted"]
    assert len(quoted) == 20
    assert quoted["system"].nunique() == 20
    printed = tables.published_results()
    for metric in tables.METRICS:
        pd.testing.assert_series_equal(
            quoted[metric].reset_index(drop=True),
            printed[metric],
            check_names=False,
        )
    own = quoted[quoted["system"] == "LLaMA-XR"].iloc[0]
    assert own["METEOR"] == 0.336
    assert own["protocol"] == "llamaxr"
    assert (quoted["protocol"] == "llamaxr").sum() == 1


def test_table_3_has_this_runs_rows_below(table_3, summary):
    computed = table_3[table_3["origin"] == "computed here"]
    assert len(computed) == 2 * len(SYSTEMS)
    assert computed.index.min() == 20
    assert (computed["n"] == len(REFERENCES)).all()
    ours = computed[computed["system"].str.startswith("this run")]
    assert set(ours["system"]) == {"this run (phantom images)"}
    value = summary.set_index(["system", "protocol", "metric"])["value"]
    for row in ours.itertuples():
        wanted = value["this run", row.protocol, "ROUGE-L"]
        found = ours.loc[row.Index, "ROUGE-L"]
        assert found == pytest.approx(wanted)


def test_no_row_of_table_3_is_without_its_terms(table_3):
    """Protocol, split, images and origin: never a bare number."""
    for column in ("protocol", "split", "images", "origin", "system"):
        assert table_3[column].notna().all()
        assert table_3[column].ne("").all()
    assert set(table_3["protocol"]) == {"llamaxr", "r2gen"}
    phantom = table_3["origin"] == "computed here"
    assert set(table_3.loc[phantom, "images"]) == {"phantom"}


def test_a_quoted_number_has_no_interval(table_3):
    ends = [c for c in table_3 if c.endswith((" low", " high"))]
    quoted = table_3["origin"] == "quoted"
    assert table_3.loc[quoted, ends].isna().all(axis=None)


def test_rows_for_a_plot_are_sorted(table_3):
    shown = evaluate.for_plot(table_3, "METEOR")
    assert shown["METEOR"].is_monotonic_increasing
    assert shown["METEOR"].notna().all()
    assert len(shown) < len(table_3)  # dashes and "needs Java" are out


# --- per study --------------------------------------------------------------


def test_scores_of_single_studies_carry_their_id(results):
    ids = [f"CXR{i}" for i in range(len(REFERENCES))]
    table = evaluate.per_study(results, ids)
    assert tuple(table.columns) == ARTIFACTS["metrics"].columns
    one = table[
        (table["system"] == "this run")
        & (table["protocol"] == "llamaxr")
        & (table["metric"] == "BLEU-4")
    ]
    assert list(one["study_id"]) == ids
    mean = results["this run", "llamaxr"]["BLEU-4"]
    assert one["value"].mean() == pytest.approx(mean)


def test_dropped_pairs_do_not_shift_the_ids():
    """The second reference is empty: it has no scores, the third has its."""
    references = [REFERENCES[0], "", REFERENCES[2]]
    result = metrics.score_reports(
        references, [GOOD[0], "x", REFERENCES[2]], "llamaxr"
    )
    table = evaluate.per_study({("a", "llamaxr"): result}, ["A", "B", "C"])
    assert list(dict.fromkeys(table["study_id"])) == ["A", "C"]
    exact = table[(table["study_id"] == "C") & (table["metric"] == "BLEU-1")]
    assert np.isclose(exact["value"], 1.0).all()


def test_notebook_06_needs_no_torch():
    """Its imports, and a score, with torch and transformers out of reach."""
    import json
    import subprocess
    import sys
    from pathlib import Path

    notebook = Path(__file__).parents[2] / "notebooks"
    cells = json.loads(
        (notebook / "06_evaluate_reports.ipynb").read_text("utf-8")
    )["cells"]
    code = (
        "import sys\n"
        "class Gone:\n"
        "    @staticmethod\n"
        "    def find_spec(name, *_):\n"
        "        if name in ('torch', 'transformers'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Gone)\n"
        + "".join(cells[2]["source"])
        + "\nmetrics.score_reports(['The lungs are clear.'], ['Lungs clear.'])"
        "\nbaselines.medoid(['The lungs are clear.', 'No effusion.'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
