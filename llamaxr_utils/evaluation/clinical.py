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

from ..course.errors import CourseError
from ..datasets import conditions, mesh
from ..datasets.conditions import CONDITION_FINDINGS, CONDITIONS
from ..llm.prompts import Scores
from .findings import FINDINGS, label_report

#: The numbers of `clinical_scores`, in the order of `scores_from_statistics`.
SCORES: tuple[str, ...] = (
    "micro F1", "macro F1", "negative F1", "hallucinations", "omissions",
    "abnormal as abnormal", "normal as normal",
)  # fmt: skip


def micro_f1(totals: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives, shape (..., 3) ->
    F1; NaN of nothing. Of summed `finding_counts` it is the findings F1."""
    tp, fp, fn = np.moveaxis(np.asarray(totals, dtype=float), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * tp / (2 * tp + fp + fn)


def scores_from_statistics(totals: np.ndarray) -> np.ndarray:
    """`SCORES`, shape (..., 7), from (sums of) per-study statistics.

    `totals`, shape (..., 6 * n_findings + 5): for every finding true
    positives, false positives and false negatives of "reported" and of
    "denied"; then abnormal studies, those reported abnormal, normal studies,
    those reported normal, studies. NaN where a score is not defined.
    """
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
            micro_f1(sums),
            each.sum(-1) / in_reference.sum(-1),
            micro_f1(denied.sum(axis=-2)),
            sums[..., 1] / n,
            sums[..., 2] / n,
            as_abnormal / abnormal,
            as_normal / normal,
        ]
    return np.stack(columns, axis=-1)


def clinical_scores(
    references: Sequence[str],
    generated: Sequence[str],
    status: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compare the findings of generated reports with the references'.

    "Reported" is present or uncertain (as CheXbert's F1 is counted for report
    generation), "denied" is absent, said in words. `status` is "normal",
    "abnormal" or "not indexed" (left out of the two shares) a study, from its
    MeSH headings; without it the reference's own ``No Finding`` decides.

    Gives ``micro F1``, ``macro F1`` (mean over the findings that a reference
    reports), ``negative F1`` (micro, over denials); ``hallucinations`` and
    ``omissions`` a report; ``abnormal as abnormal`` and ``normal as normal``,
    the shares of such studies whose report says so (a blank one says
    neither); ``per_finding`` and ``per_report``, DataFrames; ``statistics``,
    (n, 6 * 24 + 5), for `scores_from_statistics`.
    """
    findings = FINDINGS[1:]
    truth = [label_report(text) for text in references]
    written = [label_report(text) for text in generated]
    columns = []
    for states in (("present", "uncertain"), ("absent",)):
        a, b = (
            np.array([[r.get(f) in states for f in findings] for r in side])
            for side in (truth, written)
        )
        columns += [a & b, ~a & b, a & ~b]
    counts = np.stack(columns, axis=-1)  # (n, findings, 6)

    if status is None:
        kind = {"present": "normal", "absent": "abnormal"}
        status = [kind.get(r.get("No Finding", ""), "") for r in truth]
    kinds = np.array(list(status))
    healthy = np.array([r.get("No Finding", "") for r in written])
    abnormal, normal = kinds == "abnormal", kinds == "normal"
    statistics = np.column_stack([
        counts.reshape(len(truth), -1),
        abnormal, abnormal & (healthy == "absent"),
        normal, normal & (healthy == "present"), np.ones(len(truth), bool)])
    statistics = statistics.astype(int)
    scores = scores_from_statistics(statistics.sum(axis=0))

    index = pd.Index(findings, name="finding")
    totals = pd.DataFrame(counts[:, :, :3].sum(axis=0), index)
    found, added, missed = totals[0], totals[1], totals[2]
    return {
        **dict(zip(SCORES, scores.tolist(), strict=True)),
        "per_finding": pd.DataFrame({
            "in_reference": found + missed,
            "in_generated": found + added,
            "precision": found / (found + added),
            "recall": found / (found + missed),
            "F1": micro_f1(totals.to_numpy()),
        }),
        "per_report": pd.DataFrame({
            "status": kinds,
            "hallucinations": counts[:, :, 1].sum(axis=1),
            "omissions": counts[:, :, 2].sum(axis=1),
        }),
        "statistics": statistics,
    }


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
    if source == "labels":
        return true_scores(mesh.labels(headings))
    if source == "stated":
        return true_scores(stated_labels(headings, report))
    raise CourseError(f"TRAIN_ON = {source!r} is not known.",
                      "Prompts come from scores, labels or stated.",
                      "Choose one of them.")


def training_scores(
    train_on: str, studies: pd.DataFrame, scores: Scores
) -> Scores:
    """The scores that prompts are made from (`prompts.by_study`). Those of
    training studies name what `train_on` says: the network's conditions
    ("scores"), those of the MeSH headings ("labels"), or those that the
    report to be written states ("stated"), so that the model learns that what
    is named gets written."""
    if train_on == "scores":
        return scores
    train = studies[studies["split"].eq("train")
                    & studies["study_id"].isin(scores.index.unique(0))]
    stated = {row.study_id: named_scores(train_on, row.mesh, row.findings)
              for row in train.itertuples()}
    return pd.concat([scores.drop(index=list(stated)), pd.concat(stated)])
