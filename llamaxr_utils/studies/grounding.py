"""The grounding card: does the report follow the scores?

A *writer* is any function from the scores of some studies to their reports:
this run's model, a template, a system of your own. The tests move what it is
given. They do not say whether the scores are right, nor whether a report
reads well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..datasets.conditions import CONDITIONS, FINDING_OF, VIEWS
from ..evaluation.clinical import (
    clinical_scores,
    finding_counts,
    micro_f1,
    present,
    scores_from_statistics,
)
from ..evaluation.findings import label_report
from ..evaluation.stats import bootstrap_interval, paired_interval
from ..llm.generate import swap
from ..llm.prompts import Scores

Writer = Callable[[Sequence[Scores]], list[str]]
Row = dict[str, Any]
#: Columns of a card's rows; NaN: not measured.
COLUMNS = ("test", "measure", "value", "low", "high", "n")
ANY, OTHER = "any other study's scores", "scores of another status"
CHANGED, GAP = "reports changed", "findings F1, own minus shuffled"
DOSE, RISE = "dose response", "mean rise of the mention rate"
COMMONEST, TOP = "commonest report", "its share of abnormal studies"
#: Limits of `verdict`: round numbers of ours, no standard.
LEAST_RISE, MOST_TOP = 0.5, 0.5
STEEP = f"conditions that rise by {LEAST_RISE} or more"


class Card(NamedTuple):
    """What was measured of one writer."""

    rows: pd.DataFrame  #: `COLUMNS`, one row a measure
    dose: pd.DataFrame | None  #: of `dose_response`
    own: list[str]  #: the reports under their own scores

    def get(self, test: str, measure: str, column: str = "value") -> float:
        """A number of the card; NaN if it was not measured."""
        rows = self.rows.query("test == @test and measure == @measure")
        return float(rows[column].iloc[0]) if len(rows) else float("nan")


# --- what a writer is given -------------------------------------------------


def other_status(status: Sequence[str], seed: int) -> np.ndarray:
    """For every study a donor, int (n,): a normal one for an abnormal one,
    and back, used equally often. A study that is neither gets one of either
    kind and is nobody's donor."""
    kinds = np.array(list(status))
    abnormal, normal = kinds == "abnormal", kinds == "normal"
    if not (abnormal.any() and normal.any()):
        raise ValueError(f"{abnormal.sum()} abnormal, {normal.sum()} normal")
    known = abnormal | normal
    rng = np.random.default_rng(seed)
    donors = np.empty(len(kinds), dtype=int)
    pools = (abnormal, normal), (normal, abnormal), (~known, known)
    for rows, pool in pools:
        drawn = rng.permutation(np.flatnonzero(pool))
        donors[rows] = np.resize(drawn, rows.sum())
    return donors


def dose_response(write: Writer, scores: Sequence[Scores],
                  doses: Sequence[float],
                  conditions: Sequence[str] = CONDITIONS) -> pd.DataFrame:
    """Set one condition's score in both views to each of the doses, the rest
    as it is, and read the report: ``condition``, ``finding`` (the labeller's
    name), ``dose``, ``study`` (position in `scores`), ``mentioned`` (bool:
    stated as present)."""
    table = pd.DataFrame(
        [(condition, FINDING_OF[condition], float(dose), study)
         for condition in conditions for dose in doses
         for study in range(len(scores))],
        columns=["condition", "finding", "dose", "study"])
    # One call for all, so that a model can fill its batches.
    reports = write([scores[row.study].assign(**{row.condition: row.dose})
                     for row in table.itertuples()])
    table["mentioned"] = [finding in present(text) for finding, text
                          in zip(table["finding"], reports, strict=True)]
    return table


def monotonicity(dose: pd.DataFrame) -> pd.DataFrame:
    """How each condition's mention rate goes with its score, of a
    `dose_response`, the steepest first: ``condition``, ``finding``; ``low``,
    ``high``, ``rise``: mention rate at the lowest and at the highest dose,
    and their difference; ``rho``: Spearman's, of dose and rate, NaN for a
    flat curve; ``falling``: share of the steps at which the rate falls."""
    keys, rows = ["condition", "finding"], []
    for names, part in dose.groupby(keys, sort=False):
        rate = part.groupby("dose")["mentioned"].mean()
        rho = np.nan
        if rate.nunique() > 1:
            rho = np.corrcoef(rate.rank(), np.arange(len(rate)))[0, 1]
        low, high = rate.iloc[0], rate.iloc[-1]
        falling = float((np.diff(rate) < 0).mean())
        rows.append((*names, low, high, high - low, rho, falling))
    columns = [*keys, "low", "high", "rise", "rho", "falling"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        "rise", ascending=False, kind="stable", ignore_index=True)


# --- the card ---------------------------------------------------------------


def grounding_report(write: Writer, scores: Sequence[Scores],
                     references: Sequence[str], status: Sequence[str], *,
                     labels: Sequence[Mapping[str, int]] | None = None,
                     n_dose: int = 20, n_doses: int = 11,
                     n_samples: int = 1000, seed: int = 3407) -> Card:
    """All tests on one writer.

    Parameters
    ----------
    scores, references, status : sequences of length n
        Of the test studies; status "normal", "abnormal" or "not indexed".
    labels : sequence of mappings, optional
        True labels (`mesh.labels`): who has one of the 18 conditions at all.
    n_dose, n_doses : int
        Studies in the seeded sample of the dose response (0: none is made);
        scores from 0 to 1.
    """
    n, own = len(scores), write(scores)
    donors = {ANY: swap(n, seed)}
    if {"normal", "abnormal"} <= set(status):
        donors[OTHER] = other_status(status, seed)
    rows: list[Row] = []
    for test, order in donors.items():
        shuffled = write([scores[i] for i in order])
        rows += swap_test(references, own, shuffled, test, n_samples, seed)
    rows += _by_status(own, status, labels)
    for view in VIEWS:
        changed: Any = np.nan
        f1: Any = np.nan
        try:
            alone = write([one[one.index == view] for one in scores])
            changed = np.mean([a != b for a, b in zip(own, alone)])
            f1 = micro_f1(finding_counts(references, alone).sum(axis=0))
        except CourseError:
            pass  # the paper's format cannot say that a view is missing
        rows += _rows(f"{view} view alone", {
            "reports changed against both": changed, "findings F1": f1}, n)
    dose = None
    if n_dose:
        drawn = np.random.default_rng(seed).permutation(n)[:n_dose]
        doses = np.linspace(0, 1, n_doses).round(3).tolist()
        dose = dose_response(write, [scores[i] for i in drawn], doses)
        rows += _dose_rows(dose, n_samples, seed)
    return Card(pd.DataFrame(rows, columns=COLUMNS), dose, own)


def swap_test(references: Sequence[str], own: Sequence[str],
              shuffled: Sequence[str], test: str = ANY, n_samples: int = 1000,
              seed: int = 3407) -> list[Row]:
    """Reports under own scores against reports under another study's.

    Rows with `test` in front: share of reports changed; F1 of the 18
    conditions' findings under both, and its loss; its loss over all 24
    findings as notebook 06 counts them (uncertain ones too). Intervals are
    of the paired bootstrap over studies.
    """
    draws: dict[str, Any] = {"n_samples": n_samples, "seed": seed}
    changed = [float(a != b) for a, b in zip(own, shuffled, strict=True)]
    a, b = (finding_counts(references, texts) for texts in (own, shuffled))
    c, d = (clinical_scores(references, texts)["statistics"]
            for texts in (own, shuffled))
    return _rows(test, {
        CHANGED: bootstrap_interval(changed, **draws),
        "findings F1, own": micro_f1(a.sum(axis=0)),
        "findings F1, shuffled": micro_f1(b.sum(axis=0)),
        GAP: paired_interval(a, b, micro_f1, **draws),
        "all findings F1, own minus shuffled": paired_interval(
            c, d, lambda sums: scores_from_statistics(sums)[..., 0], **draws
        ),
    }, len(own))


def _rows(test: str, measures: Mapping[str, Any], n: int) -> list[Row]:
    """Measure -> a number, or a result of `stats` with its interval."""
    each = {k: v if isinstance(v, dict) else {"value": v}
            for k, v in measures.items()}
    return [{"test": test, "measure": name, "n": n}
            | {k: float(one.get(k, np.nan)) for k in COLUMNS[2:5]}
            for name, one in each.items()]


def _by_status(own: Sequence[str], status: Sequence[str],
               labels: Sequence[Mapping[str, int]] | None) -> list[Row]:
    """The commonest report of a kind of study; who is called abnormal."""
    table = pd.DataFrame({"text": list(own), "status": list(status)})
    table["called"] = [label_report(text).get("No Finding") == "absent"
                       for text in own]
    groups = {f"{kind} studies": table["status"].eq(kind)
              for kind in ("normal", "abnormal")}
    rows = []
    for name, chosen in groups.items():
        part = table.loc[chosen, "text"].value_counts()
        top = part.max() / part.sum() if len(part) else np.nan
        measures = {f"its share of {name}": top,
                    f"different reports, {name}": len(part)}
        rows += _rows(COMMONEST, measures, int(chosen.sum()))
    if labels is not None:
        has = np.array([any(one.values()) for one in labels])
        abnormal = groups["abnormal studies"]
        groups["abnormal studies with a condition"] = abnormal & has
    for name, chosen in groups.items():
        share = table.loc[chosen, "called"].mean()
        rows += _rows("called abnormal", {name: share}, int(chosen.sum()))
    return rows


def _dose_rows(dose: pd.DataFrame, n_samples: int, seed: int) -> list[Row]:
    curves = monotonicity(dose)
    rate = dose.pivot_table("mentioned", "study", "dose", aggfunc="mean")
    rises = (rate.iloc[:, -1] - rate.iloc[:, 0]).to_numpy(float)
    return _rows(DOSE, {
        RISE: bootstrap_interval(rises, n_samples=n_samples, seed=seed),
        # Rates are shares of counts: rounding must not cost a condition.
        STEEP: (curves["rise"] >= LEAST_RISE - 1e-9).sum(),
        "mean Spearman's rho (flat: 0)": curves["rho"].fillna(0).mean(),
        "steps at which a rate falls": curves["falling"].mean(),
    }, len(rate))


# --- reading a card ---------------------------------------------------------


def verdict(card: Card) -> list[str]:
    """The card in sentences; each follows from its numbers.

    The reports follow the scores if findings F1 is lost with the interval
    above 0, mentions rise by `LEAST_RISE` on the mean and no report serves
    more than `MOST_TOP` of the abnormal studies; "in part" if the first alone
    holds. What was not measured counts against nobody.
    """
    gap, low, high = (card.get(ANY, GAP, end) for end in COLUMNS[2:5])
    rise, top = card.get(DOSE, RISE), card.get(COMMONEST, TOP)
    how = "do not measurably follow the scores."
    if low > 0:
        in_part = rise < LEAST_RISE or top > MOST_TOP
        how = "follow the scores" + (", in part." if in_part else ".")
    lines = [
        f"The reports {how}",
        f"Changed with another study's scores: {card.get(ANY, CHANGED):.0%}.",
    ]
    if np.isnan(gap):
        lines.append("No condition is reported on either side: no F1.")
    else:
        above = "above 0" if low > 0 else "that is not above 0"
        lines.append(f"Findings F1 lost with them: {gap:.3f} [{low:.3f}, "
                     f"{high:.3f}], an interval {above}.")
    if not np.isnan(rise):
        lines.append(
            f"From score 0 to 1 mentions rise by {rise:.2f} on the mean; by "
            f"{LEAST_RISE} or more for {card.get(DOSE, STEEP):.0f} of 18.")
    if not np.isnan(top):
        word = "a collapse" if top > MOST_TOP else "no collapse"
        lines.append(f"One report serves {top:.0%} of the abnormal studies: "
                     f"{word} (limit {MOST_TOP:.0%}).")
    return lines
