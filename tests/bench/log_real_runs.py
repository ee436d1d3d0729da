"""Writes figures/data/real-runs.csv: finished runs on real X-rays, in numbers.

Needs notebook 06 of each run; trains and scores nothing itself.

    make course IMAGES=real && make course IMAGES=real PROFILE=laptop
    .venv/bin/python tests/bench/log_real_runs.py cpu-real laptop-real
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from llamaxr_utils.course import artifacts, run
from llamaxr_utils.studies import grounding

TARGET = Path(__file__).parents[2] / "figures" / "data" / "real-runs.csv"
COLUMNS = ["run", "base", "system", "protocol", "split", "n", "metric",
           "value", "low", "high", "difference", "p_holm"]


def gap(generations: pd.DataFrame) -> pd.DataFrame:
    """Findings F1 under own scores minus that under another study's."""
    tuned = generations.query("model == 'tuned'").set_index("study_id")
    own, other = (tuned[tuned["scores_from"].eq(kind)]
                  for kind in ("own", "shuffled"))
    other = other.loc[own.index, "generated"]
    found = grounding.swap_test(own["reference"], own["generated"], other)
    (row,) = (r for r in found if r["measure"] == grounding.GAP)
    return pd.DataFrame([{**row, "system": "this run", "metric": "gap"}])


def rows(name: str) -> pd.DataFrame:
    """All numbers of one run, long."""
    folder = run.runs_folder() / name
    tables = folder / "tables"
    scores = artifacts.load(folder, "summary")
    halves = pd.read_csv(tables / "halves.csv")
    clinic = pd.read_csv(tables / "clinical.csv").melt(
        "system", var_name="metric"
    )
    card = gap(artifacts.load(folder, "generations"))
    made = artifacts.manifest(folder, "tokenizer") or {"parameters": {}}
    own = [part.assign(protocol="findings", split="r2gen")
           for part in (clinic, card)]
    paired = pd.read_csv(tables / "paired-tests.csv").rename(
        columns={"other": "system"}
    )
    table = pd.concat([scores, halves, *own])
    on = ["system", "metric", "protocol", "split"]
    paired = paired.assign(protocol="r2gen", split="r2gen")
    table = table.merge(paired, how="left", on=on)
    table["run"], table["base"] = name, made["parameters"].get("BASE", "")
    table["n"] = table["n"].fillna(scores["n"].max()).astype(int)
    return table[COLUMNS]


def main(names: list[str]) -> None:
    table = pd.concat([rows(name) for name in names])
    artifacts.write_whole(
        TARGET,
        lambda part: table.to_csv(part, index=False, float_format="%.5g"),
    )
    print(f"{len(table)} rows of {', '.join(names)} in {TARGET.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
