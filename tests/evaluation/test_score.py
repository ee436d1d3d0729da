"""The command `score`: what it reads, what it refuses, what it says.

References come from the wheel by id; generated texts are our own.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets.reports import load_studies, r2gen_split
from llamaxr_utils.evaluation import (
    baselines,
    clinical,
    evaluate,
    metrics,
    score,
    scorecard,
)
from llamaxr_utils.evaluation.predictions import read_predictions, read_table

SAID = (
    "The heart is normal in size. The lungs are clear. No pleural effusion.",
    "There is mild cardiomegaly. No pneumothorax.",
    "A calcified granuloma lies in the right upper lobe.",
)


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """Without Java a run takes seconds; METEOR 1.5 is tested elsewhere."""
    monkeypatch.setattr(metrics, "java_version", lambda: None)


@pytest.fixture(scope="module")
def split():
    return r2gen_split().set_index("split")


def write(path, ids, texts=SAID, **columns):
    table = {"id": ids, "generated": [texts[i % len(texts)]
                                      for i in range(len(ids))]}
    pd.DataFrame(table | columns).to_csv(path, index=False)
    return path


@pytest.fixture
def few(tmp_path, split):
    """Twelve studies on both sides of the edge in R2Gen's test list."""
    ids = list(split.loc["test", "study_id"][164:176])
    return write(tmp_path / "few.csv", ids)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, split):
    """R2Gen's test list, shuffled, against a constant report."""
    place = tmp_path_factory.mktemp("whole")
    ids = split.loc["test", "r2gen_id"].sample(frac=1, random_state=1)
    path = write(place / "mine.csv", list(ids))
    other = write(place / "constant.csv", list(ids), SAID[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "java_version", lambda: None)
        return score.score_file(path, other, n_samples=100)


# --- reading ----------------------------------------------------------------


def test_references_come_from_the_wheel_by_either_form_of_id(
    tmp_path, split
):
    test = split.loc["test"]
    long = write(tmp_path / "long.csv", list(test["r2gen_id"]))
    short = write(tmp_path / "short.csv", list(test["study_id"]))
    a, b = read_predictions(long), read_predictions(short)
    assert a.table.equals(b.table) and a.split == b.split == "r2gen test"
    findings = load_studies().set_index("study_id")["findings"]
    expected = findings.loc[a.table["study_id"]].tolist()
    assert a.table["reference"].tolist() == expected
    assert a.references == "findings" and a.notes == []


def test_the_files_own_references_come_first(few, tmp_path):
    table = pd.read_csv(few)
    path = write(tmp_path / "own.csv", table["id"], reference="Clear lungs.")
    own = read_predictions(path)
    assert set(own.table["reference"]) == {"Clear lungs."}
    assert "12 references are not the collection's findings" in own.notes[0]
    wheel = read_predictions(path, "wheel")
    assert "Clear lungs." not in set(wheel.table["reference"])
    assert wheel.notes == []
    with pytest.raises(CourseError, match="has no column reference"):
        read_predictions(few, "column")


def test_which_list_the_studies_are_of(tmp_path, split, few):
    val = list(split.loc["val", "study_id"])
    train = list(split.loc["train", "study_id"][:3])
    studies = load_studies()
    usable = studies["findings"].ne("") & studies["split_r2gen"].eq("none")
    cases = {
        "r2gen val": val,
        "part of val": val[:9],
        "mixed": val[:3] + train,
        "not known": list(studies.loc[usable, "study_id"][:3]),
    }
    for name, ids in cases.items():
        path = write(tmp_path / "x.csv", ids)
        assert read_predictions(path).split == name
    assert read_predictions(few).split == "part of test"


def test_empty_texts_are_counted(tmp_path):
    studies = load_studies().set_index("study_id")
    silent = list(studies.index[studies["findings"].eq("")][:2])
    path = write(
        tmp_path / "x.csv", [*silent, "CXR1", "CXR2"], ["", " ... ", "a", ""]
    )
    found = read_predictions(path)
    assert len(found.table) == 2
    assert "2 studies left out" in found.notes[0]
    assert "1 generated reports are empty" in found.notes[1]


def test_texts_with_commas_breaks_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "x.csv"
    text = 'id,generated\r\nCXR1,"Clear, both\nlungs ""here""."\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_table(path)["generated"].tolist() == [
        'Clear, both\nlungs "here".'
    ]


def test_a_row_that_ends_early_is_an_empty_report(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,generated\nCXR1,clear lungs\nCXR2\n")
    assert read_table(path)["generated"].tolist() == ["clear lungs", ""]


def test_other_ids_need_a_column_of_references(tmp_path):
    path = tmp_path / "x.csv"
    write(path, ["p1/s2", "CXR1"], reference="Clear lungs.")
    found = read_predictions(path)
    assert list(found.table["study_id"]) == ["p1/s2", "CXR1"]
    assert "1 ids are not IU X-ray studies." in found.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"id,generated\n", "holds no predictions"),
        (b"id,report\nCXR1,x\n", "no column generated"),
        (b"study;generated\nCXR1;x\n", "no column id and no column gen"),
        (b'{"CXR1": "x"}', "no column id"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not a CSV"),
        (b'id,generated\nCXR1,"x\n', "is not a CSV"),
        (b"id,generated\nCXR1,a,b,c\n", "is not a CSV"),
        (b"id,generated\nCXR1,a\nCXR2,a,b\n", "is not a CSV"),
        (b"id,generated\nCXR1,x\n ,y\n", "1 rows have no id"),
        (b"id,generated\nCXR1,x\nCXR1_IM-0001,y\n", "more than once"),
        (b"id,generated\nCXR1,x\nCXR99999,y\n", "1 ids are not IU X-ray"),
        (b"id,generated\nCXR1_2_3,x\n", "1 ids are not IU X-ray"),
        (b"id,generated,reference\nCXR1,x,\n", "no reference to score"),
    ],
)
def test_what_is_wrong_is_said_in_three_parts(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(CourseError, match=message) as caught:
        read_predictions(path)
    for part in (caught.value.what, caught.value.why, caught.value.do):
        assert part.endswith(".")
    assert "bad.csv" in caught.value.what


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(CourseError, match="not found|not a CSV"):
            read_predictions(path)


def test_messages_carry_no_control_characters(tmp_path):
    path = write(tmp_path / "x.csv", ["\x1b[31mCXR1", "b" * 99])
    with pytest.raises(CourseError) as caught:
        read_predictions(path)
    assert "\x1b" not in str(caught.value)
    assert "b" * 41 not in str(caught.value)


# --- scoring ----------------------------------------------------------------


def row(found, system, protocol, split, metric):
    rows = found["rows"]
    keys = ["system", "protocol", "split", "metric"]
    return rows.set_index(keys).loc[(system, protocol, split, metric)]


def test_the_numbers_are_those_of_the_modules(whole):
    ids = r2gen_split().query("split == 'test'")["study_id"]
    findings = load_studies().set_index("study_id").loc[ids]
    constant = SAID[:1] * 590
    for protocol in score.PROTOCOLS:
        expected = metrics.score_reports(
            list(findings["findings"]), constant, protocol
        )
        for metric in ("BLEU-4", "ROUGE-L"):
            found = row(whole, "constant.csv", protocol, "r2gen test", metric)
            assert found["value"] == pytest.approx(expected[metric])
            assert found["low"] < found["value"] < found["high"]
    expected = clinical.clinical_scores(
        list(findings["findings"]), constant, list(findings["status"])
    )
    found = row(whole, "constant.csv", "labels", "r2gen test", "negative F1")
    assert found["value"] == pytest.approx(expected["negative F1"])


def test_every_row_says_what_it_rests_on(whole):
    rows = whole["rows"]
    terms = rows[["protocol", "split", "images", "n"]]
    assert terms.notna().all(axis=None)
    constant = rows["system"].str.startswith(evaluate.WITHOUT_IMAGES)
    assert set(rows["images"][constant]) == {"none"}
    assert set(rows["images"][~constant]) == {"not known"}
    sizes = rows.groupby("split")["n"].unique().map(list).to_dict()
    assert sizes == {
        "r2gen test": [590], "test 1-170": [170], "test 171-590": [420]
    }
    valued = rows[rows["value"].notna() & rows["note"].eq("")]
    assert valued[["low", "high"]].notna().all(axis=None)


def test_the_first_170_and_the_other_420_are_unlike(whole):
    """One constant training report: BLEU-4 .209 and .128 under r2gen."""
    for split, expected in (
        ("r2gen test", 0.148), ("test 1-170", 0.209), ("test 171-590", 0.128)
    ):
        found = row(whole, score.MEDOID, "r2gen", split, "BLEU-4")
        assert found["value"] == pytest.approx(expected, abs=0.0006)


def test_the_baselines_are_there_under_both_protocols(whole):
    by = whole["rows"].groupby("protocol")["system"].unique().map(set)
    assert by["r2gen"] == by["llamaxr"] == by["labels"]
    assert {"most frequent report", score.MEDOID} < by["r2gen"]
    assert "random report, 5 seeds" in by["r2gen"]
    common = row(whole, *("most frequent report", "r2gen"), "r2gen test",
                 "CIDEr")
    assert common["value"] == pytest.approx(0.344, abs=0.001)


def test_the_paired_test_is_holms_over_the_whole_table(whole):
    paired = whole["paired"]
    assert set(paired["protocol"]) == {"r2gen", "llamaxr", "labels"}
    assert (paired["p_holm"] >= paired["p"]).all()
    assert paired["p_holm"].min() >= paired["p"].min() * len(paired) - 1e-9
    assert (paired["low"] <= paired["difference"] + 1e-9).all()
    by = paired.set_index(["protocol", "metric"])["difference"]
    both = [
        row(whole, f, "r2gen", "r2gen test", "BLEU-4")["value"]
        for f in ("mine.csv", "constant.csv")
    ]
    assert by["r2gen", "BLEU-4"] == pytest.approx(both[0] - both[1])


def test_distinct_reports_among_abnormal_studies(whole):
    found = whole["distinct"].set_index(["system", "studies"])
    mine = found.loc["mine.csv", "abnormal"]
    assert mine["distinct reports"] == 3
    status = load_studies().set_index("study_id")["status"]
    ids = r2gen_split().query("split == 'test'")["study_id"]
    assert mine["n"] == (status[ids] == "abnormal").sum()
    assert 1 / 3 <= mine["share of the commonest"] < 0.5
    constant = found.loc["constant.csv", "abnormal"]
    assert constant["share of the commonest"] == 1


def test_a_part_of_the_test_list_is_called_one(few):
    found = score.score_file(few, n_samples=20)
    assert found["split"] == "part of test"
    assert "12 of R2Gen's 590 test studies, 6 of them among" in str(
        found["notes"]
    )
    assert set(found["rows"]["n"]) == {12, 6}


@pytest.mark.parametrize(
    ("ids", "note"),
    [("train", "2 of the studies are in R2Gen's training list"),
     ("none", "none of R2Gen's lists")],
)
def test_no_baseline_that_has_seen_the_answer(tmp_path, ids, note):
    studies = load_studies()
    usable = studies["findings"].ne("") & studies["split_r2gen"].eq(ids)
    path = write(tmp_path / "x.csv", studies.loc[usable, "study_id"][:2])
    found = score.score_file(path, n_samples=20)
    assert set(found["rows"]["system"]) == {"x.csv"}
    assert any(f"No baselines: {note}" in n or note in n
               for n in found["notes"])


def test_any_reports_with_their_own_references(tmp_path):
    path = write(tmp_path / "x.csv", ["a", "b", "c"], reference=list(SAID))
    found = score.score_file(path, n_samples=20)
    assert row(found, "x.csv", "llamaxr", "not known", "ROUGE-L")["value"] == 1
    assert set(found["distinct"]["studies"]) == {"all", "normal", "abnormal"}


def test_the_second_file_needs_the_same_studies(few, tmp_path, monkeypatch):
    ids = list(pd.read_csv(few)["id"])
    short = write(tmp_path / "short.csv", ids[2:])
    with pytest.raises(CourseError, match="lacks 2 of the 12 studies"):
        score.score_file(few, short)
    # Another order, more studies and the same name are no obstacle.
    (tmp_path / "b").mkdir()
    more = write(tmp_path / "b" / "few.csv", [*ids[::-1], "CXR1"])
    monkeypatch.setattr(baselines, "medoid", lambda texts: texts[0])
    found = score.score_file(few, more, n_samples=20)
    assert found["files"] == ["few.csv", "few.csv (2)"]
    assert set(found["paired"]["n"]) == {12}


def test_bad_samples(few):
    with pytest.raises(CourseError, match="n_samples=0"):
        score.score_file(few, n_samples=0)


# --- showing ----------------------------------------------------------------


def test_the_terminal_table(whole):
    lines = scorecard.as_text(whole).splitlines()
    assert 79 <= max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for system in (*whole["files"], score.MEDOID, "random report, 5 seeds"):
        assert system in text
    for terms in ("r2gen | r2gen test | not known | n 590",
                  "llamaxr | test 171-590 | not known | n 420",
                  "labels | test 1-170 | not known | n 170"):
        assert terms in text
    assert "Note: r2gen has no METEOR: needs Java." in text
    assert "mine.csv minus constant.csv" in text
    # A line of values is followed by one of terms and intervals.
    values = next(i for i, line in enumerate(lines) if line[:8] == "mine.csv"
                  and "0." in line)
    assert lines[values + 1].startswith("  r2gen | r2gen test")


def test_long_names_do_not_break_the_table(few, tmp_path):
    path = tmp_path / f"{'long' * 20}.csv"
    path.write_bytes(few.read_bytes())
    text = scorecard.as_text(score.score_file(path, n_samples=20))
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(0.4612, 0.4888, ".46-.49"), (0.0, 0.004, ".00-.00"),
     (0.97, 0.9951, "1.0-1.0"), (0.71, 1.48, "0.7-1.5"),
     (None, None, ""), (np.nan, np.nan, "")],
)
def test_an_interval_in_seven_characters(low, high, shown):
    assert scorecard._span(low, high) == shown and len(shown) <= 7


def test_markdown_has_all_systems_on_all_parts(whole):
    page = scorecard.as_markdown(whole)
    assert page.count("| most frequent report | r2gen |") == 3
    assert page.count("| random report, 5 seeds | labels |") == 3
    assert "needs Java" in page and "NaN" not in page and "nan" not in page
    widths = {line.count(" | ") for line in page.splitlines()
              if line.startswith("| mine.csv | r2gen")}
    assert widths == {5 + 7 - 1}


# --- the command ------------------------------------------------------------


def test_the_command_writes_json_and_markdown(few, tmp_path, capsys):
    out, page = tmp_path / "out.json", tmp_path / "out.md"
    done = commands.main(
        ["score", str(few), "--samples", "20"]
        + ["--json", str(out), "--markdown", str(page)]
    )
    shown = capsys.readouterr()
    assert done == 0 and "12 studies" in shown.out
    assert "r2gen: few.csv ..." in shown.err

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    found = json.loads(out.read_text("utf-8"), parse_constant=refuse)
    assert found["n"] == 12 and found["images"] == "not known"
    assert {r["protocol"] for r in found["rows"]} == {
        "r2gen", "llamaxr", "labels"
    }
    assert found["records"]["r2gen"]["cleaning"] == "r2gen"
    assert page.read_text("utf-8").startswith("# Scores of few.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "few.csv", "out.json", "out.md"
    ]


@pytest.mark.parametrize("option", ["--json", "--markdown"])
@pytest.mark.parametrize("where", ["few.csv", ".", "nowhere/out.md"])
def test_a_bad_place_is_refused_before_the_work(
    few, tmp_path, monkeypatch, capsys, option, where
):
    monkeypatch.setattr(score, "score_file", None)  # would not be callable
    before = few.read_bytes()
    done = commands.main(["score", str(few), option, str(tmp_path / where)])
    assert done == 1 and few.read_bytes() == before
    assert "cannot be written" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert commands.main(["score", str(tmp_path / "nowhere.csv")]) == 1
    shown = capsys.readouterr().err
    assert all(part in shown for part in ("What:", "Why:", "Do:"))
    with pytest.raises(SystemExit):
        commands.main(["score", "x.csv", "--references", "nobody"])
