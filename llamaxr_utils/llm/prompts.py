"""From image scores to the text that the language model reads.

The template and the instruction are the method itself: ``data/prompts.yaml``
quotes them from the paper to the letter (arXiv 2506.03178, Figure 4). This
module builds and counts text; it knows no model.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import yaml

from ..course.errors import problem, refuse_unknown
from ..datasets.conditions import CONDITIONS, NATIVE_ORDER, VIEWS, best_f_beta
from ..datasets.mesh import DATA

#: The paper's own words, and those of its authors' published notebook.
TEXTS = yaml.safe_load((DATA / "prompts.yaml").read_text("utf-8"))
TEMPLATE, INSTRUCTION = TEXTS["template"], TEXTS["instruction"]
SHORT_INSTRUCTION = TEXTS["notebook_instruction"]

#: Our short template: the same headers, the input in words. Lower case and
#: after a blank, so that a word is the same token as inside a report.
SHORT_TEMPLATE = "### Input:\nfindings: {input}\n\n### Response:\n"

NO_FINDING = "no finding"
#: The prompt that names nothing (formats of words).
BLANK = SHORT_TEMPLATE.format(input=NO_FINDING)

#: Formats of 36 numbers: instruction, order, and how a number is written.
_NUMBERS = {
    "paper": (INSTRUCTION, CONDITIONS, "{}"),
    # Figure 4's numbers fit the network's own order: a trap, kept for study.
    "as-printed": (INSTRUCTION, NATIVE_ORDER, "{}"),
    "two-decimals": (INSTRUCTION, CONDITIONS, "{:.2f}"),
    # The authors' notebook names no order; taken to be the network's.
    "published-notebook": (SHORT_INSTRUCTION, NATIVE_ORDER, "{:.3f}"),
}
NUMBERS = tuple(_NUMBERS)
#: Formats of words (ours): the conditions at or above their operating point.
WORDS = ("names",)

#: A study's scores: a row a view (a missing one absent or NaN), a column a
#: condition, in [0, 1]. Of many studies: index (study_id, view).
Scores: TypeAlias = pd.DataFrame


def by_study(image_scores: pd.DataFrame) -> Scores:
    """Artifact ``image_scores`` with index (study_id, view), 18 columns."""
    return image_scores.set_index(["study_id", "view"])[list(CONDITIONS)]


def both_views(scores: Scores, study_ids: Sequence[str]) -> np.ndarray:
    """The 36 scores of each study, (n, 36), frontal first; a missing view
    takes those of the other. For distances between studies, not for prompts.
    """
    rows = pd.MultiIndex.from_product([study_ids, VIEWS])
    by_view = scores.reindex(rows).groupby(level=0, sort=False)
    filled = by_view.ffill().fillna(by_view.bfill())
    return filled.to_numpy(float).reshape(len(study_ids), -1)


def names_above(scores: Scores, operating_points: Mapping[str, float]
                ) -> list[str] | None:
    """Conditions whose mean score over the views reaches its operating
    point; None when no view is available."""
    there = scores.dropna()  # a view without scores is a row of NaN
    if there.empty:
        return None
    means = there.mean().to_dict()
    return [c for c in CONDITIONS if means[c] >= operating_points[c]]


def describe_names(names: Sequence[str] | None) -> str:
    """The input line of the formats of words."""
    if names is None:
        return "not available"
    return one_section(", ".join(names).lower()) if names else NO_FINDING


def build_prompt(scores: Scores, score_format: str = "paper",
                 operating_points: Mapping[str, float] | None = None) -> str:
    """The prompt of one study; ends with ``### Response:`` and a line break.
    `score_format` is one of `NUMBERS` (a Python list of 36 floats, frontal
    first) or of `WORDS`, which need thresholds by condition."""
    refuse_unknown("SCORE_FORMAT", score_format, (*NUMBERS, *WORDS))
    if score_format in WORDS:
        if operating_points is None:
            raise ValueError(f"`{score_format}` needs operating points")
        names = names_above(scores, operating_points)
        return SHORT_TEMPLATE.format(input=describe_names(names))
    missing = [v for v in VIEWS if v not in scores.dropna().index]
    if missing:
        raise problem("missing view", views=" and ".join(missing))
    instruction, order, form = _NUMBERS[score_format]
    numbers = scores[list(order)].loc[list(VIEWS)].to_numpy().ravel()
    listed = ", ".join(map(form.format, numbers.tolist()))
    return TEMPLATE.format(instruction=instruction, input=f"[{listed}]")


def operating_points(scores: Scores, labels: pd.DataFrame,
                     beta: float = 2.0) -> pd.DataFrame:
    """Thresholds that maximise F-beta (`best_f_beta`) on training studies;
    one that is never reached for a condition without a positive study.

    `labels` has a row a study, a column a condition, 0 or 1. Recall counts
    `beta` times as much as precision: what is not named can't be written
    about. Gives ``condition``, ``operating_point``, ``train_prevalence``,
    ``train_f_beta``.
    """
    means = scores.dropna().groupby(level=0).mean()
    means = means[means.index.isin(labels.index)]
    rows = []
    for condition in CONDITIONS:
        score = means[condition].to_numpy()
        truth = labels.loc[means.index, condition].to_numpy()
        point, best = best_f_beta(score, truth, beta) or (2.0, 0.0)
        rows.append((condition, point, float(truth.mean()), best))
    columns = ["condition", "operating_point", "train_prevalence"]
    return pd.DataFrame(rows, columns=[*columns, "train_f_beta"])


def one_section(text: str) -> str:
    """A text of others, in which no section (``###``) of ours begins."""
    return re.sub("#(?=#)", "# ", text)


def as_words(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Texts in which no special token stands: a blank parts its name, so
    that ``</s>`` of a report is tokens of words. Other texts stay."""
    names = [re.escape(str(token)) for token in
             tokenizer.added_tokens_decoder.values() if token.special]
    begins = re.compile(f"(?={'|'.join(names) or '(?!)'})(.)", re.DOTALL)
    return [begins.sub(r"\1 ", text) for text in texts]


def count_tokens(tokenizer: Any, texts: Iterable[str]) -> np.ndarray:
    """Tokens of each text, `as_words`, and those added; int array."""
    texts = as_words(tokenizer, texts)
    encoded = tokenizer(texts)["input_ids"] if texts else []
    return np.array([len(ids) for ids in encoded], dtype=int)
