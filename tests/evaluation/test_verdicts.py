"""Four words with a rule, and the tables that carry them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course import tables
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.evaluation import evaluate, metrics

METRICS = list(tables.METRICS)
TERMS = {
    "paper_protocol": "llamaxr",
    "protocol": "llamaxr",
    "paper_split": "random",
    "split": "random",
    "images": "real",
    "command": "make course PROFILE=paper",
}
REFERENCES = [
    f"The {organ} is {state} and there is no {finding}."
    for organ in ("heart", "aorta", "spine", "chest")
    for state in ("normal", "enlarged", "clear")
    for finding in ("effusion", "edema", "scar")
]
CLOSE = [text.replace("there is no", "without") for text in REFERENCES]
FAR = ["Old rib fractures."] * len(REFERENCES)


@pytest.fixture
def results(monkeypatch):
    monkeypatch.setattr(metrics, "java_version", lambda: None)
    return {
        (name, protocol): metrics.score_reports(
            REFERENCES, texts, protocol, **extra
        )
        for protocol, extra in (
            ("r2gen", {"vocabulary": ()}),
            ("llamaxr", {}),
        )
        for name, texts in (("this run", CLOSE), ("constant", FAR))
    }


def summary_of(system="this run", metric="METEOR", **changes):
    row = {
        "system": system,
        "protocol": "r2gen",
        "split": "r2gen",
        "images": "real",
        "n": 590,
        "metric": metric,
        "value": 0.2,
        "low": 0.19,
        "high": 0.21,
        "note": "",
    }
    return pd.DataFrame([row | changes])


# --- the rule ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("paper", "low", "high", "word"),
    [
        (0.433, 0.42, 0.44, "reproduced"),
        (0.433, 0.4334, 0.44, "reproduced"),  # 0.433 as the paper rounds
        (0.433, 0.4336, 0.44, "differs"),
        (0.433, 0.40, 0.4325, "differs"),
        (0.433, 0.40, 0.433, "reproduced"),
    ],
)
def test_inside_or_outside_the_interval(paper, low, high, word):
    found, why = tables.verdict(paper, (low + high) / 2, low, high, **TERMS)
    assert found == word
    assert "inside" in why if word == "reproduced" else "outside" in why


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": "r2gen"}, "protocol is llamaxr"),
        ({"split": "r2gen"}, "split: random"),
        ({"images": "phantom"}, "drawings"),
    ],
)
def test_another_ruler_split_or_drawings_are_not_comparable(change, reason):
    terms = TERMS | change
    # Even where the number is the paper's to the last digit.
    word, why = tables.verdict(0.433, 0.433, 0.42, 0.44, **terms)
    assert word == "not comparable" and reason in why


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_numbers(missing):
    not_run = tables.verdict(0.433, missing, missing, missing, **TERMS)
    assert not_run == ("not run", "make course PROFILE=paper")
    word, why = tables.verdict(missing, 0.4, 0.3, 0.5, **TERMS)
    assert word == "not comparable" and "prints no number" in why
    word, why = tables.verdict(0.4, 0.4, missing, missing, **TERMS)
    assert word == "not comparable" and "no interval" in why


def test_not_run_comes_before_not_comparable():
    terms = TERMS | {"images": "phantom"}
    assert tables.verdict(0.4, None, None, None, **terms)[0] == "not run"


def test_all_words_are_the_four():
    words = {
        tables.verdict(0.4, value, 0.3, high, **(TERMS | {"split": split}))[0]
        for value in (None, 0.35)
        for high in (0.39, 0.41)
        for split in ("random", "r2gen")
    }
    assert words == set(tables.VERDICTS)


# --- beside the paper -------------------------------------------------------


def test_a_public_system_can_be_reproduced():
    found = tables.compare_with_paper(summary_of(), paper="CvT-DistilGPT2")
    assert list(found.columns) == [
        *("metric", "protocol", "split", "paper", "this run", "difference"),
        *("verdict", "why"),
    ]
    by = found.set_index("metric")
    assert by.loc["METEOR", "verdict"] == "reproduced"  # the paper: 0.193
    assert by.loc["METEOR", "difference"] == pytest.approx(0.007)
    assert by.loc["BLEU-4", "verdict"] == "not run"
    assert by.loc["BLEU-4", "why"] == "make course PROFILE=paper"
    other = summary_of(value=0.3, low=0.29, high=0.31)
    found = tables.compare_with_paper(other, paper="CvT-DistilGPT2")
    assert set(found["verdict"]) == {"differs", "not run"}


@pytest.mark.parametrize(
    "change", [{"images": "phantom"}, {"split": "random"}, {"n": 100}]
)
def test_no_difference_is_taken_where_none_can_be(change):
    found = tables.compare_with_paper(
        summary_of(**change), paper="CvT-DistilGPT2"
    ).set_index("metric")
    assert found.loc["METEOR", "verdict"] == "not comparable"
    assert np.isnan(found.loc["METEOR", "difference"])


def test_the_papers_own_row_needs_an_assumption_that_is_said():
    own = summary_of(protocol="llamaxr", value=0.336, low=0.33, high=0.34)
    strict = tables.compare_with_paper(own).set_index("metric")
    assert strict.loc["METEOR", "verdict"] == "not comparable"
    assert "no list published" in strict.loc["METEOR", "why"]
    taken = tables.compare_with_paper(own, paper_split="r2gen")
    taken = taken.set_index("metric")
    assert taken.loc["METEOR", "verdict"] == "reproduced"
    assert "taking the paper's split to be r2gen" in taken.loc["METEOR", "why"]


def test_another_protocols_numbers_are_not_looked_at():
    found = tables.compare_with_paper(summary_of(protocol="r2gen"))
    assert set(found["verdict"]) == {"not run"}


def test_what_java_would_give_is_not_run():
    row = summary_of(value=None, low=None, high=None, note="needs Java")
    found = tables.compare_with_paper(row, paper="R2Gen").set_index("metric")
    assert tuple(found.loc["METEOR", ["verdict", "why"]]) == (
        *("not run", "needs Java"),
    )


def test_an_unknown_row():
    with pytest.raises(CourseError, match="no row 'GPT-7'"):
        tables.compare_with_paper(summary_of(), paper="GPT-7")


# --- Tables 1 and 3 ---------------------------------------------------------


def test_table_1_has_the_papers_rows_and_two_columns_more():
    table = tables.table_1()
    assert list(table.columns) == [
        *("method", "image embedding", "model", "pre-trained"),
        *("fine-tuning", "predictions public", "split public"),
    ]
    assert len(table) == 21
    results = set(tables.published_results()["system"])
    assert results < set(table["method"])
    assert set(table["method"]) - results == {"RadCouncil"}
    assert set(table["pre-trained"]) == {"✓", "×", "-"}
    ours = table.set_index("method")[["predictions public", "split public"]]
    assert set(ours.to_numpy().ravel()) <= {"yes", "no", "not known to us"}
    public = ours["predictions public"].eq("yes")
    assert list(ours.index[public]) == ["CvT-DistilGPT2"]
    assert ours.loc["R2Gen", "split public"] == "yes"


def summarised(results, images="real"):
    return evaluate.summarise(
        results, split="r2gen", images=images, n_samples=50, seed=1
    )


def test_table_3_says_terms_and_intervals_on_every_row(results):
    table = evaluate.table_3(summarised(results), run="this run")
    assert len(table) == 20 + 4
    assert table[["protocol", "split", "images"]].notna().all(axis=None)
    computed = table[table["origin"] == "computed here"]
    assert (computed["n"] == len(REFERENCES)).all()
    known = table.set_index("system")["n"]
    assert known["CvT-DistilGPT2"] == known["R2Gen"] == 590
    assert pd.isna(known["UAR"])
    for metric in METRICS[:5]:
        low, high = computed[f"{metric} low"], computed[f"{metric} high"]
        assert (low <= computed[metric] + 1e-9).all()
        assert (computed[metric] <= high + 1e-9).all()
        quoted = table[table["origin"] == "quoted"]
        assert quoted[f"{metric} low"].isna().all()


def test_bold_is_what_a_paired_test_finds(results):
    bold = evaluate.winners(results, n_samples=200, seed=1)
    assert ("this run", "r2gen", "BLEU-1") in bold
    assert {system for system, _, _ in bold} == {"this run"}
    table = evaluate.table_3(summarised(results), "this run", " (note)")
    shown = tables.readable_table_3(table, bold, " (note)")
    assert [c for c in shown if c.endswith("low")] == []
    cell = shown.set_index(["system", "protocol"])["BLEU-1"]
    assert cell["this run (note)", "r2gen"].startswith("**0.")
    assert cell["this run (note)", "r2gen"].endswith("]")
    assert "*" not in cell["constant", "r2gen"]
    quoted = shown.loc[shown["origin"] == "quoted", METRICS].to_numpy()
    assert not any("*" in text for text in quoted.ravel())
    assert shown.set_index("system").loc["DCL", "BLEU-1"] == "–"
    markdown = tables.markdown(shown)
    assert "| this run (note) |" in markdown and "| **0." in markdown


def test_a_tie_or_chance_is_not_bold(results):
    same = {
        (name, "llamaxr"): results["this run", "llamaxr"]
        for name in ("this run", "copy")
    }
    assert evaluate.winners(same, n_samples=200, seed=1) == set()
    # Better in one study of 36 only.
    nearly = [*FAR[:-1], CLOSE[-1]]
    close = {
        ("a", "llamaxr"): metrics.score_reports(REFERENCES, FAR),
        ("b", "llamaxr"): metrics.score_reports(REFERENCES, nearly),
    }
    assert evaluate.winners(close, n_samples=200, seed=1) == set()


def test_one_system_alone_is_not_bold(results):
    alone = {key: results[key] for key in [("this run", "r2gen")]}
    assert evaluate.winners(alone, n_samples=50, seed=1) == set()


# --- several runs, parts ----------------------------------------------------


def test_repeats_are_averaged_by_study(monkeypatch):
    monkeypatch.setattr(metrics, "java_version", lambda: None)
    runs = [CLOSE, FAR, CLOSE]
    found = evaluate.score_repeats(REFERENCES, runs, "r2gen")
    each = [metrics.score_reports(REFERENCES, r, "r2gen") for r in runs]
    for metric in ("ROUGE-L", "CIDEr"):
        mean = np.mean([one[metric] for one in each])
        assert found[metric] == pytest.approx(mean)
    assert found["record"]["n"] == len(REFERENCES)
    assert found["record"]["repeats"] == 3
    results = {("random", "r2gen"): found}
    summary = summarised(results).set_index("metric")
    assert (summary["n"] == len(REFERENCES)).all()
    value = summary.loc["BLEU-1", "value"]
    assert value == pytest.approx(found["BLEU-1"])
    # As one system it can be tested against another.
    results["constant", "r2gen"] = each[1]
    paired = evaluate.compare(results, "random", "r2gen", 100, 1)
    assert (paired["difference"] > 0).any()


def test_a_part_of_the_studies(results):
    rows = np.arange(0, len(REFERENCES), 2)
    one = {("this run", "llamaxr"): results["this run", "llamaxr"]}
    part = evaluate.summarise(
        *(one,), split="half", images="real", n_samples=20, seed=1, rows=rows
    ).set_index("metric")
    each = results["this run", "llamaxr"]["per_report"]["METEOR"]
    assert part.loc["METEOR", "value"] == pytest.approx(each.iloc[rows].mean())
    assert set(part["n"]) == {len(rows)} and set(part["split"]) == {"half"}


def test_the_page_shows_text_and_the_csv_keeps_numbers(folders, results):
    from llamaxr_utils.course.run import Run

    nb = Run("06_evaluate_reports", "cpu", None)
    table = evaluate.table_3(summarised(results, "phantom"), "this run")
    shown = tables.readable_table_3(table, set())
    given = tables.save_table(
        nb, table, item="table-3", title="Table 3", shown=shown
    )
    assert given is shown
    page = nb.file("tables", "table-3.md").read_text()
    assert "(phantom images)" in page and "0.433" in page
    kept = pd.read_csv(nb.file("tables", "table-3.csv"))
    assert kept["METEOR"].dtype == float and "METEOR low" in kept
    beside = tables.compare_with_paper(summarised(results, "phantom"))
    assert "ours" not in beside
    assert set(beside["verdict"]) == {"not comparable"}
    tables.save_table(nb, beside, "beside", title="Beside the paper")
