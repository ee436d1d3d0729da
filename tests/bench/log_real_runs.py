"""Writes figures/data/real-runs.csv, finished runs on real X-rays in numbers,
and figures/data/frontier.csv, of the last of them. Rows of other runs stay.

    make course IMAGES=real && make study IMAGES=real
    .venv/bin/python tests/bench/log_real_runs.py cpu-real
"""

import sys
from pathlib import Path

import logs
import pandas as pd

from llamaxr_utils.course import artifacts, run

COLUMNS = ("run base system protocol split n metric value low high "
           "difference p_holm").split()


def grounding(tables: Path) -> pd.DataFrame:
    """Findings F1 under own and another study's scores, and the gap."""
    table = pd.read_csv(tables / "grounding-gap.csv")
    own, gap, other = (
        table[["system"]].assign(metric=metric, value=table[column])
        for metric, column in {"findings F1": "findings F1", "gap": "gap",
                               "findings F1, swapped": "swapped"}.items())
    return pd.concat([own, other, gap.assign(
        low=table["gap from"], high=table["gap to"])])


def rows(name: str) -> pd.DataFrame:
    """All numbers of one run, long."""
    folder = run.runs_folder() / name
    tables = folder / "tables"
    scores = artifacts.load(folder, "summary")
    clinic = pd.read_csv(tables / "clinical.csv")
    clinic = clinic.melt("system", var_name="metric")
    base = artifacts.manifest(folder, "tokenizer") or {"parameters": {}}
    own = [part.assign(protocol="findings", split="r2gen")
           for part in (clinic, grounding(tables))]
    paired = pd.read_csv(tables / "paired-tests.csv")
    paired = paired.rename(columns={"other": "system"})
    table = pd.concat([scores, *own])
    on = ["system", "metric", "protocol", "split"]
    paired = paired.assign(protocol="r2gen", split="r2gen")
    table = table.merge(paired, how="left", on=on)
    table["run"], table["base"] = name, base["parameters"].get("BASE", "")
    table["n"] = table["n"].fillna(scores["n"].max()).astype(int)
    return table[COLUMNS]


if __name__ == "__main__":
    names, target = sys.argv[1:], logs.DATA / "real-runs.csv"
    others = logs.read(target).query("run not in @names")
    table = pd.concat([*map(rows, names), others])
    logs.write(target, table, "%.5g")
    frontier = run.runs_folder() / names[-1] / "tables" / "frontier.csv"
    logs.write(logs.DATA / "frontier.csv", pd.read_csv(frontier), "%.5g")
