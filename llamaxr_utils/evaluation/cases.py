"""Reading single reports: what two texts say about each finding.

Reports are compared by the *state* of a finding (present, absent, uncertain,
not mentioned), not by their words; the paper's Tables 4 to 6 and the page of
all cases are made from that. No model is asked, and nothing is diagnosed.
"""

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from ..course.artifacts import write_whole
from ..course.plots import data_uri
from ..course.run import WARNING
from ..datasets.conditions import CONDITIONS, NAMED_BY, VIEWS
from ..datasets.images import read_views
from ..datasets.reports import DATA
from ..llm.prompts import Scores, names_above
from .findings import FINDINGS, label_report, sentences
from .metrics import plain

#: What two texts make of a finding -> the mark that stands beside its colour.
OUTCOMES = {"agree": "=", "missed": "−", "added": "+", "contradicts": "≠"}
#: "only": a correct statement that the other system does not make, green in
#: the paper's Tables 5 and 6; red is added there.
MARKS = OUTCOMES | {"only": "✓"}
#: An added finding, with and without a score that speaks for it.
SUPPORTED = "added, supported by the scores"
UNSUPPORTED = "added without support"
METRICS = ("BLEU-4", "ROUGE-L", "METEOR")
SIZE = 128  #: side of an embedded image: 590 studies in a few megabytes
#: Every text that reaches a page goes through autoescape; of styles and
#: scripts a browser takes those alone whose hash stands in the page's policy.
PAGES = Environment(autoescape=True, loader=FileSystemLoader(DATA))
PAGES.globals["warning"] = WARNING
PAGES.filters["sha256"] = lambda text: base64.b64encode(
    hashlib.sha256(text.encode()).digest()).decode()
PAGES.policies["json.dumps_kwargs"] = {"separators": (",", ":"),
                                       "allow_nan": False}

# --- two texts --------------------------------------------------------------

def outcome(reference: str | None, generated: str | None) -> str:
    """Compare two states (present, absent, uncertain; None: not mentioned).
    Denials that only one side spells out are no disagreement: ""."""
    truth, written = (state in ("present", "uncertain")
                      for state in (reference, generated))
    if reference and generated:
        return "agree" if truth == written else "contradicts"
    return "missed" if truth else "added" if written else ""


def remark(word: str, finding: str, named: Collection[str] | None) -> str:
    """An outcome; for an added finding also whether one of the `named`
    conditions (`prompts.names_above`; None without scores) speaks for it."""
    if word != "added":
        return word
    speaking = set(NAMED_BY.get(finding, ())) & set(named or ())
    return SUPPORTED if speaking else UNSUPPORTED


def findings_table(reference: str, generated: str,
                   named: Collection[str] | None = None) -> pd.DataFrame:
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
    """System -> finding -> outcome, where there is one; "only" is a correct
    statement that no other of several systems makes."""
    result = {}
    for name, text in texts.items():
        table = findings_table(reference, text).query("outcome != ''")
        result[name] = dict(zip(table["finding"], table["outcome"]))
    for finding in FINDINGS[1:] if len(texts) > 1 else ():
        right = [n for n in texts if result[n].get(finding) == "agree"]
        if len(right) == 1:
            result[right[0]][finding] = "only"
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
        given = {words.get(finding) for finding in mentions}
        strongest = ("contradicts", "added", "missed", "only")
        word = next((w for w in strongest if w in given), "")
        having = [f for f in mentions if word and words.get(f) == word]
        parts.append((sentence, word, having))
    return parts


# --- the page of all cases --------------------------------------------------

def study_data(row: Mapping[str, Any], systems: Mapping[str, str],
               scores: Scores, points: Mapping[str, float]) -> dict[str, Any]:
    """What the page shows of one study, ready for JSON, images empty. The
    first of `systems` (name -> report) is the run."""
    reference, run = row["reference"], next(iter(systems))
    named = names_above(scores, points)
    words = outcomes(reference, systems)
    unheard = {finding: word for finding, word in words[run].items()
               if word in ("missed", "contradicts")}
    states = [label_report(text) for text in (reference, *systems.values())]
    table = findings_table(reference, systems[run], named)
    mesh = [plain(heading) for heading in row["mesh"]]
    searched = [row["study_id"], *mesh, reference, *systems.values()]
    return {
        "id": plain(row["study_id"]),
        "status": plain(row["status"]),
        "mesh": mesh,
        "metrics": {m: None if pd.isna(row[m]) else round(row[m], 3)
                    for m in METRICS},  # JSON has no NaN
        "texts": [marked(reference, unheard)]
        + [marked(text, words[name]) for name, text in systems.items()],
        "findings": [[r.finding, [s.get(r.finding, "") for s in states],
                      r.outcome, r.remark] for r in table.itertuples()],
        "scores": {view: row.to_list() for view, row in
                   scores.dropna().round(3).iterrows()},
        "named": [CONDITIONS.index(c) for c in named or ()],
        "words": plain(" ".join(searched)).lower(),
        "img": {}, "heat": {}, "heatof": {},
    }


def write_page(path: Path, table: pd.DataFrame,
               systems: Mapping[str, Sequence[str]], *, title: str, stamp: str,
               scores: Scores, points: Mapping[str, float],
               views: pd.DataFrame, heatmaps: Path) -> None:
    """Write the case page of a run, one HTML file that needs no network.

    `table` has ``study_id``, ``status``, ``mesh``, ``reference`` and
    `METRICS`; `systems`: system -> reports in that order, the run first;
    `scores` are of `prompts.by_study`, `points` condition -> operating point;
    `heatmaps` is a folder of ``STUDY_VIEW.png``, which may lack some.
    """
    texts = pd.DataFrame(systems).to_dict("records")
    studies = {
        row["study_id"]: study_data(
            row, reports, scores.loc[row["study_id"]], points)
        for row, reports in zip(table.to_dict("records"), texts, strict=True)}
    used = views["view"].isin(VIEWS) & views["study_id"].isin(studies)
    pixels, rows = read_views(views[used], SIZE)
    for row, grey in zip(rows.itertuples(), pixels):
        study = studies[row.study_id]
        study["img"][row.view] = data_uri(grey, SIZE)
        heat = heatmaps / f"{row.study_id}_{row.view}.png"
        if heat.is_file():
            with Image.open(heat) as picture:
                colours = np.asarray(picture.convert("RGB"))
                study["heatof"][row.view] = picture.info["Description"]
            study["heat"][row.view] = data_uri(colours, SIZE)
    seen = {row[0] for study in studies.values() for row in study["findings"]}
    data = {
        "studies": list(studies.values()),
        "systems": [plain(name) for name in systems],
        "conditions": CONDITIONS,
        "points": [float(points[c]) for c in CONDITIONS],
        "findings": [name for name in FINDINGS if name in seen],
        "marks": MARKS if len(systems) > 1 else OUTCOMES,
    }
    page = PAGES.get_template("cases.html").render(
        title=plain(title), stamp=plain(stamp), data=data)
    write_whole(path, lambda part: part.write_text(page, "utf-8"))
