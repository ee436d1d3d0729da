"""Writes figures/data/growth.csv: seconds and peak memory of what every study
passes through, for 4,000, 40,000 and 400,000 synthetic studies, each size in
a process of its own. About ten minutes on one core:

    .venv/bin/python tests/bench/log_growth.py

A synthetic study has the report and headings of one drawn from the
collection, scores drawn at random, and as its generated report another's.
"""

import json
import subprocess
import sys
import time

import logs
import numpy as np
import pandas as pd

from llamaxr_utils.course import machine
from llamaxr_utils.datasets import mesh, reports
from llamaxr_utils.datasets.conditions import CONDITIONS, VIEWS
from llamaxr_utils.evaluation import clinical, metrics, stats
from llamaxr_utils.llm import prompts
from llamaxr_utils.studies import grounding

SIZES = (4_000, 40_000, 400_000)


def synthetic(n: int) -> tuple[pd.DataFrame, prompts.Scores]:
    """Studies and scores."""
    rng = np.random.default_rng(n)
    known = reports.load_studies().query("findings != ''")
    studies = known.iloc[rng.integers(0, len(known), n)].reset_index(drop=True)
    studies["study_id"] = [f"S{i}" for i in range(n)]
    studies["generated"] = studies["findings"].iloc[rng.permutation(n)].array
    table = pd.DataFrame(rng.random((2 * n, 18)), columns=CONDITIONS)
    table.insert(0, "study_id", np.repeat(studies["study_id"], 2).array)
    table.insert(1, "view", list(VIEWS) * n)
    return studies, prompts.by_study(table)


def measure(n: int) -> list[dict]:
    """A row a stage: seconds of this stage, memory at its peak so far."""
    rows, began = [], time.perf_counter()

    def stage(name):
        nonlocal began
        rows.append({"stage": name, "studies": n,
                     "seconds": round(time.perf_counter() - began, 2),
                     "peak_gb": machine.peak_memory_gb()})
        began = time.perf_counter()

    studies, scores = synthetic(n)
    stage("studies and scores")
    labels = pd.DataFrame([mesh.labels(m) for m in studies["mesh"]],
                          index=studies["study_id"])
    points = prompts.operating_points(scores, labels, 1.0)
    stage("labels and operating points")
    threshold = points.set_index("condition")["operating_point"]
    values = scores.to_numpy().reshape(n, 2, 18)
    for one in values:
        frame = pd.DataFrame(one, index=list(VIEWS), columns=CONDITIONS)
        prompts.build_prompt(frame, "names", threshold)
    stage("prompts")
    truth, texts = list(studies["findings"]), list(studies["generated"])
    scored = metrics.score_reports(truth, texts, "r2gen", meteor=False)
    stage("BLEU, ROUGE-L, CIDEr")
    stats.bootstrap_interval(scored["per_report"]["ROUGE-L"])
    stage("an interval")
    clinical.finding_counts(truth, texts)
    stage("findings")
    grounding.all_swaps(truth, texts)
    stage("grounding gap")
    return rows


def main() -> None:
    table = []
    for n in SIZES:
        done = subprocess.run([sys.executable, __file__, str(n)], check=True,
                              stdout=subprocess.PIPE, text=True)
        table += json.loads(done.stdout.splitlines()[-1])
        logs.write(logs.DATA / "growth.csv", pd.DataFrame(table))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
