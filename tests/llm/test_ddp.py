"""Several processes train as one does; one of them writes."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pandas as pd
import pytest
from conftest import hand_over
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


def one_of_two(place, rank, port):
    """`train` with the variables that `accelerate launch` sets."""
    import torch
    from accelerate.state import AcceleratorState

    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                       MASTER_ADDR="localhost", MASTER_PORT=str(port))
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    result = train(place)
    assert result.facts["processes"] == 2
    return result.log


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_two_processes_have_the_losses_of_one(tmp_path):
    tiny_base(tmp_path / "base")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        two, _ = pool.map(one_of_two, [tmp_path] * 2, (0, 1), [port] * 2)
    assert not (tmp_path / "checkpoints").exists()
    one = train(tmp_path).log
    assert one[["step", "split"]].equals(two[["step", "split"]])
    assert one["loss"].iloc[0] - one["loss"].iloc[-1] > 0.3
    assert (one["loss"] - two["loss"]).abs().max() < 1e-2


def test_notebook_04_on_two_processes_has_one_writer(folders, tmp_path):
    """After what notebooks 01 and 03 leave."""
    laptop = folders / "laptop"
    # A stand-in for the published base.
    tiny_base(tmp_path / "data" / "models" / "SmolLM2-135M")
    table = studies().assign(n_prompt_tokens=0)
    hand_over(laptop, table.assign(findings=table["completion"]),
              tiny_tokenizer().save_pretrained, "smollm2-135m",
              SCORE_FORMAT="names")
    before = {p.name: artifacts.sha256(p) for p in laptop.iterdir()}
    # Without a GPU --multi_gpu uses gloo. Port 0 is one that is free.
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
         *("--num_processes 2 --num_machines 1 --main_process_port 0 "
           "--mixed_precision no --dynamo_backend no -m "
           "llamaxr_utils.llm.finetune --profile laptop").split()],
        capture_output=True, text=True, check=False, timeout=240,
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-999:] + done.stderr[-3000:]
    assert done.stdout.count("[1/1] 04_finetune_qlora: ran") == 1
    for name in ("adapter", "training_log"):
        assert artifacts.stale_because(laptop, name) is None
    after = {p.name: artifacts.sha256(p) for p in laptop.iterdir()}
    assert before.items() <= after.items()
    facts = pd.read_csv(laptop / "tables" / "training.csv", index_col="fact")
    assert facts.loc["processes", "this run"] == "2"
    assert facts.loc["steps", "this run"] == str(N_TRAIN // 8)
