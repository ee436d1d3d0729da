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
from llamaxr_utils.datasets import reports
from llamaxr_utils.evaluation import baselines, clinical, metrics, score
from llamaxr_utils.evaluation.score import read_predictions

TEXTS = (
    "The heart is normal in size. The lungs are clear. No pleural effusion.",
    "There is mild cardiomegaly. No pneumothorax.",
    "A calcified granuloma lies in the right upper lobe.",
)


pytestmark = pytest.mark.usefixtures("no_java")


@pytest.fixture(scope="module")
def studies():
    return reports.load_studies().set_index("study_id")


@pytest.fixture(scope="module")
def split():
    return reports.r2gen_split().set_index("split")


def write(path, ids, texts=TEXTS, **columns):
    generated = [texts[i % len(texts)] for i in range(len(ids))]
    table = pd.DataFrame({"id": list(ids), "generated": generated} | columns)
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def few(tmp_path, split):
    """Twelve studies of R2Gen's test list."""
    return write(tmp_path / "few.csv", split.loc["test", "study_id"][164:176])


def test_references_are_the_findings_by_either_form_of_id(
        tmp_path, split, studies):
    test, path = split.loc["test"], tmp_path / "x.csv"
    a = read_predictions(write(path, test["r2gen_id"]))
    b = read_predictions(write(path, test["study_id"], reference="Clear."))
    assert a.table.equals(b.table) and a.split == b.split == "r2gen test"
    expected = studies["findings"][a.table["study_id"]].tolist()
    assert a.table["reference"].tolist() == expected
    assert a.notes == b.notes == []


def test_which_list_the_studies_are_of(tmp_path, split, few, studies):
    val = list(split.loc["val", "study_id"])
    train = list(split.loc["train", "study_id"][:3])
    other = studies.query("findings != '' and split_r2gen == 'none'").index[:3]
    for name, ids in {"r2gen val": val, "part of val": val[:9],
                      "mixed": val[:3] + train, "not known": other}.items():
        path = write(tmp_path / "x.csv", ids)
        assert read_predictions(path).split == name
    part = read_predictions(few)
    assert part.split == "part of test" and "Part of a test" in part.notes[0]


def test_empty_texts_commas_breaks_a_byte_order_mark_and_short_rows(
        tmp_path, studies):
    silent = studies.index[studies["findings"].eq("")][0]
    text = ('id,generated\r\nCXR1,"Clear, both\nlungs ""here""."\r\nCXR2\r\n'
            f"{silent},x\r\n")
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    predictions = read_predictions(path)
    assert predictions.table["generated"].tolist() == [
        'Clear, both\nlungs "here".', ""]
    assert "1 studies left out" in predictions.notes[0]
    assert "1 generated reports are empty" in predictions.notes[1]
    path.write_text(f"id,generated\n{silent},x\n")
    with pytest.raises(CourseError, match="no study with findings"):
        read_predictions(path)


@pytest.mark.parametrize(("content", "message"), [
    (None, "was not found"),
    (b"", "can't be read"),
    (b"id,generated\n", "holds no predictions"),
    (b"study;generated\nCXR1;x\n", "no column id"),
    (b"\x89PNG\r\n\x1a\n\x00\xff", "can't be read"),
    (b'id,generated\nCXR1,"x\n', "can't be read"),
    (b"id,generated\nCXR1,a,b,c\n", "can't be read"),
    (b"id,generated\nCXR1,a\nCXR2,a,b\n", "can't be read"),
    (b"id,generated\nCXR1,x\n ,y\n", "1 ids that are not IU X"),
    (b"id,generated\nCXR1,x\nCXR1_IM-0001,y\n", "more than once"),
    (b"id,generated\nCXR1,x\n\x1b[31mCXR99999,y\n", "1 ids that are not"),
    (b"id,generated\nCXR1_2_3,x\n", "1 ids that are not IU X-ray"),
])
def test_a_wrong_csv_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CourseError, match=message) as caught:
        read_predictions(path)
    assert "bad.csv" in caught.value.what and "\x1b" not in str(caught.value)


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
            REFERENCES, texts, protocol, vocabulary=())
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


def test_the_medoid_report_on_the_parts_of_the_test_list(studies, split):
    """One constant training report on the first 170 and the other 420."""
    medoid = baselines.medoid(
        list(studies.query("split_r2gen == 'train'")["findings"]))
    truth = list(studies["findings"][split.loc["test", "study_id"]])
    scored = metrics.score_reports(truth, [medoid] * 590, "r2gen")
    first, every = reports.FIRST_PART, np.arange(590)
    for rows, expected in ((every, 0.148), (every[:first], 0.209),
                           (every[first:], 0.128)):
        one = {("constant by ROUGE-L", "r2gen"): scored}
        part = summarised(one, rows=rows)
        part = part.set_index("metric").loc["BLEU-4"]
        assert part["value"] == pytest.approx(expected, abs=0.0006)
        assert (part["n"], part["images"]) == (len(rows), "none")


def test_a_better_system_is_better_and_none_than_itself(results):
    for protocol in ("r2gen", "llamaxr"):
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
        [REFERENCES[0], "", REFERENCES[2]], [CLOSE[0], "x", REFERENCES[2]])
    table = score.per_study({("a", "llamaxr"): result}, ["A", "B", "C"])
    assert tuple(table.columns) == ARTIFACTS["metrics"].columns
    assert list(dict.fromkeys(table["study_id"])) == ["A", "C"]
    exact = table[(table["study_id"] == "C") & (table["metric"] == "BLEU-1")]
    assert np.isclose(exact["value"], 1.0).all()


def test_the_numbers_are_those_of_the_modules_and_say_their_terms(
        tmp_path, split, studies):
    """R2Gen's test list, shuffled, against a constant report."""
    order = split.loc["test", "r2gen_id"].sample(frac=1, random_state=1)
    whole = score.score_file(
        write(tmp_path / "mine.csv", order, TEXTS[:1]), n_samples=100)
    rows = whole["rows"].set_index(["system", "protocol", "metric"])
    test = studies.loc[split.loc["test", "study_id"]]
    truth, constant = list(test["findings"]), list(TEXTS[:1]) * 590
    for protocol in ("r2gen", "llamaxr"):
        expected = metrics.score_reports(truth, constant, protocol)
        for metric in ("BLEU-4", "ROUGE-L"):
            line = rows.loc["mine.csv", protocol, metric]
            assert line["value"] == pytest.approx(expected[metric])
            assert line["low"] < line["value"] < line["high"]
    expected = clinical.clinical_scores(truth, constant)
    line = rows.loc["mine.csv", "labels", "negative F1"]
    assert line["value"] == pytest.approx(expected["negative F1"])
    constants = rows.xs("r2gen", level="protocol")["value"]
    assert constants["constant by BLEU-4", "BLEU-4"] == pytest.approx(
        0.172, abs=0.0005)
    assert constants["constant by ROUGE-L", "CIDEr"] == pytest.approx(
        0.399, abs=0.0005)
    assert set(rows["split"]) == {"r2gen test"} and set(rows["n"]) == {590}
    mine = rows.index.get_level_values("system") == "mine.csv"
    assert set(rows["images"][mine]) == {"not known"}
    assert set(rows["images"][~mine]) == {"none"}
    distinct = whole["distinct"].set_index("system")
    assert tuple(distinct.loc["mine.csv"]) == (1, 1.0)
    assert distinct.loc["random report", "distinct reports"] > 200


@pytest.mark.parametrize(("ids", "known"), [("train", 2), ("none", 0)])
def test_no_baseline_that_has_seen_the_answer(tmp_path, ids, known, studies):
    usable = studies.query("findings != '' and split_r2gen == @ids").index
    path = write(tmp_path / "x.csv", usable[:2])
    scored = score.score_file(path, n_samples=20)
    assert set(scored["rows"]["system"]) == {"x.csv"}
    assert f"{known} of these are in its training list" in scored["notes"][-1]


def test_the_command_prints_text_or_json(few, capsys):
    command = ["score", str(few), "--samples", "20"]
    assert commands.main([*command, "--json"]) == 0
    shown = capsys.readouterr().out
    written = json.loads(shown)
    assert written["n"] == 12 and written["images"] == "not known"
    assert {r["protocol"] for r in written["rows"]} == set(score.PROTOCOLS)
    assert written["records"]["r2gen"]["cleaning"] == "r2gen"
    assert "NaN" not in shown
    assert commands.main(command) == 0
    shown = capsys.readouterr().out
    bleu = next(r for r in written["rows"] if r["metric"] == "BLEU-4")
    for part in ("12 studies", "Protocol llamaxr, split part of test, n 12",
                 "{value:.3f} [{low:.2f}, {high:.2f}]".format(**bleu),
                 "random report", "not known", "needs Java",
                 "not for diagnosis"):
        assert part in shown
