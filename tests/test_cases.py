"""Reports side by side: verdicts, sentences, and a page that is safe."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser

import pandas as pd
import pytest

from llamaxr_utils import cases

STATES = ("present", "absent", "uncertain", None)

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> & "quoted"'


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
        assert tuple(table.loc[finding]) == row
    assert "No Finding" not in table.index


def test_empty_texts_have_nothing_to_compare():
    assert cases.findings_table("", "").empty
    assert cases.align("", "").empty


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


# --- sentences --------------------------------------------------------------


def test_the_closest_sentences_stand_side_by_side():
    table = cases.align(
        "The heart is large. The lungs are clear. Bones look old.",
        "Lungs are clear. The heart is very large. A pipe is seen.",
    )
    pairs = list(zip(table["reference"], table["generated"]))
    assert pairs == [
        ("the heart is large", "the heart is very large"),
        ("the lungs are clear", "lungs are clear"),
        ("bones look old", ""),
        ("", "a pipe is seen"),
    ]


def test_no_sentence_is_lost_or_used_twice():
    reference = "One two three. One two four. Five six."
    generated = "One two three. Seven eight."
    table = cases.align(reference, generated)
    left = [text for text in table["reference"] if text]
    right = [text for text in table["generated"] if text]
    assert left == ["one two three", "one two four", "five six"]
    assert sorted(right) == ["one two three", "seven eight"]
    assert table["generated"][0] == "one two three"


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


# --- the page ---------------------------------------------------------------


class Reader(HTMLParser):
    """Tags, and the text that a reader sees."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.attributes = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


def case(**changed):
    row = {
        "study_id": "CXR7",
        "status": "abnormal",
        "mesh": ["Cardiomegaly/mild"],
        "reference": "The heart is enlarged.",
        "generated": "There is a pleural effusion.",
    }
    return pd.DataFrame([{**row, **changed}])


@pytest.mark.parametrize(
    "column", ["study_id", "status", "mesh", "reference", "generated"]
)
def test_nothing_of_a_report_becomes_markup(column):
    value = [EVIL] if column == "mesh" else EVIL
    read = Reader(cases.render(case(**{column: value}), "Cases", "stamp"))
    assert "script" not in read.tags
    assert "img" not in read.tags
    assert "onerror" not in read.attributes
    assert EVIL in "".join(read.text)  # seen as it was written


@pytest.mark.parametrize("place", ["title", "stamp"])
def test_title_and_stamp_are_escaped_too(place):
    words = {"title": "Cases", "stamp": "stamp", place: EVIL}
    read = Reader(cases.render(case(), **words))
    assert "script" not in read.tags
    assert EVIL in "".join(read.text)


def test_the_page_stands_alone(tmp_path):
    """No script, no link, nothing from elsewhere, and a whole page."""
    body = cases.render(case(), "Cases", "stamp")
    cases.write_page(tmp_path / "cases.html", body, title=EVIL)
    page = (tmp_path / "cases.html").read_text("utf-8")
    read = Reader(page)
    assert page.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "img"} & set(read.tags)
    assert not {"src", "href"} & set(read.attributes)
    assert "http" not in page
    assert "not for diagnosis" in page
    assert 'charset=utf-8' in page


def test_marks_say_what_is_missed_and_added_without_colour():
    page = cases.render(case(), "Cases", "stamp")
    text = "".join(Reader(page).text)
    assert "− Cardiomegaly" in text
    assert "+ Pleural Effusion" in text
    for mark, _ in cases.VERDICTS.values():
        assert mark in text  # the legend


def test_no_case_is_a_page_too():
    page = cases.render(case().head(0), "Cases", "stamp")
    assert "Cases" in page
