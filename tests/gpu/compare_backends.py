"""The GPU's path, measured: profile `a100`, and three ways to train.

    python tests/gpu/compare_backends.py

Random weights in Llama 3.1 8B's shape are stored once in 4 bit, as the hub's
checkpoint is (in ``--base``, which may be ``data/models`` for the
notebooks). Then unsloth, peft and a bare loop of torch train on the same
eight prompts: tokens a second, peak memory, the loss of the first batch.

Needs a GPU of 40 GB, 25 GB of disk under ``TMPDIR`` and five minutes;
``--shape tiny`` runs the same code anywhere and says nothing about speed.
What it gave is in ``figures/data/gpu.csv``.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from llamaxr_utils.course import machine, run
from llamaxr_utils.datasets import reports
from llamaxr_utils.datasets.conditions import CONDITIONS, VIEWS
from llamaxr_utils.llm import finetune, models, prompts

#: `LlamaConfig`: Llama 3.1 8B (its config.json) and one for a CPU.
SHAPES = {
    "llama-3.1-8b": dict(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=14336, vocab_size=128_256,
        max_position_embeddings=131_072, rope_theta=500_000.0),
    "tiny": dict(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=256, vocab_size=3000,
        max_position_embeddings=2048),
}
#: Way -> backend, and the profile whose rate and precision it has.
WAYS = {
    "unsloth": ("unsloth", "a100"),
    "unsloth, profile paper": ("unsloth", "paper"),
    "peft": ("peft", "a100"), "bare loop": ("peft", "a100"),
}
WARM_UP = 3  # steps that compile and allocate: not timed


def write_base(folder: Path, shape: str) -> None:
    """Random weights, stored in 4 bit where the device can."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    digits = [f"0.{i:03d}" for i in range(1000)]
    findings = list(reports.load_studies()["findings"].dropna())
    tokenizer = models.train_tokenizer(findings + 3 * digits, 3000)
    config = LlamaConfig(
        **SHAPES[shape], tie_word_embeddings=False, dtype="bfloat16",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id)
    whole = folder.with_name("in-16-bit")
    torch.manual_seed(3407)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(machine.pick_device()[0]):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    models.save_model(model, tokenizer, whole)
    del model
    packed, _ = finetune.load_in_4bit(str(whole), "peft")
    models.save_model(packed, tokenizer, folder)
    shutil.rmtree(whole)


def eight_pairs() -> pd.DataFrame:
    """Findings of about the same length after random scores."""
    rng = np.random.default_rng(3407)
    findings = reports.load_studies()["findings"].dropna()
    order = findings.str.len().argsort().iloc[len(findings) // 2 :]
    scores = [pd.DataFrame(rng.random((2, 18)), VIEWS, CONDITIONS)
              for _ in range(8)]
    return pd.DataFrame({
        "split": "train", "prompt": list(map(prompts.build_prompt, scores)),
        "completion": list(findings.iloc[order].head(8))})


def bare(model, tokenizer, pairs, precision, rate, steps):
    """Forward, cross-entropy, backward, step; (losses, seconds)."""
    import bitsandbytes
    import torch

    tokenizer.padding_side = "right"
    texts = pairs["prompt"] + pairs["completion"] + tokenizer.eos_token
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    batch = batch.to(model.device)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for row, prompt in zip(labels, tokenizer(list(pairs["prompt"])).input_ids):
        row[: len(prompt)] = -100
    trained = [w for w in model.parameters() if w.requires_grad]
    optimizer = bitsandbytes.optim.AdamW8bit(trained, lr=rate)
    half = getattr(torch, machine.compute_dtype(precision)[1])
    losses, seconds = [], []
    model.train()
    for _ in range(steps):
        began = time.perf_counter()
        with torch.autocast(model.device.type, half, precision != "fp32"):
            logits = model(**batch, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # waits for the GPU
        seconds.append(time.perf_counter() - began)
    return losses, seconds


def with_trainer(model, tokenizer, pairs, precision, rate, steps):
    """`finetune.train`, as notebook 04 calls it; (losses, seconds)."""
    import torch
    from transformers import TrainerCallback, trainer

    cuda = torch.cuda.is_available()
    moments = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            if cuda:
                torch.cuda.synchronize()
            moments.append(time.perf_counter())

        on_step_end = on_step_begin

    trainer.DEFAULT_CALLBACKS.append(Clock)
    settings = dict(
        max_steps=steps, per_device_train_batch_size=len(pairs),
        max_length=1024, learning_rate=rate, warmup_steps=0,
        lr_scheduler_type="constant", optim="adamw_8bit", weight_decay=0.01,
        gradient_accumulation_steps=1,  # unsloth's default is not 1
        logging_steps=1, save_strategy="no", gradient_checkpointing=cuda,
        seed=3407, bf16=precision == "bf16", fp16=precision == "fp16")
    with tempfile.TemporaryDirectory() as folder:
        result = finetune.train(
            model, tokenizer, pairs, Path(folder) / "checkpoints", settings)
    first = result.facts["first_batch_loss"]
    seconds = [b - a for a, b in zip(moments[::2], moments[1::2])]
    return [first, *result.log["loss"].iloc[1:]], seconds


def train_one(way: str, base: str, steps: int) -> dict:
    """Load, wrap and train; what it cost."""
    backend, profile = WAYS[way]
    if backend == "unsloth":
        finetune.import_unsloth()  # before trl, transformers and peft
    import torch

    cuda = torch.cuda.is_available()
    rate, precision = (run.knob_value("04_finetune_qlora", knob, profile)
                       for knob in ("LEARNING_RATE", "PRECISION"))
    precision = precision if cuda else "fp32"
    model, tokenizer = finetune.load_in_4bit(base, backend, precision)
    model = finetune.add_lora(model, backend=backend)
    pairs = eight_pairs()
    tokens = sum(map(len, tokenizer(
        list(pairs["prompt"] + pairs["completion"]))["input_ids"]))
    if cuda:  # what loading took does not count
        torch.cuda.reset_peak_memory_stats()
    train = bare if way == "bare loop" else with_trainer
    losses, seconds = train(model, tokenizer, pairs, precision, rate, steps)
    step = statistics.median(seconds[WARM_UP:])
    return dict(
        way=way, tokens_per_second=round(tokens / step, 1),
        step_seconds=round(step, 4),
        peak_memory_gb=round(torch.cuda.max_memory_allocated() / 1e9, 2)
        if cuda else machine.peak_memory_gb(),
        first_loss=round(losses[0], 4), last_loss=round(losses[-1], 4),
        steps=steps, tokens_a_step=tokens,
        trainable=model.get_nb_trainable_parameters()[0],
        base=finetune.stored_as(model), precision=precision,
        device=torch.cuda.get_device_name() if cuda else "CPU")


def compare(shape: str, steps: int, base: Path, ways) -> pd.DataFrame:
    """The ways in order, in a process of its own; printed as it comes."""
    write_base(base, shape)
    rows = []
    # unsloth writes its compiled cache where it stands
    with get_context("spawn").Pool(1, os.chdir, (base.parent,), 1) as pool:
        for way in ways:
            one = pool.apply_async(train_one, (way, str(base), steps))
            rows.append(one.get(200))
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", metavar="CSV")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--base", help="folder that keeps the base")
    options = parser.parse_args(arguments)
    if options.shape != "tiny" and machine.pick_device()[0] != "cuda":
        parser.error("there is no GPU for Llama 3.1 8B; try --shape tiny")
    with tempfile.TemporaryDirectory() as place:
        base = Path(options.base or place).absolute()
        table = compare(options.shape, options.steps,
                        base / "Meta-Llama-3.1-8B-bnb-4bit", options.ways)
    if options.out:
        table.to_csv(options.out, index=False)
    spread = table["first_loss"].max() / table["first_loss"].min() - 1
    print(f"The first losses differ by {spread:.2%}.")
    return 0 if spread < finetune.TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
