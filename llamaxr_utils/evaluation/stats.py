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
import pandas as pd

from ..course.errors import CourseError
from .meteor import meteor_from_statistics
from .metrics import BLEU, bleu_from_statistics, read_statistics

N_SAMPLES, SEED = 2000, 3407
#: Sums over studies, shape (..., m) -> values, shape (...) or (..., k).
Function = Callable[[np.ndarray], np.ndarray]


def mean_of_sums(totals: np.ndarray) -> np.ndarray:
    """Sums (..., k) and a count (..., 1) -> means, shape (..., k)."""
    return totals[..., :-1] / totals[..., -1:]


def bootstrap_interval(values, *args: Any, **options: Any) -> dict[str, Any]:
    """`bootstrap_corpus` of a mean over studies, values (n,) or (n, k): for
    the metrics of ``llamaxr``, and ROUGE-L and CIDEr of ``r2gen``."""
    rows = _table(values)
    function = _mean(len(rows), np.ndim(values))
    return bootstrap_corpus(rows, function, *args, **options)


def bootstrap_corpus(
    statistics: np.ndarray,
    function: Function,
    level: float = 0.95,
    n_samples: int = N_SAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Percentile bootstrap of a corpus metric (Koehn 2004, W04-3250).

    Parameters
    ----------
    statistics : ndarray, shape (n, m)
        What the metric sums over studies, one row a study.
    function : callable
        Sums, shape (..., m) -> values, shape (...) or (..., k).

    Returns
    -------
    dict
        ``value``, ``low``, ``high``: floats, or arrays of shape (k,); ``n``,
        ``n_samples``, ``seed``, ``level``. Samples in which the metric is
        NaN do not count. Of a single study low and high are NaN.
    """
    if n_samples < 1:
        raise CourseError(
            f"No interval with n_samples={n_samples}.",
            "It takes samples of studies, one or more.",
            "Use 1000.",
        )
    rows = _table(statistics)
    n, tail = len(rows), (1 - level) / 2
    drawn = np.random.default_rng(seed).multinomial(
        n, np.full(n, 1 / n), n_samples
    )
    value = np.asarray(function(rows.sum(axis=0)), dtype=float)
    samples = function(drawn.astype(float) @ rows)
    with warnings.catch_warnings():  # a metric that is NaN in every sample
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(samples, [tail, 1 - tail], axis=0)
    if n == 1:
        low, high = np.full((2, *value.shape), np.nan)
    settings = {"n": n, "n_samples": n_samples, "seed": seed, "level": level}
    return _plain({"value": value, "low": low, "high": high}) | settings


def paired_interval(
    a, b, function: Function | None = None, *args: Any, **options: Any
) -> dict[str, Any]:
    """`bootstrap_corpus` of a - b: statistics of the same studies."""
    rows_a, rows_b, value = _paired(a, b, function)
    m = rows_a.shape[1]

    def difference(totals: np.ndarray) -> np.ndarray:
        return value(totals[..., :m]) - value(totals[..., m:])

    both = np.hstack([rows_a, rows_b])
    return bootstrap_corpus(both, difference, *args, **options)


def paired_randomisation(
    a: np.ndarray,
    b: np.ndarray,
    function: Function | None = None,
    n_samples: int = N_SAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Approximate randomisation test of two systems on the same studies.

    Every shuffle swaps the two systems' outputs of a study with probability
    one half; p is (1 + shuffles with at least the difference seen) /
    (1 + shuffles), two-sided (Noreen 1989; Riezler and Maxwell 2005,
    W05-0908).

    Parameters
    ----------
    a, b : ndarray, shape (n,) or (n, m)
        Per-study values or statistics, in the same order of studies.
    function : callable, optional
        As in `bootstrap_corpus`; without it, means.

    Returns
    -------
    dict
        ``difference`` (a - b) and ``p``: floats or arrays of shape (k,), NaN
        where the metric is not defined; ``n``, ``n_samples``, ``seed``.
    """
    rows_a, rows_b, value = _paired(a, b, function)
    sum_a, sum_b, gap = rows_a.sum(0), rows_b.sum(0), rows_a - rows_b
    seen = np.asarray(value(sum_a) - value(sum_b), dtype=float)
    rng = np.random.default_rng(seed)
    swapped = rng.integers(0, 2, (n_samples, len(gap))).astype(float)
    moved = swapped @ gap
    shuffled = value(sum_a - moved) - value(sum_b + moved)
    # Rounding must not make the identical shuffle smaller than itself; an
    # undefined one counts against a finding.
    extreme = (~(np.abs(shuffled) < np.abs(seen) - 1e-12)).sum(axis=0)
    p = np.where(np.isnan(seen), np.nan, (1 + extreme) / (1 + n_samples))
    settings = {"n": len(gap), "n_samples": n_samples, "seed": seed}
    return _plain({"difference": seen, "p": p}) | settings


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
    """A result of `metrics.score_reports`, ready for the functions above.

    Returns
    -------
    statistics, function, names : ndarray (n, m), callable, list of str
        ``function`` gives, in the order of `names`, the metrics that
        ``scores`` has: means for ``llamaxr``, ROUGE-L and CIDEr; corpus BLEU
        and METEOR from their own statistics for ``r2gen``.
    """
    table: pd.DataFrame = scores["per_report"]
    blocks, names = [], list[str]()
    functions: list[Function] = [mean_of_sums]
    for key, metrics, function in (
        ("bleu_stats", BLEU, bleu_from_statistics),
        ("meteor_stats", ("METEOR",), meteor_from_statistics),
    ):
        if key in table:
            blocks.append(read_statistics(table[key]))
            functions.append(function)
            names += metrics
    means = [
        name
        for name in table.select_dtypes("number")
        if name not in names and scores.get(name) is not None
    ]
    blocks.insert(
        0, np.column_stack([table[means].to_numpy(float), np.ones(len(table))])
    )
    edges = np.cumsum([block.shape[1] for block in blocks])[:-1]

    def values(totals: np.ndarray) -> np.ndarray:
        parts = np.split(totals, edges, axis=-1)
        results = [f(part) for f, part in zip(functions, parts, strict=True)]
        # METEOR is one number: it gets an axis of its own.
        return np.concatenate(
            [r[..., None] if r.ndim < totals.ndim else r for r in results], -1
        )

    return np.hstack(blocks), values, means + names


def _table(values: Any) -> np.ndarray:
    """Values as floats of shape (n, m)."""
    rows = np.asarray(values, dtype=float)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError("one row a study, at least one, none missing")
    return rows


def _paired(
    a: Any, b: Any, function: Function | None
) -> tuple[np.ndarray, np.ndarray, Function]:
    rows_a, rows_b = _table(a), _table(b)
    if rows_a.shape != rows_b.shape:
        raise ValueError("both systems must be scored on the same studies")
    return rows_a, rows_b, function or _mean(len(rows_a), np.ndim(a))


def _mean(n: int, ndim: int) -> Function:
    """Sums over `n` studies -> means; a list of values has no columns."""
    return lambda totals: (totals[..., 0] if ndim == 1 else totals) / n


def _plain(numbers: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arrays without an axis as floats."""
    return {k: v if np.ndim(v) else float(v) for k, v in numbers.items()}
