"""Tables of systems, and the command `score`: reads, refuses, says.

References come from the wheel by id; generated texts are our own.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import keep

from llamaxr_utils import __main__ as commands
from llamaxr_utils.course.artifacts import ARTIFACTS
from llamaxr_utils.datasets import reports
from llamaxr_utils.evaluation import baselines, metrics, score
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
    assert a[0].equals(b[0]) and a[1:] == b[1:]
    assert a[1] == {"split": "r2gen test", "images": "not known",
                    "references": "findings"}
    expected = studies["findings"][a[0]["study_id"]].tolist()
    assert a[0]["reference"].tolist() == expected
    assert a[2][0].startswith("590 of 590 rows, ids from id") and not a[2][1:]


def test_which_list_the_studies_are_of(tmp_path, split, few, studies):
    val = list(split.loc["val", "study_id"])
    train = list(split.loc["train", "study_id"][:3])
    other = studies.query("findings != '' and split_r2gen == 'none'").index[:3]
    for name, ids in {"r2gen val": val, "part of val": val[:9],
                      "mixed": val[:3] + train, "not known": other}.items():
        path = write(tmp_path / "x.csv", ids)
        assert read_predictions(path)[1]["split"] == name
    _, terms, notes = read_predictions(few)
    assert terms["split"] == "part of test" and "Part of a test" in notes[1]


FORMS = {
    "a.csv": """\ufeffStudy ID,Prediction,report\r\n{0},x,\r\nCXR1,a b
CXR1_IM-1,"a b",No.\nCXR2,nan,No.\n""",
    "b.csv": """uid,hypothesis\n{1},x\n1,Findings: a b Impression: c
1,a b\n2,\n""",
    "c.csv": """image_id,report\n{1}_IM-0001-1001.dcm.png,x
CXR1_IM-1/1.png,a b\n1_IM-0001-4001.dcm.png,a b\nCXR2,\n""",
    "d.json": "\ufeff" + json.dumps({
        "{0}": {"model_prediction": "x"}, "CXR1_IM-1": {
            "report": "No.", "section_findings": "None",
            "model_prediction": "FINDINGS: a b\nImpression: None"},
        "CXR1": {"model_prediction": "a b"},
        "CXR2": {"model_prediction": "None"}}),
}


@pytest.mark.parametrize("name", FORMS)
def test_files_as_people_have_them(tmp_path, studies, name):
    """The first has no findings, the second stands twice, the third is ""."""
    silent = studies.index[studies["findings"].eq("")][0]
    text = FORMS[name].replace("{0}", silent)
    (tmp_path / name).write_text(text.replace("{1}", silent[3:]), "utf-8")
    table, _, notes = read_predictions(tmp_path / name)
    assert table[["study_id", "generated"]].to_numpy().tolist() == [
        ["CXR1", "a b"], ["CXR2", ""]]
    assert list(table["reference"]) == list(studies["findings"][:2])
    assert notes[0].startswith("2 of 4 rows, ids from ")
    assert "1 without findings" in notes[0] and "1 that repeat" in notes[0]
    assert "1 generated reports are empty" in notes[1]


def test_other_data_bring_their_references_and_loops_are_counted(tmp_path):
    path = tmp_path / "mimic.csv"
    path.write_text("id,generated,ground truth\ns5,lungs clear,Lungs clear.\n"
                    "s6,x,None\nCXR1,views Views views.,Old scar.\n")
    scored = score.score_file(path, n_samples=20)
    assert scored["references"] == "own ground_truth" and scored["n"] == 2
    assert scored["records"]["r2gen"]["vocabulary_words"] == 0
    assert scored["constants"] == {} and scored["table_3"].empty
    assert tuple(scored["texts"].iloc[0, 3:]) == (1, "CXR1")
    assert "2 ids are not IU X-ray's" in scored["notes"][1]
    assert list(map(score.loop_length, (
        "No. " * 9, "Scar or no scar.", "Lungs clear. Lungs clear.",
        "The lungs clear. " * 3 + "End"))) == [9, 0, 0, 9]


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
    return {
        (system, protocol): metrics.score_reports(
            REFERENCES, texts, protocol, vocabulary=())
        for protocol in ("r2gen", "llamaxr")
        for system, texts in (("this run", CLOSE), ("constant", FAR))
    }


def test_the_summary_says_terms_and_the_scorers_values(results):
    summary, again = (score.summarise(
        results, split="r2gen", images="real", seed=1, n_samples=100)
        for _ in range(2))
    assert summary[[*score.KEYS, "metric"]].notna().all(axis=None)
    assert not summary.duplicated(["system", "protocol", "metric"]).any()
    valued = summary.dropna(subset=["value"])
    assert len(valued) == 4 * 6
    for r in valued.itertuples():
        expected = results[r.system, r.protocol][r.metric]
        assert r.value == pytest.approx(expected, abs=1e-6)
        assert r.low - 1e-9 <= r.value <= r.high + 1e-9
    pd.testing.assert_frame_equal(again, summary)  # its seed
    meteor = summary.query("metric == 'METEOR' and protocol == 'r2gen'")
    assert meteor["value"].isna().all()
    assert set(meteor["note"]) == {"needs Java"}


def test_the_medoid_report_on_the_parts_of_the_test_list(studies, split):
    """One constant training report on the first 170 and the other 420."""
    medoid = baselines.medoid(
        list(studies.query("split_r2gen == 'train'")["findings"]))
    truth = list(studies["findings"][split.loc["test", "study_id"]])
    scored = metrics.score_reports(truth, [medoid] * 590, "r2gen")
    each, first = np.stack(scored["per_report"]["bleu_stats"]), 170
    for part, expected in ((each, 0.148), (each[:first], 0.209),
                           (each[first:], 0.128)):
        bleu_4 = metrics.bleu_from_statistics(part.sum(axis=0))[3]
        assert bleu_4 == pytest.approx(expected, abs=0.0006)


def test_a_better_system_is_better(results):
    for protocol in ("r2gen", "llamaxr"):
        table = score.paired_tests(results, "this run", protocol, 200, 1)
        assert set(table["other"]) == {"constant"}
        assert (table["difference"] > 0).all() and (table["p"] < 0.05).all()
        assert (table["p_holm"] >= table["p"] - 1e-12).all()
        assert ("METEOR" in set(table["metric"])) == (protocol == "llamaxr")


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
    truth = studies["findings"][split.loc["test", "study_id"]]
    constant = list(TEXTS[:1]) * 590
    for protocol in ("r2gen", "llamaxr"):
        expected = metrics.score_reports(truth, constant, protocol)
        for metric in ("BLEU-4", "ROUGE-L"):
            line = rows.loc["mine.csv", protocol, metric]
            assert line["value"] == pytest.approx(expected[metric])
            assert line["low"] < line["value"] < line["high"]
    constants = rows.xs("r2gen", level="protocol")["value"]
    assert constants["constant by ROUGE-L", "CIDEr"] == pytest.approx(
        0.399, abs=0.0005)
    assert set(rows["split"]) == {"r2gen test"} and set(rows["n"]) == {590}
    assert set(rows["images"].drop("mine.csv", level=0)) == {"none"}
    texts = whole["texts"].set_index("system")
    assert tuple(texts.loc["mine.csv"]) == (1, 1.0, 0, "")
    assert texts.loc["random report", "distinct reports"] > 200
    above = whole["table_3"].set_index(["system", "protocol", "metric"])
    line = above.loc["constant by BLEU-4", "r2gen", "BLEU-4"]
    quoted = score.quoted_rows().set_index("system")["BLEU-4"]
    assert {*line["systems"].split(", ")} == {*quoted.index[quoted < 0.172]}
    assert "BLEU-4 0.172, 11 of 19: Transformer, " in score.as_text(whole)


def test_no_baseline_that_has_seen_the_answer(tmp_path, split):
    path = write(tmp_path / "x.csv", split.loc["train", "study_id"][:2])
    scored = score.score_file(path, n_samples=20)
    assert set(scored["rows"]["system"]) == {"x.csv"}
    assert "2 of these are in its training list" in scored["notes"][-1]


def test_radeval_is_called_as_release_2_2_asks(monkeypatch):
    systems, notes = pd.DataFrame({"a": ["x"], "b": ["y"]}), []
    assert score.radeval_values(["r"], systems, ["green"], notes).empty
    assert "`pip install radeval`" in notes[0]

    def rad_eval(metrics, show_progress):
        if metrics == ["green"]:
            raise OSError("no weights")
        return lambda refs, hyps: {"radgraph_partial": [*refs, *hyps]}

    fake = SimpleNamespace(RadEval=rad_eval)
    monkeypatch.setitem(sys.modules, "radeval", fake)
    table = score.radeval_values(["r"], systems, ["radgraph", "green"], notes)
    assert table.to_numpy().tolist() == [
        ["radgraph_partial", ["r", "x"], ["r", "y"]]]
    assert notes[1].startswith("No green (OSError: no weights)")


def test_a_runs_reports_in_rexranks_form_and_back(folders, few, capsys):
    run, target = folders / "cpu", folders / "out.json"
    texts = ["Clear.", "", "Old scar."] * 4
    keep(run, "generations", pd.DataFrame(
        {"study_id": pd.read_csv(few)["id"], "generated": texts,
         "model": "tuned", "scores_from": "own", "reference": "secret"}),
         images="phantom")
    assert commands.main(["score", str(run), "--samples", "20",
                          "--write-rexrank", str(target)]) == 0
    assert "images: phantom" in capsys.readouterr().out
    written = target.read_text()
    assert "secret" not in written and written.count("_IM-") == 12
    one, two = map(read_predictions, (run, target))
    assert one[0].equals(two[0]) and list(one[0]["generated"]) == texts
