"""Trainings that are stopped, by Ctrl-C, SIGKILL or a full disk, go on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from test_finetune import (
    OTHER,
    fresh,
    furthest,
    loss_on,
    make_pairs,
    train,
    trained_weights,
)
from test_models import tiny_base

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import finetune, models

pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def ctrl_c_at(step):
    """Ctrl-C when a training reaches a step."""
    progress = finetune._progress

    def interrupting():
        callback = progress()

        def on_step_end(args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

        callback.on_step_end = on_step_end
        return callback

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "_progress", interrupting)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.fixture(scope="module")
def whole(base, pairs, tmp_path_factory):
    """A training that nothing interrupted: its model and result."""
    return train(base, pairs, tmp_path_factory.mktemp("whole"), patience=2)


@pytest.fixture(scope="module")
def broken_run(base, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken") / "checkpoints"
    with ctrl_c_at(8):
        train(base, pairs, folder, patience=2)
    return folder


@pytest.fixture
def broken(broken_run, tmp_path):
    """A copy of what a training left that was interrupted in step 8."""
    return shutil.copytree(broken_run, tmp_path / "checkpoints")


# --- Ctrl-C ------------------------------------------------------------------


def same_losses(result, other):
    pd.testing.assert_series_equal(
        result.log["loss"], other.log["loss"], atol=1e-4, rtol=0
    )


def test_an_interrupted_training_resumes_and_ends_the_same(
    base, pairs, whole, broken, capsys
):
    model, resumed = train(base, pairs, broken, patience=2)
    assert "Resuming from checkpoint-6" in capsys.readouterr().out
    assert resumed.facts["resumed"] is True
    assert whole[1].facts["resumed"] is False
    there = trained_weights(whole[0])
    assert furthest(there, trained_weights(model)) < 1e-4
    same_losses(resumed, whole[1])
    assert resumed.facts["best_val_loss"] == pytest.approx(
        whole[1].facts["best_val_loss"], abs=1e-4
    )
    assert not broken.exists()


def test_ctrl_c_and_the_same_cell_again(base, pairs, tmp_path, whole):
    """In a notebook the model of the broken run is still the same object."""
    model = fresh(base)
    with ctrl_c_at(8):
        train(base, pairs, tmp_path, patience=2, model=model)
    _, resumed = train(base, pairs, tmp_path, patience=2, model=model)
    assert resumed.facts["resumed"] is True
    same_losses(resumed, whole[1])


def test_an_8_bit_optimizer_resumes_too(base, pairs, tmp_path):
    tokenizer = models.load_tokenizer(base)

    def run(folder):
        model = models.new_llama("random-llama", tokenizer, seed=1)
        return train(base, pairs, folder, model=(model, tokenizer),
                     optim="adamw_8bit")

    there, uninterrupted = run(tmp_path / "a")
    with ctrl_c_at(8):
        run(tmp_path / "b")
    model, resumed = run(tmp_path / "b")
    assert resumed.facts["resumed"] is True
    assert furthest(trained_weights(there), trained_weights(model)) < 1e-3
    same_losses(resumed, uninterrupted)


def test_a_resumed_training_keeps_its_patience(base, pairs, tmp_path):
    """Evaluations without progress before the kill count, too."""
    settings = dict(patience=2, num_train_epochs=40)
    _, uninterrupted = train(base, pairs, tmp_path / "a", **settings)
    facts = uninterrupted.facts
    with ctrl_c_at(facts["steps"] - 1):  # one bad evaluation was seen
        train(base, pairs, tmp_path / "b", **settings)
    model, resumed = train(base, pairs, tmp_path / "b", **settings)
    assert resumed.facts["resumed"] is True
    for fact in ("steps", "best_checkpoint"):
        assert resumed.facts[fact] == facts[fact]
    tokenizer = models.load_tokenizer(base)
    assert loss_on(model, tokenizer, pairs) == pytest.approx(
        facts["best_val_loss"], abs=2e-3
    )


@pytest.mark.parametrize(
    "change",
    ["nothing", "settings", "texts", "loss", "rank", "alpha", "base"],
)
def test_checkpoints_of_another_run_are_thrown_away(
    base, pairs, tmp_path, broken, monkeypatch, change
):
    import trl

    asked = []

    def only_ask(self, resume_from_checkpoint):
        asked.append(resume_from_checkpoint)
        raise KeyboardInterrupt

    monkeypatch.setattr(trl.SFTTrainer, "train", only_ask)
    model, texts, on, settings = fresh(base), pairs, "completion", {}
    if change == "settings":
        settings = {"learning_rate": 1e-3}
    elif change == "texts":
        texts = pairs.replace({"completion": {OTHER: "Other words."}})
    elif change == "loss":
        on = "all"
    elif change == "rank":
        model = fresh(base, rank=8)
    elif change == "alpha":
        model = fresh(base, alpha=32)
    elif change == "base":
        model = fresh(tiny_base(tmp_path / "another", seed=2))
    with pytest.raises(KeyboardInterrupt):
        train(base, texts, broken, 2, model, on, **settings)
    if change == "nothing":
        assert asked[0].endswith("checkpoint-6")
    else:
        assert asked == [None]
        assert not list(broken.glob("checkpoint-*"))


@pytest.mark.parametrize("rest", ["", '{"epoch": 2.0, "global', "not json"])
def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    base, pairs, whole, broken, capsys, rest
):
    (broken / "checkpoint-6" / "trainer_state.json").write_text(rest)
    if rest:
        assert finetune.last_checkpoint(broken).name == "checkpoint-3"
        return
    _, result = train(base, pairs, broken, patience=2)
    assert "Resuming from checkpoint-3" in capsys.readouterr().out
    same_losses(result, whole[1])


# --- SIGKILL ----------------------------------------------------------------

EVERY = 4  # steps a checkpoint; an epoch has three
#: What a resumed training has to find again: its place within an epoch,
#: the learning rate, the random numbers of dropout.
LONG = dict(
    num_train_epochs=4, warmup_steps=2,
    train_sampling_strategy="group_by_length",
    save_strategy="steps", save_steps=EVERY,
    eval_strategy="steps", eval_steps=EVERY,
)
#: Seed and step in which the process dies: three die at a random step after
#: the first checkpoint, and one before it.
DEATHS = [(s, random.Random(s).randint(EVERY + 1, 12)) for s in (1, 2, 3)]
DEATHS += [(1, EVERY - 1)]
#: One dies while it writes the checkpoint of this step.
WRITING = (2, 2 * EVERY)


def long_run(base, pairs, folder, seed):
    model, tokenizer = finetune.load_in_4bit(base)
    model = finetune.add_lora(model, dropout=0.1, seed=seed)
    return train(base, pairs, folder, 12, (model, tokenizer), seed=seed,
                 **LONG)


def die(base, home, seed, step, writing):
    """`long_run`, killed between the gradients and the update of a step, or
    before the last file of its checkpoint is written."""
    from transformers import TrainerCallback, TrainerState

    def kill_in(at):
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    class Killer(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            kill_in(state.global_step + 1)

    save = TrainerState.save_to_json
    if writing:
        TrainerState.save_to_json = lambda state, file: (
            kill_in(state.global_step), save(state, file)
        )
    else:
        finetune._progress = Killer
    long_run(base, make_pairs(), Path(home) / f"{seed}-{step}", seed)


#: One process imports what takes long; its children train and are killed.
PARENT = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import test_resume
import bitsandbytes, peft, torch, transformers, trl
torch.set_num_threads(1)
for job in json.loads(sys.argv[2]):
    child = os.fork()
    if child == 0:
        test_resume.die(**job)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def killed(base, tmp_path_factory):
    """Folders of the checkpoints that killed trainings left."""
    if not hasattr(os, "fork"):
        pytest.skip("SIGKILL: this system has no such signal")
    home = tmp_path_factory.mktemp("killed")
    jobs = [
        dict(base=base, home=str(home), seed=seed, step=step,
             writing=(seed, step) == WRITING)
        for seed, step in (*DEATHS, WRITING)
    ]
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(Path(__file__).parent),
         json.dumps(jobs)],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    codes = [line for line in done.stdout.splitlines() if line == "-9"]
    assert len(codes) == len(jobs), done.stderr[-3000:]
    return home


@pytest.fixture(scope="module")
def unharmed(base, pairs, tmp_path_factory):
    """The same trainings to their end, by seed."""
    return {
        seed: long_run(base, pairs, tmp_path_factory.mktemp("whole"), seed)
        for seed in (1, 2, 3)
    }


@pytest.mark.parametrize(("seed", "step"), [*DEATHS, WRITING])
def test_after_sigkill_the_same_call_ends_with_the_same_loss(
    base, pairs, killed, unharmed, capsys, seed, step
):
    import torch
    from safetensors.torch import load_file

    folder = killed / f"{seed}-{step}"
    last = finetune.last_checkpoint(folder)
    whole_steps = range(EVERY, step, EVERY)  # of complete checkpoints
    if not whole_steps:
        assert last is None
        assert not list(folder.glob("checkpoint-*"))
    else:
        assert last.name == f"checkpoint-{whole_steps[-1]}"
        for left in folder.glob("checkpoint-*"):
            assert load_file(left / "adapter_model.safetensors")
            assert torch.load(left / "optimizer.pt")
    model, resumed = long_run(base, pairs, folder, seed)
    model_there, there = unharmed[seed]
    assert resumed.facts["resumed"] is bool(whole_steps)
    assert (f"Resuming from {last.name}" if last else "") in (
        capsys.readouterr().out
    )
    same_losses(resumed, there)
    assert resumed.facts["steps"] == there.facts["steps"] == 12
    assert resumed.facts["best_val_loss"] == pytest.approx(
        there.facts["best_val_loss"], abs=1e-3
    )
    assert furthest(trained_weights(model), trained_weights(model_there)) < (
        1e-4
    )
    tokenizer = models.load_tokenizer(base)
    assert loss_on(model, tokenizer, pairs) == pytest.approx(
        loss_on(model_there, tokenizer, pairs), abs=1e-3
    )
    assert not folder.exists()


# --- a full disk ------------------------------------------------------------


FULL = {
    "torch": "[enforce fail at inline_container.cc:672] . unexpected pos 64",
    "safetensors": (
        "Error while serializing: I/O error: No space left on device "
        "(os error 28)"
    ),
}


@pytest.mark.parametrize("library", FULL)
def test_a_full_disk_in_training_is_said_and_the_same_call_continues(
    base, pairs, whole, tmp_path, monkeypatch, library
):
    """The words of torch and safetensors on a disk that was full."""
    from transformers import Trainer

    save, calls = Trainer._save_checkpoint, []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            (tmp_path / f"checkpoint-{self.state.global_step}").mkdir()
            raise RuntimeError(FULL[library])
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_save_checkpoint", full)
    with pytest.raises(CourseError) as caught:
        train(base, pairs, tmp_path, patience=2)
    assert "No space left" in caught.value.why
    assert "the same command continues" in caught.value.do
    monkeypatch.undo()
    if library == "torch":
        _, result = train(base, pairs, tmp_path, patience=2)
        assert result.facts["resumed"] is True
        same_losses(result, whole[1])
    else:
        last = finetune.last_checkpoint(tmp_path)
        assert last.name == "checkpoint-3"


@pytest.mark.parametrize("kind", ["*.safetensors", "optimizer.pt", "rng*"])
def test_cut_weights_fall_back_to_the_checkpoint_before(broken, kind):
    """As after a power cut: the list of steps is whole, another file not."""
    (file,) = (broken / "checkpoint-6").glob(kind)
    with file.open("rb+") as handle:
        handle.truncate(file.stat().st_size // 2)
    assert finetune.last_checkpoint(broken).name == "checkpoint-3"
    assert not (broken / "checkpoint-6").exists()
