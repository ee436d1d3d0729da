"""What the 18 conditions can say of a report's findings, and what not.

Conditions are names of scores, findings are names of the report labeller:
here stands which is which, and how much of the reports lies beyond them.
Nothing here knows a model; only the state "present" counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..datasets.conditions import (
    CONDITION_FINDINGS,
    CONDITIONS,
    FINDING_OF,
    NAMED_BY,
    VIEWS,
)
from ..datasets.mesh import labels, parse_headings
from ..llm.prompts import Scores
from .findings import FINDINGS, label_report

#: Why a finding was not reached, from the image on.
REASONS = ("not among the 18", "not named", "named, not written")


@lru_cache(maxsize=20_000)
def present(text: str) -> frozenset[str]:
    """The findings that a report states as present; No Finding is none."""
    states = label_report(text)
    return frozenset(f for f in FINDINGS[1:] if states.get(f) == "present")


def stated_labels(headings: Sequence[str], report: str) -> dict[str, int]:
    """The conditions that a report states as present, 0 or 1.

    Where a finding's word stands for several conditions (a lung lesion: mass
    or nodule), the MeSH headings decide between them.
    """
    known, said = labels(headings), present(report)
    found = dict.fromkeys(CONDITIONS, 0)
    for finding in said.intersection(CONDITION_FINDINGS):
        named = [c for c in CONDITIONS if FINDING_OF[c] == finding]
        plain = finding if finding in named else named[0]
        for condition in [c for c in named if known[c]] or [plain]:
            found[condition] = 1
    return found


def true_scores(truth: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """True labels (`mesh.labels`) as scores: 1.0 or 0.0, in both views.

    Above or below every operating point, but for a condition without a
    training study: its point is never reached.
    """
    values = {name: float(truth[name]) for name in CONDITIONS}
    return {view: dict(values) for view in VIEWS}


def named_scores(
    source: str, headings: Sequence[str], report: str
) -> dict[str, dict[str, float]]:
    """`true_scores` of what the MeSH headings say (``labels``) or of what
    the report itself states (``stated``, `stated_labels`)."""
    if source not in ("labels", "stated"):
        raise CourseError(
            f"TRAIN_ON = {source!r} is not known.",
            "Training prompts come from scores, labels or stated.",
            "Choose one of them.",
        )
    if source == "labels":
        return true_scores(labels(headings))
    return true_scores(stated_labels(headings, report))


def training_scores(
    train_on: str, studies: pd.DataFrame, scores: Mapping[str, Scores]
) -> dict[str, Scores]:
    """The scores that prompts are made from, with those of training studies
    replaced on demand.

    Parameters
    ----------
    train_on : {"scores", "labels", "stated"}
        What training prompts name: the network's conditions, those of the
        MeSH headings, or those that the report to be written itself states
        (`coverage.stated_labels`). A report never sees more than the last,
        so the model learns that what is named gets written.
    studies : DataFrame
        ``study_id``, ``split``, ``mesh``, ``findings``.
    scores : mapping
        `prompts.by_study`; validation and test studies keep theirs.
    """
    given = dict(scores)
    if train_on == "scores":
        return given
    for row in studies[studies["split"].eq("train")].itertuples():
        if row.study_id in given:
            given[row.study_id] = named_scores(
                train_on, row.mesh, row.findings
            )
    return given


def finding_counts(
    references: Sequence[str], generated: Sequence[str]
) -> np.ndarray:
    """True positives, false positives and false negatives of each study,
    over `CONDITION_FINDINGS`; float, shape (n, 3)."""
    counts = []
    for reference, text in zip(references, generated, strict=True):
        truth, said = (
            present(t).intersection(CONDITION_FINDINGS)
            for t in (reference, text)
        )
        counts.append((len(truth & said), len(said - truth),
                       len(truth - said)))
    return np.array(counts, dtype=float).reshape(-1, 3)


def micro_f1(totals: np.ndarray) -> np.ndarray:
    """Sums of `finding_counts`, shape (..., 3) -> F1; NaN of nothing."""
    tp, fp, fn = np.moveaxis(np.asarray(totals, dtype=float), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * tp / (2 * tp + fp + fn)


def expressible(
    mesh: Sequence[Sequence[str]],
    references: Sequence[str],
    status: Sequence[str],
) -> pd.DataFrame:
    """How much of the findings the 18 conditions can name at all.

    Parameters
    ----------
    mesh, references, status : sequences of length n
        Headings, report and status of each study.

    Returns
    -------
    DataFrame
        ``of``, ``all``, ``expressible``, ``share``: the abnormal studies
        (with one condition or more), their MeSH headings, the findings
        present in the references of all studies.
    """
    headings = [
        {f.heading: bool(f.condition) for f in parse_headings(m)}
        for m, kind in zip(mesh, status, strict=True)
        if kind == "abnormal"
    ]
    counted = {
        "abnormal studies": [any(one.values()) for one in headings],
        "their MeSH headings": [v for one in headings for v in one.values()],
        "findings in the references": [
            finding in NAMED_BY
            for text in references
            for finding in present(text)
        ],
    }
    rows = [
        (of, len(yes), sum(yes), np.mean(yes) if yes else np.nan)
        for of, yes in counted.items()
    ]
    return pd.DataFrame(rows, columns=["of", "all", "expressible", "share"])


def uncommon(
    references: Sequence[str],
    generated: Sequence[str],
    named: Sequence[Sequence[str] | None],
    train_texts: Sequence[str],
    most: float = 0.05,
) -> pd.DataFrame:
    """Uncommon findings and devices: reached or not, and why (paper, 5.3).

    Parameters
    ----------
    references, generated : sequences of str, length n
    named : sequence of sequences of str, length n
        The conditions that each prompt names (`prompts.names_above`; for a
        format of numbers: those that reach their operating point).
    train_texts : sequence of str
    most : float
        A finding of the 18 conditions is listed if it is present in no more
        than this share of the references; the others always are.

    Returns
    -------
    DataFrame
        ``finding``; ``in training``, ``in references``, ``written``: reports
        that state it; of the references ``reached`` and `REASONS`, which sum
        to them; ``why not``, the commonest reason.
    """
    truth, said, train = (
        [present(text) for text in side]
        for side in (references, generated, train_texts)
    )
    rows: list[dict[str, Any]] = []
    for finding in FINDINGS[1:]:
        by = set(NAMED_BY.get(finding, ()))
        has = [i for i, found in enumerate(truth) if finding in found]
        ours = finding in CONDITION_FINDINGS
        if ours and len(has) > most * len(truth):
            continue
        why = [
            REASONS[1 + bool(by & set(named[i] or ()))] if by else REASONS[0]
            for i in has
            if finding not in said[i]
        ]
        rows.append({
            "finding": finding,
            "in training": sum(finding in found for found in train),
            "in references": len(has),
            "written": sum(finding in found for found in said),
            "reached": len(has) - len(why),
            **{reason: why.count(reason) for reason in REASONS},
            "why not": max(REASONS, key=why.count) if why else "",
        })
    order = {"by": "in references", "ascending": False, "kind": "stable"}
    return pd.DataFrame(rows).sort_values(**order).reset_index(drop=True)
