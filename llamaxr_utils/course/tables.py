"""Tables of a run: shown in the notebook, kept as CSV and Markdown.

Every table carries its provenance, and a run on drawings says so in its
title.
"""

from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from .artifacts import write_whole
from .run import WARNING, Run

#: What Markdown would read as a link, a picture or a formula.
INERT = {ord(sign): f"&#{ord(sign)};" for sign in "[$`"}


def save_table(nb: Run, table: pd.DataFrame, name: str = "", *, title: str,
               item: str = "", decimals: int = 3, of_images: bool = True,
               shown: pd.DataFrame | None = None, rows: int = 8) -> Any:
    """Write a table of this run; return it as `show` does.

    `item` is the paper item that it rebuilds, and its file name where `name`
    is empty. The CSV keeps `table` with all digits; the Markdown and the page
    have it with `decimals`, or `shown`, the same table as people read it.
    "(phantom images)" is added to the title where `of_images` is true.
    """
    names = [str(column).strip().lower() for column in table.columns]
    if nb.images == "phantom" and "ours" in names:
        raise ValueError('A run on phantoms has no column "ours"')
    name, full = name or item, title + (nb.title_note if of_images else "")
    body = markdown(table if shown is None else shown, decimals)
    text = f"**{full}**\n\n{body}\n\n{nb.stamp}. {WARNING}\n"
    csv, page = (nb.file("tables", f"{name}.{kind}") for kind in ("csv", "md"))
    write_csv(csv, table)
    write_whole(page, lambda part: part.write_text(text, "utf-8"))
    print(f"{full}  [runs/{nb.name}/tables/{name}.csv]")
    return show(table if shown is None else shown, rows, decimals)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table for people: no text of it is a spreadsheet's formula."""
    def plain(cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        text = cell.replace("\r", " ")  # else it would end a row
        return "'" * text.lstrip().startswith(tuple("=+-@")) + text

    safe = table.map(plain).rename(columns=plain)
    write_whole(path, lambda part: safe.to_csv(part, index=False))


def show(table: pd.DataFrame, rows: int = 8, decimals: int = 3) -> Any:
    """The first `rows` of a table as a notebook shows them: without an index,
    texts left, numbers right."""
    from IPython.display import Markdown

    text = escape(markdown(table.head(rows), decimals), quote=False)
    text = text.translate(INERT)
    more = f"\n\n*{rows} of {len(table)} rows.*" if len(table) > rows else ""
    return Markdown(text + more)


def markdown(table: pd.DataFrame, decimals: int = 3) -> str:
    """A Markdown table; numbers rounded, missing values as a dash."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.{decimals}f}"
        return str(value).replace("|", "\\|").replace("\n", " ")

    cells = table.astype(object).map(cell).mask(table.isna(), "–")
    rule = ["---:" if is_numeric_dtype(kind) else ":---"
            for kind in table.dtypes]
    names = map(cell, map(str, table.columns))
    rows = [names, rule, *cells.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
