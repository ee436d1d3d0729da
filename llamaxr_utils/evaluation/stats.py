"""Intervals and paired tests by study, for means and for corpus metrics.

A study is what is drawn again: corpus metrics are computed anew from the
summed statistics of the drawn studies, never averaged. All of this speaks of
which studies happened to be in the test set; it does not cover training
runs, prompts or annotators, which vary too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from .meteor import meteor_from_statistics
from .metrics import BLEU, bleu_from_statistics, read_statistics

N_SAMPLES = 2000
SEED = 3407
#: Weights held at a time: 16 MB, whatever the number of studies.
_CHUNK = 2_000_000

#: Sums of shape (..., m) -> values of shape (...) or (..., k).
Function = Callable[[np.ndarray], np.ndarray]


def mean_of_sums(totals: np.ndarray) -> np.ndarray:
    """Sums (..., k) and a count (..., 1) -> means, shape (..., k)."""
    return totals[..., :-1] / totals[..., -1:]


def bootstrap_interval(
    per_study_values: Sequence[float] | np.ndarray,
    level: float = 0.95,
    n_samples: int = N_SAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Percentile bootstrap of a mean over studies.

    For scores that are such means: all of protocol ``llamaxr``, and
    pycocoevalcap's ROUGE-L and CIDEr. CIDEr's document frequencies stay those
    of the full reference set. Not for corpus BLEU, METEOR or F1.

    Parameters
    ----------
    per_study_values : array, shape (n,) or (n, k)
        One row a study, one column a metric.
    level, n_samples, seed : float in (0, 1), int, int

    Returns
    -------
    dict
        ``value``, ``low``, ``high``: floats, or arrays of shape (k,); ``n``,
        ``n_samples``, ``seed``, ``level``. Of a single study low and high
        are NaN.
    """
    rows = _table(per_study_values)
    function = _mean(len(rows), np.ndim(per_study_values))
    return bootstrap_corpus(rows, function, level, n_samples, seed)


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
        What the metric sums over studies, one row a study: for instance
        `metrics.bleu_statistics`, METEOR's 23 numbers, or the statistics of
        `clinical.clinical_scores`.
    function : callable
        Sums, shape (..., m) -> values, shape (...) or (..., k).
    level, n_samples, seed : float in (0, 1), int, int

    Returns
    -------
    dict
        As `bootstrap_interval`. Samples in which the metric is not defined
        (NaN: no positive was drawn) do not count.

    Raises
    ------
    CourseError
        If there is no study, a number is missing, or `level` or `n_samples`
        makes no sense.
    """
    rows = _table(statistics)
    _check(n_samples, level)
    value = np.asarray(function(rows.sum(axis=0)), dtype=float)
    samples = np.concatenate(
        [function(w @ rows) for w in _draws(len(rows), n_samples, seed)]
    )
    tail = (1 - level) / 2
    with warnings.catch_warnings():  # a metric that is NaN in every sample
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(samples, [tail, 1 - tail], axis=0)
    if len(rows) == 1:
        low, high = np.full((2, *value.shape), np.nan)
    one = value.ndim == 0
    return {
        "value": float(value) if one else value,
        "low": float(low) if one else low,
        "high": float(high) if one else high,
        "n": len(rows),
        "n_samples": n_samples,
        "seed": seed,
        "level": level,
    }


def paired_interval(
    a: np.ndarray,
    b: np.ndarray,
    function: Function | None = None,
    level: float = 0.95,
    n_samples: int = N_SAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Bootstrap interval of a - b: parameters as `paired_randomisation`,
    result as `bootstrap_corpus`, ``value`` the difference."""
    rows_a, rows_b, function = _paired(a, b, function)
    m = rows_a.shape[1]
    return bootstrap_corpus(
        np.hstack([rows_a, rows_b]),
        lambda totals: function(totals[..., :m]) - function(totals[..., m:]),
        level,
        n_samples,
        seed,
    )


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
        As in `bootstrap_corpus`; without it, means of `a` and `b`.
    n_samples, seed : int

    Returns
    -------
    dict
        ``difference`` (a - b) and ``p``: floats or arrays of shape (k,), NaN
        where the metric is not defined; ``n``, ``n_samples``, ``seed``.

    Raises
    ------
    CourseError
        If the two are not of the same shape, or as in `bootstrap_corpus`.
    """
    rows_a, rows_b, function = _paired(a, b, function)
    _check(n_samples)
    sum_a, sum_b, gap = rows_a.sum(0), rows_b.sum(0), rows_a - rows_b
    seen = np.asarray(function(sum_a) - function(sum_b), dtype=float)
    extreme = np.zeros(seen.shape)
    rng = np.random.default_rng(seed)
    for size in _sizes(len(gap), n_samples):
        moved = rng.integers(0, 2, (size, len(gap))).astype(float) @ gap
        shuffled = function(sum_a - moved) - function(sum_b + moved)
        # Rounding must not make the identical shuffle smaller than itself;
        # an undefined one counts against a finding.
        extreme += (~(np.abs(shuffled) < np.abs(seen) - 1e-12)).sum(axis=0)
    p = np.where(np.isnan(seen), np.nan, (1 + extreme) / (1 + n_samples))
    one = seen.ndim == 0
    return {
        "difference": float(seen) if one else seen,
        "p": float(p) if one else p,
        "n": len(gap),
        "n_samples": n_samples,
        "seed": seed,
    }


def holm(pvalues: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment (Holm 1979, JSTOR 4615733).

    Parameters
    ----------
    pvalues : array, shape (k,)
        In [0, 1]; NaN (a test that was not run) stays NaN and counts not.

    Returns
    -------
    ndarray, shape (k,)
        Adjusted, in the given order: reject where at most alpha.
    """
    p = np.asarray(pvalues, dtype=float)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise CourseError(
            f"These are not p-values: {pvalues!r}.",
            "Holm's method takes one list of numbers from 0 to 1.",
            "Pass the `p` of each comparison.",
        )
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _meteor(totals: np.ndarray) -> np.ndarray:
    return meteor_from_statistics(totals)[..., None]


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
    corpus = {
        "bleu_stats": (BLEU, bleu_from_statistics),
        "meteor_stats": (("METEOR",), _meteor),
    }
    corpus = {key: corpus[key] for key in corpus if key in table}
    summed = [name for names, _ in corpus.values() for name in names]
    means = [
        name
        for name in table.select_dtypes("number")
        if name not in summed and scores.get(name) is not None
    ]
    blocks = [
        np.column_stack([table[means].to_numpy(float), np.ones(len(table))]),
        *(read_statistics(table[key]) for key in corpus),
    ]
    functions = [mean_of_sums, *(f for _, f in corpus.values())]
    edges = np.cumsum([block.shape[1] for block in blocks])[:-1]

    def function(totals: np.ndarray) -> np.ndarray:
        parts = np.split(totals, edges, axis=-1)
        values = [f(part) for f, part in zip(functions, parts, strict=True)]
        return np.concatenate(values, axis=-1)

    return np.hstack(blocks), function, means + summed


def _table(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Values as floats of shape (n, m), or a refusal."""
    rows = np.asarray(values, dtype=float)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise CourseError(
            f"Per-study values of shape {np.shape(values)} cannot be used.",
            "One row a study is needed, at least one, no number missing.",
            "Drop the studies that were not scored, and say how many.",
        )
    return rows


def _paired(
    a: np.ndarray, b: np.ndarray, function: Function | None
) -> tuple[np.ndarray, np.ndarray, Function]:
    rows_a, rows_b = _table(a), _table(b)
    if rows_a.shape != rows_b.shape:
        raise CourseError(
            f"Systems of shape {rows_a.shape} and {rows_b.shape}.",
            "A paired test needs both systems on the same studies.",
            "Join the two tables on `study_id` first.",
        )
    return rows_a, rows_b, function or _mean(len(rows_a), np.ndim(a))


def _mean(n: int, ndim: int) -> Function:
    """Sums over `n` studies -> means; a list of values has no columns."""
    return lambda totals: (totals[..., 0] if ndim == 1 else totals) / n


def _check(n_samples: int, level: float = 0.5) -> None:
    if n_samples < 1 or not 0 < level < 1:
        raise CourseError(
            f"level={level} with n_samples={n_samples} makes no interval.",
            "The level lies between 0 and 1, samples are counted from 1.",
            "Use level=0.95 and n_samples=2000.",
        )


def _sizes(n: int, n_samples: int) -> Iterator[int]:
    """Chunks that keep (size, n) floats within `_CHUNK`."""
    step = max(1, _CHUNK // n)
    for start in range(0, n_samples, step):
        yield min(step, n_samples - start)


def _draws(n: int, n_samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each study is drawn: arrays (size, n), rows sum to n."""
    rng = np.random.default_rng(seed)
    for size in _sizes(n, n_samples):
        yield rng.multinomial(n, np.full(n, 1 / n), size).astype(float)
