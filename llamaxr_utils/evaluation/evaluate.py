"""From scores of many systems to the tables that notebook 06 shows.

Takes results of `metrics.score_reports` by (system, protocol) and arranges
them: with intervals, paired tests, beside the paper's Table 3. It scores
nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..course.tables import METRICS, published_results, quoted_terms
from .metrics import score_reports
from .stats import (
    Function,
    bootstrap_corpus,
    holm,
    metric_statistics,
    paired_randomisation,
)

Results = Mapping[tuple[str, str], Mapping[str, Any]]

#: Systems that look at no image: reports alone, or labels of people.
WITHOUT_IMAGES = ("most frequent report", "medoid report", "random report",
                  "ceiling: true labels")


def seen_by(system: str, images: str) -> str:
    """What stands in the column ``images`` of a system's rows."""
    return "none" if system.startswith(WITHOUT_IMAGES) else images


def score_repeats(
    references: Sequence[str], runs: Sequence[Sequence[str]], protocol: str
) -> dict[str, Any]:
    """`metrics.score_reports` of a system that was run several times.

    Parameters
    ----------
    references : sequence of str, length n
    runs : sequence of sequences of str, each of length n
        The reports of each seed.
    protocol : str

    Returns
    -------
    dict
        As `score_reports` of the first run, but the numbers are over all
        runs (a corpus metric: of the pooled runs), ``per_report`` holds
        them one after the other, and the record has ``repeats``. Intervals
        draw a study with all of its runs.
    """
    each = [score_reports(references, run, protocol) for run in runs]
    empty = sum(one["record"]["n_empty_candidates"] for one in each)
    result = each[0] | {
        "per_report": pd.concat([one["per_report"] for one in each]),
        "record": each[0]["record"]
        | {"repeats": len(runs), "n_empty_candidates": empty},
    }
    rows, function, names = statistics_of(result)
    numbers = function(rows.sum(axis=0)).tolist()
    return result | dict(zip(names, numbers, strict=True))


def statistics_of(
    result: Mapping[str, Any],
) -> tuple[np.ndarray, Function, list[str]]:
    """`stats.metric_statistics`, one row a study: repeats are averaged."""
    rows, function, names = metric_statistics(dict(result))
    repeats = result["record"].get("repeats", 1)
    rows = rows.reshape(repeats, -1, rows.shape[1]).mean(axis=0)
    return rows, function, names


def summarise(
    results: Results,
    *,
    split: str,
    images: str,
    n_samples: int,
    seed: int,
    rows: Sequence[int] | np.ndarray | None = None,
) -> pd.DataFrame:
    """One row a system, protocol and metric, with a 95 % interval.

    Parameters
    ----------
    results : mapping
        (system, protocol) -> result of `metrics.score_reports`.
    split, images : str
        Stand on every row; ``images`` is "none" for `WITHOUT_IMAGES`.
    n_samples, seed : int
        Of the bootstrap by study.
    rows : sequence of int, optional
        Only these of the scored pairs: a part of the split. CIDEr keeps the
        word weights of the whole.

    Returns
    -------
    DataFrame
        Artifact ``summary``: ``system``, ``protocol``, ``split``,
        ``images``, ``n``, ``metric``, ``value``, ``low``, ``high``. METEOR
        under ``r2gen`` without Java has no value and ``note`` says
        "needs Java".
    """
    lines = []
    for (system, protocol), result in results.items():
        statistics, function, names = statistics_of(result)
        if rows is not None:
            statistics = statistics[rows]
        found = bootstrap_corpus(
            statistics, function, n_samples=n_samples, seed=seed
        )
        seen = seen_by(system, images)
        key = (system, protocol, split, seen, found["n"])
        for i, metric in enumerate(names):
            interval = [found[k][i] for k in ("value", "low", "high")]
            lines.append((*key, metric, *interval, ""))
        if result["METEOR"] is None:
            java = str(result["record"]["java"])
            lines.append((*key, "METEOR", None, None, None, java))
    return pd.DataFrame(
        lines,
        columns=["system", "protocol", "split", "images", "n", "metric"]
        + ["value", "low", "high", "note"],
    )


def wide(summary: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """A row a system, a column a metric: "0.148 [0.14, 0.16]"."""
    part = summary[summary["protocol"] == protocol].copy()
    part["shown"] = [
        row.note
        if pd.isna(row.value)
        else f"{row.value:.3f} [{row.low:.2f}, {row.high:.2f}]"
        for row in part.itertuples()
    ]
    table = part.pivot(index="system", columns="metric", values="shown")
    metrics = [m for m in (*METRICS, "CIDEr") if m in table]
    return table.loc[list(dict.fromkeys(part["system"])), metrics]


def compare(
    results: Results, system: str, protocol: str, n_samples: int, seed: int
) -> pd.DataFrame:
    """Paired tests of one system against all others under a protocol.

    Returns
    -------
    DataFrame
        ``other``, ``metric``, ``difference`` (system minus other), ``p``
        (approximate randomisation), ``p_holm`` (adjusted over the table).
    """
    ours, function, names = statistics_of(results[system, protocol])
    rows = []
    for other, its_protocol in results:
        if its_protocol != protocol or other == system:
            continue
        theirs = statistics_of(results[other, protocol])[0]
        found = paired_randomisation(ours, theirs, function, n_samples, seed)
        for i, metric in enumerate(names):
            if metric in ("BLEU-4", "ROUGE-L", "METEOR", "CIDEr"):
                values = found["difference"][i], found["p"][i]
                rows.append((other, metric, *values))
    table = pd.DataFrame(rows, columns=["other", "metric", "difference", "p"])
    table["p_holm"] = holm(table["p"].to_numpy())
    return table


def winners(
    results: Results, n_samples: int, seed: int, alpha: float = 0.05
) -> set[tuple[str, str, str]]:
    """What a table may print in bold.

    The system with the best value of a metric, if it is better than *each*
    other system under the same protocol: paired approximate randomisation
    on the same studies, Holm over all tests of the protocol.

    Returns
    -------
    set of (system, protocol, metric)
        For the six metrics of Table 3. Two equal bests: neither.
    """
    found = set()
    for protocol in dict.fromkeys(protocol for _, protocol in results):
        systems = [s for s, p in results if p == protocol]
        stats_of = {s: statistics_of(results[s, protocol]) for s in systems}
        _, function, names = stats_of[systems[0]]
        values = {s: function(stats_of[s][0].sum(axis=0)) for s in systems}
        tests = []
        for best in systems:
            is_best = [
                (i, m)
                for i, m in enumerate(names)
                if m in METRICS
                and values[best][i] >= max(v[i] for v in values.values())
            ]
            for other in systems if is_best else ():
                if other != best:
                    pair = stats_of[best][0], stats_of[other][0]
                    p = paired_randomisation(*pair, function, n_samples, seed)
                    tests += [(best, m, p["p"][i]) for i, m in is_best]
        table = pd.DataFrame(tests, columns=["system", "metric", "p"])
        table["p"] = holm(table["p"].to_numpy(float))
        worst = table.groupby(["system", "metric"])["p"].max()
        sure = worst[worst < alpha].index
        found |= {(system, protocol, metric) for system, metric in sure}
    return found


def table_3(summary: pd.DataFrame, run: str, note: str = "") -> pd.DataFrame:
    """The paper's Table 3, quoted, then every system of this run.

    Returns
    -------
    DataFrame
        ``system``, ``year``, ``origin`` (quoted / computed here),
        ``protocol``, ``split``, ``images``, ``n`` (missing where a paper
        does not say), the six metrics, and for each, where it was computed
        here, the ends of its 95 % interval (``METEOR low`` ...).
    """
    quoted = published_results().drop(columns="citation")
    quoted = quoted.join(quoted_terms(quoted["system"]))
    quoted["origin"], quoted["images"] = "quoted", "X-rays"
    keys = ["system", "protocol", "split", "images", "n"]
    wanted = summary[summary["metric"].isin(METRICS)]
    computed = wanted.pivot(
        index=keys, columns="metric", values=["value", "low", "high"]
    )
    computed.columns = [
        metric if kind == "value" else f"{metric} {kind}"
        for kind, metric in computed.columns
    ]
    computed = computed.reset_index()
    order = {s: i for i, s in enumerate(summary["system"].unique())}
    computed = computed.sort_values(
        ["protocol", "system"],
        key=lambda c: c.map(order) if c.name == "system" else c,
        ascending=[False, True],
    )
    computed["origin"] = "computed here"
    computed["system"] = computed["system"].where(
        ~computed["system"].str.startswith(run), computed["system"] + note
    )
    table = pd.concat([quoted, computed], ignore_index=True)
    table["year"] = table["year"].astype("Int64")
    table["n"] = table["n"].astype("Int64")
    ends = [f"{m} {end}" for m in METRICS for end in ("low", "high")]
    head = ["system", "year", "origin", *keys[1:], *METRICS]
    return table.reindex(columns=[*head, *ends])


def for_plot(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of `table_3` that have a metric, best last."""
    return table.dropna(subset=[metric]).sort_values(metric)


def per_study(results: Results, study_ids: Sequence[str]) -> pd.DataFrame:
    """Artifact ``metrics``: one row a study, system, protocol and metric."""
    parts = []
    for (system, protocol), result in results.items():
        table = result["per_report"].select_dtypes("number")
        table = table.set_axis(
            [study_ids[i] for i in table.index], axis="index"
        )
        long = table.rename_axis("study_id").reset_index()
        long = long.melt("study_id", var_name="metric")
        parts.append(long.assign(system=system, protocol=protocol))
    columns = ["study_id", "system", "protocol", "metric", "value"]
    return pd.concat(parts, ignore_index=True)[columns]
