"""Reports side by side: verdicts, remarks, the rows of Tables 4 to 6."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads
from llamaxr_utils.datasets.conditions import CONDITIONS, NAMED_BY
from llamaxr_utils.evaluation import cases, qualitative
from llamaxr_utils.evaluation.findings import FINDINGS

STATES = ("present", "absent", "uncertain", None)
REFERENCE = "The heart is enlarged. No pleural effusion. No pneumothorax."
FIRST = "The heart is enlarged. There is no pleural effusion."
SECOND = "The heart is normal. No effusion. There is a rib fracture."


# --- verdicts ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "generated", "expected"),
    [
        ("present", "present", "agree"),
        ("absent", "absent", "agree"),
        ("uncertain", "uncertain", "agree"),
        ("present", "uncertain", "agree"),
        ("uncertain", "present", "agree"),
        ("present", "absent", "contradicts"),
        ("absent", "present", "contradicts"),
        ("uncertain", "absent", "contradicts"),
        ("absent", "uncertain", "contradicts"),
        ("present", None, "missed"),
        ("uncertain", None, "missed"),
        (None, "present", "added"),
        (None, "uncertain", "added"),
        ("absent", None, ""),
        (None, "absent", ""),
        (None, None, ""),
    ],
)
def test_verdict(reference, generated, expected):
    assert cases.verdict(reference, generated) == expected


def test_every_pair_of_states_has_a_verdict():
    for pair in itertools.product(STATES, STATES):
        assert cases.verdict(*pair) in {*cases.VERDICTS, ""}


def test_findings_of_two_texts():
    table = cases.findings_table(
        "The heart is enlarged. No pleural effusion. There is a fracture.",
        "The heart is enlarged. There is a pleural effusion. "
        "There is a pneumothorax.",
    ).set_index("finding")
    expected = {
        "Cardiomegaly": ("present", "present", "agree"),
        "Pleural Effusion": ("absent", "present", "contradicts"),
        "Fracture": ("present", "", "missed"),
        "Pneumothorax": ("", "present", "added"),
    }
    for finding, row in expected.items():
        assert tuple(table.loc[finding])[:3] == row
    assert "No Finding" not in table.index


def test_empty_texts_have_nothing_to_compare():
    assert cases.findings_table("", "").empty
    assert cases.decisive("") == []


def test_counts_are_per_study():
    chosen = pd.DataFrame(
        {
            "study_id": ["CXR1", "CXR2"],
            "reference": ["There is a pneumothorax.", "The heart is normal."],
            "generated": ["There is a pneumothorax.", "There is a fracture."],
        }
    )
    found = cases.counts(chosen)
    assert list(found.index) == ["CXR1", "CXR2"]
    assert list(found.columns) == list(cases.VERDICTS)
    assert found.loc["CXR1", "agree"] >= 1
    assert found.loc["CXR1", ["missed", "added", "contradicts"]].sum() == 0
    assert found.loc["CXR2", "added"] >= 1


# --- choosing ---------------------------------------------------------------


@pytest.fixture
def table():
    n = 40
    return pd.DataFrame(
        {
            "study_id": [f"CXR{i}" for i in range(n)],
            "status": ["abnormal"] * 10 + ["normal"] * 28
            + ["not indexed"] * 2,
        }
    )


def test_half_of_the_cases_are_abnormal(table):
    chosen = cases.choose(table, 7, seed=1)
    assert len(chosen) == 7
    assert chosen["status"].eq("abnormal").sum() == 4
    assert chosen["study_id"].is_unique
    again = cases.choose(table, 7, seed=1)
    pd.testing.assert_frame_equal(chosen, again)
    assert list(chosen["study_id"]) != list(
        cases.choose(table, 7, seed=2)["study_id"]
    )


def test_more_cases_than_there_are(table):
    assert len(cases.choose(table, 100, seed=1)) == len(table)
    few = table[table["status"].ne("abnormal")]
    assert len(cases.choose(few, 4, seed=1)) == 4
    assert cases.choose(table.head(0), 4, seed=1).empty


def test_where_the_studies_asked_for_are():
    studies = pd.DataFrame(
        {
            "study_id": ["CXR3660", "CXR3282", "CXR9"],
            "split_r2gen": ["train", "test", "test"],
            "split": ["train", "test", "test"],
            "status": ["normal", "abnormal", "normal"],
        }
    )
    found = cases.look_up("CXR3282,CXR3660", studies, {"CXR3282", "CXR9"})
    assert list(found["study_id"]) == ["CXR3282", "CXR3660"]
    assert list(found["here"]) == [True, False]
    assert list(found["in the paper"]) == ["Table 6", "Table 6"]
    assert list(found["split_r2gen"]) == ["test", "train"]
    assert cases.look_up("", studies, []).empty
    with pytest.raises(CourseError, match="CXR0"):
        cases.look_up("CXR9, CXR0", studies, [])


# --- another system ---------------------------------------------------------


def write(path, ids, text):
    table = pd.DataFrame({"id": ids, "generated": text})
    table.to_csv(path, index=False)


def test_published_predictions_come_before_any_other(tmp_path):
    ids = ["CXR2_IM-1", "CXR1_IM-2"]
    write(tmp_path / "another.csv", ids, "Theirs.")
    (tmp_path / "views.csv").write_text("image,view\n1,frontal\n")
    found = cases.second_system(["CXR1"], [tmp_path])
    assert found == ("another", ["Theirs."])
    saved = downloads.SOURCES["cvt2distilgpt2"].saves
    write(tmp_path / saved, ids, ["Two.", "One."])
    assert cases.second_system(["CXR1", "CXR2"], [tmp_path]) == (
        "CvT2DistilGPT2",
        ["One.", "Two."],
    )


def test_a_file_that_lacks_a_study_is_not_taken(tmp_path):
    write(tmp_path / "some.csv", ["CXR1"], "Text.")
    assert cases.second_system(["CXR1", "CXR2"], [tmp_path]) is None
    assert cases.second_system(["CXR1"], [tmp_path / "none"]) is None


# --- remarks ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "named", "expected"),
    [
        ("Pleural Effusion", ["Effusion"], cases.SUPPORTED),
        ("Pleural Effusion", ["Edema"], cases.UNSUPPORTED),
        ("Lung Lesion", ["Nodule"], cases.SUPPORTED),
        ("Scoliosis", list(CONDITIONS), cases.UNSUPPORTED),
        ("Fracture", [], cases.UNSUPPORTED),
        ("Fracture", None, cases.UNSUPPORTED),
    ],
)
def test_an_added_finding_has_the_support_of_a_score_or_not(
    finding, named, expected
):
    assert cases.remark("added", finding, named) == expected


def test_other_verdicts_are_their_own_remark():
    for word in ("agree", "missed", "contradicts", ""):
        assert cases.remark(word, "Fracture", ["Fracture"]) == word


def test_support_is_named_by_known_names():
    assert set(NAMED_BY) < set(FINDINGS)
    speaking = {c for names in NAMED_BY.values() for c in names}
    assert speaking == set(CONDITIONS)  # every score speaks for something


def test_swapping_the_scores_turns_the_remark():
    texts = "The lungs are clear.", "There is a pneumothorax."
    tables = [
        cases.findings_table(*texts, named).set_index("finding")
        for named in (["Pneumothorax"], ["Edema"])
    ]
    remarks = [table.loc["Pneumothorax", "remark"] for table in tables]
    assert remarks == [cases.SUPPORTED, cases.UNSUPPORTED]


# --- a reference and two systems --------------------------------------------


def test_green_is_right_in_one_system_only():
    judged = cases.judge(REFERENCE, {"a": FIRST, "b": SECOND})
    assert judged["a"]["Pleural Effusion"] == "agree"  # both deny it
    assert judged["b"]["Pleural Effusion"] == "agree"
    assert judged["a"]["Cardiomegaly"] == "only"
    assert judged["b"]["Cardiomegaly"] == "contradicts"
    assert judged["b"]["Fracture"] == "added"
    assert "Pneumothorax" not in judged["a"]  # a denial left unsaid
    alone = cases.judge(REFERENCE, {"a": FIRST})["a"]
    assert alone["Cardiomegaly"] == "agree"


def test_the_strongest_verdict_stands_for_a_sentence():
    parts = cases.marked(
        "There is a fracture and cardiomegaly. Lungs are clear.",
        {"Fracture": "added", "Cardiomegaly": "only"},
    )
    assert parts == [
        ("There is a fracture and cardiomegaly.", "added", ["Fracture"]),
        ("Lungs are clear.", "", []),
    ]


def test_a_sentence_that_the_report_overrules_is_not_marked():
    text = "No fracture on the left. There is a fracture on the right."
    assert [found for _, found in cases.decisive(text)] == [[], ["Fracture"]]


def test_table_4_quotes_each_text_and_remarks_by_state():
    table = qualitative.table_4(REFERENCE, {"a": FIRST, "b": SECOND}, [])
    assert list(table) == ["category", "reference", "a", "b", "remark"]
    first = table.iloc[0]
    assert first["category"] == "BLEU-4 / ROUGE-L / METEOR"
    assert len(first["a"].split(" / ")) == 3
    rows = table.set_index("category")
    effusion = rows.loc["Pleural Effusion"]
    assert effusion["a"] == "There is no pleural effusion. [absent]"
    assert effusion["remark"] == "agree"
    assert rows.loc["Cardiomegaly", "remark"] == "a: agree; b: contradicts"
    assert rows.loc["Fracture", "reference"] == qualitative.NOT_SAID
    assert rows.loc["Fracture", "remark"] == f"a: –; b: {cases.UNSUPPORTED}"
    assert rows.loc["Pneumothorax", "remark"] == "–"


def test_the_pairs_of_table_4_are_scored_one_by_one():
    both = qualitative.pair_scores([REFERENCE, REFERENCE], [REFERENCE, SECOND])
    assert list(both) == ["BLEU-4", "ROUGE-L", "METEOR"]
    assert both["ROUGE-L"][0] == 1.0 > both["ROUGE-L"][1]
    (only,) = qualitative.pair_scores([REFERENCE], [SECOND])["METEOR"]
    assert only == both["METEOR"][1]
    some = qualitative.pair_scores(["", "Clear."], ["a", "Clear."])
    assert some["METEOR"].isna().tolist() == [True, False]


def test_table_5_names_what_was_found_by_whom():
    texts = {"a": FIRST, "b": SECOND}
    row = qualitative.table_5(REFERENCE, texts, ["Fracture"])
    assert row["both found"] == "Pleural Effusion"
    assert row["only a found"] == "Cardiomegaly"
    assert row["only b found"] == row["a added"] == ""
    assert row["b added"] == "Fracture (supported by the scores)"
    assert row["b contradicts"] == "Cardiomegaly"
    row = qualitative.table_5(REFERENCE, {"a": "Clear.", "b": "Clear."})
    assert row["a missed"] == row["b missed"] == "Cardiomegaly"


def test_no_control_character_reaches_a_table():
    evil = "The heart is \x1b[31menlarged\x1b[0m.\x07 No\u2028 effusion.\r"
    row = qualitative.table_5(evil, {"a": evil, "b": evil})
    table = qualitative.table_4(evil, {"a": evil}, None)
    text = "".join([*row.values(), table.to_csv()])
    assert "enlarged" in text
    assert not {"\x1b", "\x07", "\u2028", "\r"} & set(text)
