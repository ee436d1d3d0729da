"""What a spreadsheet would run is text in every table."""

import csv

import pandas as pd
import pytest

from llamaxr_utils.course import tables

STARTS = ("=", "+", "-", "@", "\t=", "\r=", " =", "=cmd|", "@SUM(",
          "a\r=", "a\n=")


@pytest.mark.parametrize("where", ["cell", "column", "index"])
@pytest.mark.parametrize("start", STARTS)
def test_a_formula_is_text(tmp_path, start, where):
    text = f"{start}1+1"
    table = pd.DataFrame({"a": ["b"]})
    table = (table.assign(a=text) if where == "cell" else
             table.rename(columns={"a": text}) if where == "column" else
             table.set_axis([text]))
    tables.write_csv(tmp_path / "t.csv", table)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as rows:
        for cell in (cell for row in csv.reader(rows) for cell in row):
            assert not cell.startswith(("=", "+", "-", "@"))
