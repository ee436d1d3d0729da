"""What `score` found, as text for a terminal, as Markdown and as JSON.

Every row says protocol, split, images and n. Nothing is computed here, and
no number is left out of the Markdown and the JSON.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from ..course.errors import CourseError
from ..course.files import write_json, write_whole
from ..course.run import WARNING
from ..course.tables import METRICS, markdown
from .clinical import SCORES
from .score import LABELS, MEDOID

OVERLAP = (*METRICS, "CIDEr")
_SHORT = ("mic.F1", "mac.F1", "neg.F1", "halluc.", "omiss.", "abn.", "norm.")
_LEFT, _CELL = 44, 8  # a line is 44 + 7 * 8 = 100 columns at most
TITLES = {
    "r2gen": "Protocol r2gen: corpus BLEU, ROUGE-L (beta 1.2), METEOR 1.5, "
    "CIDEr of pycocoevalcap",
    "llamaxr": "Protocol llamaxr: mean nltk BLEU, rouge_score ROUGE-L, nltk "
    "METEOR",
    LABELS: "Findings, by report labels: F1 micro, macro, of denials; added "
    "and omitted a report;\nshares of abnormal and of normal studies "
    "reported as such",
}


def as_text(found: dict[str, Any]) -> str:
    """For a terminal, at most 100 columns.

    Parameters
    ----------
    found : dict
        Of `score.score_file`.

    Returns
    -------
    str
        The parts of R2Gen's test list only for the files and the medoid
        report, distinct reports only for the files; Markdown and JSON have
        all systems.
    """
    rows = found["rows"]
    lines = _wrapped(_headline(found))
    lines += ["Below a system: protocol | split | images | n; 95 % intervals."]
    whole = rows["split"] == found["split"]
    files = rows["system"].isin([*found["files"], MEDOID])
    for protocol, title in TITLES.items():
        part = rows[(rows["protocol"] == protocol) & (whole | files)]
        lines += ["", title, *_block(part, protocol)]
    if found["paired"] is not None:
        first, second = found["files"]
        lines += ["", f"{first} minus {second}, paired by study"]
        lines += _paired_lines(found["paired"])
    lines += ["", "Distinct reports"]
    distinct = found["distinct"]
    lines += _distinct_lines(distinct[distinct["system"].isin(found["files"])])
    lines += [""] * bool(found["notes"])
    for note in found["notes"]:
        lines += _wrapped(f"Note: {note}")
    return "\n".join([*lines, "", WARNING])


def as_markdown(found: dict[str, Any]) -> str:
    """All rows, a table a protocol."""
    keys = ["system", "protocol", "split", "images", "n"]
    pieces = [f"# Scores of {found['file']}", _headline(found)]
    for protocol, title in TITLES.items():
        rows = found["rows"][found["rows"]["protocol"] == protocol]
        names = SCORES if protocol == LABELS else OVERLAP
        shown = rows.assign(
            shown=[
                f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]"
                if pd.notna(r.value)
                else r.note or "–"
                for r in rows.itertuples()
            ]
        )
        table = [
            dict(zip(keys, key, strict=True))
            | dict(zip(part["metric"], part["shown"], strict=True))
            for key, part in shown.groupby(keys, sort=False)
        ]
        columns = [m for m in names if m in set(rows["metric"])]
        wide = pd.DataFrame(table)[[*keys, *columns]]
        pieces += ["## " + title.replace("\n", " "), markdown(wide)]
    if found["paired"] is not None:
        first, second = found["files"]
        pieces += [f"## {first} minus {second}, paired by study"]
        pieces += [markdown(found["paired"], 4)]
    pieces += ["## Distinct reports", markdown(found["distinct"])]
    pieces += [f"- {note}" for note in found["notes"]]
    record = json.dumps(found["records"], default=str)
    pieces += [f"Record: `{record}`", WARNING]
    return "\n\n".join(pieces) + "\n"


def as_json(found: dict[str, Any]) -> dict[str, Any]:
    """All of it, ready for `files.write_json`; NaN is null."""

    def plain(value: Any) -> Any:
        if not isinstance(value, pd.DataFrame):
            return value
        whole = value.astype(object).where(value.notna(), None)
        return whole.to_dict("records")

    return {key: plain(value) for key, value in found.items()}


def check_output(path: str | None, *inputs: str | None) -> None:
    """Refuse a file that cannot be written before a minute is spent.

    Raises
    ------
    CourseError
        If it is a folder, one of the inputs, or in no folder.
    """
    if path is None:
        return
    out = Path(path)
    same = [i for i in inputs if i and out.resolve() == Path(i).resolve()]
    reasons = {
        "It is a folder.": out.is_dir(),
        "It is one of the files to score.": bool(same),
        "Its folder does not exist.": not out.absolute().parent.is_dir(),
    }
    for why, true in reasons.items():
        if true:
            raise CourseError(
                f"Results cannot be written to {out.name}.",
                why,
                "Name another file.",
            )


def write(found: dict[str, Any], json_to: str | None, page: str | None):
    """Write JSON and Markdown where they are wanted, whole or not at all."""
    if json_to:
        write_json(Path(json_to), as_json(found))
    if page:
        text = as_markdown(found)
        write_whole(Path(page), lambda part: part.write_text(text, "utf-8"))


def _headline(found: dict[str, Any]) -> str:
    return (
        f"{found['file']}: {found['n']} studies, references: "
        f"{found['references']}, split: {found['split']}, images: "
        f"{found['images']}."
    )


def _block(rows: pd.DataFrame, protocol: str) -> list[str]:
    """Two lines a system: values; what they rest on, and intervals."""
    names = SCORES if protocol == LABELS else OVERLAP
    there = [m for m in names if m in set(rows["metric"])]
    short = dict(zip(SCORES, _SHORT, strict=True))
    heads = [short.get(metric, metric) for metric in there]
    lines = [" " * _LEFT + "".join(f"{head:>{_CELL}}" for head in heads)]
    keys = ["split", "system", "images", "n"]
    for (split, system, images, n), part in rows.groupby(keys, sort=False):
        by = part.set_index("metric")
        values = [_number(by["value"].get(m)) for m in there]
        spans = [_span(by["low"].get(m), by["high"].get(m)) for m in there]
        left = f"  {protocol} | {split} | {images} | n {n}"
        lines.append(f"{system:<{_LEFT}}" + _cells(values))
        lines.append(f"{left:<{_LEFT}}" + _cells(spans))
    return lines


def _cells(texts: list[str]) -> str:
    return "".join(f"{text:>{_CELL}}" for text in texts)


def _number(value: float | None) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.3f}"


def _span(low: float | None, high: float | None) -> str:
    """".46-.49", or "1.0-1.2": seven characters."""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return ""
    if high >= 0.995:
        return f"{low:.1f}-{high:.1f}"
    return f"{low:.2f}-{high:.2f}".replace("0.", ".")


def _paired_lines(table: pd.DataFrame) -> list[str]:
    heads = f"{'difference':>12}{'95 %':>18}{'p':>8}{'p Holm':>8}"
    lines = [" " * _LEFT + heads]
    for r in table.itertuples():
        span = f"[{r.low:+.3f}, {r.high:+.3f}]"
        lines.append(
            f"{r.protocol + ': ' + r.metric + f' (n {r.n})':<{_LEFT}}"
            f"{r.difference:>+12.3f}{span:>18}{r.p:>8.3f}{r.p_holm:>8.3f}"
            + (" *" if r.p_holm < 0.05 else "")
        )
    return lines


def _distinct_lines(table: pd.DataFrame) -> list[str]:
    heads = f"{'studies':>10}{'n':>6}{'distinct':>10}{'commonest':>11}"
    lines = [" " * _LEFT + heads]
    for row in table.itertuples(index=False):
        system, studies, n, distinct, share = row
        lines.append(
            f"{system:<{_LEFT}}{studies:>10}{n:>6}{distinct:>10}"
            f"{share:>11.0%}"
        )
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _LEFT + 7 * _CELL, subsequent_indent="  ")
