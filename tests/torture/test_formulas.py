"""What a spreadsheet would run is text in every table."""

import csv

import pandas as pd
import pytest

from llamaxr_utils.course import tables

STARTS = ("=", "+", "-", "@", "\t=", "\r=", " =", "=cmd|", "@SUM(",
          "a\r=", "a\n=")


@pytest.mark.parametrize("start", STARTS)
def test_a_formula_is_text(tmp_path, start):
    text = f"{start}1+1"
    table = pd.DataFrame({"a": [text], text: ["b"]})
    tables.write_csv(tmp_path / "t.csv", table)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as rows:
        for cell in (cell for row in csv.reader(rows) for cell in row):
            assert not cell.startswith(("=", "+", "-", "@"))
