"""Designs compared: one design in, one row of numbers out.

A design says what the base reads, what the adapter is trained on and how
reports are decoded; the rest stays as in the course. Images and scores come
from a finished run; the numbers of a row are made in `comparison`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from . import (
    artifacts,
    files,
    finetune,
    generate,
    machine,
    models,
    prompts,
    soft_tokens,
)
from .comparison import Data, embeddings_of, head, measure, points_of
from .conditions import CONDITIONS
from .coverage import named_scores
from .errors import CourseError
from .training import Training, train


class Design(NamedTuple):
    """What may differ; ``data/designs.yaml`` lists them. The defaults are the
    course's profile ``cpu`` before this comparison."""

    name: str
    about: str  #: what it changes
    score_format: str = "names"  #: `prompts.build_prompt`
    beta: float = 2.0  #: of the operating points (`prompts`)
    #: Whose conditions the *training* prompts name: the network's
    #: (``scores``), the MeSH headings' (``labels``), or those that the
    #: report itself states (``stated``). Test prompts have the scores.
    train_on: str = "scores"
    #: Kinds of `models.pretraining_pairs`; also ``prompts``, this design's
    #: own from the scores, and ``stated``.
    pretrain: str = "headings, names"
    pretrain_epochs: int = 3
    method: str = "qlora"  #: qlora, lora, prefix, full
    rank: int = 16
    learning_rate: float = 2e-4
    epochs: int = 1
    copies: int = 0  #: most copies of a report in training; 0: all
    abnormal: int = 1  #: times that an abnormal study is in training
    decoding: str = "greedy"  #: a key of `DECODING`
    soft: int = 0  #: soft tokens of the image (`soft_tokens`)


@lru_cache(maxsize=1)
def designs() -> dict[str, Design]:
    """All designs of ``designs.yaml`` by name; each starts from another."""
    path = Path(__file__).parent / "data" / "designs.yaml"
    found = {"": Design("", "")}
    for name, row in yaml.safe_load(path.read_text("utf-8")).items():
        start = found[row.pop("as", "")]
        found[name] = start._replace(name=name, **row)
    del found[""]
    return found


NEW_TOKENS = 120
_AWAY = {"against": prompts.BLANK}
_SAMPLES = {"do_sample": True, "n_samples": 8, "top_k": 0}
DECODING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam": {"num_beams": 4, "length_penalty": 1.0},
    "beam-long": {"num_beams": 4, "length_penalty": 2.0},
    "guided-1.5": {"guidance_scale": 1.5, **_AWAY},
    "guided-2": {"guidance_scale": 2.0, **_AWAY},
    "guided-3": {"guidance_scale": 3.0, **_AWAY},
    "guided-2-tidy": {"guidance_scale": 2.0, "no_repeat_ngram_size": 5,
                      **_AWAY},
    "guided-mbr": {"guidance_scale": 2.0, "utility": "rouge-l", **_AWAY,
                   **_SAMPLES},
    "mbr": {**_SAMPLES, "utility": "rouge-l"},
    "mbr-f1": {**_SAMPLES, "utility": "token-f1"},
}


# --- what is read -----------------------------------------------------------


def prompts_of(
    data: Data, design: Design, points: Mapping[str, float], source: str = ""
) -> dict[str, str]:
    """Study -> prompt, from ``source`` (as `Design.train_on`)."""
    source, made = source or design.train_on, {}
    if source != "scores":  # 0 or 1, also for what the network never names
        points = dict.fromkeys(CONDITIONS, 0.5)
    for row in data.studies.itertuples():
        given = data.scores.get(row.study_id, {})
        if source != "scores":
            given = named_scores(source, row.mesh, row.findings)
        elif not given:
            continue  # no image
        try:
            text = prompts.build_prompt(given, design.score_format, points)
        except CourseError:
            if design.score_format not in prompts.NUMBERS:
                raise
            continue  # a view is missing, and numbers can't say so
        words = soft_tokens.words_of(row.study_id, design.soft)
        made[row.study_id] = words + text
    return made


def training_pairs(
    data: Data, design: Design, asked: Mapping[str, str], seed: int
) -> pd.DataFrame:
    """``split`` (train, val), ``prompt``, ``completion``: duplicates capped,
    abnormal studies repeated."""
    known = [study for study in asked if study in data.scores]
    table = data.studies[data.studies["study_id"].isin(known)]
    train_ = table.query("split == 'train'").sample(frac=1, random_state=seed)
    train_ = train_.head(data.n_train or len(train_))
    if design.copies:
        key = train_["findings"].str.lower().str.strip()
        train_ = train_[train_.groupby(key).cumcount() < design.copies]
    sick = train_.query("status == 'abnormal'")
    parts = [train_, *[sick] * (design.abnormal - 1)]
    val = table.query("split == 'val'").head(data.n_train // 4 or len(table))
    rows = pd.concat([*parts, val])
    return pd.DataFrame({
        "split": rows["split"], "prompt": rows["study_id"].map(asked),
        "completion": rows["findings"],
    }).reset_index(drop=True)  # fmt: skip


# --- one design -------------------------------------------------------------

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
        the test studies), ``val_loss``, ``base_seconds``, ``train_seconds``,
        ``decode_seconds``.
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
        "val_loss": facts["val_loss"],
        "base_seconds": base_seconds,
        "train_seconds": facts["seconds"],
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
    """Model with its trained part, tokenizer, ``val_loss`` and ``seconds``."""
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
    result = _fit(model, tokenizer, pairs, design, seed,
                  data.scratch / "work" / key)
    told = {"val_loss": result.facts["best_val_loss"],
            "seconds": time.perf_counter() - began}

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
    if "utility" in how:
        return generate.minimum_bayes_risk(
            model, tokenizer, texts, seed=seed, **size, **how
        )
    return generate.generate_reports(model, tokenizer, texts, **size, **how)
