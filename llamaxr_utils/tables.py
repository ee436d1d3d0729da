"""Tables of a run: shown in the notebook, kept as CSV and Markdown.

Every table carries its provenance, and a run on drawings says so in its
title. The paper's own numbers come from ``data/published_results.csv``, its list of designs from
``data/published_designs.csv``. Whether a number was reproduced is one of
four words, by the rule in `verdict`.
"""

from __future__ import annotations

import io

import pandas as pd

from .artifacts import write_whole
from .errors import CourseError
from .reports import DATA
from .run import WARNING, Run

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "METEOR")
VERDICTS = ("reproduced", "differs", "not comparable", "not run")


def published_results() -> pd.DataFrame:
    """Table 3 of the paper as printed: ``system``, ``year``, ``citation``
    and six metrics; NaN where the paper has a dash."""
    return pd.read_csv(DATA / "published_results.csv")


def table_1() -> pd.DataFrame:
    """Table 1 of the paper as printed, and two columns of ours.

    Returns
    -------
    DataFrame
        ``method``, ``image embedding``, ``model``, ``pre-trained``,
        ``fine-tuning``: quoted; "-" and the marks are the paper's.
        ``predictions public`` (the generated test reports of IU X-ray) and
        ``split public`` (the study ids of its split): "yes", else "not known
        to us", which is no claim that they are not.
    """
    return pd.read_csv(DATA / "published_designs.csv", keep_default_na=False)


def verdict(
    paper: float | None,
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    paper_protocol: str,
    protocol: str,
    paper_split: str,
    split: str,
    images: str,
    command: str,
    decimals: int = 3,
) -> tuple[str, str]:
    """One of `VERDICTS` on a number of the paper, and why.

    The first that holds: *not run*: there is no value of ours; *not
    comparable*: the paper prints none, or ours is of phantoms, of another
    protocol or another split, or has no interval; *reproduced*: the paper's
    number lies inside our 95 % interval (its ends rounded as the paper
    rounds); *differs*: it does not.

    Parameters
    ----------
    paper, value, low, high : float or None
        The paper's number; ours, and its interval. NaN is None.
    paper_protocol, protocol, paper_split, split : str
        Equal or not; a split that nobody published equals none.
    images : str
        "phantom", or what the reports were written from.
    command : str
        Gives the value when there is none.
    decimals : int
        Of the paper's number.

    Returns
    -------
    (str, str)
        A word of `VERDICTS`; the reason, or the command.
    """
    if value is None or pd.isna(value):
        return "not run", command
    if paper is None or pd.isna(paper):
        return "not comparable", "the paper prints no number"
    if images == "phantom":
        return "not comparable", "drawings, not X-rays"
    if protocol != paper_protocol:
        return "not comparable", f"the paper's protocol is {paper_protocol}"
    if split != paper_split:
        return "not comparable", f"the paper's split: {paper_split}"
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return "not comparable", "no interval: a single study"
    ends = round(float(low), decimals), round(float(high), decimals)
    inside = ends[0] <= paper <= ends[1]
    words = f"[{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]"
    if inside:
        return "reproduced", f"{paper:.{decimals}f} lies inside {words}"
    return "differs", f"{paper:.{decimals}f} lies outside {words}"


def save_table(
    nb: Run,
    table: pd.DataFrame,
    name: str = "",
    *,
    title: str,
    item: str = "",
    decimals: int = 3,
    of_images: bool = True,
    shown: pd.DataFrame | None = None,
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
    of_images : bool
        False for a table of the real reports alone.
    shown : DataFrame, optional
        The same table as people read it: for the Markdown and the page,
        while the CSV keeps `table`.

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
    name = name or item
    full = title + (nb.title_note if of_images else "")
    text = io.StringIO()
    text.write(f"**{full}**\n\n")
    text.write(markdown(table if shown is None else shown, decimals))
    text.write(f"\n\n{nb.stamp}. {WARNING}\n")
    csv = nb.file("tables", f"{name}.csv")
    write_whole(csv, lambda part: table.to_csv(part, index=False))
    markdown = nb.file("tables", f"{name}.md")
    write_whole(markdown, lambda part: part.write_text(text.getvalue()))
    print(f"{full}  [runs/{nb.name}/tables/{name}.csv]")
    return table.round(decimals) if shown is None else shown


def markdown(table: pd.DataFrame, decimals: int = 3) -> str:
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
