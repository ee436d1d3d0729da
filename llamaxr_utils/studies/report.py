"""Pages that a run ends with: a draft report of one or two images, by the
models of the run, and ``index.html``, its results.

A draft goes image -> scores -> prompt -> report, as the notebooks of the run
did it, with heatmaps and with caveats, which hold the text against the
scores. It does not read X-rays. No page loads anything from the network.
"""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup
from nbformat import v4
from PIL import Image

from ..course import artifacts, run, runner
from ..course.errors import problem
from ..course.plots import as_html, data_uri
from ..datasets import phantoms
from ..datasets.conditions import CONDITIONS, FINDING_OF, VIEWS
from ..datasets.images import read_grey, read_picture
from ..datasets.reports import DATA
from ..evaluation.cases import PAGES
from ..evaluation.findings import label_report, sentences
from ..llm import finetune, generate, models, prompts
from ..vision import backbones, features, heatmaps

WORDS = yaml.safe_load((DATA / "report.yaml").read_text("utf-8"))
#: Condition -> the findings in words that state it. Findings that no
#: condition leads to (devices, spine) can't come from the scores.
STATED_BY = {name: (finding, *WORDS["same"].get(name, ()))
             for name, finding in FINDING_OF.items()}
REPORTED = {"present", "uncertain"}
COLUMNS, EMPTY = [*VIEWS, "mean", "point"], "(empty)"
#: Elements that a notebook's page may have: no script, style or form.
TAGS = set(WORDS["tags"].split())
#: A reason for doubt: a word or two, a sentence.
Caveat = tuple[str, str]


class Draft(NamedTuple):
    """A draft report with what is needed to judge it: a `score_table`, view
    -> grey image, heatmap and the condition it is of, and provenance."""

    report: str
    prompt: str
    scores: pd.DataFrame
    caveats: list[Caveat]
    pictures: dict[str, tuple[np.ndarray, np.ndarray, str]]
    facts: dict[str, str]


def score_table(model: Any, grey: Mapping[str, np.ndarray],
                points: Mapping[str, float]) -> pd.DataFrame:
    """Scores of the views there are, a row a condition: ``frontal``,
    ``lateral`` (NaN when missing), their ``mean``; ``point`` (NaN: none was
    set) and ``named``. Those farthest above their point come first."""
    scores = {view: features.by_condition(
        model, backbones.predict(model, image[None])).iloc[0]
        for view, image in grey.items()}
    table = pd.DataFrame(scores).reindex(index=CONDITIONS, columns=VIEWS)
    table["mean"] = table.mean(axis=1)
    point = pd.Series(points).reindex(table.index)
    table["point"] = point.where(point <= 1)  # above 1: never reached
    table["named"] = table["mean"] >= table["point"]
    above = (table["mean"] - table["point"]).sort_values(ascending=False)
    return table.loc[above.index]


def write_draft(paths: Mapping[str, str | Path | None], profile: str = "cpu",
                images: str | None = None) -> Draft:
    """Write a draft report with the models of ``runs/<profile>``, as its
    notebooks used them; `paths`: view -> image file, at least one. Heatmaps
    are of the condition farthest above its operating point in that view."""
    from transformers.utils import logging

    files = {view: Path(path) for view, path in paths.items() if path}
    folder = run.runs_folder() / run.run_name(profile, images)
    adapter = artifacts.load(folder, "adapter")  # refuses a stale one
    notebook = "05_generate_reports"
    knobs = {knob: run.knob_value(notebook, knob, profile, images)
             for knob in run.knob_table(notebook)}
    for name in ("generations", "image_scores", "adapter", "prompts"):
        if record := artifacts.manifest(folder, name):
            knobs |= record["parameters"]
    if knobs.get("DRAFT"):  # its prompts hold texts of the training studies
        raise problem("draft prompts")
    network = backbones.load(artifacts.load(folder, "backbone"))
    side = network.resolution
    grey = {view: read_grey(path, side, knobs["RESIZE"])
            for view, path in files.items()}
    if len(grey) == 2 and _alike(*grey.values()) > 0.95:
        raise problem("same image twice")
    points = artifacts.load(folder, "operating_points").set_index(
        "condition")["operating_point"].to_dict()
    table = score_table(network, grey, points)
    prompt = prompts.build_prompt(table[list(grey)].T,
                                  knobs["SCORE_FORMAT"], points)

    logging.disable_progress_bar()  # the terminal is for the report
    base, longest = knobs["BASE"], knobs["MAX_NEW_TOKENS"]
    weights = (artifacts.load(folder, "base_model")
               if models.made_here(base) else None)
    tuned = finetune.load_adapter(
        models.locate(base, weights), adapter, knobs["BACKEND"])
    decoding = generate.guided(knobs["GUIDANCE"], knobs["BEAMS"])
    row = generate.generate_reports(
        *tuned, [prompt], max_new_tokens=longest, **decoding).iloc[0]
    tops = table[list(grey)].sub(table["point"], axis=0).idxmax()
    pictures = {view: (image, heatmaps.heatmap(network, image, tops[view]),
                       tops[view]) for view, image in grey.items()}
    caveats = about_run(network.full_name, knobs["images"], files)
    caveats += about_pictures({view: read_picture(path, side)
                               for view, path in files.items()})
    caveats += about_text(row["generated"], table, bool(row["finished"]))
    facts = {
        f"{view} image": f"{path.name}, SHA-256 {artifacts.sha256(path)[:12]}"
        for view, path in files.items()} | {
        "run": f"{folder.name}, trained on {knobs['images']} images",
        "backbone": f"{network.full_name}, {side} x {side} pixels, "
                    f"{knobs['RESIZE']}",
        "base model": base,
        "adapter": f"SHA-256 {artifacts.sha256(adapter)[:12]}",
        "prompt format": knobs["SCORE_FORMAT"],
        "decoding": f"{generate.describe_decoding(**decoding)}, at most "
                    f"{longest} tokens",
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }
    return Draft(row["generated"], prompt, table, caveats, pictures, facts)


# --- caveats ----------------------------------------------------------------

def _caveats(checks: Mapping[str, bool], **facts: str) -> list[Caveat]:
    """Those that hold, each with its sentence."""
    return [(kind, WORDS["caveats"][kind].format_map(facts))
            for kind, holds in checks.items() if holds]


def about_run(backbone: str, images: str,
              files: Mapping[str, Path]) -> list[Caveat]:
    """Caveats about models and images (what the run was trained on: phantom
    or real), before a word is read."""
    return _caveats({
        "random network": backbone.endswith("@random"),
        "trained on phantoms": images == "phantom",
        "view missing": len(files) < len(VIEWS)})


def about_pictures(pictures: Mapping[str, Image.Image]) -> list[Caveat]:
    """Caveats about the images themselves (view -> picture), by a few numbers
    at 64 x 64 pixels; drawings tell a frontal view from a lateral one.

    False alarms, of 300 pairs of phantoms: none; of 3,376 of IU X-ray:
    "swapped" 0.4 % (of their frontal images alone 2.4 %), no other at all.
    """
    caveats, swapped = [], 0.0
    drawn = [phantoms.draw("CXR1", ["normal"], view, 64) for view in VIEWS]
    for view, picture in pictures.items():
        tiny = picture.resize((64, 64), Image.Resampling.NEAREST)
        grey = np.asarray(tiny.convert("L"))
        to_frontal, to_lateral = (_alike(grey, other) for other in drawn)
        swapped += (to_lateral - to_frontal) * (1 - 2 * VIEWS.index(view))
        hue = np.ptp(np.asarray(tiny.convert("RGB")), axis=2).mean()
        is_flat = np.ptp(np.percentile(grey, (5, 95))) < 40
        is_noise = not is_flat and _alike(grey[1:], grey[:-1]) < 0.6
        caveats += _caveats({"in colour": hue > 10, "no contrast": is_flat,
                             "noise": is_noise}, view=view)
    return caveats + _caveats({"swapped": swapped > 0.05})


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures; 0 where one is flat."""
    with np.errstate(invalid="ignore"):
        table = np.corrcoef(one.ravel(), other.ravel())
    return float(np.nan_to_num(table[0, 1]))


def about_text(report: str, table: pd.DataFrame,
               finished: bool = True) -> list[Caveat]:
    """Caveats from comparing a report with the scores that led to it (a
    `score_table`); `finished` is False where decoding ran into its limit."""
    caveats = _caveats({"cut off": not finished, "empty": not report.strip(),
                        "placeholder": "XXXX" in report})
    written = label_report(report)
    names = list(table.index[table["named"]])
    for name in names:
        states = [written.get(finding) for finding in STATED_BY[name]]
        if not REPORTED & {*states}:
            # To deny consolidation is not to deny every opacity.
            kind = "denied" if states[0] == "absent" else "not stated"
            caveats += _caveats({kind: True}, score=_score(name, table))
    for finding, sentence in unsupported(report, names).items():
        sources = [c for c in CONDITIONS if finding in STATED_BY[c]]
        above = (table["mean"] - table["point"]).reindex(sources).dropna()
        nearest = _score(str(above.idxmax()), table) if len(above) else ""
        kind = "unsupported" if nearest else "beyond the scores"
        caveats += _caveats({kind: True}, sentence=sentence, finding=finding,
                            score=nearest)
    return caveats


def unsupported(report: str, names: Sequence[str]) -> dict[str, str]:
    """Finding -> the sentence that states it, for every finding of a report
    that none of the named conditions leads to."""
    backed = {finding for name in names for finding in STATED_BY[name]}
    stated: dict[str, str] = {}
    for sentence in sentences(report):
        for finding, state in label_report(sentence).items():
            if state in REPORTED and finding not in {"No Finding", *backed}:
                stated.setdefault(finding, sentence)
    return stated


def _score(condition: str, table: pd.DataFrame) -> str:
    mean, point = table.loc[condition, ["mean", "point"]]
    return f"{condition} {mean:.2f} (operating point {point:.2f})"


# --- to be read -------------------------------------------------------------

def as_text(draft: Draft) -> str:
    """A draft for a terminal of 80 columns."""
    lines = ["DRAFT REPORT", run.WARNING, "", fill(draft.report or EMPTY, 78)]
    lines += ["", f"Caveats: {len(draft.caveats) or WORDS['no_caveat']}"]
    lines += [fill(f"{i:2}. {kind}: {text}", 78, subsequent_indent="    ")
              for i, (kind, text) in enumerate(draft.caveats, 1)]
    marks = draft.scores["named"].map({True: "* ", False: "  "})
    scores = draft.scores.set_axis(marks + draft.scores.index)
    table = scores[COLUMNS].to_string(float_format="%.2f", na_rep="–")
    lines += ["", "Scores", table, fill(WORDS["note"], 78), ""]
    wide = max(map(len, draft.facts))
    lines += [f"{fact:{wide}}  {text}" for fact, text in draft.facts.items()]
    return "\n".join(lines)


def _write(path: Path, template: str, **content: Any) -> None:
    """A page without script or network, all text escaped."""
    page = PAGES.get_template(template).render(**content)
    artifacts.write_whole(path, lambda part: part.write_text(page, "utf-8"))


def write_page(draft: Draft, path: str | Path) -> None:
    names = list(draft.scores.index[draft.scores["named"]])
    _write(Path(path), "report.html", draft=draft, data_uri=data_uri,
           overlay=heatmaps.overlay, columns=COLUMNS, words=WORDS,
           sentences=sentences(draft.report) or [EMPTY],
           bare=set(unsupported(draft.report, names).values()))


# --- the results of a run ---------------------------------------------------

def without_script(page: Any) -> Markup:
    """A notebook as HTML; its formulas are MathML, which browsers draw."""
    import bleach
    from latex2mathml.converter import convert
    from nbconvert.exporters import html

    def formula(body: str, display: str = "inline") -> str:
        try:
            return convert(body, display=display)
        except Exception:  # noqa: BLE001 (each mistake has a class)
            return Markup("<code>{}</code>").format(body)

    renderer = html.IPythonRenderer(escape=False)
    vars(renderer).update(inline_math=formula,
                          block_math=lambda body: formula(body, "block"))
    exporter = html.HTMLExporter(template_name="basic")
    exporter.register_filter(
        "markdown2html", html.MarkdownWithMath(renderer=renderer).render)
    page.cells = [c for c in page.cells if not c.metadata.get(
        "jupyter", {}).get("source_hidden")]
    body, _ = exporter.from_notebook_node(page)
    body = re.sub(r'href="(\w+)\.(?:ipynb|md)"', r'href="\1.html"', body)
    body = body.replace('style="text-align:right"', 'align="right"')
    badge = '<p><a [^>]*><img alt="Open in Colab.*?</p>'
    body = re.sub(rf"(?s)<(script|style)\b.*?</\1>|{badge}", "", body)
    return Markup(bleach.clean(
        body, TAGS, lambda tag, name, _: not name.startswith(("on", "style")),
        ["https", "http", "data"], strip=True))


def write_index(profile: str, images: str | None = None
                ) -> tuple[Path, pd.DataFrame] | None:
    """Write ``index.html`` of a run, and a page for every notebook; its path
    and notebook 06's table ``headline``, or None before that."""
    name, notebooks = run.run_name(profile, images), []
    folder = run.runs_folder() / name
    lessons, pages = run.project_folder() / "notebooks", folder / "notebooks"
    table = folder / "tables" / "headline.csv"
    if artifacts.stale_because(folder, "summary") or not table.is_file():
        return None
    for notebook in run.NOTEBOOKS:
        source = runner.executed_path(folder, notebook)
        whole = artifacts.read_json(source, nbformat=int, cells=list)
        record = whole and run.read_record(folder, notebook)
        if not record:  # its page has no results yet
            source = lessons / source.name
        page, target = runner.read(source), pages / f"{notebook}.html"
        notebooks.append((notebook, page.cells[0].source, record))
        age = target.stat().st_mtime if target.is_file() else 0
        if age < source.stat().st_mtime:
            _write(target, "notebook.html", name=name, this=notebook,
                   body=without_script(page), ran=record, all=run.NOTEBOOKS)
    words = v4.new_markdown_cell((lessons / "glossary.md").read_text("utf-8"))
    _write(pages / "glossary.html", "notebook.html", name=name,
           body=without_script(v4.new_notebook(cells=[words])), ran=True)
    path, numbers = folder / "index.html", pd.read_csv(table)
    _write(path, "index.html", name=name, numbers=numbers.to_numpy(),
           notebooks=notebooks,
           files={f"{f.parent.name}/{f.name}" for f in folder.glob("*/*")},
           picture=lambda file: as_html(folder / file))
    return path, numbers
