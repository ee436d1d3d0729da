"""Intervals and paired tests by study, for means and for corpus metrics.

A study is what is drawn again: corpus metrics are computed anew from the
summed statistics of the drawn studies, never averaged. This speaks of which
studies happened to be in the test set, not of training runs or prompts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..course.errors import CourseError
from .meteor import meteor_from_statistics
from .metrics import BLEU, bleu_from_statistics

#: Sums over studies, shape (..., m) -> values, shape (...) or (..., k).
Function = Callable[[np.ndarray], np.ndarray]


def bootstrap_interval(values, *args: Any, **options: Any) -> dict[str, Any]:
    """`bootstrap_corpus` of a mean over studies: values (n,) or (n, k)."""
    return bootstrap_corpus(_rows(values), _mean(values), *args, **options)


def bootstrap_corpus(
    statistics: np.ndarray, function: Function, level: float = 0.95,
    n_samples: int = 2000, seed: int = 3407,
) -> dict[str, Any]:
    """Percentile bootstrap of a corpus metric (Koehn 2004, W04-3250).

    `statistics`, shape (n, m), is what the metric sums over studies.
    ``value``, ``low`` and ``high`` are floats or arrays of shape (k,);
    samples in which the metric is NaN do not count, and of a single study
    low and high are NaN.
    """
    if n_samples < 1:
        raise CourseError(f"No interval with n_samples={n_samples}.",
                          "It takes one sample of studies or more.",
                          "Use 1000.")
    rows = _rows(statistics)
    n, tail = len(rows), (1 - level) / 2
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), n_samples)
    value = np.asarray(function(rows.sum(axis=0)), dtype=float)
    samples = function(counts.astype(float) @ rows)

    with warnings.catch_warnings():  # a metric that is NaN in every sample
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(samples, [tail, 1 - tail], axis=0)
    if n == 1:
        low, high = np.full((2, *value.shape), np.nan)
    return _plain(value=value, low=low, high=high) | {
        "n": n, "n_samples": n_samples, "seed": seed, "level": level}


def paired_interval(a, b, function: Function | None = None,
                    *args: Any, **options: Any) -> dict[str, Any]:
    """`bootstrap_corpus` of a - b: statistics of the same studies, or values
    (no `function`: means)."""
    value, both = function or _mean(a), np.hstack([_rows(a), _rows(b)])
    m = both.shape[1] // 2
    return bootstrap_corpus(
        both, lambda s: value(s[..., :m]) - value(s[..., m:]),
        *args, **options)


def paired_randomisation(
    a: np.ndarray, b: np.ndarray, function: Function | None = None,
    n_samples: int = 2000, seed: int = 3407,
) -> dict[str, Any]:
    """Approximate randomisation test of two systems on the same studies.

    Every shuffle swaps the two systems' outputs of a study with probability
    one half; ``p`` is (1 + shuffles with at least the ``difference`` a - b)
    / (1 + shuffles), two-sided (Noreen 1989; Riezler and Maxwell 2005,
    W05-0908), NaN where the metric is. Arguments: see `paired_interval`.
    """
    rows_a, rows_b, value = _rows(a), _rows(b), function or _mean(a)
    if rows_a.shape != rows_b.shape:
        raise ValueError("both systems must be scored on the same studies")
    sum_a, sum_b, gap = rows_a.sum(0), rows_b.sum(0), rows_a - rows_b
    difference = np.asarray(value(sum_a) - value(sum_b), dtype=float)
    rng = np.random.default_rng(seed)
    moved = rng.integers(0, 2, (n_samples, len(gap))).astype(float) @ gap
    shuffled = value(sum_a - moved) - value(sum_b + moved)

    # Rounding must not make the identical shuffle smaller than itself; an
    # undefined one counts against a finding.
    smaller = np.abs(shuffled) < np.abs(difference) - 1e-12
    p = (1 + (~smaller).sum(axis=0)) / (1 + n_samples)
    p = np.where(np.isnan(difference), np.nan, p)
    return _plain(difference=difference, p=p) | {
        "n": len(gap), "n_samples": n_samples, "seed": seed}


def holm(pvalues: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment (Holm 1979, JSTOR 4615733), in the given
    order; NaN (a test that was not run) stays NaN and counts not."""
    p = np.asarray(pvalues, dtype=float)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def metric_statistics(
    scores: dict[str, Any],
) -> tuple[np.ndarray, Function, list[str]]:
    """A result of `metrics.score_reports` as (statistics of shape (n, m),
    function, names of the metrics): means for ``llamaxr``, ROUGE-L and
    CIDEr; ``r2gen``'s corpus BLEU and METEOR from their own statistics."""
    table = scores["per_report"]
    corpus = (("bleu_stats", BLEU, bleu_from_statistics),
              ("meteor_stats", ("METEOR",),
               lambda s: meteor_from_statistics(s)[..., None]))
    blocks: list[Any] = [(np.stack(table[column]), names, function)
                         for column, names, function in corpus
                         if column in table]
    summed = [name for _, names, _ in blocks for name in names]
    means = [name for name in table.select_dtypes("number")
             if name not in summed and scores.get(name) is not None]
    counted = np.column_stack([table[means], np.ones(len(table))])
    blocks.insert(0, (counted, means, lambda s: s[..., :-1] / s[..., -1:]))
    edges = np.cumsum([rows.shape[1] for rows, _, _ in blocks])[:-1]

    def values(totals: np.ndarray) -> np.ndarray:
        parts = np.split(totals, edges, axis=-1)
        return np.concatenate(
            [function(part) for part, (_, _, function)
             in zip(parts, blocks, strict=True)], axis=-1)

    return np.hstack([rows for rows, _, _ in blocks]), values, means + summed


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


def _plain(**numbers: np.ndarray) -> dict[str, Any]:
    """Arrays without an axis as floats."""
    return {k: v if np.ndim(v) else float(v) for k, v in numbers.items()}
