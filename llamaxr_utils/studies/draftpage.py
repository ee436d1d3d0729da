"""A draft report to be read: text for the terminal, a page for the browser.

The page is one file without script and without network; everything that
comes from a model or a file name is escaped. What is said is decided in
`draft` and `caveats`.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd

from ..course.files import write_whole
from ..course.run import WARNING
from ..datasets.conditions import VIEWS
from ..evaluation.findings import sentences
from .caveats import unsupported
from .report import Draft

COLUMNS, EMPTY = 78, "(empty)"
NO_CAVEAT = "none found, which does not make the report right"
NOTE = (
    "* named: the mean over the views is at or above the operating point, "
    "which this run set on its training studies. Scores are not "
    "probabilities."
)
STYLE = """
:root {color-scheme: light dark; --line: #8885; --bad: #b2182b;
  --bar: #4477aa; --warn: #fff3cd; --ink: #222}
@media (prefers-color-scheme: dark) {
  :root {--bad: #ff8a80; --bar: #88bbee; --warn: #4a3b00; --ink: #eee}}
body {font: 15px/1.5 system-ui, sans-serif; max-width: 62rem;
  margin: auto; padding: 1rem}
.warning {background: var(--warn); color: var(--ink); padding: .5rem 1rem;
  border-left: 6px solid #e0a800; font-weight: bold}
.report {font-size: 1.15rem; border: 1px solid var(--line);
  padding: .8rem 1rem; border-radius: .4rem}
mark {background: none; color: inherit;
  text-decoration: underline wavy var(--bad)}
li {margin: .3rem 0} li b {color: var(--bad)}
.views {display: flex; flex-wrap: wrap; gap: 1.5rem}
figure {margin: 0; max-width: 27rem; flex: 1 1 20rem}
figure img {width: 49%; image-rendering: auto}
table {border-collapse: collapse}
td, th {padding: .1rem .6rem; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums}
td:first-child, th:first-child, .facts td {text-align: left;
  white-space: normal}
tr.named td:first-child {font-weight: bold}
.bar {position: relative; width: 11rem; height: .8rem;
  background: var(--line)}
.bar i {position: absolute; inset: 0 auto 0 0; background: var(--bar)}
.bar u {position: absolute; top: -2px; bottom: -2px; width: 2px;
  background: var(--bad)}
.wide {overflow-x: auto}
pre {white-space: pre-wrap; border: 1px solid var(--line); padding: .6rem}
"""
#: Nothing from outside may load, whatever a report holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Named conditions first, each group by its distance to the point."""
    gap = (table["mean"] - table["point"]).sort_values(ascending=False)
    return table.loc[gap.index]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def as_text(draft: Draft) -> str:
    """A draft for a terminal of 80 columns."""
    report = fill(draft.report or EMPTY, COLUMNS)
    lines = ["DRAFT REPORT", WARNING, "", report, ""]
    lines.append(f"Caveats: {len(draft.caveats) or NO_CAVEAT}")
    for i, (kind, text) in enumerate(draft.caveats, 1):
        line = f"{i:2}. {kind}: {text}"
        lines.append(fill(line, COLUMNS, subsequent_indent="    "))
    head = f"{'Scores':30}{'frontal':>9}{'lateral':>9}{'mean':>9}{'point':>9}"
    lines += ["", head]
    for name, row in _ranked(draft.scores).iterrows():
        values = [row[c] for c in (*VIEWS, "mean", "point")]
        lines.append(
            f"{'*' if row['named'] else ' '} {name:28}"
            + "".join(f"{_number(v):>9}" for v in values)
        )
    lines += [fill(NOTE, COLUMNS), ""]
    wide = max(map(len, draft.facts))
    lines += [f"{k:{wide}}  {v}" for k, v in draft.facts.items()]
    return "\n".join(lines)


def _picture(pixels: np.ndarray, alt: str) -> str:
    from PIL import Image

    store = io.BytesIO()
    image = Image.fromarray(pixels)
    side = max(320, image.width)
    image.resize((side, side), Image.Resampling.BICUBIC).save(store, "PNG")
    data = base64.b64encode(store.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def overlay(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Grey image with its heatmap, uint8 (n, n, 3): colour only where the
    heat is above 0.15 of its maximum."""
    from matplotlib import colormaps

    colour = 255 * colormaps["inferno"](heat)[..., :3]
    weight = (0.45 * (heat > 0.15))[..., None]
    mixed = grey[..., None] * (1 - weight) + colour * weight
    return mixed.astype(np.uint8)


def _views(draft: Draft) -> str:
    parts = []
    for view, (grey, heat, top) in draft.pictures.items():
        score = draft.scores.loc[top, view]
        caption = (
            f"{view.capitalize()}, as the network sees it ({len(grey)} x "
            f"{len(grey)} pixels), and where the gradient of its top "
            f"condition comes from: {top} {score:.2f}."
        )
        if not heat.any():
            caption += " The map is empty."
        parts.append(
            "<figure>"
            + _picture(grey, f"The {view} image.")
            + " "
            + _picture(overlay(grey, heat), f"The same, heatmap of {top}.")
            + f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return "".join(parts)


def _rows(draft: Draft) -> str:
    rows = []
    for name, row in _ranked(draft.scores).iterrows():
        numbers = "".join(
            f"<td>{_number(row[c])}</td>" for c in (*VIEWS, "mean", "point")
        )
        tick = ""
        if not np.isnan(row["point"]):
            tick = f'<u style="left:{100 * row["point"]:.1f}%"></u>'
        rows.append(
            f"<tr{' class=named' if row['named'] else ''}>"
            f"<td>{'* ' if row['named'] else ''}{escape(str(name))}</td>"
            f"{numbers}<td><div class=bar>"
            f'<i style="width:{100 * row["mean"]:.1f}%"></i>{tick}'
            "</div></td></tr>"
        )
    return "".join(rows)


def as_html(draft: Draft) -> str:
    """A draft as a self-contained page, in light and dark."""
    table = draft.scores
    bare = unsupported(draft.report, list(table.index[table["named"]]))
    report = " ".join(
        f"<mark>{escape(s)}</mark>" if s in bare.values() else escape(s)
        for s in sentences(draft.report) or [EMPTY]
    )
    items = "".join(
        f"<li><b>{escape(kind)}</b>: {escape(text)}</li>"
        for kind, text in draft.caveats
    )
    facts = "".join(
        f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>"
        for k, v in draft.facts.items()
    )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("condition", *VIEWS, "mean", "operating point", "")
    )
    underlined = (
        "<p>Underlined: a finding without support in the scores.</p>"
        if bare
        else ""
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">'
        '<meta name=viewport content="width=device-width">'
        f"<title>Draft report</title><style>{STYLE}</style></head><body>"
        f"<p class=warning>{WARNING}</p><h1>Draft report</h1>"
        f"<p class=report>{report}</p>{underlined}"
        f"<h2>Caveats</h2><ul>{items or f'<li>{NO_CAVEAT}</li>'}</ul>"
        f"<h2>Images</h2><div class=views>{_views(draft)}</div>"
        "<p>A heatmap shows what the network used, not what is there, and is "
        "as coarse as the network's last map, a 32nd of the image.</p>"
        f"<h2>Scores</h2><div class=wide><table><tr>{head}</tr>{_rows(draft)}"
        "</table></div>"
        f"<p>{NOTE} The tick on a bar is the operating point.</p>"
        f"<details><summary>The prompt</summary><pre>{escape(draft.prompt)}"
        "</pre></details>"
        f"<h2>Provenance</h2><table class=facts>{facts}</table>"
        f"<p class=warning>{WARNING}</p></body></html>\n"
    )


def write_page(draft: Draft, path: str | Path) -> None:
    """`as_html` into a file, whole or not at all."""
    page = as_html(draft)
    write_whole(Path(path), lambda part: part.write_text(page, "utf-8"))
