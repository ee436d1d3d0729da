"""Trainings that are stopped, by Ctrl-C, SIGKILL or a full disk, go on."""

import os
import random
import shutil
import signal
import sys
from contextlib import contextmanager
from multiprocessing import get_context

import pandas as pd
import pytest
import test_finetune as tiny
import torch
from test_models import tiny_base

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import finetune, models


def at_step(event, step, act):
    """A callback of the trainer that acts at an event of a step."""
    from transformers import TrainerCallback

    def on_event(self, args, state, control, **kwargs):
        if state.global_step == step:
            act()

    return type("AtStep", (TrainerCallback,), {event: on_event})


@contextmanager
def ctrl_c_at(step):
    from transformers import trainer

    def ctrl_c():
        raise KeyboardInterrupt

    trainer.DEFAULT_CALLBACKS.append(at_step("on_step_end", step, ctrl_c))
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        trainer.DEFAULT_CALLBACKS.pop()


@pytest.fixture(scope="module")
def broken_run(base, pairs, tmp_path_factory):
    """What a training left that was interrupted in step 8; its model."""
    folder = tmp_path_factory.mktemp("broken") / "checkpoints"
    model = tiny.fresh(base)
    with ctrl_c_at(8):
        tiny.train(base, pairs, folder, patience=2, model=model)
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
    there = tiny.trained_weights(other_model)
    assert tiny.furthest(there, tiny.trained_weights(model)) < 1e-3


def test_an_interrupted_training_resumes_and_ends_the_same(
    base, pairs, tmp_path, broken, broken_run, capsys
):
    """In a notebook the model of the broken run is still the same object."""
    whole = tiny.train(base, pairs, tmp_path / "whole", patience=2)
    model, resumed = tiny.train(base, pairs, broken, 2, broken_run[1])
    assert "Resuming from checkpoint-6" in capsys.readouterr().out
    assert whole[1].facts["resumed"] is False
    same_end(model, resumed, *whole)
    assert not broken.exists()


def test_a_resumed_training_keeps_its_patience(base, pairs, tmp_path):
    """Evaluations without progress before the kill count, too."""
    settings = dict(patience=2, num_train_epochs=40)
    there = tiny.train(base, pairs, tmp_path / "a", **settings)
    with ctrl_c_at(there[1].facts["steps"] - 1):  # after one bad evaluation
        tiny.train(base, pairs, tmp_path / "b", **settings)
    model, resumed = tiny.train(base, pairs, tmp_path / "b", **settings)
    same_end(model, resumed, *there)


@pytest.mark.parametrize("change", [
    {}, {"learning_rate": 1e-3}, {"on": "all"}, {"rank": 8}, {"alpha": 32},
    {"base": "another"}, {"text": "Other words."}], ids=repr)
def test_checkpoints_of_another_run_are_thrown_away(
    base, pairs, tmp_path, broken, monkeypatch, change
):
    def only_ask(self, resume_from_checkpoint):
        raise KeyboardInterrupt(resume_from_checkpoint)

    monkeypatch.setattr("trl.SFTTrainer.train", only_ask)
    settings = change.copy()
    if settings.pop("base", ""):
        base = tiny_base(tmp_path / "another", seed=2)
    size = settings.pop("rank", 16), settings.pop("alpha", 16)
    pairs = pairs.replace(tiny.OTHER, settings.pop("text", tiny.OTHER))
    with pytest.raises(KeyboardInterrupt) as asked:
        tiny.train(base, pairs, broken, 2, tiny.fresh(base, *size), **settings)
    if change:
        assert asked.value.args == (None,)
        assert not list(broken.glob("checkpoint-*"))
    else:
        assert asked.value.args[0].endswith("checkpoint-6")


def test_a_cut_state_falls_back_to_the_checkpoint_before(broken):
    state = broken / "checkpoint-6" / "trainer_state.json"
    state.write_text(state.read_text()[:99])
    assert finetune.last_checkpoint(broken).name == "checkpoint-3"
    assert not (broken / "checkpoint-6").exists()


EVERY = 4  # steps a checkpoint; an epoch has three
#: What a resumed training has to find again: its place within an epoch,
#: the learning rate, the random numbers of dropout.
LONG = dict(
    num_train_epochs=4, warmup_steps=2, save_steps=EVERY, eval_steps=EVERY,
    train_sampling_strategy="group_by_length", save_strategy="steps",
    eval_strategy="steps")


def long_run(base, folder):
    model, tokenizer = finetune.load_in_4bit(base)
    model = finetune.add_lora(model, dropout=0.1), tokenizer
    return tiny.train(base, tiny.make_pairs(), folder, 12, model, **LONG)


def die(base, folder, step, place):
    """`long_run`, killed between the gradients and the update of a step, or
    before the last file of its checkpoint is written."""
    from transformers import TrainerState, trainer

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    save = TrainerState.save_to_json
    if place == "an update":
        trainer.DEFAULT_CALLBACKS.append(
            at_step("on_pre_optimizer_step", step - 1, kill))
    else:
        TrainerState.save_to_json = lambda state, file: (
            kill() if state.global_step == step else save(state, file))
    long_run(base, folder)


@pytest.fixture(scope="module")
def unharmed(base, tmp_path_factory):
    return long_run(base, tmp_path_factory.mktemp("unharmed"))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(("step", "place"), [
    (random.Random(1).randint(EVERY + 1, 12), "an update"),
    (2 * EVERY, "writing a checkpoint")])
def test_after_sigkill_the_same_call_ends_with_the_same_loss(
    base, pairs, tmp_path, unharmed, capsys, step, place
):
    folder = tmp_path / "checkpoints"
    child = get_context("spawn").Process(
        target=die, args=(base, folder, step, place), daemon=True)
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    model, resumed = long_run(base, folder)
    last = range(EVERY, step, EVERY)[-1]
    assert f"Resuming from checkpoint-{last} " in capsys.readouterr().out
    same_end(model, resumed, *unharmed)
    tokenizer = models.load_tokenizer(base)
    assert tiny.loss_on(model, tokenizer, pairs) == pytest.approx(
        tiny.loss_on(unharmed[0], tokenizer, pairs), abs=1e-3)
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
            raise RuntimeError("inline_container.cc:672 . unexpected pos")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_save_checkpoint", full)
    with pytest.raises(CourseError) as caught:
        tiny.train(base, pairs, tmp_path, patience=2)
    assert "disk is full" in caught.value.why
    assert "the same command continues" in caught.value.do
    assert finetune.last_checkpoint(tmp_path).name == "checkpoint-3"
