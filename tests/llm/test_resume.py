"""Trainings that are stopped, by Ctrl-C, SIGKILL or a full disk, go on."""

import os
import random
import shutil
import signal
import sys
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


EARLY = dict(patience=2, num_train_epochs=40)  # three steps an epoch


@pytest.fixture(scope="module")
def whole(base, pairs, tmp_path_factory):
    """Model and result of a training that early stopping ended."""
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    model, result = tiny.train(base, pairs, folder, **EARLY)
    assert not folder.exists()
    return model, result


@pytest.fixture(scope="module")
def broken_run(base, pairs, whole, tmp_path_factory):
    """What it leaves when it is interrupted after one evaluation without
    progress; its model."""
    from transformers import trainer

    def ctrl_c():
        raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("broken") / "checkpoints"
    model = tiny.fresh(base)
    stop = at_step("on_step_end", whole[1].facts["steps"] - 1, ctrl_c)
    trainer.DEFAULT_CALLBACKS.append(stop)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(base, pairs, folder, model=model, **EARLY)
    trainer.DEFAULT_CALLBACKS.remove(stop)
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


def test_early_stopping_restores_the_best_checkpoint(base, pairs, whole):
    """The validation reports say other words: their loss falls, then
    rises. Training stops, and the model is the one of the lowest point."""
    log, facts = whole[1].log, whole[1].facts
    val = log[log["split"] == "val"].reset_index(drop=True)
    best = val["loss"].idxmin()
    assert val["loss"].iloc[-1] > val["loss"][best] + 0.01  # it has risen
    assert len(val) == best + 1 + 2  # and stopped
    assert facts["steps"] == val["step"].iloc[-1] < 120
    assert facts["best_checkpoint"] == f"checkpoint-{val['step'][best]}"
    assert facts["best_val_loss"] == pytest.approx(val["loss"][best])
    now = tiny.loss_on(whole[0], models.load_tokenizer(base), pairs)
    assert now == pytest.approx(val["loss"][best], abs=2e-3)
    assert list(log["step"])[:8] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_an_interrupted_training_resumes_and_ends_the_same(
    base, pairs, whole, broken, broken_run, capsys
):
    """Evaluations without progress before the stop count, too. In a notebook
    the model of the broken run is still the same object."""
    last = finetune.last_checkpoint(broken).name
    model, resumed = tiny.train(base, pairs, broken, model=broken_run[1],
                                **EARLY)
    assert f"Resuming from {last} " in capsys.readouterr().out
    assert whole[1].facts["resumed"] is False
    same_end(model, resumed, *whole)
    assert not broken.exists()


@pytest.mark.parametrize("change", [
    {}, {"learning_rate": 1e-3}, {"on": "all"}, {"rank": 8}, {"alpha": 32},
    {"base": "another"}, {"text": "Other words."}], ids=repr)
def test_checkpoints_of_another_run_are_thrown_away(
    base, pairs, tmp_path, broken, monkeypatch, change
):
    def only_ask(self, resume_from_checkpoint):
        raise KeyboardInterrupt(resume_from_checkpoint)

    monkeypatch.setattr("trl.SFTTrainer.train", only_ask)
    settings, last = EARLY | change, finetune.last_checkpoint(broken)
    if settings.pop("base", ""):
        base = tiny_base(tmp_path / "another", seed=2)
    size = settings.pop("rank", 16), settings.pop("alpha", 16)
    pairs = pairs.replace(tiny.OTHER, settings.pop("text", tiny.OTHER))
    with pytest.raises(KeyboardInterrupt) as asked:
        tiny.train(base, pairs, broken, model=tiny.fresh(base, *size),
                   **settings)
    assert asked.value.args == (None if change else str(last),)
    assert last.exists() != bool(change)


def test_a_cut_state_falls_back_to_the_checkpoint_before(broken, whole):
    last = finetune.last_checkpoint(broken)
    assert last.name == f"checkpoint-{whole[1].facts['steps'] - 3}"
    state = last / "trainer_state.json"
    state.write_text(state.read_text()[:99])
    before = finetune.last_checkpoint(broken).name
    assert before == whole[1].facts["best_checkpoint"]
    assert not last.exists()


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
    child = get_context("fork").Process(
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
            raise RuntimeError("inline_container.cc:672 . unexpected pos")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_save_checkpoint", full)
    with pytest.raises(CourseError) as caught:
        tiny.train(base, pairs, tmp_path, patience=2)
    assert "disk is full" in caught.value.why
    assert "the same command continues" in caught.value.do
    assert finetune.last_checkpoint(tmp_path).name == "checkpoint-3"
