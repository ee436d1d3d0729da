"""Score reports by their findings: found, missed, added, denied.

Beside every table of word overlap stands one of these, from the labels of
`findings`. Place and size of a finding, and the image, do not count.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ..datasets import conditions, mesh
from ..datasets.conditions import CONDITION_FINDINGS, CONDITIONS
from ..llm.prompts import Scores
from .findings import FINDINGS, label_report

#: The numbers of `clinical_scores`, in the order of `scores_from_statistics`.
SCORES = ("findings F1", "hallucinations", "omissions", "negative F1")


def micro_f1(totals: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives, shape (..., 3) ->
    F1; NaN of nothing. Of summed `finding_counts` it is the findings F1."""
    tp, fp, fn = np.moveaxis(np.asarray(totals, dtype=float), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * tp / (2 * tp + fp + fn)


def scores_from_statistics(totals: np.ndarray) -> np.ndarray:
    """`SCORES`, shape (..., 4), from sums of the ``statistics`` of
    `clinical_scores`, (..., 7). NaN where one is not defined."""
    t = np.asarray(totals, dtype=float)
    return np.stack([micro_f1(t[..., :3]), t[..., 1] / t[..., 6],
                     t[..., 2] / t[..., 6], micro_f1(t[..., 3:6])], axis=-1)


def clinical_scores(references: Sequence[str],
                    generated: Sequence[str]) -> dict[str, Any]:
    """Compare the findings of generated reports with the references', over
    `CONDITION_FINDINGS`: ``findings F1`` (micro, stated as present),
    ``hallucinations`` and ``omissions`` (of these, a report), ``negative F1``
    (micro, denied in words); and ``statistics``, float, (n, 7): the
    `finding_counts` of both states and a column of ones."""
    counts = [finding_counts(references, generated, state)
              for state in ("present", "absent")]
    statistics = np.hstack([*counts, np.ones((len(counts[0]), 1))])
    scores = scores_from_statistics(statistics.sum(axis=0)).tolist()
    return dict(zip(SCORES, scores, strict=True), statistics=statistics)


# --- the findings of the 18 conditions --------------------------------------

@lru_cache(maxsize=20_000)
def present(text: str, state: str = "present") -> frozenset[str]:
    """The findings that a report states as present (or whose state is
    another one); No Finding is none."""
    states = label_report(text)
    return frozenset(f for f in FINDINGS[1:] if states.get(f) == state)


def finding_counts(references: Sequence[str], generated: Sequence[str],
                   state: str = "present") -> np.ndarray:
    """True positives, false positives and false negatives of each study,
    over `CONDITION_FINDINGS`; float, shape (n, 3)."""
    counts = []
    for pair in zip(references, generated, strict=True):
        a, b = (present(t, state) & {*CONDITION_FINDINGS} for t in pair)
        counts.append((len(a & b), len(b - a), len(a - b)))
    return np.array(counts, dtype=float).reshape(-1, 3)


def stated_labels(headings: Sequence[str], report: str) -> dict[str, int]:
    """The conditions that a report states as present, 0 or 1. Where a word
    stands for several (a lung lesion: mass, nodule), MeSH headings decide."""
    indexed = mesh.labels(headings)
    stated = dict.fromkeys(CONDITIONS, 0)
    for finding in present(report) & {*CONDITION_FINDINGS}:
        names = [c for c in CONDITIONS if conditions.FINDING_OF[c] == finding]
        default = finding if finding in names else names[0]
        for condition in [c for c in names if indexed[c]] or [default]:
            stated[condition] = 1
    return stated


def true_scores(truth: Mapping[str, int]) -> Scores:
    """True labels (`mesh.labels`) as scores: 1.0 or 0.0, in both views."""
    values = [[float(truth[name]) for name in CONDITIONS]] * 2
    return pd.DataFrame(values, conditions.VIEWS, CONDITIONS)
