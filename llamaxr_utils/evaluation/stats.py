"""Intervals and paired tests by study, for means and for corpus metrics.

A study is what is drawn again: corpus metrics are computed anew from the
summed statistics of the drawn studies, never averaged. This speaks of which
studies happened to be in the test set, not of training runs or prompts."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .clinical import SCORES, scores_from_statistics
from .meteor import meteor_from_statistics
from .metrics import BLEU, bleu_from_statistics

#: Sums over studies, shape (..., m) -> values, shape (...) or (..., k).
Function = Callable[[np.ndarray], np.ndarray]
TAIL = (1 - 0.95) / 2  #: outside an interval, on either side
DRAWN = 20_000_000  #: numbers that are drawn at a time
#: Columns of ``per_report`` that hold what a corpus metric sums.
_CORPUS: dict[str, tuple[tuple[str, ...], Function]] = {
    "bleu_stats": (BLEU, bleu_from_statistics),
    "meteor_stats": (
        ("METEOR",), lambda sums: meteor_from_statistics(sums)[..., None]),
}


def bootstrap_interval(statistics: Any, function: Function | None = None,
                       n_samples: int = 2000,
                       seed: int = 3407) -> dict[str, Any]:
    """95 % percentile bootstrap of a mean over studies, or of a corpus metric
    (Koehn 2004, https://aclanthology.org/W04-3250).

    `statistics`, shape (n,) or (n, m), are values, or what `function` takes
    the sums of. ``value``, ``low`` and ``high`` are floats or arrays (k,);
    samples where the metric is NaN do not count, of a single study all are.
    """
    rows, function = _rows(statistics), function or _mean(statistics)
    value = function(rows.sum(axis=0))
    samples = function(np.vstack([
        counts @ rows for counts in resamples(len(rows), n_samples, seed)]))
    if len(rows) == 1:
        samples = np.full_like(samples, np.nan)
    with warnings.catch_warnings():  # a metric that is NaN in every sample
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(samples, [TAIL, 1 - TAIL], axis=0)
    return {"value": value, "low": low, "high": high}


def resamples(n: int, n_samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of n studies is drawn: floats (samples, n), in blocks
    that memory can hold."""
    rng, step = np.random.default_rng(seed), max(1, DRAWN // n)
    for first in range(0, n_samples, step):
        block = min(step, n_samples - first)
        yield rng.multinomial(n, np.full(n, 1 / n), block).astype(float)


def paired_randomisation(a: Any, b: Any, function: Function | None = None,
                         n_samples: int = 2000,
                         seed: int = 3407) -> dict[str, Any]:
    """Approximate randomisation test of two systems on the same studies.

    Every shuffle swaps the two systems' outputs of a study with probability
    one half; ``p`` is (1 + shuffles with at least the ``difference`` a - b) /
    (1 + shuffles), two-sided (Noreen 1989; Riezler and Maxwell 2005,
    W05-0908), NaN where the metric is."""
    rows_a, rows_b, value = _rows(a), _rows(b), function or _mean(a)
    if rows_a.shape != rows_b.shape:
        raise ValueError("both systems must be scored on the same studies")
    sum_a, sum_b, gap = rows_a.sum(0), rows_b.sum(0), rows_a - rows_b
    difference = value(sum_a) - value(sum_b)
    rng, step = np.random.default_rng(seed), max(1, DRAWN // len(gap))
    moved = np.vstack([
        rng.integers(0, 2, (min(step, n_samples - first), len(gap)))
        .astype(float) @ gap
        for first in range(0, n_samples, step)])
    shuffled = value(sum_a - moved) - value(sum_b + moved)

    # Rounding must not make the identical shuffle smaller than itself; an
    # undefined one counts against a finding.
    smaller = np.abs(shuffled) < np.abs(difference) - 1e-12
    p = (1 + (~smaller).sum(axis=0)) / (1 + n_samples)
    p = np.where(np.isnan(difference), np.nan, p)[()]
    return {"difference": difference, "p": p}


def holm(pvalues: Any) -> np.ndarray:
    """Holm's step-down adjustment (Holm 1979, JSTOR 4615733), in the given
    order; NaN (a test that was not run) stays NaN and counts not."""
    p = np.asarray(pvalues, dtype=float)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def metric_statistics(scores: Mapping[str, Any]
                      ) -> tuple[np.ndarray, Function, list[str]]:
    """A result of `metrics.score_reports` as (statistics of shape (n, m),
    function, names of the metrics): means for ``llamaxr``, ROUGE-L and
    CIDEr; ``r2gen``'s corpus BLEU and METEOR from their own statistics. The
    same of a result of `clinical_scores`."""
    if "statistics" in scores:
        return scores["statistics"], scores_from_statistics, list(SCORES)
    table = scores["per_report"]
    corpus = [column for column in _CORPUS if column in table]
    summed = [name for column in corpus for name in _CORPUS[column][0]]
    means = [name for name in table.select_dtypes("number")
             if name not in summed and scores[name] is not None]
    blocks = [np.column_stack([table[means], np.ones(len(table))]),
              *(np.stack(table[column]) for column in corpus)]
    edges = np.cumsum([block.shape[1] for block in blocks])[:-1]

    def values(totals: np.ndarray) -> np.ndarray:
        first, *others = np.split(totals, edges, axis=-1)
        parts = [first[..., :-1] / first[..., -1:]]
        for column, part in zip(corpus, others, strict=True):
            parts.append(_CORPUS[column][1](part))
        return np.concatenate(parts, axis=-1)

    return np.hstack(blocks), values, means + summed


def _rows(values: Any) -> np.ndarray:
    """Values as floats of shape (n, m)."""
    rows = np.asarray(values, dtype=float)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError("one row a study, at least one, none missing")
    return rows


def _mean(values: Any) -> Function:
    """Sums over these studies -> means; a list of values has no columns."""
    n, flat = len(values), np.ndim(values) == 1
    return lambda totals: (totals[..., 0] if flat else totals) / n
