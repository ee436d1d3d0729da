"""Score reports by their findings: found, missed, added, denied.

Beside every table of word overlap stands one of these, from the labels of
`findings`: whether two reports report the same findings. Where a finding
is, how large, or whether the image shows it, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ..datasets import conditions, mesh
from ..datasets.conditions import CONDITION_FINDINGS, CONDITIONS
from ..llm.prompts import Scores, refuse_unknown
from .findings import FINDINGS, label_report

#: The numbers of `clinical_scores`, in the order of `scores_from_statistics`.
SCORES = (
    "micro F1", "macro F1", "negative F1", "hallucinations", "omissions",
    "abnormal as abnormal", "normal as normal")


def micro_f1(totals: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives, shape (..., 3) ->
    F1; NaN of nothing. Of summed `finding_counts` it is the findings F1."""
    tp, fp, fn = np.moveaxis(np.asarray(totals, dtype=float), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * tp / (2 * tp + fp + fn)


def scores_from_statistics(totals: np.ndarray) -> np.ndarray:
    """`SCORES`, shape (..., 7), from sums of the ``statistics`` of
    `clinical_scores`, (..., 6 * 24 + 5). NaN where one is not defined."""
    totals = np.asarray(totals, dtype=float)
    counts = totals[..., :-5].reshape(*totals.shape[:-1], -1, 2, 3)
    reported, denied = counts[..., 0, :], counts[..., 1, :]
    in_reference = reported[..., 0] + reported[..., 2] > 0
    each = np.where(in_reference, micro_f1(reported), 0.0)
    sums = reported.sum(axis=-2)
    abnormal, as_abnormal, normal, as_normal, n = np.moveaxis(
        totals[..., -5:], -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = [
            micro_f1(sums), each.sum(-1) / in_reference.sum(-1),
            micro_f1(denied.sum(axis=-2)), sums[..., 1] / n, sums[..., 2] / n,
            as_abnormal / abnormal, as_normal / normal,
        ]
    return np.stack(columns, axis=-1)


def clinical_scores(references: Sequence[str], generated: Sequence[str],
                    status: Sequence[str] | None = None) -> dict[str, Any]:
    """Compare the findings of generated reports with the references'.

    "Reported" is present or uncertain (as CheXbert's F1 is counted for report
    generation), "denied" is absent, said in words. `status` is "normal",
    "abnormal" or "not indexed" (left out of the two shares) a study, from its
    MeSH headings; without it the reference's own ``No Finding`` decides.

    Gives ``micro F1``, ``macro F1`` (mean over the findings that a reference
    reports), ``negative F1`` (micro, over denials); ``hallucinations`` and
    ``omissions`` a report; ``abnormal as abnormal`` and ``normal as normal``,
    the shares of such studies whose report says so; and ``statistics``, int,
    (n, 6 * 24 + 5): for each finding true positives, false positives and
    false negatives of "reported" and of "denied"; then abnormal studies,
    those reported abnormal, normal studies, those reported normal, studies.
    """
    truth, written = (
        pd.DataFrame([label_report(t) for t in texts], columns=FINDINGS)
        for texts in (references, generated))
    columns = []
    for states in (["present", "uncertain"], ["absent"]):
        a, b = (side.isin(states).to_numpy()[:, 1:]
                for side in (truth, written))
        columns += [a & b, ~a & b, a & ~b]
    counts = np.stack(columns, axis=-1).astype(int)  # (n, findings, 6)

    if status is None:
        kind = {"present": "normal", "absent": "abnormal"}
        status = truth["No Finding"].map(kind).fillna("")
    kinds, healthy = np.array(list(status)), written["No Finding"]
    abnormal, normal = kinds == "abnormal", kinds == "normal"
    statistics = np.column_stack([
        counts.reshape(len(kinds), -1),
        abnormal, abnormal & (healthy == "absent"),
        normal, normal & (healthy == "present"), np.ones(len(kinds), int)])

    scores = scores_from_statistics(statistics.sum(axis=0)).tolist()
    return dict(zip(SCORES, scores, strict=True), statistics=statistics)


# --- the findings of the 18 conditions --------------------------------------


@lru_cache(maxsize=20_000)
def present(text: str) -> frozenset[str]:
    """The findings that a report states as present; No Finding is none."""
    states = label_report(text)
    return frozenset(f for f in FINDINGS[1:] if states.get(f) == "present")


def finding_counts(references: Sequence[str],
                   generated: Sequence[str]) -> np.ndarray:
    """True positives, false positives and false negatives of each study,
    over `CONDITION_FINDINGS`; float, shape (n, 3)."""
    counts = []
    for reference, text in zip(references, generated, strict=True):
        a, b = (present(t) & {*CONDITION_FINDINGS} for t in (reference, text))
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


def named_scores(source: str, headings: Sequence[str], report: str) -> Scores:
    """`true_scores` of what the MeSH headings say (``labels``) or of what
    the report itself states (``stated``)."""
    refuse_unknown("TRAIN_ON", source, ("scores", "labels", "stated"))
    labels = (mesh.labels(headings) if source == "labels"
              else stated_labels(headings, report))
    return true_scores(labels)
