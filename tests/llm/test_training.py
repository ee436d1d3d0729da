"""The trainer's own parts: the loss at labels alone, padding, threads."""

from __future__ import annotations

import functools

import pandas as pd
import pytest
from test_models import PROMPTS, SENTENCES, tiny_base

from llamaxr_utils.course import machine
from llamaxr_utils.llm import finetune, trainer, training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pairs():
    """Six of different lengths, two of them for validation too."""
    rows = [("train", PROMPTS[w], text) for w, text in SENTENCES.items()]
    rows += [("val", *row[1:]) for row in rows[:2]]
    return pd.DataFrame(rows, columns=["split", "prompt", "completion"])


def train(source, pairs, folder, **settings):
    model, tokenizer = finetune.load_in_4bit(source)
    model = finetune.add_lora(model)
    usual = dict(
        num_train_epochs=2, per_device_train_batch_size=2, logging_steps=1,
        learning_rate=5e-3, gradient_checkpointing=False, seed=3,
        optim="adamw_torch", train_sampling_strategy="group_by_length",
    )  # fmt: skip
    return training.train(
        model, tokenizer, pairs, folder, {**usual, **settings}, patience=5
    )


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_loss_is_the_standard_one(source, pairs, tmp_path, accumulation):
    """trl's own loss gives the same curve, validation included, also where
    a step's tokens are spread over several batches."""
    made = {
        kind: train(
            source, pairs, tmp_path / kind, loss_type=kind,
            gradient_accumulation_steps=accumulation,
        ).log["loss"]
        for kind in ("nll", "chunked_nll")
    }  # fmt: skip
    assert len(made["nll"]) == 6 // accumulation + 2
    assert abs(made["nll"] - made["chunked_nll"]).max() < 1e-5


def test_logits_are_computed_where_there_is_a_label(
    source, pairs, tmp_path, monkeypatch
):
    from transformers import LlamaForCausalLM

    seen = []
    forward = LlamaForCausalLM.forward

    @functools.wraps(forward)  # the Trainer reads its signature
    def spy(self, *args, **kwargs):
        made = forward(self, *args, **kwargs)
        labels = kwargs["labels"][:, 1:]
        seen.append((made.logits.shape[1], labels))
        return made

    monkeypatch.setattr(LlamaForCausalLM, "forward", spy)
    train(source, pairs, tmp_path, num_train_epochs=1)
    for columns, labels in seen:
        assert columns == (labels != -100).any(0).sum() < labels.shape[1]


def test_a_gpu_and_unsloth_keep_trls_loss(monkeypatch):
    assert trainer.loss_type() == {"loss_type": "nll"}
    monkeypatch.setitem(trainer.sys.modules, "unsloth", None)
    assert trainer.loss_type() == {}
    monkeypatch.delitem(trainer.sys.modules, "unsloth")
    monkeypatch.setattr(machine, "pick_device", lambda: ("cuda", "", ""))
    assert trainer.loss_type() == {}


# --- padding ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "size", "share"),
    [
        ([3, 3, 3, 3], 2, 0),
        ([2, 4, 2, 4], 2, 1 / 4),  # 4 of 16
        ([4, 4, 2, 2], 2, 0),
        ([1, 5, 2], 2, 4 / 12),  # the last batch is short
        ([1, 2, 3], 1, 0),
    ],
)
def test_share_of_padding_by_hand(lengths, size, share):
    assert trainer.share_of_padding(lengths, size) == pytest.approx(share)


def test_padding_is_reported_as_the_batches_were_made(source, tmp_path):
    """Short and long rows: grouped by length few are mixed. Validation
    batches do not count."""
    word, text = next(iter(SENTENCES.items()))
    rows = [(PROMPTS[word], text), (PROMPTS[word], " ".join([text] * 5))]
    pairs = pd.DataFrame(rows * 24, columns=["prompt", "completion"])
    pairs = pairs.assign(split="train")
    both = pd.concat([pairs, pairs.head(2).assign(split="val")])
    grouped = train(source, both, tmp_path, num_train_epochs=1).facts
    assert 0.1 < grouped["padding_in_random_order"] < 0.5
    assert grouped["padding"] < grouped["padding_in_random_order"] / 2
    mixed = train(
        source, both, tmp_path, num_train_epochs=1,
        per_device_train_batch_size=48, train_sampling_strategy="random",
    ).facts  # fmt: skip
    # One batch of all rows, whatever the order.
    assert mixed["padding"] == mixed["padding_in_random_order"] > 0.2


# --- threads and precision --------------------------------------------------


@pytest.fixture
def four_cores(monkeypatch):
    """A clock and threads of the test's own; seconds of work by thread."""
    import torch

    now, set_to = [0.0], [3]
    took = {1: 4.0, 2: 2.0, 4: 3.0, 3: 1.0}
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "_bf16_in_hardware", lambda: False)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch, "get_num_threads", lambda: set_to[-1])
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)

    def work(rows):
        low = torch.is_autocast_enabled("cpu")
        now[0] += 0.01 * rows * took[set_to[-1]] * (0.5 if low else 1)

    return work, set_to


def test_the_quickest_number_of_threads_is_set(four_cores, monkeypatch):
    work, set_to = four_cores
    threads, precision, why = machine.pick_threads(work, 8)
    assert (threads, precision, set_to[-1]) == (2, "fp32", 2)
    assert set(set_to[1:]) == {1, 2, 4}  # never more than cores
    assert "0.320 s with 1, 0.160 s with 2" in why
    assert "no bfloat16" in why
    monkeypatch.setattr(machine, "_bf16_in_hardware", lambda: True)
    assert machine.pick_threads(work, 8)[1] == "bf16"


def test_work_that_fails_leaves_the_threads(four_cores):
    work, set_to = four_cores

    def fails(rows):
        if set_to[-1] == 2:
            raise RuntimeError("out of memory")
        work(rows)

    with pytest.raises(RuntimeError, match="out of memory"):
        machine.pick_threads(fails, 8)
    assert set_to[-1] == 3


def test_one_pass_changes_no_weight(source, pairs):
    model, tokenizer = finetune.load_in_4bit(source)
    model = finetune.add_lora(model)
    before = {n: w.detach().clone() for n, w in model.named_parameters()}
    trainer.one_pass(model, tokenizer, pairs)(3)
    for name, weight in model.named_parameters():
        assert weight.grad is None
        assert (weight == before[name]).all()
