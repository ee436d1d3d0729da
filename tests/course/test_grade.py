"""Grades: what stands in a class's notebooks, read and never run."""

import nbformat
import pandas as pd
import pytest

from llamaxr_utils.__main__ import main
from llamaxr_utils.course import exercises, grade
from llamaxr_utils.course.errors import CourseError

NOTEBOOK = "01_explore_data"
WORK = '''def verbatim_share(test, train):
    """{doc}"""
    seen = {{text.lower() for text in train}}
    hits = [text.lower() in seen for text in test]
    return sum(hits) / len(hits){extra}


check("01a", verbatim_share)'''


def submit(folder, student, said, doc="Mine.", extra="", busy="00", idle="03",
           name=NOTEBOOK):
    cell = nbformat.v4.new_code_cell(WORK.format(doc=doc, extra=extra))
    cell.outputs = [nbformat.v4.new_output("stream", text=said)]
    cell.metadata["execution"] = {
        f"iopub.status.{end}": f"2026-01-01T10:00:{second}Z"
        for end, second in (("busy", busy), ("idle", idle))}
    path = folder / student / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


@pytest.fixture
def said(monkeypatch, capsys):
    """What `check` says to a student about an answer to 01a."""

    def say(student, answer):
        monkeypatch.setenv(exercises.STUDENT, student)
        exercises.check("01a", answer)
        return capsys.readouterr().out

    return say


def test_outcomes_receipts_and_copies(tmp_path, said, capsys, monkeypatch):
    right = exercises.find("01a").solution
    submit(tmp_path, "ana", said("ana", right))
    submit(tmp_path, "ben", said("ana", right), doc="Ben's own!")
    submit(tmp_path, "cem", said("cem", lambda *_: 0.3), extra=" + 1")
    submit(tmp_path, "=dan", said("dan", ...), extra="  # ...")
    submit(tmp_path, "eva", "01a · correct. [receipt 00000000]", extra=" * 1")
    (tmp_path / "fay").mkdir()
    (tmp_path / "fay" / f"{NOTEBOOK}.ipynb").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert main(["grade", str(tmp_path)]) == 0
    assert "ben 01a: receipt of ana same code: ana, ben" in (
        capsys.readouterr().out)
    table = pd.read_csv("grades.csv", keep_default_na=False)
    rows = table.query("exercise != '01b'").set_index("student")
    assert rows["outcome"].to_dict() == {
        "ana": "correct", "ben": "correct", "cem": "not yet",
        "'=dan": "not attempted", "eva": "correct", "fay": "missing"}
    assert rows["note"].to_dict() == {
        "ana": "same code: ana, ben", "cem": "", "'=dan": "receipt of nobody "
        "here", "ben": "receipt of ana same code: ana, ben",
        "eva": "receipt of nobody here", "fay": "cannot be read: NotJSONError"}
    assert float(rows.loc["ana", "seconds"]) == 3
    assert set(table.query("exercise == '01b'")["outcome"]) == {"missing"}


def test_submissions_run_only_when_asked(tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    path = submit(tmp_path / "class", "ana", "01a · correct.")
    book = nbformat.read(path, 4)
    book.cells[0].source = (
        f"open({str(mark)!r}, 'w').close()\n"
        "from llamaxr_utils.course.exercises import check\n"
        "check('01a', ...)")
    book.cells.append(nbformat.v4.new_code_cell("import time; time.sleep(60)"))
    nbformat.write(book, path)
    content = path.read_bytes()
    assert grade.grade(tmp_path / "class")["outcome"][0] == "correct"
    assert not mark.exists()
    again = grade.grade(tmp_path / "class", again=True, limit=8)
    assert again["outcome"][0] == "not attempted" and mark.exists()
    assert path.read_bytes() == content


def test_a_student_s_numbers_are_their_own(monkeypatch):
    given = []
    for student in ("", "ana", "ben"):
        monkeypatch.setenv(exercises.STUDENT, student)
        exercises.check("02a", lambda p, n: given.append(str([*p, *n])) or (
            exercises.find("02a").solution(p, n)))
    assert len(set(given[3::4])) == 3


def test_no_submissions(tmp_path):
    with pytest.raises(CourseError, match="no notebook of the course"):
        grade.grade(tmp_path)
