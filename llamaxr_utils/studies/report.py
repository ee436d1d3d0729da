"""A draft report of one or two images, by the models of a run.

Image -> scores -> prompt -> report, as the notebooks of the run did it, with
heatmaps and caveats. It shows what a model of this kind does with a new
image; it does not read X-rays, and it trains nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course import artifacts, files, profiles, run
from ..course.errors import CourseError
from ..datasets.conditions import CONDITIONS, VIEWS, by_name
from ..datasets.images import read_grey
from ..llm import prompts
from .caveats import Caveat, about_text

#: Grey levels of standard deviation below which nothing can be seen.
LEAST_CONTRAST = 8.0


class Writer(NamedTuple):
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


def load_writer(profile: str = "cpu", images: str | None = None) -> Writer:
    """The models of ``runs/<profile>``, ready to write.

    Raises
    ------
    CourseError
        There is no such run, it did not get as far as 04, or a file of it
        is out of date; the message names the command.
    """
    from transformers.utils import logging

    from ..llm import finetune, generate, models
    from ..vision import backbones

    folder = run.runs_folder() / profiles.run_name(profile, images)
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
        record = artifacts.manifest(folder, name)
        assert record is not None  # the adapter was made from it
        return record["parameters"]

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
        done.get(knob) or profiles.knob_value(last, knob, profile, images)
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
        "adapter": f"SHA-256 {files.sha256(adapter)[:12]}",
        "prompt format": score_format,
        "decoding": f"{generate.describe_decoding(**decoding)}, at most "
        f"{longest} tokens",
    }
    return Writer(
        tuned["images"],
        backbone,
        resize,
        dict(zip(points["condition"], points["operating_point"])),
        score_format,
        model,
        tokenizer,
        {"max_new_tokens": longest, **decoding},
        facts,
    )


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
    if len({files.sha256(path) for path in paths.values()}) < len(paths):
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
    return np.stack(
        [
            padded[y * step : y * step + n, x * step : x * step + n]
            for y, x in moves
        ]
    )


def score_table(
    model: Any, grey: Mapping[str, np.ndarray], points: Mapping[str, float]
) -> pd.DataFrame:
    """Scores of the views there are, a row a condition.

    Returns
    -------
    DataFrame
        Index `CONDITIONS`; ``frontal``, ``lateral`` (NaN when missing);
        ``mean`` over the views, ``low`` and ``high`` of that mean over
        `shifted` copies; ``point`` (NaN: none was set) and ``named``.
    """
    from ..vision import backbones

    table = pd.DataFrame(index=pd.Index(CONDITIONS, name="condition"))
    moved = []
    for view in VIEWS:
        table[view] = np.nan
        if view in grey:
            outputs = backbones.predict(model, shifted(grey[view]))
            rows = [by_name(row, model.pathologies) for row in outputs]
            moved.append(pd.DataFrame(rows)[list(CONDITIONS)].to_numpy())
            table[view] = moved[-1][0]
    mean = np.mean(moved, axis=0)
    table["mean"] = mean[0]
    table["low"], table["high"] = mean.min(axis=0), mean.max(axis=0)
    point = pd.Series(points).reindex(table.index)
    table["point"] = point.where(point <= 1)  # above 1: never reached
    table["named"] = table["mean"] >= table["point"]
    return table


def write_draft(
    paths: Mapping[str, str | Path | None],
    profile: str = "cpu",
    images: str | None = None,
) -> Draft:
    """Write a draft report.

    Parameters
    ----------
    paths : mapping
        View ("frontal", "lateral") -> image file; at least one.
    profile, images : str
        Which run writes (`profiles.run_name`).

    Returns
    -------
    Draft
        Its heatmaps are of the condition farthest above (or least below)
        its operating point in that view.

    Raises
    ------
    CourseError
        As `check_files` and `load_writer`; a file that is no image; a view
        missing where the run's prompt format can't say so.
    """
    from ..llm.generate import generate_reports
    from ..vision.heatmaps import heatmap

    began = time.perf_counter()
    given = {v: Path(p) for v in VIEWS if (p := paths.get(v))}
    check_files(given)
    writer = load_writer(profile, images)
    network = writer.backbone
    grey = {
        view: read_grey(path, network.resolution, writer.resize)
        for view, path in given.items()
    }
    table = score_table(network, grey, writer.points)
    scores = {view: table[view].to_dict() for view in grey}
    prompt = prompts.build_prompt(scores, writer.score_format, writer.points)
    row = generate_reports(
        writer.language_model,
        writer.tokenizer,
        [prompt],
        **writer.decoding,
    ).iloc[0]
    pictures = {}
    for view, picture in grey.items():
        top = str((table[view] - table["point"]).idxmax())
        pictures[view] = (picture, heatmap(network, picture, top), top)
    facts = {
        f"{view} image": f"{path.name}, SHA-256 {files.sha256(path)[:12]}"
        for view, path in given.items()
    }
    spent = time.perf_counter() - began
    facts |= writer.facts
    facts["written"] = f"{time.strftime('%Y-%m-%d %H:%M')}, in {spent:.1f} s"
    doubts = about_run(writer, given, grey)
    doubts += about_text(row["generated"], table, bool(row["finished"]))
    return Draft(row["generated"], prompt, table, doubts, pictures, facts)


def about_run(
    writer: Writer,
    paths: Mapping[str, Path],
    grey: Mapping[str, np.ndarray],
) -> list[Caveat]:
    """Caveats about models and images, before a word is read: "random
    network", "trained on phantoms", "image is a phantom", "view missing",
    "no contrast"."""
    found = []
    homes = [base() / "phantoms" for base in (run.data_folder,
                                              run.cache_folder)]
    drawn = [
        view
        for view, path in paths.items()
        if any(path.resolve().is_relative_to(h.resolve()) for h in homes)
    ]
    if writer.backbone.full_name.endswith("@random"):
        line = "The image network has random weights: scores mean nothing."
        found.append(Caveat("random network", line))
    if writer.images == "phantom" and len(drawn) < len(paths):
        line = (
            "This run has learned from drawings. If an image is an X-ray, "
            "neither scores nor text say anything about it."
        )
        found.append(Caveat("trained on phantoms", line))
    if writer.images == "real" and drawn:
        line = (
            f"The {' and the '.join(drawn)} image is a drawing of this "
            "course; the run has learned from X-rays."
        )
        found.append(Caveat("image is a phantom", line))
    for view in VIEWS:
        if view not in grey:
            line = (
                f"There is no {view} image. The means are of one view; the "
                "operating points were set on means of both."
            )
            found.append(Caveat("view missing", line))
        elif grey[view].std() < LEAST_CONTRAST:
            line = (
                f"The {view} image is nearly one grey (standard deviation "
                f"{grey[view].std():.1f} of 255)."
            )
            found.append(Caveat("no contrast", line))
    return found
