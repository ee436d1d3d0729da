"""What a spreadsheet would run is text in every table."""

import pytest

from llamaxr_utils.course import tables

STARTS = ("=", "+", "-", "@", "\t=", "\r=", " =", "=cmd|", "@SUM(")


@pytest.mark.parametrize("where", ["cell", "column", "index"])
@pytest.mark.parametrize("start", STARTS)
def test_a_formula_is_text(tmp_path, start, where):
    import pandas as pd

    text = f"{start}1+1"
    table = pd.DataFrame({"a": ["b"]})
    table = (table.assign(a=text) if where == "cell" else
             table.rename(columns={"a": text}) if where == "column" else
             table.set_axis([text]))
    tables.write_csv(tmp_path / "t.csv", table)
    for line in (tmp_path / "t.csv").read_text("utf-8").splitlines():
        for cell in line.split(","):
            assert cell.strip('"\t\r ')[:1] not in tuple("=+-@")
