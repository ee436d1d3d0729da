"""One design in, one row of numbers out: pre-train, train, decode, measure.

Images and scores come from a finished run; the numbers of a row are made in
`comparison`. Bases and adapters are kept and shared by designs that read the
same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..course import artifacts, files, machine
from ..course.errors import CourseError
from ..llm import finetune, generate, models, prompts, soft_tokens
from ..llm.finetune import Training, train
from .comparison import Data, embeddings_of, head, measure, points_of
from .designs import Design, prompts_of, training_pairs

NEW_TOKENS = 120
_SAMPLES = {"do_sample": True, "n_samples": 8, "top_k": 0}
DECODING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam": {"num_beams": 4, "length_penalty": 1.0},
    "beam-long": {"num_beams": 4, "length_penalty": 2.0},
    "guided-1.5": generate.guided(1.5),
    "guided-2": generate.guided(2),
    "guided-3": generate.guided(3),
    "guided-2-tidy": {**generate.guided(2), "no_repeat_ngram_size": 5},
    "guided-beam": generate.guided(2, beams=4),
    "guided-beam-2.5": generate.guided(2.5, beams=4),
    "guided-mbr": {**generate.guided(2), **_SAMPLES},
    "mbr": _SAMPLES,
}

#: Settings that no design changes.
_TRAINER = {"optim": "adamw_torch_fused", "gradient_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
            "max_length": 2048, "logging_steps": 100}  # fmt: skip


def run_design(
    design: Design, data: Data, seed: int, n_samples: int = 1000
) -> dict[str, Any]:
    """Pre-train, train, generate, measure (`n_samples` bootstraps).

    Killed and called again, it goes on from its last checkpoint; designs
    that read the same share a base, those that differ in decoding alone an
    adapter (the seconds of both are those of the first time).

    Returns
    -------
    dict
        One row: `measure`, and ``design``, ``images``, ``backbone``,
        ``seed``, ``prompt_tokens``, ``tokens`` (prompt and report, mean of
        the test studies), ``val_loss``, ``trainable`` parameters,
        ``step_seconds``, ``memory_gb`` (peak of the process while training;
        of the GPU, where there is one), ``base_seconds``,
        ``train_seconds``, ``decode_seconds``.
    """
    points = points_of(data, design.beta)
    base, base_seconds = base_of(data, design, points, seed)
    given = prompts_of(data, design, points)
    pairs = training_pairs(data, design, given, seed)
    model, tokenizer, facts = adapter_of(base, data, design, pairs, seed)
    began = time.perf_counter()
    asked = prompts_of(data, design, points, "scores")
    texts = [asked[study] for study in data.test["study_id"]]
    made = decode(model, tokenizer, texts, design.decoding, seed)
    done = time.perf_counter()
    lengths = prompts.count_tokens(tokenizer, texts)
    return {
        **head(design.name, data, seed),
        **measure(data, list(made["generated"]), n_samples),
        "prompt_tokens": lengths.mean(),
        "tokens": (lengths + made["n_tokens"]).mean(),
        **facts,
        "base_seconds": base_seconds,
        "decode_seconds": done - began,
    }


def base_of(
    data: Data, design: Design, points: Mapping[str, float], seed: int
) -> tuple[str, float]:
    """Folder (or hub id) of the base, and the seconds that it took."""
    if data.base:
        return str(data.base), float("nan")
    if not models.made_here(data.base_name):
        return models.locate(data.base_name), 0.0
    kinds = design.pretrain.replace(" ", "").split(",")
    plain = design._replace(soft=0)  # a base knows no images
    own = {
        kind: prompts_of(data, plain, points, source)
        for kind, source in (("prompts", "scores"), ("stated", "stated"))
        if kind in kinds
    }
    corpus = models.pretraining_pairs(
        data.studies.query("split == 'train'"), kinds, own=own
    )
    tokens = artifacts.load(data.folder, "tokenizer")
    facts = [data.base_name, design.pretrain_epochs, seed,
             files.sha256(tokens), corpus.to_csv()]  # fmt: skip
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    folder = data.scratch / "bases" / key
    note = folder / "seconds.txt"
    if not note.is_file():
        tokenizer = models.load_tokenizer(str(tokens))
        model = models.new_llama(data.base_name, tokenizer, seed)
        settings = dict(
            num_train_epochs=design.pretrain_epochs, learning_rate=1e-3,
            per_device_train_batch_size=8, lr_scheduler_type="cosine",
            warmup_steps=20, save_strategy="steps", save_steps=200,
            bf16=machine.pick_precision("auto") == "bf16", seed=seed,
            **_TRAINER,
        )  # fmt: skip
        result = train(model, tokenizer, corpus.assign(split="train"),
                       data.scratch / "work" / key, settings)

        def write(part: Path) -> None:
            models.save_model(model, tokenizer, part)
            minutes = result.facts["minutes"]
            (part / note.name).write_text(f"{60 * minutes:.1f}")

        files.write_whole(folder, write)
    return str(folder), float(note.read_text())


def adapt(
    source: str, data: Data, design: Design, seed: int
) -> tuple[Any, Any]:
    """The base with something to train on it; model and tokenizer."""
    if design.method not in ("qlora", "lora", "prefix", "full"):
        raise CourseError(
            f"The method {design.method!r} is not known.",
            "There are qlora, lora, prefix and full.",
            "Set `method` of the design to one of them.",
        )
    if design.method == "qlora":
        model, tokenizer = finetune.load_in_4bit(source)
    else:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
        model = model.to(machine.pick_device()[0])
        tokenizer = models.load_tokenizer(source)
    machine.seed_everything(seed)
    if design.soft:
        soft_tokens.install(model, tokenizer, embeddings_of(data),
                            design.soft)
        model = soft_tokens.add_lora(model, design.rank, seed=seed)
    elif design.method in ("qlora", "lora"):
        model = finetune.add_lora(model, design.rank, seed=seed)
    elif design.method == "prefix":
        from peft import PrefixTuningConfig, get_peft_model

        config = PrefixTuningConfig(task_type="CAUSAL_LM",
                                    num_virtual_tokens=20)  # fmt: skip
        model = get_peft_model(model, config)
    return model, tokenizer


def adapter_of(
    base: str, data: Data, design: Design, pairs: pd.DataFrame, seed: int
) -> tuple[Any, Any, dict[str, float]]:
    """Model with its trained part, tokenizer, and what training took."""
    same = design._replace(name="", about="", decoding="")
    seen = embeddings_of(data).to_csv() if design.soft else ""
    facts = [files.sha256(Path(base)), same, seed, pairs.to_csv(), seen]
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    folder = data.scratch / "adapters" / key
    weights, note = folder / "trained.safetensors", folder / "facts.json"
    model, tokenizer = adapt(base, data, design, seed)
    if note.is_file():
        import torch
        from safetensors.torch import load_file

        with torch.no_grad():
            for name, value in load_file(weights).items():
                model.get_parameter(name).copy_(value)
        return model, tokenizer, json.loads(note.read_text("utf-8"))
    began = time.perf_counter()
    machine.forget_peak()
    result = _fit(model, tokenizer, pairs, design, seed,
                  data.scratch / "work" / key)
    spent = time.perf_counter() - began
    told = {"val_loss": result.facts["best_val_loss"],
            "trainable": finetune.count_parameters(model)[0],
            "step_seconds": 60 * result.facts["minutes"]
            / max(result.facts["steps"], 1),
            "memory_gb": machine.peak_memory_gb(of_all=False),
            "train_seconds": spent}

    def write(part: Path) -> None:
        from safetensors.torch import save_file

        part.mkdir()
        save_file({name: value.detach().contiguous()
                   for name, value in model.named_parameters()
                   if value.requires_grad}, part / weights.name)
        (part / note.name).write_text(json.dumps(told))

    files.write_whole(folder, write)
    return model, tokenizer, told


def _fit(
    model: Any, tokenizer: Any, pairs: pd.DataFrame, design: Design,
    seed: int, folder: Path,
) -> Training:  # fmt: skip
    settings = dict(
        num_train_epochs=design.epochs, learning_rate=design.learning_rate,
        per_device_train_batch_size=16, per_device_eval_batch_size=32,
        lr_scheduler_type="linear", warmup_steps=30, weight_decay=0.01,
        eval_strategy="steps", eval_steps=0.25, save_strategy="steps",
        save_steps=0.25, seed=seed, **_TRAINER,
    )  # fmt: skip
    return train(model, tokenizer, pairs, folder, settings, patience=2)


def decode(
    model: Any, tokenizer: Any, texts: Sequence[str], decoding: str,
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Reports by a name of `DECODING` (`generate.generate_reports`)."""
    size: dict[str, Any] = {"batch_size": 64, "max_new_tokens": NEW_TOKENS}
    how = DECODING[decoding]
    if "n_samples" in how:
        return generate.minimum_bayes_risk(
            model, tokenizer, texts, seed=seed, **size, **how
        )
    return generate.generate_reports(model, tokenizer, texts, **size, **how)
