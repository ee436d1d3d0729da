"""Reading single reports: what two texts say about each finding.

Reports are compared by the *state* of a finding (present, absent, uncertain,
not mentioned), not by their words; the paper's Tables 4 to 6 and the page of
all cases are made from that. No model is asked, and nothing is diagnosed.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from ..course.artifacts import write_whole
from ..course.errors import CourseError
from ..course.plots import data_uri
from ..course.run import WARNING
from ..datasets.conditions import CONDITIONS, NAMED_BY, VIEWS
from ..datasets.downloads import SOURCES
from ..datasets.images import locate, read_grey
from ..datasets.reports import DATA
from ..llm.prompts import Scores, names_above
from .findings import FINDINGS, label_report, sentences
from .metrics import plain
from .score import read_table

#: What two texts make of a finding -> the mark that stands beside its colour.
OUTCOMES = {"agree": "=", "missed": "−", "added": "+", "contradicts": "≠"}
#: "only": a correct statement that the other system does not make, green in
#: the paper's Tables 5 and 6; red is added there.
MARKS = OUTCOMES | {"only": "✓"}
TINTS = {"only": "#dff0e2", "added": "#fbe2de", "contradicts": "#efe2f4"}
#: An added finding, with and without a score that speaks for it.
SUPPORTED = "added, supported by the scores"
UNSUPPORTED = "added without support"
METRICS = ("BLEU-4", "ROUGE-L", "METEOR")
SIZE = 128  #: side of an embedded image: 590 studies in a few megabytes
#: Every text that reaches a page goes through autoescape.
PAGES = Environment(autoescape=True, loader=FileSystemLoader(DATA))
PAGES.policies["json.dumps_kwargs"] = {"separators": (",", ":"),
                                       "allow_nan": False}


def second_system(
    study_ids: Collection[str], folders: Iterable[Path],
) -> tuple[str, list[str]] | None:
    """Another system and its reports for these studies, from a CSV in one of
    the folders: published predictions first, then any that has them all."""
    published = {SOURCES["cvt2distilgpt2"].saves: "CvT2DistilGPT2"}
    paths = {path.name: path for f in folders for path in f.glob("*.csv")}
    for name in sorted(paths, key=lambda n: (n not in published, n)):
        try:
            table = read_table(paths[name]).set_index("study_id")
        except CourseError:
            continue  # a CSV of something else
        if set(study_ids) <= set(table.index):
            reports = table["generated"].loc[list(study_ids)]
            return published.get(name, Path(name).stem), list(reports)
    return None


# --- two texts --------------------------------------------------------------


def outcome(reference: str | None, generated: str | None) -> str:
    """Compare two states (present, absent, uncertain; None: not mentioned).

    Denials that only one side spells out are no disagreement: "".
    """
    reported = ("present", "uncertain")
    if reference and generated:
        same = (reference in reported) == (generated in reported)
        return "agree" if same else "contradicts"
    if reference in reported:
        return "missed"
    return "added" if generated in reported else ""


def remark(word: str, finding: str, named: Collection[str] | None) -> str:
    """An outcome; for an added finding also whether a score speaks for it.

    `named` are the conditions at or above their operating point
    (`prompts.names_above`), None without scores.
    """
    if word != "added":
        return word
    speaking = set(NAMED_BY.get(finding, ())) & set(named or ())
    return SUPPORTED if speaking else UNSUPPORTED


def findings_table(
    reference: str, generated: str, named: Collection[str] | None = None
) -> pd.DataFrame:
    """Every finding that one of two texts mentions: ``finding``, its state in
    ``reference`` and ``generated``, ``outcome``, ``remark``."""
    truth, written = label_report(reference), label_report(generated)
    rows = []
    for name in (f for f in FINDINGS[1:] if f in truth or f in written):
        word = outcome(truth.get(name), written.get(name))
        states = truth.get(name, ""), written.get(name, "")
        rows.append((name, *states, word, remark(word, name, named)))
    columns = ["finding", "reference", "generated", "outcome", "remark"]
    return pd.DataFrame(rows, columns=columns)


def outcomes(reference: str,
             texts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """System -> finding -> outcome; "only" is a correct statement that no
    other of several systems makes. Findings on which there is nothing to
    say are left out."""
    truth = label_report(reference)
    written = {name: label_report(text) for name, text in texts.items()}
    result: dict[str, dict[str, str]] = {name: {} for name in texts}
    for finding in FINDINGS[1:]:
        words = {n: outcome(truth.get(finding), written[n].get(finding))
                 for n in texts}
        right = [name for name in texts if words[name] == "agree"]
        for name in (n for n in texts if words[n]):
            alone = right == [name] and len(texts) > 1
            result[name][finding] = "only" if alone else words[name]
    return result


def decisive(text: str) -> list[tuple[str, list[str]]]:
    """The sentences of a report as written, each with the findings whose
    state in the report it decides."""
    whole = label_report(text) | {"No Finding": ""}
    return [(part, [finding for finding, state in label_report(part).items()
                    if state == whole.get(finding)])
            for part in sentences(text)]


def marked(text: str,
           words: Mapping[str, str]) -> list[tuple[str, str, list[str]]]:
    """(sentence, outcome, findings) for each sentence of a report, from
    finding -> outcome: the strongest among a sentence's findings stands for
    it, with the findings that have it."""
    parts = []
    for sentence, mentions in decisive(text):
        by_word: dict[str, list[str]] = {}
        for finding in mentions:
            by_word.setdefault(words.get(finding, ""), []).append(finding)
        strongest = ("contradicts", "added", "missed", "only")
        word = next((w for w in strongest if w in by_word), "")
        parts.append((sentence, word, by_word[word] if word else []))
    return parts


# --- the paper's Tables 5 and 6 ---------------------------------------------


def table_5(reference: str, texts: Mapping[str, str],
            named: Collection[str] | None = None) -> dict[str, str]:
    """A row of the paper's Tables 5 and 6 for one study and two systems.

    The texts in plain characters, then names of findings: ``both found``
    (black in the paper), ``only NAME found`` (green), ``NAME added`` (red;
    with its support), ``NAME contradicts``, ``NAME missed``.
    """
    words = outcomes(reference, texts)

    def having(name: str, word: str) -> str:
        return ", ".join(
            f"{f} ({remark(w, f, named)[5:].strip(', ')})" if w == "added"
            else f for f, w in words[name].items() if w == word)

    row = {"reference": plain(reference)}
    row |= {name: plain(text) for name, text in texts.items()}
    row["both found"] = having(next(iter(texts)), "agree")
    row |= {f"only {name} found": having(name, "only") for name in texts}
    return row | {f"{name} {word}": having(name, word) for name in texts
                  for word in ("added", "contradicts", "missed")}


Row = tuple[str, str, Mapping[str, str], Collection[str] | None]


def texts_table(rows: Sequence[Row], caption: str) -> str:
    """Reference and systems side by side, coloured and marked, as HTML.

    A row is study, reference, system -> report (the same systems in each),
    the conditions at or above their operating point.
    """
    shown = []
    for study, reference, reports, named in rows:
        words, texts = outcomes(reference, reports), []
        for name, text in reports.items():
            notes = [
                f"{MARKS[w]} {finding}{remark(w, finding, named)[len(w):]}"
                for finding, w in words[name].items() if w != "agree"]
            texts.append((marked(text, words[name]), notes))
        shown.append((plain(study), plain(reference), texts))
    systems = [plain(name) for name in rows[0][2]] if rows else []
    return PAGES.get_template("texts.html").render(
        rows=shown, systems=systems, marks=MARKS, tints=TINTS,
        caption=plain(caption))


# --- the page of all cases --------------------------------------------------


def _embedded(path: Path, colour: bool = False) -> str:
    """An image file inside an address, grey unless it is a heatmap; "" if
    it is no image."""
    try:
        with Image.open(path) as image:
            side = min(SIZE, max(image.size))
            pixels = np.asarray(image.convert("RGB"))
    except OSError:
        return ""
    return data_uri(pixels if colour else read_grey(path, side), side)


def study_data(row: Mapping[str, Any], systems: Mapping[str, str],
               scores: Scores, points: Mapping[str, float]) -> dict[str, Any]:
    """What the page shows of one study, ready for JSON; no images. The first
    of `systems` (name -> report) is the run: its outcomes are counted."""

    def number(value: float) -> float | None:  # JSON has no NaN
        return None if pd.isna(value) else round(float(value), 3)

    reference, run = str(row["reference"]), next(iter(systems))
    named = names_above(scores, points)
    words = outcomes(reference, systems)
    unheard = {finding: word for finding, word in words[run].items()
               if word in ("missed", "contradicts")}
    texts = [marked(reference, unheard)]
    texts += [marked(systems[name], words[name]) for name in systems]
    states = [label_report(text) for text in (reference, *systems.values())]
    table = findings_table(reference, systems[run], named)
    mesh = [plain(heading) for heading in row["mesh"]]
    searched = [row["study_id"], *mesh, reference, *systems.values()]
    return {
        "id": plain(row["study_id"]),
        "status": plain(row["status"]),
        "mesh": mesh,
        "metrics": {m: number(row[m]) for m in METRICS if m in row},
        "texts": texts,
        "findings": [
            [r.finding, [s.get(r.finding, "") for s in states], r.outcome,
             r.remark] for r in table.itertuples()],
        "counts": {o: int(table["outcome"].eq(o).sum()) for o in OUTCOMES},
        "scores": {view: [number(values[c]) for c in CONDITIONS]
                   for view, values in scores.items()
                   if values and not math.isnan(values[CONDITIONS[0]])},
        "named": [CONDITIONS.index(c) for c in named or ()],
        "words": plain(" ".join(searched)).lower(),
        "img": {}, "heat": {}, "heatof": {},
    }


def render(studies: Sequence[dict[str, Any]], systems: Sequence[str],
           title: str, stamp: str, points: Mapping[str, float]) -> str:
    """The page as text: ``data/cases.html`` with the studies of `study_data`
    and the script ``data/cases.js``, the only one that may run."""
    seen = {row[0] for study in studies for row in study["findings"]}
    script = (DATA / "cases.js").read_text("utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    data = {
        "studies": studies,
        "systems": [plain(name) for name in systems],
        "conditions": CONDITIONS,
        "points": [float(points[c]) for c in CONDITIONS],
        "findings": [name for name in FINDINGS if name in seen],
        "marks": {word: mark for word, mark in MARKS.items()
                  if word != "only" or len(systems) > 1},
    }
    return PAGES.get_template("cases.html").render(
        title=plain(title), stamp=plain(stamp), warning=WARNING, data=data,
        hash=base64.b64encode(digest).decode(), script=Markup(script))


def write_page(
    path: Path, table: pd.DataFrame, systems: Mapping[str, Sequence[str]], *,
    title: str, stamp: str, scores: Mapping[str, Scores],
    points: Mapping[str, float], views: pd.DataFrame, heatmaps: Path,
) -> str:
    """Write the case page of a run, one HTML file that needs no network, and
    say in a line what is in it.

    Parameters
    ----------
    table : DataFrame
        ``study_id``, ``status``, ``mesh``, ``reference``; metrics by name.
    systems : mapping
        System -> reports in the order of `table`; the run first.
    scores, points : mapping
        `prompts.by_study`; condition -> operating point.
    views : DataFrame
        Schema ``views``: the images.
    heatmaps : path
        A folder of ``STUDY_VIEW.png``; what is not there is not shown.
    """
    columns = zip(*systems.values(), strict=True)
    by_id = {
        row["study_id"]: study_data(row, dict(zip(systems, texts)),
                                    scores[row["study_id"]], points)
        for row, texts in zip(table.to_dict("records"), columns, strict=True)}
    for row in views.itertuples():
        is_shown = row.study_id in by_id and row.view in VIEWS
        if is_shown and (image := _embedded(locate(row.path))):
            by_id[row.study_id]["img"][row.view] = image
    for name, view in ((s, v) for s in by_id for v in VIEWS):
        file = heatmaps / f"{name}_{view}.png"
        if file.is_file():
            by_id[name]["heat"][view] = _embedded(file, colour=True)
            with Image.open(file) as picture:
                label = picture.info.get("Description", "")
            by_id[name]["heatof"][view] = label
    studies = list(by_id.values())
    text = render(studies, list(systems), title, stamp, points)
    write_whole(path, lambda part: part.write_text(text, "utf-8"))
    images, heats = (sum(len(s[k]) for s in studies) for k in ("img", "heat"))
    return (f"{len(studies)} studies, {images} images, {heats} heatmaps, "
            f"{len(text) / 1e6:.1f} MB")
