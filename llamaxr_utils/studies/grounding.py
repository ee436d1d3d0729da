"""The grounding card: does the report follow the scores?

`grounding_report` takes any writer (`probes`), `grounding_from_csv` the
reports of any system under own and shuffled scores. The card does not say
whether the scores are right, nor whether a report reads well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..datasets.conditions import VIEWS
from ..evaluation.clinical import (
    clinical_scores,
    finding_counts,
    micro_f1,
    scores_from_statistics,
)
from ..evaluation.findings import label_report
from ..evaluation.stats import bootstrap_interval, paired_interval
from ..llm.generate import swap
from ..llm.prompts import Scores
from .probes import (
    Writer,
    dose_response,
    monotonicity,
    one_view,
    other_status,
    read_swapped,
)

#: Columns of a card's rows; NaN: not measured.
COLUMNS = ("test", "measure", "value", "low", "high", "n")
ANY, OTHER = "any other study's scores", "scores of another status"
CHANGED, GAP = "reports changed", "findings F1, own minus shuffled"
DOSE, RISE = "dose response", "mean rise of the mention rate"
COMMONEST, TOP = "commonest report", "its share of abnormal studies"
AGAINST_BOTH = ("reports changed against both", "findings F1")
#: Limits of `verdict`: round numbers of ours, no standard.
LEAST_RISE, MOST_TOP = 0.5, 0.5
STEEP = f"conditions that rise by {LEAST_RISE} or more"

Row = dict[str, Any]


class Card(NamedTuple):
    """What was found out about one writer."""

    rows: pd.DataFrame  #: `COLUMNS`, one row a measure
    dose: pd.DataFrame | None  #: of `probes.dose_response`
    own: list[str]  #: the reports under their own scores

    def get(self, test: str, measure: str, column: str = "value") -> float:
        """A number of the card; NaN if it was not measured."""
        rows = self.rows.query("test == @test and measure == @measure")
        return float(rows[column].iloc[0]) if len(rows) else float("nan")


def grounding_report(
    write: Writer,
    scores: Sequence[Scores],
    references: Sequence[str],
    status: Sequence[str],
    *,
    labels: Sequence[Mapping[str, int]] | None = None,
    n_dose: int = 20,
    n_doses: int = 11,
    n_samples: int = 1000,
    seed: int = 3407,
) -> Card:
    """All tests on one writer.

    Parameters
    ----------
    write : Writer
        Scores of studies -> their reports, in the same order.
    scores, references, status : sequences of length n
        Of the test studies; status "normal", "abnormal" or "not indexed".
    labels : sequence of mappings, optional
        True labels (`mesh.labels`): who has one of the 18 conditions at all.
    n_dose, n_doses : int
        Studies in the seeded sample of the dose response (0: none is made);
        scores from 0 to 1.
    n_samples, seed : int
        Of the bootstrap; of bootstrap, shuffles and sample.

    Returns
    -------
    Card

    Raises
    ------
    CourseError
        If the lengths differ, or there are fewer than two studies.
    """
    n = len(scores)
    if not n == len(references) == len(status) or n < 2:
        raise CourseError(
            f"{n} scores came with {len(references)} references and "
            f"{len(status)} states.",
            "They are paired by position, two studies or more.",
            "Take all three from the same table.",
        )
    own = write(scores)
    donors = {ANY: swap(n, seed)}
    if {"normal", "abnormal"} <= set(status):
        donors[OTHER] = other_status(status, seed)
    rows: list[Row] = []
    for test, order in donors.items():
        shuffled = write([scores[i] for i in order])
        rows += swap_test(references, own, shuffled, test, n_samples, seed)
    rows += _by_status(own, status, labels)
    for view in VIEWS:
        alone = one_view(write, scores, view)
        found: Row = dict.fromkeys(AGAINST_BOTH, np.nan)
        if alone is not None:  # else the format cannot say so
            counts = finding_counts(references, alone).sum(axis=0)
            changed = np.mean([a != b for a, b in zip(own, alone)])
            found = dict(zip(AGAINST_BOTH, (changed, micro_f1(counts))))
        rows += _rows(f"{view} view alone", found, n)
    dose = None
    if n_dose:
        drawn = np.random.default_rng(seed).permutation(n)[:n_dose]
        doses = np.linspace(0, 1, n_doses).round(3).tolist()
        dose = dose_response(write, [scores[i] for i in drawn], doses)
        rows += _dose_rows(dose, n_samples, seed)
    return Card(pd.DataFrame(rows, columns=COLUMNS), dose, own)


def swap_test(
    references: Sequence[str],
    own: Sequence[str],
    shuffled: Sequence[str],
    test: str = ANY,
    n_samples: int = 1000,
    seed: int = 3407,
) -> list[Row]:
    """Reports under own scores against reports under another study's.

    Parameters
    ----------
    references, own, shuffled : sequences of str, length n
        By study, in the same order.
    test : str
        Stands in the first column.
    n_samples, seed : int
        Of the paired bootstrap over studies (`stats.paired_interval`).

    Returns
    -------
    list of Row
        Share of reports changed; F1 of the 18 conditions' findings under
        both, and its loss; its loss over all 24 findings as notebook 06
        counts them (uncertain ones too).
    """
    draws: dict[str, Any] = {"n_samples": n_samples, "seed": seed}
    changed = [float(a != b) for a, b in zip(own, shuffled, strict=True)]
    a, b = (finding_counts(references, texts) for texts in (own, shuffled))
    c, d = (
        clinical_scores(references, texts)["statistics"]
        for texts in (own, shuffled)
    )
    found = {
        CHANGED: bootstrap_interval(changed, **draws),
        "findings F1, own": micro_f1(a.sum(axis=0)),
        "findings F1, shuffled": micro_f1(b.sum(axis=0)),
        GAP: paired_interval(a, b, micro_f1, **draws),
        "all findings F1, own minus shuffled": paired_interval(
            c, d, lambda sums: scores_from_statistics(sums)[..., 0], **draws
        ),
    }
    return _rows(test, found, len(own))


def grounding_from_csv(
    path: str | Path, n_samples: int = 1000, seed: int = 3407
) -> Card:
    """What a card can say without the model, from a file of reports.

    Parameters
    ----------
    path : path
        Each study's report under own and under shuffled scores, in the form
        that `probes.read_swapped` describes; it says what is wrong with it.
    n_samples, seed : int
        Of the bootstrap.

    Returns
    -------
    Card
        Without dose response and views.
    """
    table = read_swapped(path)
    truth, own, shuffled = (
        list(table[column]) for column in ("reference", "own", "shuffled")
    )
    rows = swap_test(truth, own, shuffled, ANY, n_samples, seed)
    rows += _by_status(own, list(table["status"]), None)
    return Card(pd.DataFrame(rows, columns=COLUMNS), None, own)


# --- reading a card ---------------------------------------------------------


def verdict(card: Card) -> list[str]:
    """The card in sentences; each follows from its numbers.

    Returns
    -------
    list of str
        First whether the reports follow the scores: they do if findings F1
        is lost with the interval above 0, mentions rise by `LEAST_RISE` on
        the mean and no report serves more than `MOST_TOP` of the abnormal
        studies; "in part" if the first alone holds. NaN stops nobody.
    """
    gap, low = card.get(ANY, GAP), card.get(ANY, GAP, "low")
    rise, top = card.get(DOSE, RISE), card.get(COMMONEST, TOP)
    firm = not (rise < LEAST_RISE or top > MOST_TOP)
    how = "follow the scores" + ("." if firm else ", in part.")
    how = how if low > 0 else "do not measurably follow the scores."
    lines = [
        f"The reports {how}",
        f"Changed with another study's scores: {card.get(ANY, CHANGED):.0%}.",
        f"Findings F1 lost with them: {gap:.3f} [{low:.3f}, "
        f"{card.get(ANY, GAP, 'high'):.3f}], an interval "
        + ("above 0." if low > 0 else "that is not above 0."),
        f"From score 0 to 1 mentions rise by {rise:.2f} on the mean;"
        + f" by {LEAST_RISE} or more for {card.get(DOSE, STEEP):.0f} of 18.",
        f"One report serves {top:.0%} of the abnormal studies: "
        + ("a collapse" if top > MOST_TOP else "no collapse")
        + f" (limit {MOST_TOP:.0%}).",
    ]
    if np.isnan(gap):
        lines[2] = "No condition is reported on either side: no F1."
    measured = (True, True, True, not np.isnan(rise), not np.isnan(top))
    return [line for line, yes in zip(lines, measured) if yes]


def beside(cards: Mapping[str, Card]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Several cards in one table: for the file, and as people read it.

    Returns
    -------
    long, wide : DataFrame
        ``system`` and `COLUMNS`; a column a system with "0.153 [0.10,
        0.21]", or "–" where nothing was measured.
    """
    parts = [card.rows.assign(system=name) for name, card in cards.items()]
    long = pd.concat(parts, ignore_index=True)[["system", *COLUMNS]]
    counts = long["measure"].str.match(f"different|{STEEP}")
    texts = [
        "–" if np.isnan(row.value)
        else f"{row.value:.0f}" if is_count
        else f"{row.value:.3f}" if np.isnan(row.low)
        else f"{row.value:.3f} [{row.low:.2f}, {row.high:.2f}]"
        for row, is_count in zip(long.itertuples(), counts, strict=True)
    ]
    names = ["test", "measure"]
    wide = long.assign(text=texts).set_index([*names, "system"])["text"]
    order = long[names].drop_duplicates()
    wide = wide.unstack()[list(cards)].fillna("–").reset_index()
    wide = order.merge(wide, on=names)
    wide["test"] = wide["test"].mask(wide["test"].duplicated(), "")
    return long, wide


# --- rows -------------------------------------------------------------------


def _rows(test: str, found: Mapping[str, Any], n: int) -> list[Row]:
    """Measure -> a number, or a result of `stats` with its interval."""
    each = {k: v if isinstance(v, dict) else {"value": v}
            for k, v in found.items()}
    return [{"test": test, "measure": name, "n": n}
            | {k: float(one.get(k, np.nan)) for k in COLUMNS[2:5]}
            for name, one in each.items()]


def _by_status(
    own: Sequence[str],
    status: Sequence[str],
    labels: Sequence[Mapping[str, int]] | None,
) -> list[Row]:
    """The commonest report of a kind of study; who is called abnormal."""
    table = pd.DataFrame({"text": list(own), "status": list(status)})
    read = table["text"].map(label_report)
    table["called"] = [r.get("No Finding") == "absent" for r in read]
    rows = []
    groups = {f"{kind} studies": table["status"].eq(kind)
              for kind in ("normal", "abnormal")}
    for name, chosen in groups.items():
        part = table.loc[chosen, "text"].value_counts()
        top = part.max() / part.sum() if len(part) else np.nan
        found = {f"its share of {name}": top,
                 f"different reports, {name}": len(part)}
        rows += _rows(COMMONEST, found, int(chosen.sum()))
    if labels is not None:
        has = np.array([any(one.values()) for one in labels])
        sick = groups["abnormal studies"]
        groups["abnormal studies with a condition"] = sick & has
    for name, chosen in groups.items():
        share = table.loc[chosen, "called"].mean()
        rows += _rows("called abnormal", {name: share}, int(chosen.sum()))
    return rows


def _dose_rows(dose: pd.DataFrame, n_samples: int, seed: int) -> list[Row]:
    curves = monotonicity(dose)
    rate = dose.pivot_table("mentioned", "study", "dose", aggfunc="mean")
    rises = (rate.iloc[:, -1] - rate.iloc[:, 0]).to_numpy(float)
    found = {
        RISE: bootstrap_interval(rises, n_samples=n_samples, seed=seed),
        # Rates are shares of counts: rounding must not cost a condition.
        STEEP: (curves["rise"] >= LEAST_RISE - 1e-9).sum(),
        "mean Spearman's rho (flat: 0)": curves["rho"].fillna(0).mean(),
        "steps at which a rate falls": curves["falling"].mean(),
    }
    return _rows(DOSE, found, len(rate))
