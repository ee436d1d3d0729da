"""A draft report of one or two images, by the models of a run.

Image -> scores -> prompt -> report, as the notebooks of the run did it, with
heatmaps and with caveats, which hold the text against the scores. It shows
what a model of this kind does with a new image; it does not read X-rays.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course import artifacts, run
from ..course.errors import CourseError
from ..datasets.conditions import CONDITIONS, FINDING_OF, VIEWS, by_name
from ..datasets.images import read_grey
from ..evaluation.cases import PAGES
from ..evaluation.findings import label_report, sentences
from ..llm import prompts

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


class Caveat(NamedTuple):
    """A reason for doubt."""

    kind: str  #: a word or two
    text: str  #: a sentence or two


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

    from ..llm import finetune, generate, models
    from ..vision import backbones

    folder = run.runs_folder() / run.run_name(profile, images)
    if not folder.is_dir():
        raise CourseError(
            f"There is no run {folder.name!r} to write with.",
            "A report is written by a run's own network, operating points "
            "and adapter.",
            f"`make course TO=04{artifacts.run_options(folder)}`, or name a "
            "run that you have with --profile.",
        )
    adapter = artifacts.load(folder, "adapter")  # refuses a stale one

    def knobs(name: str) -> dict[str, Any]:
        return (artifacts.manifest(folder, name) or {})["parameters"]

    tuned, base = knobs("adapter"), knobs("tokenizer")["BASE"]
    points = artifacts.load(folder, "operating_points")
    backbone = backbones.load(artifacts.load(folder, "backbone"))
    here = models.made_here(base)
    own = artifacts.load(folder, "base_model") if here else None
    logging.disable_progress_bar()  # the terminal is for the report
    model, tokenizer = finetune.load_adapter(
        models.locate(base, own), adapter, tuned["BACKEND"]
    )
    last = "05_generate_reports"
    done = (run.read_record(folder, last) or {}).get("knobs", {})
    longest, scale, beams = (
        done.get(knob) or run.knob_value(last, knob, profile, images)
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
            kind = "It is a folder" if path.is_dir() else "No such file lies"
            raise CourseError(
                f"The {view} image {path.name} was not found.",
                f"{kind} in {path.absolute().parent}.",
                "Give the path of an image file.",
            )
    if len({artifacts.sha256(path) for path in paths.values()}) < len(paths):
        raise CourseError(
            "Both views are the same image.",
            "Byte for byte: one of them is not the view it stands for.",
            "Give the frontal image first and the lateral one second, or "
            "the frontal one alone.",
        )


def shifted(grey: np.ndarray) -> np.ndarray:
    """An image and four copies moved by a 32nd of its side, uint8
    (5, n, n): a change on which no finding depends."""
    n, step = len(grey), max(1, len(grey) // 32)
    padded = np.pad(grey, step, mode="edge")
    moves = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.stack([padded[y * step : y * step + n, x * step : x * step + n]
                     for y, x in moves])


def score_table(
    model: Any, grey: Mapping[str, np.ndarray], points: Mapping[str, float]
) -> pd.DataFrame:
    """Scores of the views there are, a row a condition: ``frontal``,
    ``lateral`` (NaN when missing); ``mean`` over the views, ``low`` and
    ``high`` of that mean over `shifted` copies; ``point`` (NaN: none was
    set) and ``named``."""
    from ..vision import backbones

    table = pd.DataFrame(index=pd.Index(CONDITIONS, name="condition"))
    copies = []
    for view in VIEWS:
        table[view] = np.nan
        if view in grey:
            outputs = backbones.predict(model, shifted(grey[view]))
            rows = [by_name(row, model.pathologies) for row in outputs]
            copies.append(pd.DataFrame(rows)[list(CONDITIONS)].to_numpy())
            table[view] = copies[-1][0]
    mean = np.mean(copies, axis=0)
    table["mean"] = mean[0]
    table["low"], table["high"] = mean.min(axis=0), mean.max(axis=0)
    point = pd.Series(points).reindex(table.index)
    table["point"] = point.where(point <= 1)  # above 1: never reached
    table["named"] = table["mean"] >= table["point"]
    return table


def write_draft(
    paths: Mapping[str, str | Path | None],
    profile: str = "cpu", images: str | None = None,
) -> Draft:  # fmt: skip
    """Write a draft report; `paths`: view -> image file, at least one.

    Its heatmaps are of the condition farthest above (or least below) its
    operating point in that view.
    """
    from ..llm.generate import generate_reports
    from ..vision.heatmaps import heatmap

    began = time.perf_counter()
    given = {v: Path(p) for v in VIEWS if (p := paths.get(v))}
    check_files(given)
    models = load_models(profile, images)
    network = models.backbone
    grey = {view: read_grey(path, network.resolution, models.resize)
            for view, path in given.items()}
    table = score_table(network, grey, models.points)
    scores = {view: table[view].to_dict() for view in grey}
    prompt = prompts.build_prompt(scores, models.score_format, models.points)
    row = generate_reports(models.language_model, models.tokenizer, [prompt],
                           **models.decoding).iloc[0]
    pictures = {}
    for view, picture in grey.items():
        top = str((table[view] - table["point"]).idxmax())
        pictures[view] = (picture, heatmap(network, picture, top), top)
    facts = {
        f"{view} image": f"{path.name}, SHA-256 {artifacts.sha256(path)[:12]}"
        for view, path in given.items()
    }
    spent = time.perf_counter() - began
    facts |= models.facts
    facts["written"] = f"{time.strftime('%Y-%m-%d %H:%M')}, in {spent:.1f} s"
    caveats = about_run(models, given, grey)
    caveats += about_text(row["generated"], table, bool(row["finished"]))
    return Draft(row["generated"], prompt, table, caveats, pictures, facts)


# --- caveats ----------------------------------------------------------------


def about_run(
    models: Models, paths: Mapping[str, Path], grey: Mapping[str, np.ndarray]
) -> list[Caveat]:
    """Caveats about models and images, before a word is read."""
    caveats = []
    homes = [(folder() / "phantoms").resolve()
             for folder in (run.data_folder, run.cache_folder)]
    drawn = [view for view, path in paths.items()
             if any(path.resolve().is_relative_to(home) for home in homes)]
    if models.backbone.full_name.endswith("@random"):
        line = "The image network has random weights: scores mean nothing."
        caveats.append(Caveat("random network", line))
    if models.images == "phantom" and len(drawn) < len(paths):
        line = ("This run has learned from drawings. If an image is an X-ray, "
                "neither scores nor text say anything about it.")
        caveats.append(Caveat("trained on phantoms", line))
    if models.images == "real" and drawn:
        line = (f"The {' and the '.join(drawn)} image is a drawing of this "
                "course; the run has learned from X-rays.")
        caveats.append(Caveat("image is a phantom", line))
    for view in VIEWS:
        if view not in grey:
            line = (f"There is no {view} image. The means are of one view; "
                    "the operating points were set on means of both.")
            caveats.append(Caveat("view missing", line))
        elif grey[view].std() < LEAST_CONTRAST:
            line = (f"The {view} image is nearly one grey (standard deviation "
                    f"{grey[view].std():.1f} of 255).")
            caveats.append(Caveat("no contrast", line))
    return caveats


def about_text(
    report: str, table: pd.DataFrame, finished: bool = True
) -> list[Caveat]:
    """Caveats from comparing a report with the scores that led to it (a
    `score_table`); `finished` is False where decoding ran into its limit."""
    caveats = []
    if not finished:
        caveats.append(Caveat("cut off", "The report did not come to an end."))
    if not report.strip():
        caveats.append(Caveat("empty", "The model wrote no report at all."))
    if "XXXX" in report:
        line = ("XXXX stands where the training reports had a word removed; "
                "the model has learned to write it.")
        caveats.append(Caveat("placeholder", line))
    written = label_report(report)
    names = list(table.index[table["named"]])
    silent = [c for c in names
              if not {written.get(f) for f in STATED_BY[c]} & REPORTED]
    # To deny consolidation is not to deny every opacity.
    denied = [c for c in silent if written.get(STATED_BY[c][0]) == "absent"]
    caveats += [Caveat("denied", f"{_score(c, table)}: named, but the text "
                       "denies it.") for c in denied]
    caveats += [Caveat("not stated", f"{_score(c, table)}: named, but the "
                       "text does not state it.")
                for c in silent if c not in denied]
    doubts = [_without_support(finding, sentence, table)
              for finding, sentence in unsupported(report, names).items()]
    caveats += sorted(doubts, key=lambda one: one.kind == "beyond the scores")
    point = table["point"]
    near = table[(table["low"] < point) & (table["high"] >= point)]
    for condition, row in near.iterrows():
        line = (
            f"{_score(str(condition), table)}: a distance of "
            f"{abs(row['mean'] - row['point']):.3f}, less than a shift "
            "of the image by a 32nd of its side moves it "
            f"({row['low']:.3f} to {row['high']:.3f}). Whether it is "
            "named is a matter of cropping."
        )
        caveats.append(Caveat("near", line))
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
    claim = f"“{sentence}” states {finding}, "
    if nearest.empty:
        line = ("of which none of the 18 scores speaks: it comes from the "
                "training reports, not from the image.")
        return Caveat("beyond the scores", claim + line)
    score = _score(str(nearest.idxmax()), table)
    line = f"but no score supports it; the nearest is {score}."
    return Caveat("unsupported", claim + line)


def _score(condition: str, table: pd.DataFrame) -> str:
    mean, point = table.loc[condition, ["mean", "point"]]
    return f"{condition} {mean:.2f} (operating point {point:.2f})"


# --- a draft to be read -----------------------------------------------------


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Named conditions first, each group by its distance to the point."""
    gap = (table["mean"] - table["point"]).sort_values(ascending=False)
    return table.loc[gap.index]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def as_text(draft: Draft) -> str:
    """A draft for a terminal of 80 columns."""
    lines = ["DRAFT REPORT", run.WARNING, "", fill(draft.report or EMPTY, 78)]
    lines += ["", f"Caveats: {len(draft.caveats) or NO_CAVEAT}"]
    lines += [fill(f"{i:2}. {kind}: {text}", 78, subsequent_indent="    ")
              for i, (kind, text) in enumerate(draft.caveats, 1)]
    lines += ["", f"{'Scores':30}" + "".join(f"{c:>9}" for c in COLUMNS)]
    for name, row in _ranked(draft.scores).iterrows():
        numbers = "".join(f"{_number(row[c]):>9}" for c in COLUMNS)
        lines.append(f"{'*' if row['named'] else ' '} {name:28}{numbers}")
    lines += [fill(NOTE, 78), ""]
    wide = max(map(len, draft.facts))
    return "\n".join(lines + [f"{k:{wide}}  {v}" for k, v in
                              draft.facts.items()])


def _picture(grey: np.ndarray, heat: np.ndarray | None = None) -> str:
    """The address of a PNG; with colour only where the heat is above 0.15
    of its maximum."""
    from matplotlib import colormaps
    from PIL import Image

    pixels = grey
    if heat is not None:
        colour = 255 * colormaps["inferno"](heat)[..., :3]
        weight = (0.45 * (heat > 0.15))[..., None]
        pixels = grey[..., None] * (1 - weight) + colour * weight
    image, store = Image.fromarray(pixels.astype(np.uint8)), io.BytesIO()
    side = max(320, image.width)
    image.resize((side, side), Image.Resampling.BICUBIC).save(store, "PNG")
    code = base64.b64encode(store.getvalue()).decode()
    return f"data:image/png;base64,{code}"


def as_html(draft: Draft) -> str:
    """A draft as a page without script or network, all text escaped."""
    names = list(draft.scores.index[draft.scores["named"]])
    return PAGES.get_template("report.html").render(
        draft=draft, scores=_ranked(draft.scores),
        sentences=sentences(draft.report) or [EMPTY],
        bare=set(unsupported(draft.report, names).values()),
        columns=COLUMNS, number=_number, picture=_picture, note=NOTE,
        no_caveat=NO_CAVEAT, warning=run.WARNING,
    )  # fmt: skip


def write_page(draft: Draft, path: str | Path) -> None:
    """`as_html` into a file, whole or not at all."""
    text = as_html(draft)
    artifacts.write_whole(
        Path(path), lambda part: part.write_text(text, "utf-8")
    )
