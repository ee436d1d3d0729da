"""From scores of many systems to the tables that notebook 06 shows.

Takes results of `metrics.score_reports` by (system, protocol) and arranges
them: with intervals, paired tests, beside the paper's Table 3. It scores
nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .stats import (
    bootstrap_corpus,
    holm,
    metric_statistics,
    paired_randomisation,
)
from .tables import METRICS, published_results

Results = Mapping[tuple[str, str], Mapping[str, Any]]


def summarise(
    results: Results, *, split: str, images: str, n_samples: int, seed: int
) -> pd.DataFrame:
    """One row a system, protocol and metric, with a 95 % interval.

    Parameters
    ----------
    results : mapping
        (system, protocol) -> result of `metrics.score_reports`.
    split, images : str
        Stand on every row.
    n_samples, seed : int
        Of the bootstrap by study.

    Returns
    -------
    DataFrame
        Artifact ``summary``: ``system``, ``protocol``, ``split``,
        ``images``, ``n``, ``metric``, ``value``, ``low``, ``high``. METEOR
        under ``r2gen`` without Java has no value and ``note`` says
        "needs Java".
    """
    rows = []
    for (system, protocol), result in results.items():
        statistics, function, names = metric_statistics(dict(result))
        found = bootstrap_corpus(
            statistics, function, n_samples=n_samples, seed=seed
        )
        for i, metric in enumerate(names):
            interval = [found[k][i] for k in ("value", "low", "high")]
            rows.append((system, protocol, metric, *interval, ""))
        if result["METEOR"] is None:
            java = str(result["record"]["java"])
            rows.append((system, protocol, "METEOR", None, None, None, java))
    table = pd.DataFrame(
        rows,
        columns=["system", "protocol", "metric", "value", "low", "high"]
        + ["note"],
    )
    table.insert(2, "split", split)
    table.insert(3, "images", images)
    n = {key: result["record"]["n"] for key, result in results.items()}
    keys = zip(table["system"], table["protocol"], strict=True)
    table.insert(4, "n", [n[key] for key in keys])
    return table


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
    ours, function, names = metric_statistics(
        dict(results[system, protocol])
    )
    rows = []
    for other, its_protocol in results:
        if its_protocol != protocol or other == system:
            continue
        theirs = metric_statistics(dict(results[other, protocol]))[0]
        found = paired_randomisation(ours, theirs, function, n_samples, seed)
        for i, metric in enumerate(names):
            if metric in ("BLEU-4", "ROUGE-L", "METEOR", "CIDEr"):
                values = found["difference"][i], found["p"][i]
                rows.append((other, metric, *values))
    table = pd.DataFrame(rows, columns=["other", "metric", "difference", "p"])
    table["p_holm"] = holm(table["p"].to_numpy())
    return table


def table_3(summary: pd.DataFrame, run: str, note: str = "") -> pd.DataFrame:
    """The paper's Table 3, quoted, then every system of this run.

    Returns
    -------
    DataFrame
        ``system``, ``year``, ``origin`` (quoted / computed here),
        ``protocol``, ``split``, ``images``, ``n``, and the six metrics.
    """
    quoted = published_results().drop(columns="citation")
    own = quoted["system"].str.startswith("LLaMA-XR")
    quoted["protocol"] = own.map({True: "llamaxr", False: "r2gen"})
    quoted["split"] = own.map({True: "not named", False: "as published"})
    quoted["origin"], quoted["images"] = "quoted", "X-rays"
    wanted = summary[summary["metric"].isin(METRICS)]
    keys = ["system", "protocol", "split", "images", "n"]
    computed = wanted.pivot(index=keys, columns="metric", values="value")
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
    return table[
        ["system", "year", "origin", *keys[1:], *METRICS]
    ]


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
