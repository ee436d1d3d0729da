"""Tables of a run: shown in the notebook, kept as CSV and Markdown.

Every table carries its provenance, and a run on drawings says so in its
title. The paper's own numbers come from ``data/published_results.csv``.
"""

from __future__ import annotations

import io

import pandas as pd

from .artifacts import write_whole
from .errors import CourseError
from .reports import DATA
from .run import WARNING, Run

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "METEOR")


def published_results() -> pd.DataFrame:
    """Table 3 of the paper as printed: ``system``, ``year``, ``citation``
    and six metrics; NaN where the paper has a dash."""
    return pd.read_csv(DATA / "published_results.csv")


def save_table(
    nb: Run,
    table: pd.DataFrame,
    name: str = "",
    *,
    title: str,
    item: str = "",
    decimals: int = 3,
) -> pd.DataFrame:
    """Write a table of this run, and give it back to be shown.

    Parameters
    ----------
    nb : Run
    table : DataFrame
    name : str
        File name; `item` when empty.
    title : str
        "(phantom images)" is added where it is true.
    item : str
        The paper item that it rebuilds, ``table-3``.
    decimals : int
        For the Markdown copy; the CSV keeps all digits.

    Raises
    ------
    CourseError
        If a run on phantoms calls its column "ours".
    """
    if nb.images == "phantom" and "ours" in table.columns:
        raise CourseError(
            'A run on phantoms has no column "ours".',
            "Drawings are no evidence about X-rays; beside the paper's "
            "numbers they would look like it.",
            'Call the column "this run", or use IMAGES = "real".',
        )
    name, full = name or item, title + nb.title_note
    text = io.StringIO()
    text.write(f"**{full}**\n\n")
    text.write(_markdown(table, decimals))
    text.write(f"\n\n{nb.stamp}. {WARNING}\n")
    csv = nb.file("tables", f"{name}.csv")
    write_whole(csv, lambda part: table.to_csv(part, index=False))
    markdown = nb.file("tables", f"{name}.md")
    write_whole(markdown, lambda part: part.write_text(text.getvalue()))
    print(f"{full}  [runs/{nb.name}/tables/{name}.csv]")
    return table.round(decimals)


def _markdown(table: pd.DataFrame, decimals: int) -> str:
    """A Markdown table; numbers rounded, missing values as a dash."""

    def cell(value: object) -> str:
        if value is None or value is pd.NA or pd.isna(value):  # type: ignore[call-overload]
            return "–"
        if isinstance(value, float):
            return f"{value:.{decimals}f}"
        return str(value).replace("|", "\\|").replace("\n", " ")

    header = [str(column) for column in table.columns]
    rows = [header, ["---"] * len(header)]
    rows += [
        [cell(v) for v in row]
        for row in table.itertuples(index=False, name=None)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
