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


def at_step(event, step, act):
    """A callback of the trainer that acts at an event of a step."""
    from transformers import TrainerCallback

    class AtStep(TrainerCallback):
        pass

    def on_event(self, args, state, control, **kwargs):
        if state.global_step == step:
            act()

    setattr(AtStep, event, on_event)
    return AtStep


def ctrl_c():
    raise KeyboardInterrupt


@contextmanager
def ctrl_c_at(step):
    from transformers import trainer

    trainer.DEFAULT_CALLBACKS.append(at_step("on_step_end", step, ctrl_c))
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        trainer.DEFAULT_CALLBACKS.pop()


@pytest.fixture(scope="module")
def whole(base, pairs, tmp_path_factory):
    """A training that nothing interrupted: its model and result."""
    return train(base, pairs, tmp_path_factory.mktemp("whole"), patience=2)


@pytest.fixture(scope="module")
def broken_run(base, pairs, tmp_path_factory):
    """What a training left that was interrupted in step 8; its model."""
    folder = tmp_path_factory.mktemp("broken") / "checkpoints"
    model = fresh(base)
    with ctrl_c_at(8):
        train(base, pairs, folder, patience=2, model=model)
    return folder, model


@pytest.fixture
def broken(broken_run, tmp_path):
    return shutil.copytree(broken_run[0], tmp_path / "checkpoints")


def same_end(model, result, other_model, other):
    assert result.facts["resumed"] is True
    pd.testing.assert_series_equal(
        result.log["loss"], other.log["loss"], atol=1e-4, rtol=0)
    for fact in ("steps", "best_checkpoint"):
        assert result.facts[fact] == other.facts[fact]
    assert result.facts["best_val_loss"] == pytest.approx(
        other.facts["best_val_loss"], abs=1e-4)
    there = trained_weights(other_model)
    assert furthest(there, trained_weights(model)) < 1e-3


def test_an_interrupted_training_resumes_and_ends_the_same(
    base, pairs, whole, broken, broken_run, capsys
):
    """In a notebook the model of the broken run is still the same object."""
    model, resumed = train(base, pairs, broken, 2, broken_run[1])
    assert "Resuming from checkpoint-6" in capsys.readouterr().out
    assert whole[1].facts["resumed"] is False
    same_end(model, resumed, *whole)
    assert not broken.exists()


def test_a_resumed_training_keeps_its_patience(base, pairs, tmp_path):
    """Evaluations without progress before the kill count, too."""
    settings = dict(patience=2, num_train_epochs=40)
    there = train(base, pairs, tmp_path / "a", **settings)
    with ctrl_c_at(there[1].facts["steps"] - 1):  # after one bad evaluation
        train(base, pairs, tmp_path / "b", **settings)
    model, resumed = train(base, pairs, tmp_path / "b", **settings)
    same_end(model, resumed, *there)


@pytest.mark.parametrize(
    "change",
    ["nothing", "settings", "texts", "loss", "rank", "alpha", "base"],
)
def test_checkpoints_of_another_run_are_thrown_away(
    base, pairs, tmp_path, broken, monkeypatch, change
):
    def only_ask(self, resume_from_checkpoint):
        raise KeyboardInterrupt(resume_from_checkpoint)

    monkeypatch.setattr("trl.SFTTrainer.train", only_ask)
    other = tiny_base(tmp_path / "another", seed=2)
    model = {"rank": lambda: fresh(base, rank=8),
             "alpha": lambda: fresh(base, alpha=32),
             "base": lambda: fresh(other)}.get(change, lambda: fresh(base))()
    if change == "texts":
        pairs = pairs.replace({"completion": {OTHER: "Other words."}})
    with pytest.raises(KeyboardInterrupt) as asked:
        train(base, pairs, broken, 2, model,
              "all" if change == "loss" else "completion",
              learning_rate=1e-3 if change == "settings" else 5e-3)
    if change == "nothing":
        assert asked.value.args[0].endswith("checkpoint-6")
    else:
        assert asked.value.args == (None,)
        assert not list(broken.glob("checkpoint-*"))


@pytest.mark.parametrize(
    "file", ["trainer_state.json", "*.safetensors", "optimizer.pt", "rng*"])
def test_a_cut_file_falls_back_to_the_checkpoint_before(broken, file):
    """As after a power cut."""
    (path,) = (broken / "checkpoint-6").glob(file)
    with path.open("rb+") as handle:
        handle.truncate(path.stat().st_size // 2)
    assert finetune.last_checkpoint(broken).name == "checkpoint-3"
    assert not (broken / "checkpoint-6").exists()


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
#: Seed and step in which the process dies: two die at a random step after
#: the first checkpoint, and one before it.
DEATHS = [(s, random.Random(s).randint(EVERY + 1, 12)) for s in (1, 2)]
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
    from transformers import TrainerState, trainer

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    if writing:
        save = TrainerState.save_to_json
        TrainerState.save_to_json = lambda state, file: (
            kill() if state.global_step == step else save(state, file))
    else:
        trainer.DEFAULT_CALLBACKS.append(
            at_step("on_pre_optimizer_step", step - 1, kill))
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
    jobs = [dict(base=base, home=str(home), seed=seed, step=step,
                 writing=(seed, step) == WRITING)
            for seed, step in (*DEATHS, WRITING)]
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(Path(__file__).parent),
         json.dumps(jobs)],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    codes = [line for line in done.stdout.splitlines() if line == "-9"]
    assert len(codes) == len(jobs), done.stderr[-3000:]
    return home


@pytest.fixture(scope="module")
def unharmed(base, pairs, tmp_path_factory):
    """The same trainings to their end, by seed."""
    return {seed: long_run(base, pairs, tmp_path_factory.mktemp("w"), seed)
            for seed in (1, 2)}


@pytest.mark.parametrize(("seed", "step"), [*DEATHS, WRITING])
def test_after_sigkill_the_same_call_ends_with_the_same_loss(
    base, pairs, killed, unharmed, capsys, seed, step
):
    folder = killed / f"{seed}-{step}"
    complete = range(EVERY, step, EVERY)  # steps of whole checkpoints
    last = finetune.last_checkpoint(folder)
    assert (last and last.name) == (
        f"checkpoint-{complete[-1]}" if complete else None)
    model, resumed = long_run(base, pairs, folder, seed)
    assert resumed.facts["resumed"] is bool(complete)
    assert ("Resuming from" in capsys.readouterr().out) is bool(complete)
    resumed.facts["resumed"] = True
    same_end(model, resumed, *unharmed[seed])
    assert resumed.facts["steps"] == 12
    tokenizer = models.load_tokenizer(base)
    assert loss_on(model, tokenizer, pairs) == pytest.approx(
        loss_on(unharmed[seed][0], tokenizer, pairs), abs=1e-3)
    assert not folder.exists()


def test_a_full_disk_in_training_is_said_and_the_same_call_continues(
    base, pairs, tmp_path, monkeypatch
):
    """The words of torch on a disk that was full."""
    from transformers import Trainer

    save = Trainer._save_checkpoint

    def full(self, *args, **kwargs):
        if self.state.global_step == 6:
            (tmp_path / "checkpoint-6").mkdir()
            raise RuntimeError(
                "[enforce fail at inline_container.cc:672] . unexpected pos")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_save_checkpoint", full)
    with pytest.raises(CourseError) as caught:
        train(base, pairs, tmp_path, patience=2)
    assert "disk is full" in caught.value.why
    assert "the same command continues" in caught.value.do
    assert finetune.last_checkpoint(tmp_path).name == "checkpoint-3"
