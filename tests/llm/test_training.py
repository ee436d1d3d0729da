"""The trainer's own parts: the loss compared with plain torch, threads."""

from __future__ import annotations

import pandas as pd
import pytest
from test_models import PROMPTS, SENTENCES, tiny_base

from llamaxr_utils.course import machine
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.llm import finetune

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


def train(
    source, pairs, folder, loss_on="completion", model=None, **settings
):
    if model is None:
        model, tokenizer = finetune.load_in_4bit(source)
        model = (finetune.add_lora(model), tokenizer)
    usual = dict(
        num_train_epochs=2, per_device_train_batch_size=2, logging_steps=1,
        learning_rate=5e-3, gradient_checkpointing=False, seed=3,
        optim="adamw_torch", train_sampling_strategy="group_by_length",
    )  # fmt: skip
    return finetune.train(
        *model, pairs, folder, {**usual, **settings},
        loss_on=loss_on, patience=5,
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


# --- the first batch, compared with plain torch -----------------------------


def first_positions(self, model, inputs, *args, **kwargs):
    """The fault that this guard was built after: labels narrowed to the
    columns that have one, paired with the logits of the first positions (as
    unsloth's forward does when it is handed columns to keep)."""
    import torch

    targets = inputs["labels"][:, 1:]
    columns = (targets != -100).any(dim=0).nonzero()[:, 0]
    narrow = targets[:, columns]
    logits = model(input_ids=inputs["input_ids"]).logits
    flat = logits.flatten(0, 1)[: narrow.numel()]
    return torch.nn.functional.cross_entropy(flat, narrow.flatten())


def all_tokens(self, model, inputs, *args, **kwargs):
    """Prompts are learned too, where only reports were asked for."""
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0,
                                             -100)
    return model(input_ids=inputs["input_ids"], labels=labels).loss


def first_row_only(self, model, inputs, *args, **kwargs):
    """The right number, but the gradient of one row alone."""
    import torch

    logits = model(input_ids=inputs["input_ids"]).logits[:, :-1]
    logits = torch.cat([logits[:1], logits[1:].detach()])
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), inputs["labels"][:, 1:].flatten()
    )


@pytest.fixture(scope="module")
def taught(source, pairs, tmp_path_factory):
    """A model that knows the prompts by heart: their tokens cost little."""
    model, tokenizer = finetune.load_in_4bit(source)
    model = finetune.add_lora(model)
    train(source, pairs, tmp_path_factory.mktemp("taught"), "all",
          (model, tokenizer), num_train_epochs=20)
    return model, tokenizer


@pytest.mark.parametrize(
    ("fault", "words"),
    [(first_positions, " of 6 studies"), (all_tokens, "6 of 6 studies"),
     (first_row_only, "and 1 of 6 studies")],
)
def test_a_wrong_loss_is_refused_before_the_first_step(
    source, pairs, tmp_path, monkeypatch, taught, fault, words
):
    import trl

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", fault)
    monkeypatch.setattr(
        "torch.optim.AdamW.step", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(CourseError, match="before its first step") as error:
        train(source, pairs, tmp_path, model=taught,
              per_device_train_batch_size=6)
    assert words in str(error.value)


def test_other_tokens_than_given_are_refused(source, pairs, tmp_path,
                                             monkeypatch):
    """A tokenizer that puts a second beginning in front, for instance."""
    lengths = finetune.completion_lengths

    def twice(pairs, tokenizer, *rest):
        known = lengths(pairs, tokenizer, *rest)
        return {b"\0\0\0\0" + ids: n for ids, n in known.items()}

    monkeypatch.setattr(finetune, "completion_lengths", twice)
    with pytest.raises(CourseError, match="not a prompt and its report"):
        train(source, pairs, tmp_path)


@pytest.mark.parametrize("loss_on", ["completion", "all"])
@pytest.mark.parametrize("settings", [
    {}, {"gradient_accumulation_steps": 3},
    {"train_sampling_strategy": "random"},
])  # fmt: skip
def test_a_right_loss_is_trained_with(
    source, pairs, tmp_path, loss_on, settings
):
    result = train(source, pairs, tmp_path, loss_on=loss_on, **settings)
    assert result.log["loss"].iloc[-1] < result.log["loss"].iloc[0]


def test_rows_of_a_batch_with_and_without_padding():
    import torch

    tokens = torch.arange(8)
    padded = {"input_ids": tokens.view(2, 4), "attention_mask":
              torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])}
    assert finetune.batch_rows(padded) == [(0, 1, 4), (1, 0, 2)]
    flat = {"input_ids": tokens[None],
            "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]])}
    assert finetune.batch_rows(flat) == [(0, 0, 3), (0, 3, 7), (0, 7, 8)]


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
    finetune.one_pass(model, tokenizer, pairs)(3)
    for name, weight in model.named_parameters():
        assert weight.grad is None
        assert (weight == before[name]).all()
