"""Several processes train as one does; one of them writes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from test_models import SENTENCES, tiny_base

from llamaxr_utils.course import artifacts, run
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import finetune, launch
from llamaxr_utils.llm.prompts import SHORT_TEMPLATE

#: Six updates of 8. Where they do not divide, the last update of an epoch
#: repeats a few studies on several processes, and the losses drift apart.
#: Validation batches that are computed at the same time are weighted by their
#: tokens, one after the other by their rows: short ones, so that neighbours
#: in the order by length are alike.
N_TRAIN, N_VAL = 48, 24
SETTINGS = dict(
    num_train_epochs=4, per_device_train_batch_size=4,
    gradient_accumulation_steps=2, learning_rate=1e-2, warmup_steps=2,
    per_device_eval_batch_size=2, logging_steps=1, eval_strategy="steps",
    eval_steps=5, save_strategy="steps", save_steps=5, seed=3,
    optim="adamw_torch", train_sampling_strategy="group_by_length",
    gradient_checkpointing=True,  # as on a GPU
)
TRAIN = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pandas as pd, torch
torch.set_num_threads(1)
import test_ddp
place = Path(sys.argv[2])
result = test_ddp.train(place, pd.read_csv(place / "pairs.csv"))
if result.facts["processes"] == 1 or torch.distributed.get_rank() == 0:
    result.log.to_csv(sys.argv[3], index=False)
    print("FACTS", json.dumps(result.facts))
"""


def studies():
    """Prompts and reports of our own sentences, short and long."""
    words, rows = [*SENTENCES], []
    for i in range(N_TRAIN + N_VAL):
        word, more = words[i % 6], words[(i // 6) % 6]
        findings = SENTENCES[word] + (f" {SENTENCES[more]}" if i % 3 else "")
        prompt = SHORT_TEMPLATE.format(input=word)
        split = "train" if i < N_TRAIN else "val"
        rows.append((f"CXR{i + 1}", split, prompt, findings, [word]))
    columns = ["study_id", "split", "prompt", "completion", "mesh"]
    return pd.DataFrame(rows, columns=columns)


def train(place, pairs):
    model, tokenizer = finetune.load_in_4bit(str(place / "base"))
    model = finetune.add_lora(model)
    return finetune.train(
        model, tokenizer, pairs, place / "checkpoints", SETTINGS, patience=9
    )


def launched(processes, arguments, cwd, **variables):
    """What `accelerate launch` printed for so many CPU processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    # Its --cpu would start one process; without a GPU this one uses gloo.
    command += ["--multi_gpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--main_process_port", port]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False,
        timeout=240, cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )


def test_two_processes_have_the_losses_of_one(tmp_path):
    tiny_base(tmp_path / "base")
    studies().to_csv(tmp_path / "pairs.csv", index=False)
    (tmp_path / "train.py").write_text(TRAIN)
    here = str(Path(__file__).parent)
    arguments = [str(tmp_path / "train.py"), here, str(tmp_path)]
    done = launched(2, [*arguments, str(tmp_path / "two.csv")], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"processes": 2' in done.stdout
    assert not (tmp_path / "checkpoints").exists()
    two = pd.read_csv(tmp_path / "two.csv")
    one = train(tmp_path, studies()).log
    assert one[["step", "split"]].equals(two[["step", "split"]])
    assert one["loss"].iloc[0] - one["loss"].iloc[-1] > 0.3
    furthest = (one["loss"] - two["loss"]).abs().max()
    print(f"{furthest:.1e} apart, {one['loss'].iloc[[0, -1]].tolist()}")
    assert furthest < 1e-2


@pytest.mark.parametrize(
    ("batch", "steps", "processes", "shared"),
    [(8, 4, 1, (8, 4)), (8, 4, 2, (8, 2)), (8, 4, 8, (4, 1)),
     (8, 4, 32, (1, 1)), (16, 1, 2, (8, 1)), (6, 2, 4, (3, 1))],
)
def test_an_update_sees_as_many_studies(batch, steps, processes, shared):
    args = SimpleNamespace(
        per_device_train_batch_size=batch, gradient_accumulation_steps=steps
    )
    finetune.share_batch(args, processes)
    assert (args.per_device_train_batch_size,
            args.gradient_accumulation_steps) == shared


@pytest.mark.parametrize(("batch", "steps", "n"), [(8, 4, 3), (1, 4, 8)])
def test_what_cannot_be_shared_is_said(batch, steps, n):
    args = SimpleNamespace(
        per_device_train_batch_size=batch, gradient_accumulation_steps=steps
    )
    with pytest.raises(CourseError, match=f"{n} processes"):
        finetune.share_batch(args, n)


# --- notebook 04 ------------------------------------------------------------


@pytest.fixture
def smoke(tmp_path):
    """Runs folder with what notebooks 01 and 03 leave, and a base."""
    folder, table = tmp_path / "runs" / "smoke", studies()
    blank = dict.fromkeys(artifacts.ARTIFACTS["studies"].columns, "")
    knobs = {
        knob: run.knob_value("04_finetune_qlora", knob, "smoke")
        for knob in run.knob_table("04_finetune_qlora")
    }
    made = Path(tiny_base(tmp_path / "base"))

    def save(name, value, inputs=(), **parameters):
        artifacts.save(
            folder, name, value, writer=artifacts.ARTIFACTS[name].writer,
            inputs=inputs, parameters=parameters,
        )

    known = table[["study_id", "split", "mesh"]]
    save("studies", pd.DataFrame([blank] * len(table)).assign(
        **known, findings=table["completion"]), SPLIT="r2gen")
    save("tokenizer", lambda to: shutil.copytree(made, to), ["studies"],
         BASE="random-llama")
    save("prompts", table.assign(n_prompt_tokens=0, score_format="names"),
         ["studies", "tokenizer"], SCORE_FORMAT="names")
    save("base_model", lambda to: shutil.copytree(made, to),
         ["studies", "tokenizer"], images="phantom", **knobs)
    return folder


COMMAND = ["-m", "llamaxr_utils.llm.launch", "--profile", "smoke"]


def test_notebook_04_on_two_processes_has_one_writer(smoke, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    before = {p.name: artifacts.sha256(p) for p in smoke.iterdir()}
    done = launched(2, COMMAND, tmp_path, LLAMAXR_RUNS=str(smoke.parent),
                    TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout[-999:] + done.stderr[-3000:]
    assert done.stdout.count("[1/1] 04_finetune_qlora: ran") == 1
    assert not list(temporary.glob("llamaxr*"))
    for name in ("adapter", "training_log"):
        assert artifacts.stale_because(smoke, name) is None
    after = {p.name: artifacts.sha256(p) for p in smoke.iterdir()}
    assert before.items() <= after.items()
    assert set(after) - set(before) == {
        "adapter", "adapter.json", "figures", "notebooks", "records",
        "tables", "training_log.csv", "training_log.json",
    }
    facts = pd.read_csv(smoke / "tables" / "training.csv", index_col="fact")
    assert facts.loc["processes", "this run"] == "2"
    assert facts.loc["steps", "this run"] == str(N_TRAIN // 4)


def test_a_base_made_here_is_made_by_one_process(smoke, monkeypatch, capsys):
    monkeypatch.setenv("LLAMAXR_RUNS", str(smoke.parent))
    shutil.rmtree(smoke / "base_model")
    assert launch.main(["--profile", "smoke"]) == 1
    assert "make course TO=04" in capsys.readouterr().out
