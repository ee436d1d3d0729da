"""Writes figures/data/collapse.csv, the lesson of notebook 04.

The LoRA of profile ``cpu`` on the prompts of a finished run, over small bases
that were pre-trained on different text, with different seeds: validation
loss, findings F1 and grounding gap of the base alone and after fine-tuning,
on all test studies, greedy. A finished row is not computed again. About 20
minutes a base on two cores:

    make course && .venv/bin/python tests/bench/log_collapse.py
"""

import tempfile
from pathlib import Path

import logs
import pandas as pd

from llamaxr_utils.course import artifacts, run
from llamaxr_utils.llm import finetune, generate, models
from llamaxr_utils.studies import grounding

KNOBS = {name: run.knob_value("04_finetune_qlora", name, "cpu")
         for name in run.knob_table("04_finetune_qlora")}
COMMON = {"optim": "adamw_torch_fused", "gradient_checkpointing": False,
          "logging_steps": 100, "train_sampling_strategy": "group_by_length"}
BASE = COMMON | {"per_device_train_batch_size": 8, "learning_rate": 1e-3,
                 "lr_scheduler_type": "cosine", "warmup_steps": 20,
                 "save_strategy": "no"}
ADAPTER = COMMON | {
    "num_train_epochs": KNOBS["EPOCHS"], "weight_decay": 0.01,
    "per_device_train_batch_size": KNOBS["BATCH_SIZE"],
    "per_device_eval_batch_size": 2 * KNOBS["BATCH_SIZE"],
    "learning_rate": KNOBS["LEARNING_RATE"], "lr_scheduler_type": "linear",
    "warmup_steps": KNOBS["WARMUP_STEPS"], "eval_strategy": "steps",
    "eval_steps": 0.25, "eval_on_start": True, "save_strategy": "steps",
    "save_steps": 0.25}
#: What the base has read, and the seed of base and adapter.
RUNS = [("headings", 3407), ("headings", 1), ("headings", 2), ("bare", 3407)]


def pretrained(kinds: str, seed: int, folder: Path, home: Path) -> str:
    """A small Llama that has read `kinds`; as many reports, whatever kind."""
    studies = artifacts.load(folder, "studies")
    train = studies[studies["split"].eq("train")]
    usual, corpus = (models.pretraining_pairs(train, kind.split(", "))
                     for kind in (KNOBS["PRETRAIN_ON"], kinds))
    epochs = round(KNOBS["PRETRAIN_EPOCHS"] * len(usual) / len(corpus))
    tokenizer = models.load_tokenizer(str(artifacts.load(folder, "tokenizer")))
    model = models.new_llama("small-llama", tokenizer, seed)
    finetune.train(model, tokenizer, corpus.assign(split="train"), home / "a",
                   BASE | {"num_train_epochs": epochs, "seed": seed})
    models.save_model(model, tokenizer, home / "base")
    return str(home / "base")


def measured(model, tokenizer, test: pd.DataFrame) -> dict:
    """Greedy reports, and what they owe to the scores."""
    own = generate.generate_reports(model, tokenizer, test["prompt"], 64, 120)
    texts = list(own["generated"])
    rows = pd.DataFrame(grounding.all_swaps(
        list(test["completion"]), texts)).set_index("measure")
    gap = rows.loc[grounding.GAP]
    return {"test studies": len(test),
            "findings F1": rows.loc["findings F1, own", "value"],
            "grounding gap": gap["value"], "gap from": gap["low"],
            "gap to": gap["high"], "distinct reports": len(set(texts))}


def one(kinds: str, seed: int, folder: Path) -> list[dict]:
    """Pre-train, fine-tune, decode: the base alone, then with its LoRA."""
    pairs = artifacts.load(folder, "prompts")
    test = pairs[pairs["split"].eq("test")].reset_index(drop=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = pretrained(kinds, seed, folder, Path(scratch))
        model, tokenizer = finetune.load_in_4bit(source)
        model = finetune.add_lora(model, KNOBS["RANK"], KNOBS["ALPHA"],
                                  seed=seed)
        alone = measured(model, tokenizer, test)  # LoRA starts at zero
        log = finetune.train(model, tokenizer, pairs[pairs["split"] != "test"],
                             Path(scratch, "b"), ADAPTER | {"seed": seed},
                             patience=KNOBS["PATIENCE"]).log
    loss = log.loc[log["split"].eq("val"), "loss"]
    head = {"base pre-trained on": kinds, "seed": seed}
    return [head | {"model": who, "validation loss": nats} | numbers
            for who, nats, numbers in (
                ("base", loss.iloc[0], alone),
                ("tuned", loss.min(), measured(model, tokenizer, test)))]


if __name__ == "__main__":
    file, folder = logs.DATA / "collapse.csv", run.runs_folder() / "cpu"
    for kinds, seed in RUNS:
        table = logs.read(file)
        done = table.get("seed", pd.Series(dtype=int)).eq(seed) & table.get(
            "base pre-trained on", pd.Series(dtype=str)).eq(kinds)
        if not done.any():
            rows = pd.DataFrame(one(kinds, seed, folder))
            logs.write(file, pd.concat([table, rows]), "%.4f")
