"""Training, as a ratio to the plain way of doing the same.

CPU seconds on one thread: other work on the machine hardly moves them.
"""

from __future__ import annotations

import time

import pytest

from llamaxr_utils.datasets import reports
from llamaxr_utils.llm import finetune, models

SIZE, STEPS = 16, 12
SETTINGS = dict(
    num_train_epochs=1, per_device_train_batch_size=SIZE, learning_rate=2e-4,
    weight_decay=0.01, optim="adamw_8bit", gradient_checkpointing=False,
    logging_steps=20, save_strategy="no",
    train_sampling_strategy="group_by_length",
)


@pytest.fixture(scope="module")
def pairs():
    """Real reports after the conditions that their headings stand for."""
    studies = reports.load_studies()
    studies = studies[studies["findings"].str.len() > 0]
    made = models.pretraining_pairs(studies, ("names",))
    return made.head(SIZE * STEPS).assign(split="train")


@pytest.fixture(scope="module")
def source(pairs, tmp_path_factory):
    """`small-llama` with random weights."""
    tokenizer = models.train_tokenizer(pairs["prompt"] + pairs["completion"])
    folder = tmp_path_factory.mktemp("base")
    model = models.new_llama("small-llama", tokenizer)
    models.save_model(model, tokenizer, folder)
    return str(folder)


def fresh(source):
    model, tokenizer = finetune.load_in_4bit(source)
    return finetune.add_lora(model), tokenizer


def bare_loop(model, batches):
    """The plain loop: the head on labelled positions alone, as in `train`;
    no logs, no checks. CPU seconds."""
    import bitsandbytes
    import torch

    began = time.process_time()
    body, head = model.get_base_model().model, model.get_output_embeddings()
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = bitsandbytes.optim.AdamW8bit(
        weights, lr=2e-4, weight_decay=0.01)
    model.train()
    for batch in batches:
        labels = batch["labels"][:, 1:]
        hidden = body(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"], use_cache=False,
        ).last_hidden_state[:, :-1]
        kept = labels != -100
        loss = torch.nn.functional.cross_entropy(
            head(hidden[kept]).float(), labels[kept])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - began


def test_training_against_a_bare_loop(source, pairs, tmp_path, monkeypatch):
    """At least 0.7 of a bare PyTorch loop doing the same work."""
    import torch
    import trl

    torch.set_num_threads(1)
    batches, spent = [], []

    class Watched(trl.SFTTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            batches.append(dict(inputs))
            return super().training_step(model, inputs, *args, **kwargs)

        def train(self, *args, **kwargs):
            began = time.process_time()
            result = super().train(*args, **kwargs)
            spent.append(time.process_time() - began)
            return result

    monkeypatch.setattr(trl, "SFTTrainer", Watched)
    bare = []
    for _ in range(2):  # in turn: the machine's moods hit both
        batches.clear()
        model, tokenizer = fresh(source)
        finetune.train(model, tokenizer, pairs, tmp_path, SETTINGS)
        assert len(batches) == STEPS
        bare.append(bare_loop(fresh(source)[0], batches))
    ratio = min(bare) / min(spent)
    print(f"\nsmall-llama, 4 bit + LoRA, batch {SIZE}: ratio {ratio:.2f}")
    assert ratio > 0.7
