"""Writes figures/data/collapse.csv, the lesson of notebook 04.

The same LoRA on the same prompts of a finished run, over bases that were
pre-trained on different text; greedy reports of all test studies, with their
own and with another study's scores. About 12 minutes on two cores:

    make course && .venv/bin/python tests/bench/log_collapse.py
"""

import tempfile
from pathlib import Path

import logs
import pandas as pd

from llamaxr_utils.course import artifacts, run
from llamaxr_utils.llm import finetune, generate, models

COMMON = {"optim": "adamw_torch_fused", "gradient_checkpointing": False,
          "logging_steps": 200, "train_sampling_strategy": "group_by_length"}
BASE = COMMON | {"per_device_train_batch_size": 8, "learning_rate": 1e-3,
                 "lr_scheduler_type": "cosine", "warmup_steps": 20,
                 "save_strategy": "no"}
ADAPTER = COMMON | {"num_train_epochs": 2, "per_device_train_batch_size": 16,
                    "learning_rate": 5e-4, "warmup_steps": 30,
                    "save_strategy": "epoch"}


def one(kinds: str, folder: Path, epochs: int = 3) -> dict:
    """Pre-train on `kinds`, fine-tune, decode, count."""
    studies = artifacts.load(folder, "studies")
    pairs = artifacts.load(folder, "prompts")
    source = str(artifacts.load(folder, "tokenizer"))
    train = studies[studies["split"].eq("train")]
    corpus = models.pretraining_pairs(train, kinds.split(", "))
    # The same number of reports read, whatever the kind.
    epochs = round(epochs * 3786 / len(corpus))
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        tokenizer = models.load_tokenizer(source)
        model = models.new_llama("small-llama", tokenizer)
        finetune.train(model, tokenizer, corpus.assign(split="train"),
                       home / "a", BASE | {"num_train_epochs": epochs})
        models.save_model(model, tokenizer, home / "base")
        model, tokenizer = finetune.load_in_4bit(str(home / "base"))
        model = finetune.add_lora(model)
        result = finetune.train(model, tokenizer,
                                pairs[pairs["split"].ne("test")],
                                home / "b", ADAPTER, patience=2)
    test = pairs[pairs["split"].eq("test")].reset_index(drop=True)
    own = generate.generate_reports(model, tokenizer, test["prompt"], 64, 120)
    by_prompt = dict(zip(test["prompt"], own["generated"], strict=True))
    donors = test["prompt"].iloc[generate.swap(len(test), 3407)]
    changed = own["generated"].to_numpy() != donors.map(by_prompt).to_numpy()
    return {
        "base pre-trained on": kinds,
        "passes over that text": epochs,
        "validation loss after LoRA": round(result.facts["best_val_loss"], 3),
        "test studies": len(test),
        "distinct reports": own["generated"].nunique(),
        "changed when scores are swapped": round(float(changed.mean()), 3),
    }


if __name__ == "__main__":
    table = pd.DataFrame([one(kinds, run.runs_folder() / "cpu")
                          for kinds in ("bare", "headings, names")])
    logs.write(logs.DATA / "collapse.csv", table)
