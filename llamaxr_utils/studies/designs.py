"""Designs: what may differ between two ways of handing over the scores.

A design says what the base reads, what the adapter is trained on and how
reports are decoded; the rest stays as in the course. How one is trained and
measured is the business of `design_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from ..course.errors import CourseError
from ..datasets.conditions import CONDITIONS
from ..evaluation.clinical import named_scores
from ..llm import prompts, soft_tokens
from .comparison import Data


class Design(NamedTuple):
    """What may differ; ``data/designs.yaml`` lists them. The defaults are the
    course's profile ``cpu`` before this comparison."""

    name: str
    about: str  #: what it changes
    score_format: str = "names"  #: `prompts.build_prompt`
    beta: float = 2.0  #: of the operating points (`prompts`)
    #: Whose conditions the *training* prompts name: the network's
    #: (``scores``), the MeSH headings' (``labels``), or those that the
    #: report itself states (``stated``). Test prompts have the scores.
    train_on: str = "scores"
    #: Kinds of `models.pretraining_pairs`; also ``prompts``, this design's
    #: own from the scores, and ``stated``.
    pretrain: str = "headings, names"
    pretrain_epochs: int = 3
    method: str = "qlora"  #: qlora, lora, prefix, full
    rank: int = 16
    learning_rate: float = 2e-4
    epochs: int = 1
    copies: int = 0  #: most copies of a report in training; 0: all
    n_train: int = 0  #: training studies, a quarter for validation; 0: all
    abnormal: int = 1  #: times that an abnormal study is in training
    decoding: str = "greedy"  #: a key of `DECODING`
    soft: int = 0  #: soft tokens of the image (`soft_tokens`)


@lru_cache(maxsize=1)
def designs() -> dict[str, Design]:
    """All designs of ``designs.yaml`` by name; each starts from another."""
    path = Path(__file__).parents[1] / "data" / "designs.yaml"
    found = {"": Design("", "")}
    for name, row in yaml.safe_load(path.read_text("utf-8")).items():
        start = found[row.pop("as", "")]
        found[name] = start._replace(name=name, **row)
    del found[""]
    return found


# --- what is read -----------------------------------------------------------


def prompts_of(
    data: Data, design: Design, points: Mapping[str, float], source: str = ""
) -> dict[str, str]:
    """Study -> prompt, from ``source`` (as `Design.train_on`)."""
    source, made = source or design.train_on, {}
    if source != "scores":  # 0 or 1, also for what the network never names
        points = dict.fromkeys(CONDITIONS, 0.5)
    for row in data.studies.itertuples():
        given = data.scores.get(row.study_id, {})
        if source != "scores":
            given = named_scores(source, row.mesh, row.findings)
        elif not given:
            continue  # no image
        try:
            text = prompts.build_prompt(given, design.score_format, points)
        except CourseError:
            if design.score_format not in prompts.NUMBERS:
                raise
            continue  # a view is missing, and numbers can't say so
        words = soft_tokens.words_of(row.study_id, design.soft)
        made[row.study_id] = words + text
    return made


def training_pairs(
    data: Data, design: Design, asked: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """``split`` (train, val), ``prompt``, ``completion``: duplicates capped,
    abnormal studies repeated."""
    known = [study for study in asked if study in data.scores]
    table = data.studies[data.studies["study_id"].isin(known)]
    train_ = table.query("split == 'train'").sample(frac=1, random_state=seed)
    limit = design.n_train or data.n_train
    train_ = train_.head(limit or len(train_))
    if design.copies:
        key = train_["findings"].str.lower().str.strip()
        train_ = train_[train_.groupby(key).cumcount() < design.copies]
    sick = train_.query("status == 'abnormal'")
    parts = [train_, *[sick] * (design.abnormal - 1)]
    val = table.query("split == 'val'").head(limit // 4 or len(table))
    rows = pd.concat([*parts, val])
    return pd.DataFrame({
        "split": rows["split"], "prompt": rows["study_id"].map(asked),
        "completion": rows["findings"],
    }).reset_index(drop=True)  # fmt: skip
