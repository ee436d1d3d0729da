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

#: Grey levels of standard deviation below which nothing can be seen.
LEAST_CONTRAST = 8.0
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
#: (a word or two, a sentence or two): a reason for doubt.
Caveat = tuple[str, str]
CAVEATS = {
    "random network": "The image network has random weights.",
    "trained on phantoms": "The run knows drawings, and no X-ray at all.",
    "image is a phantom": "An image is a drawing; the run has seen X-rays.",
    "view missing": "The operating points were set on means of both views.",
    "no contrast": "An image is nearly one grey.",
    "cut off": "The report did not come to an end.",
    "empty": "The model wrote no report at all.",
    "placeholder": "XXXX stands where training reports lost a word.",
    "beyond": "it comes from the training reports: no score speaks of it.",
}


class Models(NamedTuple):
    """What a run left behind that writes reports."""

    images: str  #: phantom or real: what it was trained on
    backbone: Any
    resize: str
    points: dict[str, float]
    score_format: str
    language_model: Any
    tokenizer: Any
    decoding: dict[str, Any]  #: of `generate.generate_reports`
    facts: dict[str, str]  #: provenance, for people


class Draft(NamedTuple):
    """A draft report with what is needed to judge it."""

    report: str
    prompt: str
    scores: pd.DataFrame  #: `score_table`
    caveats: list[Caveat]
    #: View -> grey image, heatmap, the condition it is of.
    pictures: dict[str, tuple[np.ndarray, np.ndarray, str]]
    facts: dict[str, str]


def load_models(profile: str = "cpu", images: str | None = None) -> Models:
    """The models of ``runs/<profile>``, as its notebooks used them."""
    from transformers.utils import logging

    folder = run.runs_folder() / run.run_name(profile, images)
    adapter = artifacts.load(folder, "adapter")  # refuses a stale one

    def knobs(name: str) -> dict[str, Any]:
        return (artifacts.manifest(folder, name) or {})["parameters"]

    tuned, base = knobs("adapter"), knobs("tokenizer")["BASE"]
    points = artifacts.load(folder, "operating_points")
    backbone = backbones.load(artifacts.load(folder, "backbone"))
    made_here = models.made_here(base)
    own = artifacts.load(folder, "base_model") if made_here else None
    logging.disable_progress_bar()  # the terminal is for the report
    model, tokenizer = finetune.load_adapter(
        models.locate(base, own), adapter, tuned["BACKEND"]
    )
    last = "05_generate_reports"
    record = (run.read_record(folder, last) or {}).get("knobs", {})
    longest, scale, beams = (
        record.get(knob) or run.knob_value(last, knob, profile, images)
        for knob in ("MAX_NEW_TOKENS", "GUIDANCE", "BEAMS")
    )
    decoding = generate.guided(scale, beams)
    resize = knobs("image_scores")["RESIZE"]
    score_format = knobs("prompts")["SCORE_FORMAT"]
    facts = {
        "run": f"{folder.name}, trained on {tuned['images']} images",
        "backbone": f"{backbone.full_name}, {backbone.resolution} x "
        f"{backbone.resolution} pixels, {resize}",
        "base model": base,
        "adapter": f"SHA-256 {artifacts.sha256(adapter)[:12]}",
        "prompt format": score_format,
        "decoding": f"{generate.describe_decoding(**decoding)}, at most "
        f"{longest} tokens",
    }
    return Models(
        tuned["images"], backbone, resize,
        dict(zip(points["condition"], points["operating_point"])),
        score_format, model, tokenizer,
        {"max_new_tokens": longest, **decoding}, facts,
    )  # fmt: skip


# --- from images to text ----------------------------------------------------


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
    set) and ``named``."""
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
    return table


def write_draft(
    paths: Mapping[str, str | Path | None],
    profile: str = "cpu",
    images: str | None = None,
) -> Draft:
    """Write a draft report; `paths`: view -> image file, at least one.

    Its heatmaps are of the condition farthest above (or least below) its
    operating point in that view.
    """
    began = time.perf_counter()
    files = {v: Path(p) for v in VIEWS if (p := paths.get(v))}
    check_files(files)
    loaded = load_models(profile, images)
    network = loaded.backbone
    grey = {view: read_grey(path, network.resolution, loaded.resize)
            for view, path in files.items()}
    table = score_table(network, grey, loaded.points)
    scores = {view: table[view].to_dict() for view in grey}
    prompt = prompts.build_prompt(scores, loaded.score_format, loaded.points)
    row = generate.generate_reports(
        loaded.language_model, loaded.tokenizer, [prompt], **loaded.decoding
    ).iloc[0]
    pictures = {}
    for view, picture in grey.items():
        top = str((table[view] - table["point"]).idxmax())
        heat = heatmaps.heatmap(network, picture, top)
        pictures[view] = (picture, heat, top)
    facts = {
        f"{view} image": f"{path.name}, SHA-256 {artifacts.sha256(path)[:12]}"
        for view, path in files.items()
    }
    spent = time.perf_counter() - began
    facts |= loaded.facts
    facts["written"] = f"{time.strftime('%Y-%m-%d %H:%M')}, in {spent:.1f} s"
    caveats = about_run(loaded, files, grey)
    caveats += about_text(row["generated"], table, bool(row["finished"]))
    return Draft(row["generated"], prompt, table, caveats, pictures, facts)


# --- caveats ----------------------------------------------------------------


def about_run(
    models: Models, paths: Mapping[str, Path], grey: Mapping[str, np.ndarray]
) -> list[Caveat]:
    """Caveats about models and images, before a word is read."""
    home = (run.cache_folder() / "phantoms").resolve()
    drawn = [p.resolve().is_relative_to(home) for p in paths.values()]
    missing = [view for view in VIEWS if view not in grey]
    faint = any(g.std() < LEAST_CONTRAST for g in grey.values())
    holds = {
        "random network": models.backbone.full_name.endswith("@random"),
        "trained on phantoms": models.images == "phantom" and not all(drawn),
        "image is a phantom": models.images == "real" and any(drawn),
        "view missing": bool(missing),
        "no contrast": faint,
    }
    return [(kind, CAVEATS[kind]) for kind, yes in holds.items() if yes]


def about_text(
    report: str, table: pd.DataFrame, finished: bool = True
) -> list[Caveat]:
    """Caveats from comparing a report with the scores that led to it (a
    `score_table`); `finished` is False where decoding ran into its limit."""
    holds = {
        "cut off": not finished,
        "empty": not report.strip(),
        "placeholder": "XXXX" in report,
    }
    caveats = [(kind, CAVEATS[kind]) for kind, yes in holds.items() if yes]
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
        caveats.append(_without_support(finding, sentence, table))
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


def _without_support(
    finding: str, sentence: str, table: pd.DataFrame
) -> Caveat:
    sources = [c for c in CONDITIONS if finding in STATED_BY[c]]
    nearest = (table["mean"] - table["point"]).reindex(sources).dropna()
    claim = f"“{sentence}” states {finding}"
    if nearest.empty:
        return "beyond the scores", f"{claim}; {CAVEATS['beyond']}"
    score = _score(str(nearest.idxmax()), table)
    return "unsupported", f"{claim}; the nearest score is {score}."


def _score(condition: str, table: pd.DataFrame) -> str:
    mean, point = table.loc[condition, ["mean", "point"]]
    return f"{condition} {mean:.2f} (operating point {point:.2f})"


# --- a draft to be read -----------------------------------------------------


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Scores by their distance to the point, the farthest above first."""
    gap = (table["mean"] - table["point"]).sort_values(ascending=False)
    return table.loc[gap.index]


def as_text(draft: Draft) -> str:
    """A draft for a terminal of 80 columns."""
    lines = ["DRAFT REPORT", run.WARNING, "", fill(draft.report or EMPTY, 78)]
    lines += ["", f"Caveats: {len(draft.caveats) or NO_CAVEAT}"]
    lines += [fill(f"{i:2}. {kind}: {text}", 78, subsequent_indent="    ")
              for i, (kind, text) in enumerate(draft.caveats, 1)]
    scores = _ranked(draft.scores)
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
        (view, top, data_uri(grey, 320), data_uri(
            heatmaps.overlay(grey, heat), 320), grey.shape[0])
        for view, (grey, heat, top) in draft.pictures.items()
    ]
    text = PAGES.get_template("report.html").render(
        draft=draft, scores=_ranked(draft.scores), pictures=pictures,
        sentences=sentences(draft.report) or [EMPTY],
        bare=set(unsupported(draft.report, names).values()),
        columns=COLUMNS, note=NOTE, no_caveat=NO_CAVEAT, warning=run.WARNING,
    )  # fmt: skip
    artifacts.write_whole(
        Path(path), lambda part: part.write_text(text, "utf-8")
    )
