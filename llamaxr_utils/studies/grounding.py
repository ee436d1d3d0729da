"""The grounding card: does the report follow the scores?

A *writer* is any function from the scores of some studies to their reports:
this run's model, a template, a system of your own. The tests move what it is
given. Whether scores are right, or reports read well, they do not say.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..datasets.conditions import CONDITION_FINDINGS, CONDITIONS, FINDING_OF
from ..evaluation.clinical import present
from ..evaluation.stats import TAIL, bootstrap_interval, resamples
from ..llm.prompts import Scores

Writer = Callable[[Sequence[Scores]], list[str]]
Row = dict[str, Any]
#: Columns of a card's rows; NaN: not measured.
COLUMNS = ("test", "measure", "value", "low", "high", "n")
ANY = "any other study's scores"
CHANGED, GAP = "reports changed", "findings F1, own minus shuffled"
DOSE, RISE = "dose response", "mean rise of the mention rate"
COMMONEST, TOP = "commonest report", "its share of abnormal studies"
#: Limits of ours, no standard: of a steep curve, of a collapse.
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


# --- the card ---------------------------------------------------------------

def grounding_report(write: Writer, scores: Sequence[Scores],
                     references: Sequence[str], status: Sequence[str], *,
                     n_dose: int = 20, n_doses: int = 11,
                     n_samples: int = 1000, seed: int = 3407) -> Card:
    """All tests on one writer.

    Parameters
    ----------
    scores, references, status : sequences of length n
        Of the test studies; status "normal", "abnormal" or "not indexed".
    n_dose, n_doses : int
        Studies in the seeded sample of the dose response (0: none is made);
        scores from 0 to 1.
    """
    own = write(scores)
    rows = all_swaps(references, own, n_samples, seed)
    rows += _by_status(own, status)
    dose = None
    if n_dose:
        drawn = np.random.default_rng(seed).permutation(len(own))[:n_dose]
        doses = np.linspace(0, 1, n_doses).round(3).tolist()
        dose = dose_response(write, [scores[i] for i in drawn], doses)
        rows += _dose_rows(dose, n_samples, seed)
    return Card(pd.DataFrame(rows, columns=COLUMNS), dose, own)


def all_swaps(references: Sequence[Any], own: Sequence[Any],
              n_samples: int = 1000, seed: int = 3407) -> list[Row]:
    """The swap test of a writer that knows a study by its scores alone: under
    another's scores it writes the other's report. So nothing is written anew,
    and the mean over every swap is exact: each report meets the references
    of all other studies. `GAP` has the interval of studies drawn again, with
    all their swaps. Each side holds texts, or sets of findings. The rows, in
    this order: share of reports changed, own F1, swapped F1, gap."""
    sets = ([present(one) if isinstance(one, str) else one for one in side]
            for side in (own, references))
    said, truth = (np.array([[finding in one for finding in
                              CONDITION_FINDINGS] for one in side], float)
                   for side in sets)
    n, right = len(own), (said * truth).sum(axis=1)

    def f1(weights: np.ndarray) -> np.ndarray:
        """Own and swapped, (..., 2), of studies with these weights."""
        size = weights @ (said + truth).sum(axis=1)
        met = (weights @ said) @ truth.T - weights * right  # by all others
        swapped = (weights * met / (n - weights)).sum(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 2 * np.stack([weights @ right, swapped], -1) / size[
                ..., None]

    a, b = np.concatenate([f1(drawn) for drawn
                           in resamples(n, n_samples, seed)]).T
    low, high = np.nanquantile(a - b, [TAIL, 1 - TAIL])
    a, b = f1(np.ones(n))
    alike = pd.Series(list(map(str, own))).value_counts()
    return _rows(ANY, {
        CHANGED: 1 - (alike * (alike - 1)).sum() / (n * (n - 1)),
        "findings F1, own": a, "findings F1, shuffled": b,
        GAP: {"value": a - b, "low": low, "high": high}}, n)


def _rows(test: str, measures: Mapping[str, Any], n: int) -> list[Row]:
    """Measure -> a number, or a result of `stats` with its interval."""
    each = {k: v if isinstance(v, dict) else {"value": v}
            for k, v in measures.items()}
    return [{"test": test, "measure": name, "n": n}
            | {k: float(one.get(k, np.nan)) for k in COLUMNS[2:5]}
            for name, one in each.items()]


def _by_status(own: Sequence[str], status: Sequence[str]) -> list[Row]:
    """The commonest report of either kind of study."""
    rows, kinds, texts = [], np.array(list(status)), pd.Series(list(own))
    for kind in ("normal", "abnormal"):
        part = texts[kinds == kind].value_counts()
        rows += _rows(COMMONEST, {
            f"its share of {kind} studies":
                part.max() / part.sum() if len(part) else np.nan,
            f"different reports, {kind} studies": len(part)}, part.sum())
    return rows


def _dose_rows(dose: pd.DataFrame, n_samples: int, seed: int) -> list[Row]:
    """How far mentions rise from the lowest dose to the highest."""
    rises = {}
    for key in ("study", "condition"):
        rate = dose.pivot_table("mentioned", key, "dose", aggfunc="mean")
        rises[key] = (rate.iloc[:, -1] - rate.iloc[:, 0]).to_numpy(float)
    return _rows(DOSE, {
        RISE: bootstrap_interval(rises["study"], n_samples=n_samples,
                                 seed=seed),
        # Rates are shares of counts: rounding must not cost a condition.
        STEEP: (rises["condition"] >= LEAST_RISE - 1e-9).sum(),
    }, len(rises["study"]))


# --- reading a card ---------------------------------------------------------

def verdict(card: Card) -> list[str]:
    """The card in sentences; each follows from its numbers.

    The reports follow the scores if findings F1 is lost with the interval
    above 0, and no report serves more than `MOST_TOP` of the abnormal
    studies; "in part" if the first alone holds. The same rule for a model
    and for a file of reports; what was not measured counts against nobody.
    """
    gap, low, high = (card.get(ANY, GAP, end) for end in COLUMNS[2:5])
    rise, top = card.get(DOSE, RISE), card.get(COMMONEST, TOP)
    how = "do not measurably follow the scores."
    if low > 0:
        how = "follow the scores" + (", in part." if top > MOST_TOP else ".")
    lines = [f"The reports {how}"]
    if np.isnan(gap):
        lines.append("No condition is reported on either side: no F1.")
    else:
        above = "above 0" if low > 0 else "that is not above 0"
        lines.append(f"Findings F1 lost with another study's scores: {gap:.3f}"
                     f" [{low:.3f}, {high:.3f}], an interval {above}.")
    if not np.isnan(top):
        word = "a collapse" if top > MOST_TOP else "no collapse"
        lines.append(f"One report serves {top:.0%} of the abnormal studies: "
                     f"{word} (limit {MOST_TOP:.0%}).")
    if not np.isnan(rise):
        lines.append(
            f"From score 0 to 1 mentions rise by {rise:.2f} on the mean; by "
            f"{LEAST_RISE} or more for {card.get(DOSE, STEEP):.0f} of 18.")
    return lines
