"""Writes figures/data/real-runs.csv: finished runs on real X-rays, in numbers.

Needs notebook 06 of each run; trains and scores nothing itself.

    make course IMAGES=real && make course IMAGES=real PROFILE=laptop
    .venv/bin/python tests/bench/log_real_runs.py cpu-real laptop-real
"""

import sys

import logs
import pandas as pd

from llamaxr_utils.course import artifacts, run
from llamaxr_utils.studies import grounding

COLUMNS = ["run", "base", "system", "protocol", "split", "n", "metric",
           "value", "low", "high", "difference", "p_holm"]


def gap(generations: pd.DataFrame) -> pd.DataFrame:
    """Findings F1 under own scores minus that under another study's."""
    tuned = generations.query("model == 'tuned'").set_index("study_id")
    own, other = (tuned[tuned["scores_from"].eq(kind)]
                  for kind in ("own", "shuffled"))
    other = other.loc[own.index, "generated"]
    test = grounding.swap_test(own["reference"], own["generated"], other)
    (row,) = (r for r in test if r["measure"] == grounding.GAP)
    return pd.DataFrame([{**row, "system": "this run", "metric": "gap"}])


def rows(name: str) -> pd.DataFrame:
    """All numbers of one run, long."""
    folder = run.runs_folder() / name
    tables = folder / "tables"
    scores = artifacts.load(folder, "summary")
    clinic = pd.read_csv(tables / "clinical.csv")
    clinic = clinic.melt("system", var_name="metric")
    card = gap(artifacts.load(folder, "generations"))
    base = artifacts.manifest(folder, "tokenizer") or {"parameters": {}}
    own = [part.assign(protocol="findings", split="r2gen")
           for part in (clinic, card)]
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
    table = pd.concat([rows(name) for name in sys.argv[1:]])
    logs.write(logs.DATA / "real-runs.csv", table, "%.5g")
