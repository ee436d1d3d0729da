"""From image scores to the text that the language model reads.

The template and the instruction are the method itself and are quoted from
the paper to the letter (arXiv 2506.03178, Figure 4; the template is
Stanford Alpaca's). This module builds and counts text; it knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..datasets.conditions import (
    CONDITIONS,
    NATIVE_ORDER,
    VIEWS,
    as_vector,
    best_f_beta,
)

#: Alpaca template with an input, as in Figure 4 of the paper.
TEMPLATE = (
    "Below is an instruction that describes a task, paired with an input "
    "that provides further context. Write a response that appropriately "
    "completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n"
    "### Input:\n{input}\n\n"
    "### Response:\n"
)

#: The instruction of Figure 4 of the paper.
INSTRUCTION = (
    "Generate a medical report based on the given classification scores "
    "from a patient's X-ray, which includes two views: Frontal and Lateral. "
    "The classification scores consist of 18 values for each view, "
    "representing the confidence scores for 18 different medical "
    "conditions. For both the Frontal and Lateral views, these conditions "
    "are as follows: Atelectasis, Cardiomegaly, Consolidation, Edema, "
    "Effusion, Emphysema, Enlarged Cardiomediastinum, Fibrosis, Fracture, "
    "Hernia, Infiltration, Lung Lesion, Lung Opacity, Mass, Nodule, Pleural "
    "Thickening, Pneumonia, and Pneumothorax. The first 18 values "
    "correspond to the Frontal view, while the remaining 18 values "
    "correspond to the Lateral view."
)

#: The instruction of the authors' published notebook (LlamaXR.ipynb in
#: zihadbinjahangir/LLaMA-XR, commit 92ad53a, deleted in 8fe3eba).
SHORT_INSTRUCTION = (
    "Generate a medical report based on the given chest X-ray embedding."
)

#: Our short template: the same headers, the input in words. Lower case and
#: after a blank, so that a word is the same token as inside a report.
SHORT_TEMPLATE = "### Input:\nfindings: {input}\n\n### Response:\n"

RESPONSE_HEADER = "### Response:\n"
NOT_AVAILABLE = "not available"
NO_FINDING = "no finding"
#: The prompt that names nothing (formats of words).
BLANK = SHORT_TEMPLATE.format(input=NO_FINDING)

#: Formats of 36 numbers (paper's template) and of words (ours).
NUMBERS = ("paper", "as-printed", "two-decimals", "published-notebook")
WORDS = ("names", "strength", "pairs")
#: What a score says, in thirds of the way from its operating point to 1.
STRENGTHS = ("possible", "likely", "clear")
#: The format `pairs` lists scores from this share of the operating point on.
FLOOR = 0.5

Scores = Mapping[str, Mapping[str, float]]


def _available(scores: Scores, view: str) -> bool:
    values = scores.get(view)
    if not values:
        return False
    return not any(math.isnan(values[name]) for name in CONDITIONS)


def _numbers(
    scores: Scores, order: Sequence[str], decimals: int | None = None
) -> str:
    """A Python list of 36 floats, frontal first (Figure 4)."""
    missing = [view for view in VIEWS if not _available(scores, view)]
    if missing:
        raise CourseError(
            f"No scores for the {' and '.join(missing)} view.",
            "The paper's format is a list of 36 numbers and has no way to "
            "say that a view is missing.",
            'Leave the study out, or use score_format="names".',
        )
    vectors = [as_vector(scores[view], order) for view in VIEWS]
    values = [float(v) for v in np.concatenate(vectors)]
    form = str if decimals is None else f"{{:.{decimals}f}}".format
    return f"[{', '.join(map(form, values))}]"


def mean_scores(scores: Scores) -> dict[str, float]:
    """Mean over the views that are there; empty when none is."""
    views = [scores[view] for view in VIEWS if _available(scores, view)]
    if not views:
        return {}
    return {c: float(np.mean([v[c] for v in views])) for c in CONDITIONS}


def both_views(scores: Scores) -> np.ndarray:
    """The 36 scores, frontal first, float64; a missing view takes those of
    the other. For distances between studies, not for prompts."""
    views = [v for v in VIEWS if _available(scores, v)]
    chosen = [v if v in views else views[0] for v in VIEWS]
    return np.concatenate([as_vector(scores[v]) for v in chosen])


def names_above(
    scores: Scores, operating_points: Mapping[str, float]
) -> list[str] | None:
    """Conditions whose mean score reaches its operating point.

    None when no view is available.
    """
    means = mean_scores(scores)
    if not means:
        return None
    return [c for c in CONDITIONS if means[c] >= operating_points[c]]


def describe_names(names: Sequence[str] | None) -> str:
    """The input line of the formats of words."""
    if names is None:
        return NOT_AVAILABLE
    return ", ".join(names).lower() if names else NO_FINDING


def _words(
    scores: Scores, operating_points: Mapping[str, float], score_format: str
) -> list[str] | None:
    """What the formats of words list; None when no view is available."""
    names = names_above(scores, operating_points)
    if names is None or score_format == "names":
        return names
    means = mean_scores(scores)
    if score_format == "pairs":
        floor = {c: FLOOR * operating_points[c] for c in CONDITIONS}
        return [f"{c} {v:.2f}" for c, v in means.items() if v >= floor[c]]
    words = []
    for c in names:
        point = operating_points[c]
        way = (means[c] - point) / max(1 - point, 1e-9)
        words.append(f"{STRENGTHS[min(int(3 * way), 2)]} {c}")
    return words


def build_prompt(
    scores: Scores,
    score_format: str = "paper",
    operating_points: Mapping[str, float] | None = None,
) -> str:
    """The prompt of one study; ends with ``### Response:`` and a line break.

    Parameters
    ----------
    scores : mapping
        ``scores["frontal"]["Edema"]``, in [0, 1]; a view may be absent or
        all NaN.
    score_format : str
        ``paper``: 36 numbers in the order that the instruction promises.
        ``as-printed``: in the network's native order under the same
        instruction, which is what Figure 4's numbers fit: a trap, kept for
        study. ``two-decimals``: as ``paper``, rounded. ``published-notebook``:
        the authors' `SHORT_INSTRUCTION`, three decimals, native order (taken
        to be so: the notebook names none). ``names``: the conditions at or
        above their operating point, in words. ``strength``: each with a word
        of `STRENGTHS`. ``pairs``: with their mean score, from `FLOOR` on.
    operating_points : mapping, optional
        Condition -> threshold; needed by the formats of words.
    """
    if score_format in NUMBERS:
        published = score_format == "published-notebook"
        native = published or score_format == "as-printed"
        decimals = {"two-decimals": 2, "published-notebook": 3}
        return TEMPLATE.format(
            instruction=SHORT_INSTRUCTION if published else INSTRUCTION,
            input=_numbers(
                scores,
                NATIVE_ORDER if native else CONDITIONS,
                decimals.get(score_format),
            ),
        )
    if score_format not in WORDS:
        raise CourseError(
            f"Score format {score_format!r} is not known.",
            f"There are {', '.join(NUMBERS + WORDS)}.",
            "Set SCORE_FORMAT to one of them.",
        )
    if operating_points is None:
        raise ValueError(f"The format `{score_format}` needs operating points")
    words = _words(scores, operating_points, score_format)
    return SHORT_TEMPLATE.format(input=describe_names(words))


def by_study(image_scores: pd.DataFrame) -> dict[str, dict[str, dict]]:
    """Artifact ``image_scores`` -> study -> view -> condition -> score."""
    result: dict[str, dict[str, dict]] = {}
    columns = ["study_id", "view", *CONDITIONS]
    for study_id, view, *values in image_scores[columns].itertuples(
        index=False, name=None
    ):
        result.setdefault(study_id, {})[view] = dict(zip(CONDITIONS, values))
    return result


def operating_points(
    scores: Mapping[str, Scores],
    labels: Mapping[str, Mapping[str, int]],
    beta: float = 2.0,
) -> pd.DataFrame:
    """Thresholds that maximise F-beta against labels, one per condition.

    Set on training studies only. A condition without a positive study gets
    a threshold that is never reached.

    Parameters
    ----------
    scores, labels : mapping
        study -> scores by view; study -> condition -> 0 or 1.
    beta : float
        Recall counts beta times as much as precision: a condition that is
        not named can't be written about. (van Rijsbergen, Information
        Retrieval, 1979, chapter 7.)

    Returns
    -------
    DataFrame
        ``condition``, ``operating_point``, ``train_prevalence``,
        ``train_f_beta``.
    """
    means = {s: mean_scores(v) for s, v in scores.items() if s in labels}
    means = {study: m for study, m in means.items() if m}
    rows = []
    for condition in CONDITIONS:
        score = np.array([m[condition] for m in means.values()])
        truth = np.array([labels[study][condition] for study in means])
        found = best_f_beta(score, truth, beta)
        point, best = found or (2.0, 0.0)  # above every score: never named
        prevalence = float(truth.mean()) if len(truth) else 0.0
        rows.append((condition, point, prevalence, best))
    return pd.DataFrame(
        rows,
        columns=["condition", "operating_point", "train_prevalence"]
        + ["train_f_beta"],
    )


def prompt_table(
    studies: pd.DataFrame,
    scores: Mapping[str, Scores],
    score_format: str,
    operating_points: Mapping[str, float],
    tokenizer: Any,
) -> tuple[pd.DataFrame, int]:
    """Schema ``prompts`` of all studies of a split, and how many were left out
    because a format of numbers can't say that a view is missing.

    `scores` is `by_study`; a study without an entry has no image.
    """
    chosen = studies[
        studies["split"].ne("none") & studies["study_id"].isin(scores.keys())
    ]
    complete = [
        score_format in WORDS
        or all(_available(scores[study], view) for view in VIEWS)
        for study in chosen["study_id"]
    ]
    left_out, chosen = len(chosen) - sum(complete), chosen[complete]
    table = pd.DataFrame(
        {
            "study_id": chosen["study_id"],
            "split": chosen["split"],
            "prompt": [
                build_prompt(scores[study], score_format, operating_points)
                for study in chosen["study_id"]
            ],
            "completion": chosen["findings"],
            "score_format": score_format,
        }
    ).reset_index(drop=True)
    table["n_prompt_tokens"] = count_tokens(tokenizer, table["prompt"])
    return table, left_out


def answer(text: str) -> str:
    """Cut the report out of prompt + answer: all after the last header."""
    return text.rsplit(RESPONSE_HEADER, 1)[-1].strip()


def count_tokens(tokenizer: Any, texts: Iterable[str]) -> np.ndarray:
    """Tokens of each text, special tokens included; int array."""
    texts = list(texts)
    if not texts:
        return np.zeros(0, dtype=int)
    encoded = tokenizer(texts)["input_ids"]
    return np.array([len(ids) for ids in encoded])
