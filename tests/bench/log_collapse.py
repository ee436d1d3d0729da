"""Writes figures/data/collapse.csv, the lesson of notebook 04: each base of
figures/collapse.yaml alone and with its LoRA, on all test studies, greedy:

    .venv/bin/python tests/bench/log_collapse.py
"""

import sys

import logs
import pandas as pd

from llamaxr_utils.course import artifacts, run
from llamaxr_utils.llm import finetune, generate
from llamaxr_utils.studies import grounding, sweep

GRID = run.project_folder() / "figures" / "collapse.yaml"


def both(folder) -> list[dict]:
    """A finished run: its base alone, decoded here, and with its adapter."""
    tuned = artifacts.load(folder, "generations").query(
        "model == 'tuned' and scores_from == 'own'")
    prompts = artifacts.load(folder, "prompts").set_index("study_id")["prompt"]
    base, tokenizer = finetune.load_in_4bit(
        str(artifacts.load(folder, "base_model")))
    alone = generate.generate_reports(
        base, tokenizer, list(prompts[tuned["study_id"]]), 64, 120)
    log = artifacts.load(folder, "training_log").query("split == 'val'")
    lines = []
    for who, loss, texts in (
            ("base", log["loss"].iloc[0], list(alone["generated"])),
            ("tuned", log["loss"].min(), list(tuned["generated"]))):
        _, own, _, gap = grounding.all_swaps(list(tuned["reference"]), texts)
        lines.append({
            "model": who, "validation loss": loss, "test studies": len(texts),
            "findings F1": own["value"], "grounding gap": gap["value"],
            "gap from": gap["low"], "gap to": gap["high"],
            "distinct reports": len(set(texts))})
    return lines


if __name__ == "__main__":
    runs = sweep.sweep(*sys.argv[1:] or [GRID])
    rows = [{"base pre-trained on": row.point, "seed": row.seed} | line
            for row in runs.itertuples()
            for line in both(sweep.home(row.node) / row.run)]
    logs.write(logs.DATA / "collapse.csv", pd.DataFrame(rows), "%.4f")
