"""Score reports by their findings: found, missed, added, denied.

Beside every table of word overlap stands one of these, from the labels of
`findings`. It says whether two reports report the same findings; it does not
say where they are, how large, or whether the image shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from .findings import FINDINGS, label_report

#: What `clinical_scores` returns as numbers, in the order of
#: `scores_from_statistics`.
SCORES: tuple[str, ...] = (
    "micro F1",
    "macro F1",
    "negative F1",
    "hallucinations",
    "omissions",
    "abnormal as abnormal",
    "normal as normal",
)


def scores_from_statistics(totals: np.ndarray) -> np.ndarray:
    """The clinical scores from (sums of) per-study statistics.

    Parameters
    ----------
    totals : ndarray, shape (..., 6 * n_findings + 5)
        As in ``clinical_scores(...)["statistics"]``: for every finding true
        positives, false positives and false negatives of "reported" and of
        "denied"; then abnormal studies, those reported abnormal, normal
        studies, those reported normal, studies.

    Returns
    -------
    ndarray, shape (..., 7)
        In the order of `SCORES`; NaN where a score is not defined.
    """
    totals = np.asarray(totals, dtype=float)
    counts = totals[..., :-5].reshape(*totals.shape[:-1], -1, 2, 3)
    tp, fp, fn = np.moveaxis(counts[..., 0, :], -1, 0)
    denied = counts[..., 1, :].sum(axis=-2)
    tail = np.moveaxis(totals[..., -5:], -1, 0)
    in_reference = tp + fn > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(in_reference, 2 * tp / (2 * tp + fp + fn), 0.0)
        columns = [
            2 * tp.sum(-1) / (2 * tp + fp + fn).sum(-1),
            each.sum(-1) / in_reference.sum(-1),
            2 * denied[..., 0] / (denied @ np.array([2.0, 1.0, 1.0])),
            fp.sum(-1) / tail[4],
            fn.sum(-1) / tail[4],
            tail[1] / tail[0],
            tail[3] / tail[2],
        ]
    return np.stack(columns, axis=-1)


def clinical_scores(
    references: Sequence[str],
    generated: Sequence[str],
    status: Sequence[str] | None = None,
    findings: Sequence[str] = FINDINGS[1:],
) -> dict[str, Any]:
    """Compare the findings of generated reports with the references'.

    "Reported" is present or uncertain (as CheXbert's F1 is counted for report
    generation), "denied" is absent, said in words. A study without a word
    about a finding counts in neither.

    Parameters
    ----------
    references, generated : sequences of str, the same length
        Paired by position. None and blank texts say nothing.
    status : sequence of str, optional
        "normal", "abnormal" or "not indexed" (left out of the two shares) a
        study, from its MeSH headings. Without it the reference's own
        ``No Finding`` decides.
    findings : sequence of str
        The names to score; default all but ``No Finding``, which counts
        like any other if it is asked for (for CheXpert's 14).

    Returns
    -------
    dict
        ``micro F1``, ``macro F1`` (mean over the findings that a reference
        reports), ``negative F1`` (micro, over denials); ``hallucinations``
        and ``omissions`` a report; ``abnormal as abnormal`` and ``normal as
        normal``, the shares of such studies whose report says so (a blank
        report says neither). ``per_finding``: DataFrame of counts, precision,
        recall, F1. ``per_report``: DataFrame, one row a pair. ``statistics``:
        ndarray (n, 6 * n_findings + 5) for `scores_from_statistics`.

    Raises
    ------
    CourseError
        If the lengths differ, nothing is there, or a name is unknown.
    """
    if not len(references) == len(generated) == len(
        references if status is None else status
    ) or not len(references):
        raise CourseError(
            f"{len(references)} references came with {len(generated)} "
            "generated reports"
            + ("." if status is None else f" and {len(status)} states."),
            "They are paired by position, one or more.",
            "Join the tables on `study_id` first.",
        )
    unknown = [name for name in findings if name not in FINDINGS]
    if unknown:
        raise CourseError(
            f"Unknown findings: {unknown}.",
            "The labeller has 25 names.",
            f"Choose among {', '.join(FINDINGS)}.",
        )
    truth = [label_report(text) for text in references]
    said = [label_report(text) for text in generated]
    columns = []
    for states in (("present", "uncertain"), ("absent",)):
        a, b = (
            np.array([[r.get(f) in states for f in findings] for r in side])
            for side in (truth, said)
        )
        columns += [a & b, ~a & b, a & ~b]
    counts = np.stack(columns, axis=-1)  # (n, findings, 6)

    if status is None:
        kind = {"present": "normal", "absent": "abnormal"}
        status = [kind.get(r.get("No Finding", ""), "") for r in truth]
    kinds = np.array(list(status))
    verdict = np.array([r.get("No Finding", "") for r in said])
    abnormal, normal = kinds == "abnormal", kinds == "normal"
    tail = [
        abnormal,
        abnormal & (verdict == "absent"),
        normal,
        normal & (verdict == "present"),
        np.ones(len(truth), bool),
    ]
    statistics = np.column_stack([counts.reshape(len(truth), -1), *tail])
    statistics = statistics.astype(int)
    scores = scores_from_statistics(statistics.sum(axis=0))
    return {
        **dict(zip(SCORES, scores.tolist(), strict=True)),
        "per_finding": _per_finding(counts.sum(axis=0), findings),
        "per_report": pd.DataFrame(
            {
                "status": kinds,
                "hallucinations": counts[:, :, 1].sum(axis=1),
                "omissions": counts[:, :, 2].sum(axis=1),
                "reference_labels": truth,
                "generated_labels": said,
            }
        ),
        "statistics": statistics,
    }


def _per_finding(totals: np.ndarray, findings: Sequence[str]) -> pd.DataFrame:
    """Counts of shape (findings, 6) -> the table a reader wants."""
    tp, fp, fn, tn, false_denials, missed_denials = totals.T.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        table = {
            "in_reference": (tp + fn).astype(int),
            "in_generated": (tp + fp).astype(int),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "F1": 2 * tp / (2 * tp + fp + fn),
            "denied_in_reference": (tn + missed_denials).astype(int),
            "denied_in_generated": (tn + false_denials).astype(int),
            "negative_F1": 2 * tn / (2 * tn + false_denials + missed_denials),
        }
    return pd.DataFrame(table, index=pd.Index(findings, name="finding"))


def radeval_scores(
    references: Sequence[str], generated: Sequence[str]
) -> dict[str, Any]:
    """RadGraph and CheXbert F1 by RadEval, if it is installed, else {}.

    RadEval (https://github.com/jbdel/RadEval) is no part of the course: it
    fetches models of its own when first called.
    """
    if find_spec("RadEval") is None:
        return {}
    from RadEval import RadEval  # type: ignore[import-not-found]

    scorer = RadEval(do_radgraph=True, do_chexbert=True)
    return dict(scorer(refs=list(references), hyps=list(generated)))
