"""A draft report of one or two images, by the models of a run.

Image -> scores -> prompt -> report, as the notebooks of the run did it, with
heatmaps and with caveats, which hold the text against the scores. It shows
what a model of this kind does with a new image; it does not read X-rays.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course import artifacts, run
from ..course.errors import CourseError
from ..course.plots import data_uri
from ..datasets.conditions import CONDITIONS, FINDING_OF, VIEWS, by_name
from ..datasets.images import read_grey
from ..evaluation.cases import PAGES
from ..evaluation.findings import label_report, sentences
from ..llm import finetune, generate, models, prompts
from ..vision import backbones, heatmaps

#: Words for the same shadow: one for another is no mistake here.
_SAME = {
    "Consolidation": ("Lung Opacity",),
    "Infiltration": ("Consolidation", "Pneumonia"),
    "Lung Lesion": ("Granuloma",),
    "Lung Opacity": ("Consolidation", "Pneumonia"),
    "Nodule": ("Granuloma",),
    "Pneumonia": ("Consolidation", "Lung Opacity"),
}
#: Condition -> the findings in words that state it. Findings that no
#: condition leads to (devices, spine) can't come from the scores.
STATED_BY = {name: (finding, *_SAME.get(name, ()))
             for name, finding in FINDING_OF.items()}
REPORTED = {"present", "uncertain"}
COLUMNS, EMPTY = [*VIEWS, "mean", "point"], "(empty)"
NO_CAVEAT = "none found, which does not make the report right"
NOTE = (
    "* named: the mean over the views is at or above the operating point, "
    "which this run set on its training studies. Scores are not "
    "probabilities."
)
#: A reason for doubt: a word or two, a sentence.
Caveat = tuple[str, str]


class Draft(NamedTuple):
    """A draft report with what is needed to judge it."""

    report: str
    prompt: str
    scores: pd.DataFrame  #: `score_table`
    caveats: list[Caveat]
    #: View -> grey image, heatmap, the condition it is of.
    pictures: dict[str, tuple[np.ndarray, np.ndarray, str]]
    facts: dict[str, str]  #: provenance


def check_files(paths: Mapping[str, Path]) -> None:
    """Refuse what is no file, and one image for two views."""
    for view, path in paths.items():
        if not path.is_file():
            raise CourseError(
                f"The {view} image {path.name} was not found.",
                f"No such file lies in {path.absolute().parent}.",
                "Give the path of an image file.",
            )
    if len({artifacts.sha256(path) for path in paths.values()}) < len(paths):
        raise CourseError(
            "Both views are the same image.",
            "Byte for byte: one of them is not the view it stands for.",
            "Give the frontal image first and the lateral one second, or "
            "the frontal one alone.",
        )


def score_table(
    model: Any, grey: Mapping[str, np.ndarray], points: Mapping[str, float]
) -> pd.DataFrame:
    """Scores of the views there are, a row a condition: ``frontal``,
    ``lateral`` (NaN when missing), their ``mean``; ``point`` (NaN: none was
    set) and ``named``. Those farthest above their point come first."""
    table = pd.DataFrame(index=pd.Index(CONDITIONS, name="condition"))
    for view in VIEWS:
        table[view] = np.nan
        if view in grey:
            outputs = backbones.predict(model, grey[view][None])[0]
            table[view] = pd.Series(by_name(outputs, model.pathologies))
    table["mean"] = table[list(VIEWS)].mean(axis=1)
    point = pd.Series(points).reindex(table.index)
    table["point"] = point.where(point <= 1)  # above 1: never reached
    table["named"] = table["mean"] >= table["point"]
    above = (table["mean"] - table["point"]).sort_values(ascending=False)
    return table.loc[above.index]


def write_draft(
    paths: Mapping[str, str | Path | None],
    profile: str = "cpu",
    images: str | None = None,
) -> Draft:
    """Write a draft report with the models of ``runs/<profile>``, as its
    notebooks used them; `paths`: view -> image file, at least one.

    Its heatmaps are of the condition farthest above (or least below) its
    operating point in that view.
    """
    from transformers.utils import logging

    began = time.perf_counter()
    files = {view: Path(path) for view, path in paths.items() if path}
    check_files(files)
    folder = run.runs_folder() / run.run_name(profile, images)
    adapter = artifacts.load(folder, "adapter")  # refuses a stale one
    knobs: dict[str, Any] = {}
    for name in ("image_scores", "adapter", "prompts"):
        knobs |= (artifacts.manifest(folder, name) or {})["parameters"]
    network = backbones.load(artifacts.load(folder, "backbone"))
    grey = {view: read_grey(path, network.resolution, knobs["RESIZE"])
            for view, path in files.items()}
    points = artifacts.load(folder, "operating_points")
    points = points.set_index("condition")["operating_point"].to_dict()
    table = score_table(network, grey, points)
    prompt = prompts.build_prompt(table[list(grey)].T,
                                  knobs["SCORE_FORMAT"], points)

    logging.disable_progress_bar()  # the terminal is for the report
    base = knobs["BASE"]
    own = (artifacts.load(folder, "base_model")
           if models.made_here(base) else None)
    model, tokenizer = finetune.load_adapter(
        models.locate(base, own), adapter, knobs["BACKEND"])
    notebook = "05_generate_reports"
    record = (run.read_record(folder, notebook) or {}).get("knobs", {})
    longest, scale, beams = (
        record.get(knob) or run.knob_value(notebook, knob, profile, images)
        for knob in ("MAX_NEW_TOKENS", "GUIDANCE", "BEAMS"))
    decoding = generate.guided(scale, beams)
    row = generate.generate_reports(
        model, tokenizer, [prompt], max_new_tokens=longest, **decoding
    ).iloc[0]
    pictures = {}
    for view, picture in grey.items():
        top = str((table[view] - table["point"]).idxmax())
        heat = heatmaps.heatmap(network, picture, top)
        pictures[view] = (picture, heat, top)
    caveats = about_run(network.full_name, knobs["images"], files)
    caveats += about_text(row["generated"], table, bool(row["finished"]))
    side, spent = network.resolution, time.perf_counter() - began
    how = generate.describe_decoding(**decoding)
    facts = {
        f"{view} image": f"{path.name}, SHA-256 {artifacts.sha256(path)[:12]}"
        for view, path in files.items()
    } | {
        "run": f"{folder.name}, trained on {knobs['images']} images",
        "backbone":
            f"{network.full_name}, {side} x {side} pixels, {knobs['RESIZE']}",
        "base model": base,
        "adapter": f"SHA-256 {artifacts.sha256(adapter)[:12]}",
        "prompt format": knobs["SCORE_FORMAT"],
        "decoding": f"{how}, at most {longest} tokens",
        "written": f"{time.strftime('%Y-%m-%d %H:%M')}, in {spent:.1f} s",
    }
    return Draft(row["generated"], prompt, table, caveats, pictures, facts)


# --- caveats ----------------------------------------------------------------


def about_run(
    backbone: str, images: str, files: Mapping[str, Path]
) -> list[Caveat]:
    """Caveats about models and images (what the run was trained on: phantom
    or real), before a word is read."""
    home = (run.cache_folder() / "phantoms").resolve()
    drawn = [p.resolve().is_relative_to(home) for p in files.values()]
    checks = [
        (backbone.endswith("@random"), "random network",
         "The image network has random weights."),
        (images == "phantom" and not all(drawn), "trained on phantoms",
         "The run knows drawings, and no X-ray at all."),
        (images == "real" and any(drawn), "image is a phantom",
         "An image is a drawing; the run has seen X-rays."),
        (len(files) < len(VIEWS), "view missing",
         "The operating points were set on means of both views."),
    ]
    return [(kind, text) for holds, kind, text in checks if holds]


def about_text(
    report: str, table: pd.DataFrame, finished: bool = True
) -> list[Caveat]:
    """Caveats from comparing a report with the scores that led to it (a
    `score_table`); `finished` is False where decoding ran into its limit."""
    checks = [
        (not finished, "cut off", "The report did not come to an end."),
        (not report.strip(), "empty", "The model wrote no report at all."),
        ("XXXX" in report, "placeholder",
         "XXXX stands where training reports lost a word."),
    ]
    caveats = [(kind, text) for holds, kind, text in checks if holds]
    written = label_report(report)
    names = list(table.index[table["named"]])
    for condition in names:
        states = {written.get(finding) for finding in STATED_BY[condition]}
        # To deny consolidation is not to deny every opacity.
        denied = written.get(STATED_BY[condition][0]) == "absent"
        if not states & REPORTED:
            kind = "denied" if denied else "not stated"
            score = _score(condition, table)
            caveats.append((kind, f"{score} is named and {kind}."))
    for finding, sentence in unsupported(report, names).items():
        sources = [c for c in CONDITIONS if finding in STATED_BY[c]]
        above = (table["mean"] - table["point"]).reindex(sources).dropna()
        kind, why = "beyond the scores", "no score speaks of it"
        if len(above):
            kind = "unsupported"
            why = f"the nearest score is {_score(str(above.idxmax()), table)}"
        caveats.append((kind, f"“{sentence}” states {finding}; {why}."))
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


# --- a draft to be read -----------------------------------------------------


def as_text(draft: Draft) -> str:
    """A draft for a terminal of 80 columns."""
    lines = ["DRAFT REPORT", run.WARNING, "", fill(draft.report or EMPTY, 78)]
    lines += ["", f"Caveats: {len(draft.caveats) or NO_CAVEAT}"]
    lines += [fill(f"{i:2}. {kind}: {text}", 78, subsequent_indent="    ")
              for i, (kind, text) in enumerate(draft.caveats, 1)]
    scores = draft.scores.copy()
    scores.index = [f"{'*' if named else ' '} {name}"
                    for name, named in scores["named"].items()]
    table = scores[COLUMNS].to_string(float_format="%.2f", na_rep="–")
    lines += ["", "Scores", table, fill(NOTE, 78), ""]
    wide = max(map(len, draft.facts))
    return "\n".join(lines + [f"{k:{wide}}  {v}" for k, v in
                              draft.facts.items()])


def write_page(draft: Draft, path: str | Path) -> None:
    """A draft as a page without script or network, all text escaped."""
    names = list(draft.scores.index[draft.scores["named"]])
    pictures = [
        (view, top, data_uri(grey, 320),
         data_uri(heatmaps.overlay(grey, heat), 320), len(grey))
        for view, (grey, heat, top) in draft.pictures.items()]
    page = PAGES.get_template("report.html").render(
        draft=draft, pictures=pictures, columns=COLUMNS, note=NOTE,
        sentences=sentences(draft.report) or [EMPTY], no_caveat=NO_CAVEAT,
        bare=set(unsupported(draft.report, names).values()))
    artifacts.write_whole(
        Path(path), lambda part: part.write_text(page, "utf-8"))
