"""One page with the whole reproduction: runs/<profile>/reproduction.html.

Self-contained, printable, light and dark; verdict first, then every table
and figure with its provenance. What stands on it is collected by `rebuild`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pandas as pd

from ..course import plots, tables
from ..course.run import WARNING, Run, project_folder
from ..datasets.reports import DATA
from .rebuild import (
    Output,
    images_of,
    outputs,
    readable,
    registry,
    runs_on_disk,
)

#: A sign beside each word, for those who do not see its colour.
MARKS = dict(zip(tables.VERDICTS, ("✓", "≠", "–", "○")))
RULE = (
    "<b>Reproduced</b>: the paper's number lies inside our 95 % interval, "
    "same protocol and split (counts: equal). <b>Differs</b>: it does not. "
    "<b>Not comparable</b>: drawings, another protocol or split, another "
    "model's parameters, or no number in the paper. <b>Not run</b>: the "
    "command stands beside it.</p><p>The paper published neither its split "
    "nor its predictions. Its own row of Table 3 is therefore not comparable "
    "with any run, unless notebook 11 is told which split to assume "
    "(<code>PAPER_SPLIT</code>)."
)
SOURCE = (
    "Reports, and X-rays where they are not drawn: Indiana University chest "
    "X-ray collection (OpenI), CC BY-NC-ND 4.0."
)


def html_table(text: str) -> str:
    """A Markdown table of `tables.markdown` as HTML, everything escaped."""

    def cell(words: str, kind: str) -> str:
        words = escape(words.strip().replace("\\|", "|"))
        words = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", words)
        if words in tables.VERDICTS:
            mark = MARKS[words]
            words = f'<span class="{words.replace(" ", "-")}">{mark} ' \
                    f"{words}</span>"
        words = re.sub(r"\[[^]]*\]", r"<span>\g<0></span>", words)
        if re.fullmatch(r"(figure|table)-\d", words):
            words = f'<a href="#{words}">{words}</a>'
        return f"<{kind}>{words}</{kind}>"

    rows: list[str] = []
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
            kind = "td" if rows else "th scope=col"
            rows.append("".join(cell(c, kind) for c in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows[1:])
    return (f"<div class=wide><table><thead><tr>{rows[0]}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>").replace("</th scope=col",
                                                            "</th")


def _shown(output: Output, place: Path) -> str:
    """One output as HTML: embedded, or for a page of its own a link."""
    note = ""
    if output.changed:
        note = "<p class=note>Changed since its notebook ran.</p>"
    if output.path.suffix == ".png":
        return note + plots.as_html(output.path)
    if output.path.suffix == ".html":
        link = Path("..") / output.path.relative_to(place.parent)
        return f'{note}<p><a href="{escape(str(link))}">A page of its own: ' \
               f"{escape(output.path.name)}</a></p>"
    text = output.path.read_text("utf-8")
    title, _, rest = text.partition("\n")
    stamp = rest.rstrip().splitlines()[-1]
    return (f"{note}<h4>{escape(title.strip('*'))}</h4>{html_table(rest)}"
            f"<p class=note>{escape(stamp)}</p>")


def _items(found: list[Output], place: Path) -> Iterator[str]:
    """A section for each paper item: what it is, and every run's version."""
    figures = project_folder() / "figures"
    for row in registry().itertuples():
        yield (f'<section id="{row.item}"><h3>{escape(str(row.title))}</h3>'
               f"<p class=note>{escape(str(row.status))} · notebook "
               f"{row.notebook}, cell <code>{escape(str(row.tag))}</code></p>")
        seen: dict[str, str] = {}  # a quoted table is the same in all runs
        drawn = figures / str(row.committed or "-").replace(".svg", ".png")
        if drawn.suffix == ".png" and drawn.is_file():
            yield plots.as_html(drawn)
        for output in (o for o in found if o.name == row.item):
            yield f"<h4>Run {output.run}, {images_of(output.run)} images</h4>"
            text = _shown(output, place)
            body = text.partition("<p class=note>")[0]
            if body in seen:
                text = f"<p>The same as in run {seen[body]}.</p>"
            seen.setdefault(body, output.run)
            yield text
        if not seen:
            yield (f"<p class=missing>Not in any run: <code>make course FROM="
                   f"{row.notebook} TO={row.notebook}</code></p>")
        yield "</section>"


def page(nb: Run, table: pd.DataFrame) -> str:
    """The whole reproduction on one page.

    Parameters
    ----------
    nb : Run
        Of notebook 11: its tables and figures are shown in full, of other
        runs the paper's items.
    table : DataFrame
        Of `compare`.

    Returns
    -------
    str
        HTML without script, font or address of another machine; light and
        dark by the reader's setting; every figure embedded with alt text.
    """
    runs = runs_on_disk()
    others = [r for r in runs["run"] if r != nb.name and r[:5] != "smoke"]
    found = [o for name in [nb.name, *others] for o in outputs(name)]
    known = set(registry()["item"])
    rest = [o for o in found if o.run == nb.name and o.name not in known]
    counts = table["verdict"].value_counts()
    said = " · ".join(f"<b>{counts.get(word, 0)}</b> {MARKS[word]} {word}"
                      for word in tables.VERDICTS)
    parts = [
        f"<h1>The LLaMA-XR paper, rebuilt</h1><p class=warning>{WARNING}</p>",
        f"<h2 id=verdict>Verdict</h2><p class=sum>{said}</p><p>{RULE}</p>",
        html_table(tables.markdown(readable(table))),
        f"<h2 id=runs>Runs</h2>{html_table(tables.markdown(runs))}",
        "<h2 id=items>Tables and figures of the paper</h2>",
        *_items(found, nb.folder),
        f"<h2 id=rest>Everything else of run {escape(nb.name)}</h2>",
    ]
    for output in rest:
        parts.append(f"<section><h3>{output.notebook[:2]}: "
                     f"{escape(output.name)}</h3>"
                     f"{_shown(output, nb.folder)}</section>")
    stamp = f"<footer>{escape(nb.stamp)}. {WARNING} {SOURCE}</footer>"
    links = "".join(f'<a href="#{i}">{i}</a> ' for i in (
        "verdict", "runs", *registry()["item"], "rest"))
    style = (DATA / "reproduction.css").read_text("utf-8")
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>LLaMA-XR rebuilt: {escape(nb.name)}</title><style>{style}"
        f"</style></head><body><nav aria-label=Contents>{links}</nav><main>"
        f"{''.join(parts)}{stamp}</main></body></html>\n"
    )
