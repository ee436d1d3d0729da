"""Tables of systems, and the command `score`: reads, refuses, says.

References come from the wheel by id; generated texts are our own.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course.artifacts import ARTIFACTS
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets.reports import load_studies, r2gen_split
from llamaxr_utils.evaluation import baselines, clinical, metrics, score
from llamaxr_utils.evaluation.score import read_predictions, read_table

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


# --- files are read ---------------------------------------------------------


def test_references_come_from_the_wheel_by_either_form_of_id(tmp_path, split):
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
    # Other ids need such a column.
    path = write(tmp_path / "x.csv", ["p1/s2", "CXR1"], reference="Clear.")
    other = read_predictions(path)
    assert list(other.table["study_id"]) == ["p1/s2", "CXR1"]
    assert "1 ids are not IU X-ray studies." in other.notes


def test_which_list_the_studies_are_of(tmp_path, split, few):
    val = list(split.loc["val", "study_id"])
    train = list(split.loc["train", "study_id"][:3])
    studies = load_studies()
    usable = studies["findings"].ne("") & studies["split_r2gen"].eq("none")
    other = list(studies.loc[usable, "study_id"][:3])
    for name, ids in {"r2gen val": val, "part of val": val[:9],
                      "mixed": val[:3] + train, "not known": other}.items():
        path = write(tmp_path / "x.csv", ids)
        assert read_predictions(path).split == name
    assert read_predictions(few).split == "part of test"


def test_empty_texts_commas_breaks_a_byte_order_mark_and_short_rows(tmp_path):
    studies = load_studies().set_index("study_id")
    silent = list(studies.index[studies["findings"].eq("")][:2])
    path = write(
        tmp_path / "x.csv", [*silent, "CXR1", "CXR2"], ["", " ... ", "a", ""])
    predictions = read_predictions(path)
    assert len(predictions.table) == 2
    assert "2 studies left out" in predictions.notes[0]
    assert "1 generated reports are empty" in predictions.notes[1]
    text = 'id,generated\r\nCXR1,"Clear, both\nlungs ""here""."\r\nCXR2\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_table(path)["generated"].tolist() == [
        'Clear, both\nlungs "here".', ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read"),
        (b"id,generated\n", "holds no predictions"),
        (b"study;generated\nCXR1;x\n", "no column id and no column gen"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "can't be read"),
        (b'id,generated\nCXR1,"x\n', "can't be read"),
        (b"id,generated\nCXR1,a,b,c\n", "can't be read"),
        (b"id,generated\nCXR1,a\nCXR2,a,b\n", "can't be read"),
        (b"id,generated\nCXR1,x\n ,y\n", "1 rows without id"),
        (b"id,generated\nCXR1,x\nCXR1_IM-0001,y\n", "more than once"),
        (b"id,generated\nCXR1,x\nCXR99999,y\n", "1 ids that are not IU X"),
        (b"id,generated\nCXR1_2_3,x\n", "1 ids that are not IU X-ray"),
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


def test_no_file_and_messages_without_control_characters(tmp_path):
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(CourseError, match="was not found"):
            read_predictions(path)
    path = write(tmp_path / "x.csv", ["\x1b[31mCXR1", "b" * 99])
    with pytest.raises(CourseError) as caught:
        read_predictions(path)
    assert "\x1b" not in str(caught.value)
    assert "b" * 41 not in str(caught.value)


# --- ReXrank's JSON ---------------------------------------------------------


def test_rexrank_is_read(tmp_path):
    case = {
        "report": "Findings: The heart is large. Impression: Large heart.",
        "section_findings": "The heart is large.",
        "model_prediction": "Findings: The heart is big.Impression:Big.",
    }
    older = {"findings": "Clear.", "impression": None, "model_prediction": ""}
    path = tmp_path / "rexrank.json"
    path.write_text(json.dumps({"CXR1_IM-0001": case, "5000": older}))
    columns = ["id", "study_id", "reference", "generated"]
    assert read_table(path)[columns].to_numpy().tolist() == [
        ["CXR1_IM-0001", "CXR1", "The heart is large.", "The heart is big."],
        ["5000", "5000", "Clear.", ""],
    ]


def test_another_json_is_refused(tmp_path):
    path = tmp_path / "x.json"
    for text in ("", "[1]", '{"a": 3}', "{", "{}"):
        path.write_text(text)
        with pytest.raises(CourseError, match=r"x\.json"):
            read_table(path)
    path.write_text('{"CXR1": {"findings": "Clear."}}')
    with pytest.raises(CourseError, match="without `model_prediction`"):
        read_table(path)


# --- tables of systems ------------------------------------------------------

REFERENCES = [
    f"The {organ} is {state} and there is no {finding}."
    for organ in ("heart", "aorta", "spine", "chest")
    for state in ("normal", "enlarged", "clear")
    for finding in ("effusion", "edema", "scar")
]
CLOSE = [text.replace("there is no", "without") for text in REFERENCES]
FAR = ["Old rib fractures."] * len(REFERENCES)


@pytest.fixture
def results():
    """Two systems under both protocols, as on a machine without Java."""
    return {
        (system, protocol): metrics.score_reports(
            REFERENCES, texts, protocol, vocabulary=()
        )
        for protocol in ("r2gen", "llamaxr")
        for system, texts in (("this run", CLOSE), ("constant", FAR))
    }


def summarised(results, images="real", **options):
    return score.summarise(results, split="r2gen", images=images, seed=1,
                           n_samples=100, **options)


def test_the_summary_says_terms_and_the_scorers_values(results):
    summary = summarised(results)
    assert set(ARTIFACTS["summary"].columns) <= set(summary.columns)
    assert summary[[*score.KEYS, "metric"]].notna().all(axis=None)
    assert not summary.duplicated(["system", "protocol", "metric"]).any()
    valued = summary.dropna(subset=["value"])
    assert len(valued) == 4 * 6
    assert (valued["low"] <= valued["value"] + 1e-9).all()
    assert (valued["value"] <= valued["high"] + 1e-9).all()
    for r in valued.itertuples():
        expected = results[r.system, r.protocol][r.metric]
        assert r.value == pytest.approx(expected, abs=1e-6)
    pd.testing.assert_frame_equal(summarised(results), summary)  # its seed
    meteor = summary.query("metric == 'METEOR' and protocol == 'r2gen'")
    assert meteor["value"].isna().all()
    assert set(meteor["note"]) == {"needs Java"}


def test_repeats_are_averaged_by_study_and_parts_are_parts(results):
    runs = [CLOSE, FAR, CLOSE]
    repeated = score.score_repeats(REFERENCES, runs, "r2gen")
    each = [metrics.score_reports(REFERENCES, r, "r2gen") for r in runs]
    for metric in ("ROUGE-L", "CIDEr"):
        mean = np.mean([one[metric] for one in each])
        assert repeated[metric] == pytest.approx(mean)
    assert repeated["record"]["n"] == len(REFERENCES)
    assert repeated["record"]["repeats"] == 3
    both = {("random", "r2gen"): repeated, ("constant", "r2gen"): each[1]}
    summary = summarised(both).set_index(["system", "metric"])
    assert (summary["n"] == len(REFERENCES)).all()
    value = summary.loc[("random", "BLEU-1"), "value"]
    assert value == pytest.approx(repeated["BLEU-1"])
    # As one system it can be tested against another.
    paired = score.paired_tests(both, "random", "r2gen", 100, 1)
    assert (paired["difference"] > 0).any()
    rows = np.arange(0, len(REFERENCES), 2)
    one = {("this run", "llamaxr"): results["this run", "llamaxr"]}
    part = summarised(one, rows=rows).set_index("metric")
    scores = results["this run", "llamaxr"]["per_report"]["METEOR"]
    expected = scores.iloc[rows].mean()
    assert part.loc["METEOR", "value"] == pytest.approx(expected)
    assert set(part["n"]) == {len(rows)}


def test_a_better_system_is_better_and_none_than_itself(results):
    for protocol in score.PROTOCOLS:
        table = score.paired_tests(results, "this run", protocol, 200, 1)
        assert set(table["other"]) == {"constant"}
        assert (table["difference"] > 0).all() and (table["p"] < 0.05).all()
        assert (table["p_holm"] >= table["p"] - 1e-12).all()
        assert ("METEOR" in set(table["metric"])) == (protocol == "llamaxr")
    twice = {(s, "llamaxr"): results["this run", "llamaxr"] for s in "ab"}
    table = score.paired_tests(twice, "a", "llamaxr", 100, 1)
    assert (table["difference"].abs() < 1e-12).all()
    assert (table["p_holm"] == 1).all()


def test_scores_of_single_studies_carry_their_id():
    """The second reference is empty: it has no scores, the third has its."""
    result = metrics.score_reports(
        [REFERENCES[0], "", REFERENCES[2]], [CLOSE[0], "x", REFERENCES[2]]
    )
    table = score.per_study({("a", "llamaxr"): result}, ["A", "B", "C"])
    assert tuple(table.columns) == ARTIFACTS["metrics"].columns
    assert list(dict.fromkeys(table["study_id"])) == ["A", "C"]
    exact = table[(table["study_id"] == "C") & (table["metric"] == "BLEU-1")]
    assert np.isclose(exact["value"], 1.0).all()


# --- a file is scored -------------------------------------------------------


def row(scored, *key):
    """System, protocol, split, metric -> a row."""
    keys = ["system", "protocol", "split", "metric"]
    return scored["rows"].set_index(keys).loc[key]


def test_the_numbers_are_those_of_the_modules(whole):
    ids = r2gen_split().query("split == 'test'")["study_id"]
    studies = load_studies().set_index("study_id").loc[ids]
    truth, constant = list(studies["findings"]), SAID[:1] * 590
    for protocol in score.PROTOCOLS:
        expected = metrics.score_reports(truth, constant, protocol)
        for metric in ("BLEU-4", "ROUGE-L"):
            line = row(whole, "constant.csv", protocol, "r2gen test", metric)
            assert line["value"] == pytest.approx(expected[metric])
            assert line["low"] < line["value"] < line["high"]
    expected = clinical.clinical_scores(
        truth, constant, list(studies["status"]))
    line = row(whole, "constant.csv", "labels", "r2gen test", "negative F1")
    assert line["value"] == pytest.approx(expected["negative F1"])


def test_every_row_says_what_it_rests_on(whole):
    rows = whole["rows"]
    assert rows[score.KEYS].notna().all(axis=None)
    constant = rows["system"].str.startswith(score.WITHOUT_IMAGES)
    assert set(rows["images"][constant]) == {"none"}
    assert set(rows["images"][~constant]) == {"not known"}
    sizes = rows.groupby("split")["n"].unique().map(list).to_dict()
    assert sizes == {
        "r2gen test": [590], "test 1-170": [170], "test 171-590": [420]}
    # One constant training report on the first 170 and the other 420.
    for split, expected in (
        ("r2gen test", 0.148), ("test 1-170", 0.209), ("test 171-590", 0.128)
    ):
        line = row(whole, score.MEDOID, "r2gen", split, "BLEU-4")
        assert line["value"] == pytest.approx(expected, abs=0.0006)
    common = row(whole, "most frequent report", "r2gen", "r2gen test", "CIDEr")
    assert common["value"] == pytest.approx(0.344, abs=0.001)


def test_the_paired_test_and_the_distinct_reports(whole):
    paired = whole["paired"]
    assert set(paired["protocol"]) == {"r2gen", "llamaxr", "labels"}
    # Holm over the whole table.
    assert paired["p_holm"].min() >= paired["p"].min() * len(paired) - 1e-9
    assert (paired["low"] <= paired["difference"] + 1e-9).all()
    by = paired.set_index(["protocol", "metric"])["difference"]
    mine, constant = (row(whole, f, "r2gen", "r2gen test", "BLEU-4")["value"]
                      for f in ("mine.csv", "constant.csv"))
    assert by["r2gen", "BLEU-4"] == pytest.approx(mine - constant)
    distinct = whole["distinct"].set_index(["system", "studies"])
    status = load_studies().set_index("study_id")["status"]
    ids = r2gen_split().query("split == 'test'")["study_id"]
    abnormal = distinct.xs("abnormal", level="studies")
    assert abnormal.loc["mine.csv", "distinct reports"] == 3
    assert abnormal.loc["mine.csv", "n"] == status[ids].eq("abnormal").sum()
    assert abnormal.loc["constant.csv", "share of the commonest"] == 1


@pytest.mark.parametrize(
    ("ids", "note"),
    [("train", "2 of the studies are in R2Gen's training list"),
     ("none", "the studies are in none of R2Gen's lists")],
)
def test_no_baseline_that_has_seen_the_answer(tmp_path, ids, note):
    studies = load_studies()
    usable = studies["findings"].ne("") & studies["split_r2gen"].eq(ids)
    path = write(tmp_path / "x.csv", studies.loc[usable, "study_id"][:2])
    scored = score.score_file(path, n_samples=20)
    assert set(scored["rows"]["system"]) == {"x.csv"}
    assert f"No baselines: {note}." in scored["notes"]


def test_the_second_file_needs_the_same_studies(few, tmp_path, monkeypatch):
    ids = list(pd.read_csv(few)["id"])
    short = write(tmp_path / "short.csv", ids[2:])
    with pytest.raises(CourseError, match="lacks 2 of the 12 studies"):
        score.score_file(few, short)
    with pytest.raises(CourseError, match="n_samples=0"):
        score.score_file(few, n_samples=0)
    # Another order, more studies and the same name are no obstacle.
    (tmp_path / "b").mkdir()
    more = write(tmp_path / "b" / "few.csv", [*ids[::-1], "CXR1"])
    monkeypatch.setattr(baselines, "medoid", lambda texts: texts[0])
    scored = score.score_file(few, more, n_samples=20)
    assert scored["files"] == ["few.csv", "few.csv (2)"]
    assert set(scored["paired"]["n"]) == {12}
    assert scored["split"] == "part of test"
    notes = str(scored["notes"])
    assert "12 of R2Gen's 590 test studies, 6 of them among" in notes
    assert set(scored["rows"]["n"]) == {12, 6}


# --- shown ------------------------------------------------------------------


def test_the_terminal_table(whole):
    lines = score.as_text(whole).splitlines()
    assert 79 <= max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for part in (*whole["files"], score.MEDOID, "random report, 5 seeds",
                 "r2gen | r2gen test | not known | n 590",
                 "llamaxr | test 171-590 | not known | n 420",
                 "Note: r2gen has no METEOR: needs Java.",
                 "mine.csv minus constant.csv"):
        assert part in text
    # A line of values is followed by one of terms and intervals.
    values = next(i for i, line in enumerate(lines) if line[:8] == "mine.csv"
                  and "0." in line)
    assert lines[values + 1].startswith("  r2gen | r2gen test")
    for low, high, shown in (
        (0.4612, 0.4888, ".46-.49"), (0, 0.004, ".00-.00"),
        (0.97, 0.9951, "1.0-1.0"), (np.nan, np.nan, "")):
        assert score._span(low, high) == shown


def test_the_command_prints_and_writes_json(few, tmp_path, capsys):
    out = tmp_path / "out.json"
    long = tmp_path / f"{'long' * 20}.csv"
    long.write_bytes(few.read_bytes())
    done = commands.main(
        ["score", str(long), "--samples", "20", "--json", str(out)])
    shown = capsys.readouterr()
    assert done == 0 and "12 studies" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 100
    assert "r2gen: longlong" in shown.err
    assert "NaN" not in out.read_text("utf-8")
    written = json.loads(out.read_text("utf-8"))
    assert written["n"] == 12 and written["images"] == "not known"
    assert {r["protocol"] for r in written["rows"]} == {
        "r2gen", "llamaxr", "labels"}
    assert written["records"]["r2gen"]["cleaning"] == "r2gen"


@pytest.mark.parametrize("where", ["few.csv", ".", "nowhere/out.json"])
def test_a_bad_place_is_refused_before_the_work(
    few, tmp_path, monkeypatch, capsys, where
):
    monkeypatch.setattr(score, "score_file", None)  # would not be callable
    before = few.read_bytes()
    place = str(tmp_path / where)
    done = commands.main(["score", str(few), "--json", place])
    assert done == 1 and few.read_bytes() == before
    shown = capsys.readouterr().err
    assert "cannot be written" in shown
    assert all(part in shown for part in ("What:", "Why:", "Do:"))
