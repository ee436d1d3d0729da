"""The reader study: blinded, in and out by CSV, kappa as it was simulated."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.course.run import WARNING
from llamaxr_utils.evaluation import review

SYSTEMS = ("collapsed model", "template writer")


def studies(n: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "study_id": [f"S{i}" for i in range(n)],
            "reference": ["There is a small pleural effusion."] * n,
            "first": ["The lungs are clear."] * n,
            "second": ["There is a pneumothorax </script><b>."] * n,
        }
    )


def content(sheet) -> dict:
    text = re.search(r'json">(.*?)</script>', sheet.read_text(), re.DOTALL)
    assert text is not None
    return json.loads(text[1])


def answers(path, key, reader: str, said: dict) -> pd.DataFrame:
    """Answers of a reader who knows the systems: study -> preference and
    verdicts by system; written as the page writes them."""
    who = pd.read_csv(key, dtype=str).set_index("study_id")
    rows = []
    for study, (preferred, verdicts) in said.items():
        letter = {who.loc[study, x]: x for x in "AB"} | {"none": "none"}
        for system, verdict in verdicts.items():
            rows.append((study, letter[system], "Edema", verdict))
        rows.append((study, "", "preference", letter.get(preferred, "")))
        rows.append((study, "", "comment", 'a "quoted", word'))
    table = pd.DataFrame(
        [(who["sheet"].iloc[0], reader, *row) for row in rows],
        columns=["sheet", "reader", "study_id", "system", "question"]
        + ["answer"],
    )
    table.to_csv(path, index=False)
    return review.read_review(path, key)


def test_the_sheet_is_blinded_and_random_and_works_offline(tmp_path):
    sheet, key = review.write_review(studies(20), tmp_path, SYSTEMS, seed=1)
    page = sheet.read_text()
    assert not any(system in page for system in SYSTEMS)
    assert WARNING in page and "http:" not in page and "https" not in page
    assert "default-src 'none'" in page
    cases = content(sheet)["cases"]
    assert [c["id"] for c in cases] != [f"S{i}" for i in range(20)]
    who = pd.read_csv(key).set_index("study_id")
    is_a = who["A"] == SYSTEMS[0]
    assert is_a.sum() == 10  # each is A half of the time
    for case in cases:  # the key tells the truth
        assert ("clear" in case["A"]) == is_a[case["id"]]
    assert "Pneumothorax" in cases[0]["findings"]
    again = review.write_review(studies(20), tmp_path / "2", SYSTEMS, seed=1)
    assert again[0].read_text() == page
    other = review.write_review(studies(20), tmp_path / "3", SYSTEMS, seed=2)
    assert content(other[0])["cases"] != cases


def test_a_report_cannot_end_the_script_of_the_page(tmp_path):
    sheet, _ = review.write_review(studies(2), tmp_path, SYSTEMS)
    assert "</script><b>" not in sheet.read_text()
    assert "</script><b>" in str(content(sheet)["cases"])


def test_preferences_are_read_by_name_not_by_letter(tmp_path):
    _, key = review.write_review(studies(), tmp_path, SYSTEMS, seed=1)
    said = {f"S{i}": (SYSTEMS[1], {SYSTEMS[1]: "added harmful"})
            for i in range(5)} | {"S5": ("", {SYSTEMS[0]: "missed"})}
    read = answers(tmp_path / "a.csv", key, "XY", said)
    preferred = read.query("question == 'preference'")
    assert set(preferred["answer"]) == {SYSTEMS[1]}
    assert "S5" not in set(read["study_id"])  # not read to the end
    assert read.query("question == 'comment'")["answer"].iloc[0] == (
        'a "quoted", word')
    table = review.counts(read).set_index("system").loc[SYSTEMS[1]]
    assert table[list(review.TICKS)].tolist() == [0, 0, 5, 5]


def test_answers_and_key_of_two_sheets_do_not_go_together(tmp_path):
    _, key = review.write_review(studies(), tmp_path / "1", SYSTEMS, seed=1)
    _, other = review.write_review(studies(), tmp_path / "2", SYSTEMS, seed=2)
    answers(tmp_path / "a.csv", key, "XY", {"S1": (SYSTEMS[0], {})})
    with pytest.raises(CourseError, match="does not go with"):
        review.read_review(tmp_path / "a.csv", other)
    with pytest.raises(CourseError, match="FileNotFoundError"):
        review.read_review(tmp_path / "none.csv", key)
    twice = (tmp_path / "a.csv").read_text()
    (tmp_path / "b.csv").write_text(twice + twice.split("\n", 1)[1])
    with pytest.raises(CourseError, match="answered twice"):
        review.read_review(tmp_path / "b.csv", key)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(CourseError, match="can't be reviewed"):
        review.write_review(studies().drop(columns="first"), tmp_path, SYSTEMS)
    with pytest.raises(CourseError, match="Both systems are called"):
        review.write_review(studies(), tmp_path, ("x", "x"))


def two_readers(table: list[list[int]], about: str):
    """Two readers whose answers have this confusion table."""
    words = {"preference": SYSTEMS, "findings": ("correct", "missed")}[about]
    pairs = [
        (words[i], words[j])
        for i in range(2) for j in range(2) for _ in range(table[i][j])
    ]
    frames = []
    for side in (0, 1):
        rows = [(f"S{k}", "" if about == "preference" else SYSTEMS[k % 2],
                 about if about == "preference" else "Edema", pair[side])
                for k, pair in enumerate(pairs)]
        columns = ["study_id", "system", "question", "answer"]
        frames.append(pd.DataFrame(rows, columns=columns))
    return frames


@pytest.mark.parametrize("about", ["preference", "findings"])
def test_kappa_is_the_one_that_was_simulated(about):
    from sklearn.metrics import cohen_kappa_score

    # Agreement .70, by chance .50: kappa is (.70 - .50) / (1 - .50).
    one, other = two_readers([[20, 5], [10, 15]], about)
    found = review.agreement(one, other, about)
    assert found["value"] == pytest.approx(0.4)
    assert found["value"] == pytest.approx(
        cohen_kappa_score(one["answer"], other["answer"]))
    assert found["agree"] == pytest.approx(0.7) and found["items"] == 50
    assert 0.1 < found["low"] < 0.4 < found["high"] < 0.7


def test_the_interval_covers_the_true_kappa():
    rng = np.random.default_rng(0)
    covered, true = 0, 0.6
    for _ in range(40):  # equal answers with probability kappa, else chance
        first = rng.integers(0, 2, 60)
        copy = rng.random(60) < true
        second = np.where(copy, first, rng.integers(0, 2, 60))
        table = np.zeros((2, 2), int)
        np.add.at(table, (first, second), 1)
        found = review.agreement(
            *two_readers(table.tolist(), "preference"), "preference",
            n_samples=200)
        covered += found["low"] <= true <= found["high"]
    assert covered >= 34  # 95 % of 40 is 38


def test_studies_are_drawn_not_findings():
    """Ten findings a study that agree or not together: a wide interval."""
    one, other = two_readers([[20, 5], [10, 15]], "findings")
    many = [
        pd.concat([f.assign(question=f"Q{q}") for q in range(10)])
        for f in (one, other)
    ]
    single = review.agreement(one, other)
    tenfold = review.agreement(*many)
    assert tenfold["items"] == 500
    assert tenfold["low"] == pytest.approx(single["low"])


def test_the_preference_test_is_the_exact_sign_test():
    one, _ = two_readers([[12, 3], [0, 0]], "preference")
    one.loc[one.index[:5], "answer"] = "none"
    one.loc[one.index[5:7], "answer"] = SYSTEMS[1]
    found = review.preference_test([one], SYSTEMS)
    assert (found[SYSTEMS[0]], found[SYSTEMS[1]], found["tie"]) == (8, 2, 5)
    assert found["p"] == pytest.approx(112 / 1024)  # 2 P(X >= 8), 10 coins
    assert found["low"] == pytest.approx(0.4439, abs=1e-4)
    assert found["high"] == pytest.approx(0.9748, abs=1e-4)
    against = one.assign(answer=SYSTEMS[1])
    both = review.preference_test([one, against], SYSTEMS)
    assert both["tie"] == 8  # one vote each
    with pytest.raises(CourseError, match="Name the systems"):
        review.preference_test([one], ("x", "y"))


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
def test_the_page_saves_and_loads_what_was_ticked(tmp_path):
    api = pytest.importorskip("playwright.sync_api")
    sheet, key = review.write_review(studies(2), tmp_path, SYSTEMS, seed=1)
    case = content(sheet)["cases"][0]
    with api.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(sheet.as_uri())
        page.fill("#reader", "AB")
        for value in ("missed", "added", "harmful"):  # added unticks missed
            name = f"Report B, Pneumothorax: {value}"
            page.get_by_label(name).first.check()
        page.get_by_label("Report A", exact=True).first.check()
        page.get_by_label("Comment").first.fill('says "no", wrongly')
        page.reload()  # kept in the browser
        with page.expect_download() as saved:
            page.click("#save")
        saved.value.save_as(tmp_path / "answers.csv")
        assert "1 of 2 studies read" in page.inner_text("#progress")
        page.evaluate("localStorage.clear()")
        page.reload()
        assert "0 of 2" in page.inner_text("#progress")
        page.set_input_files("#load", tmp_path / "answers.csv")
        page.wait_for_function(
            "document.getElementById('progress').textContent[0] == '1'")
        browser.close()
    read = review.read_review(tmp_path / "answers.csv", key)
    assert set(read["study_id"]) == {case["id"]}
    who = pd.read_csv(key).set_index("study_id").loc[case["id"]]
    ticked = read[read["answer"].str.contains("harmful")].iloc[0]
    assert (ticked["system"], ticked["answer"]) == (who["B"], "added harmful")
    asked = read.set_index("question")["answer"]
    assert asked["preference"] == who["A"]
    assert asked["comment"] == 'says "no", wrongly'
