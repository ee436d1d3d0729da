"""Several processes train as one does; one of them writes."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from test_models import PROMPTS, SENTENCES, tiny_base, tiny_tokenizer

from llamaxr_utils.course import artifacts
from llamaxr_utils.llm import finetune

#: Six updates of 8. Where they do not divide, the last update of an epoch
#: repeats a few studies on several processes, and the losses drift apart.
#: Validation batches are weighted by tokens at the same time, by rows in turn.
N_TRAIN, N_VAL = 48, 24
SETTINGS = dict(
    num_train_epochs=3, per_device_train_batch_size=4,
    gradient_accumulation_steps=2, learning_rate=1e-2, warmup_steps=2,
    per_device_eval_batch_size=2, logging_steps=1, eval_strategy="steps",
    eval_steps=5, save_strategy="steps", save_steps=5, seed=3,
    optim="adamw_torch", train_sampling_strategy="group_by_length",
    gradient_checkpointing=True)  # as on a GPU


def studies():
    words, rows = [*SENTENCES], []
    for i in range(N_TRAIN + N_VAL):
        word, more = words[i % 6], words[(i // 6) % 6]
        findings = SENTENCES[word] + (f" {SENTENCES[more]}" if i % 3 else "")
        split = "train" if i < N_TRAIN else "val"
        rows.append((f"CXR{i + 1}", split, PROMPTS[word], findings, [word]))
    return pd.DataFrame(rows, columns=[
        "study_id", "split", "prompt", "completion", "mesh"])


def train(place):
    model, tokenizer = finetune.load_in_4bit(str(place / "base"))
    return finetune.train(finetune.add_lora(model), tokenizer, studies(),
                          place / "checkpoints", SETTINGS, patience=9)


def launch_two(arguments, cwd):
    """What `accelerate launch` printed for two CPU processes."""
    # Its --cpu would start one process; without a GPU --multi_gpu uses gloo.
    # Port 0 is one that is free.
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
         *("--num_processes 2 --num_machines 1 --main_process_port 0 "
           "--mixed_precision no --dynamo_backend no").split(), *arguments],
        capture_output=True, text=True, check=False, timeout=240, cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-999:] + done.stderr[-3000:]
    return done.stdout


def test_two_processes_have_the_losses_of_one(tmp_path):
    tiny_base(tmp_path / "base")
    launch_two([__file__, str(tmp_path)], tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    two = pd.read_csv(tmp_path / "2-0.csv")
    one = train(tmp_path).log
    assert one[["step", "split"]].equals(two[["step", "split"]])
    assert one["loss"].iloc[0] - one["loss"].iloc[-1] > 0.3
    assert (one["loss"] - two["loss"]).abs().max() < 1e-2


def test_notebook_04_on_two_processes_has_one_writer(folders, tmp_path):
    """After what notebooks 01 and 03 leave."""
    from conftest import hand_over  # not where this file is the script
    laptop = folders / "laptop"
    # A stand-in for the published base.
    tiny_base(tmp_path / "data" / "models" / "SmolLM2-135M")
    table = studies().assign(n_prompt_tokens=0)
    hand_over(laptop, table.assign(findings=table["completion"]),
              tiny_tokenizer().save_pretrained, "smollm2-135m",
              SCORE_FORMAT="names")
    before = {p.name: artifacts.sha256(p) for p in laptop.iterdir()}
    printed = launch_two(["-m", "llamaxr_utils.llm.finetune",
                          "--profile", "laptop"], tmp_path)
    assert printed.count("[1/1] 04_finetune_qlora: ran") == 1
    for name in ("adapter", "training_log"):
        assert artifacts.stale_because(laptop, name) is None
    after = {p.name: artifacts.sha256(p) for p in laptop.iterdir()}
    assert before.items() <= after.items()
    facts = pd.read_csv(laptop / "tables" / "training.csv", index_col="fact")
    assert facts.loc["processes", "this run"] == "2"
    assert facts.loc["steps", "this run"] == str(N_TRAIN // 8)


if __name__ == "__main__":  # one of several processes
    import torch

    torch.set_num_threads(1)
    result = train(Path(sys.argv[1]))
    name = f"{result.facts['processes']}-{os.environ['RANK']}.csv"
    result.log.to_csv(Path(sys.argv[1]) / name, index=False)
