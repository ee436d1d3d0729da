"""Writes figures/data/growth.csv: seconds and peak memory of what all studies
pass through, synthetic ones (the collection's texts, random scores):

    .venv/bin/python tests/bench/log_growth.py
"""

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

SIZES, FILE = (4_000, 40_000, 400_000), logs.DATA / "growth.csv"


def measure(n: int) -> None:
    rng = np.random.default_rng(n)
    known = reports.load_studies().query("findings != ''")
    studies = known.iloc[rng.integers(0, len(known), n)].reset_index(drop=True)
    truth = list(studies["findings"])
    texts = [truth[i] for i in rng.permutation(n)]
    ids = [f"S{i}" for i in range(n)]
    table = pd.DataFrame(rng.random((2 * n, 18)), columns=CONDITIONS)
    scores = prompts.by_study(table.assign(
        study_id=np.repeat(ids, 2), view=list(VIEWS) * n))
    values = scores.to_numpy().reshape(n, 2, 18)
    half = pd.Series(0.5, CONDITIONS)
    stages = {
        "labels and operating points": lambda: prompts.operating_points(
            scores, mesh.label_table(studies).set_axis(ids), 1.0),
        "prompts": lambda: [prompts.build_prompt(pd.DataFrame(
            one, list(VIEWS), CONDITIONS), "names", half) for one in values],
        "BLEU, ROUGE-L, CIDEr": lambda: metrics.score_reports(
            truth, texts, "r2gen", meteor=False),
        "an interval": lambda: stats.bootstrap_interval(rng.random(n)),
        "findings": lambda: clinical.finding_counts(truth, texts),
        "grounding gap": lambda: grounding.all_swaps(truth, texts)}
    for name, work in stages.items():
        began = time.perf_counter()
        work()
        spent = round(time.perf_counter() - began, 2)
        row = {"stage": name, "studies": n, "seconds": spent,
               "peak_gb": machine.peak_memory_gb()}
        logs.write(FILE, pd.concat([logs.read(FILE), pd.DataFrame([row])]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
    else:
        FILE.unlink(missing_ok=True)
        for size in SIZES:
            subprocess.run([sys.executable, __file__, str(size)], check=True)
