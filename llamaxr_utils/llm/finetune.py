"""A base in 4 bit, LoRA on it, trl's trainer, and an adapter on disk.

One path for every size and backend: the five-million-parameter Llama of a
laptop and Llama 3.1 8B on an A100, plain transformers + peft or unsloth.
Before the first step of every training the loss of one batch is compared
with plain torch. Sources: QLoRA (arXiv 2305.14314); paper, 3.2 and 3.5.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course import artifacts, machine
from ..course.artifacts import disk_errors, write_json
from ..course.errors import CourseError
from ..course.run import WARNING, Run, read_record
from . import models
from .models import base, download_error, load_tokenizer

#: The seven linear layers of a Llama block (paper: 41,943,040 trainable
#: parameters, which is rank 16 on all seven of Llama 3.1 8B).
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj",
                "gate_proj", "up_proj", "down_proj")
MAX_LENGTH = 1024
#: Relative difference to plain torch that a first batch's loss may have:
#: half precision moves it by less than half of that.
TOLERANCE = 0.01
LEAK = (
    "TEST ROWS INCLUDED in training, on purpose, as the published notebook "
    "did: scores of this adapter on the test split measure memory."
)


# --- four bits ---------------------------------------------------------------


def keep_weights_packed_once(model: Any) -> None:
    """Switch off bitsandbytes' in-place repacking on AVX512-BF16 CPUs.

    With it an evaluation or a generation *before* training repacks the 4-bit
    weights, and later gradients are silently wrong.
    """
    switch = "support_avx512bf16_for_cpu"
    for part in model.modules():
        if hasattr(part, switch):
            setattr(part, switch, False)


def no_4bit(device: str, dtype: str) -> str:
    """Why 4-bit weights can't be trained on a device; empty where they can.

    A product and its gradient are tried: bitsandbytes may import without a
    kernel for the device.
    """
    try:
        import bitsandbytes
        import torch

        on: dict[str, Any] = dict(device=device, dtype=getattr(torch, dtype))
        with torch.inference_mode(False):
            packed, state = bitsandbytes.functional.quantize_4bit(
                torch.eye(64, **on), quant_type="nf4", compress_statistics=True
            )
            x = torch.ones(1, 64, requires_grad=True, **on)
            bitsandbytes.matmul_4bit(x, packed.t(), state).sum().backward()
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as e:
        return f"{type(e).__name__}: {e}".splitlines()[0]
    return ""


def stored_as(model: Any) -> str:
    """How the frozen linear layers (before LoRA's) are stored: nf4 ..."""
    weight = next(w for n, w in model.named_parameters() if "q_proj" in n)
    state = getattr(weight, "quant_state", None)
    return state.quant_type if state else str(weight.dtype).split(".")[1]


def load_in_4bit(
    source: str, backend: str = "peft", precision: str = "auto"
) -> tuple[Any, Any]:
    """A base model in NF4 with double quantisation, and its tokenizer.

    Where that can't be trained (`no_4bit`) it stays in 16 bit, on a CPU in
    float32, and a printed sentence says so.

    Parameters
    ----------
    source : str
        A folder or a hub id (`models.locate`).
    backend : {"peft", "unsloth"}
    precision : {"auto", "fp32", "bf16", "fp16"}
        Of the training to come: on a GPU the 4-bit layers compute in it. The
        dtype that a checkpoint in 4 bit names for itself does not count.

    Raises
    ------
    CourseError
        Unknown backend; unsloth that does not import; no such model; a
        precision that this device has not.
    """
    if backend not in ("peft", "unsloth"):
        raise CourseError(
            f"BACKEND = {backend!r} is not known.",
            "There are peft (plain transformers + peft) and unsloth.",
            'Set BACKEND to "peft" or "unsloth".',
        )
    unsloth = import_unsloth() if backend == "unsloth" else None  # first
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    device, dtype = machine.compute_dtype(precision)
    reason = no_4bit(device, dtype)
    if reason and device == "mps":
        dtype = "bfloat16"
    compute = getattr(torch, dtype)
    try:
        if unsloth:
            # Left to itself it computes in bfloat16 on some CPUs.
            model, _ = unsloth.from_pretrained(
                source, MAX_LENGTH, dtype=compute, load_in_4bit=True
            )
        else:
            # "cuda" alone is this process's own GPU, {"": ...} the first.
            how: dict[str, Any] = dict(dtype=compute, device_map=device)
            if not reason:
                how["quantization_config"] = BitsAndBytesConfig(
                    load_in_4bit=True,
                    bnb_4bit_quant_type="nf4",
                    bnb_4bit_use_double_quant=True,
                    bnb_4bit_compute_dtype=compute,
                )
            model = AutoModelForCausalLM.from_pretrained(source, **how)
    except (ImportError, OSError, ValueError) as error:
        raise download_error(source, error) from error
    for part in model.modules():
        if hasattr(part, "compute_dtype"):
            part.compute_dtype = compute
    keep_weights_packed_once(model)
    if (stored := stored_as(model)) != "nf4":
        print(f"LoRA, not QLoRA: the base stays in {stored}. bitsandbytes "
              f"can't train 4-bit weights on this {device} "
              f"({reason or 'unsloth says why'}).")
    return model, load_tokenizer(source)


def import_unsloth() -> Any:
    """Its loader; called before trl, transformers and peft are imported."""
    try:
        from unsloth import FastLanguageModel
    except Exception as error:
        raise CourseError(
            "unsloth could not be imported.",
            f"{type(error).__name__}: {error}".splitlines()[0],
            'Set BACKEND = "peft": the same settings without unsloth.',
        ) from error
    return FastLanguageModel


# --- low rank ----------------------------------------------------------------


def add_lora(
    model: Any,
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.0,
    backend: str = "peft",
    seed: int = 3407,
) -> Any:
    """Wrap the frozen base with trainable low-rank matrices, a `PeftModel`.

    ``h = W0 x + (alpha / rank) B A x`` (paper, eq. 3; Hu et al., LoRA).
    B starts at zero, so the wrapped model starts as the base.
    """
    shape: dict[str, Any] = dict(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(LORA_TARGETS),
        bias="none",
    )
    on_gpu = next(model.parameters()).device.type == "cuda"
    if backend == "unsloth":
        return import_unsloth().get_peft_model(
            model, **shape, random_state=seed,
            use_gradient_checkpointing="unsloth" if on_gpu else False)
    from peft import LoraConfig, get_peft_model
    from peft import prepare_model_for_kbit_training as prepare

    machine.seed_everything(seed)
    if stored_as(model) == "nf4":  # of 16 bit it would make 32
        model = prepare(model, use_gradient_checkpointing=on_gpu)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **shape))


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters; a 4-bit weight counts as its originals."""
    trainable = total = 0
    for parameter in model.parameters():
        shape = getattr(parameter, "quant_state", None)
        count = math.prod(shape.shape) if shape else parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total


# --- what the loss is taken on -----------------------------------------------


def completion_lengths(
    pairs: pd.DataFrame, tokenizer: Any, loss_on: str, limit: int
) -> dict[bytes, int]:
    """How many tokens at the end of each text the loss is taken on.

    Parameters
    ----------
    pairs : DataFrame
        ``prompt``, ``completion``; the end-of-sequence token is added.
    loss_on : {"completion", "all"}
        All means every token but the first, which nothing predicts.
    limit : int
        ``max_length`` in tokens; a completion that would be cut is an error.

    Returns
    -------
    dict
        The text's tokens (int32, as bytes) -> number of tokens.
    """
    whole = tokenizer(
        list(pairs["prompt"] + pairs["completion"] + tokenizer.eos_token)
    )["input_ids"]
    longest = max(map(len, whole))
    if longest > limit:
        raise CourseError(
            f"{sum(len(ids) > limit for ids in whole)} of {len(pairs)} "
            "reports would be cut.",
            f"The longest prompt and report have {longest} tokens, "
            f"max_length is {limit}.",
            f"Set MAX_LENGTH to at least {longest}, or choose a shorter "
            "SCORE_FORMAT in 03_build_prompts.",
        )
    prompts = tokenizer(list(pairs["prompt"]))["input_ids"]
    return {
        np.asarray(ids, np.int32).tobytes(): len(ids)
        - (max(len(prompt), 1) if loss_on == "completion" else 1)
        for ids, prompt in zip(whole, prompts, strict=True)
    }


def batch_rows(batch: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """(row, first, last + 1) of each text in a batch, padding left out.

    A padding-free batch is one long row in which positions begin anew.
    """
    if "attention_mask" not in batch:
        starts = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
        ends = [*starts[1:], batch["input_ids"].shape[1]]
        return [(0, a, b) for a, b in zip(starts, ends, strict=True)]
    places = [row.nonzero()[:, 0] for row in batch["attention_mask"]]
    return [(i, int(at[0]), int(at[-1]) + 1) for i, at in enumerate(places)]


def reference_loss(
    model: Any, batch: Mapping[str, Any], lengths: Mapping[bytes, int]
) -> tuple[float, int]:
    """Cross-entropy of a batch by plain torch: its sum, and of how many
    tokens. One text at a time, from full logits, without labels or padding.

    Raises
    ------
    ValueError
        A row of the batch is none of the texts in `lengths`.
    """
    import torch

    total, count = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for row, first, last in batch_rows(batch):
            ids = batch["input_ids"][row, first:last]
            n = lengths.get(ids.cpu().numpy().astype(np.int32).tobytes())
            if n is None:
                raise ValueError("its tokens are not a prompt and its report")
            output = model(input_ids=ids[None], use_cache=False)
            logits = output.logits[0, -n - 1 : -1].float()
            total += float(torch.nn.functional.cross_entropy(
                logits, ids[-n:], reduction="sum"))
            count += n
    model.train(was_training)
    return total, count


@contextlib.contextmanager
def embedding_gradients(model: Any):
    """Collects the gradients of the embedded tokens, (rows, tokens, width):
    the forward passes within the block are watched."""
    import torch

    gradients: list[Any] = []

    def watch(_module, _inputs, embedded):
        if torch.is_grad_enabled():
            embedded.requires_grad_(True)
            embedded.register_hook(gradients.append)

    handle = model.get_input_embeddings().register_forward_hook(watch)
    try:
        yield gradients
    finally:
        handle.remove()


def refuse_wrong_loss(returned: float, expected: float, learned: list) -> None:
    """Raise unless the trainer's loss is the reference's and every row of
    the batch has a gradient (`learned`: one truth value a row)."""
    close = math.isclose(returned, expected, rel_tol=TOLERANCE)
    if close and all(learned):
        return
    raise CourseError(
        "Training was stopped before its first step: the loss is wrong.",
        f"On the first batch the trainer returns {returned:.4f}; the "
        f"cross-entropy of the reports' tokens by plain torch is "
        f"{expected:.4f}, and {sum(learned)} of {len(learned)} studies have "
        "a gradient. The model would learn from the wrong tokens.",
        'Set BACKEND = "peft", or install the versions in constraints.txt '
        "(`python -m llamaxr_utils check` compares them).",
    )


def trainer_class() -> Any:
    """trl's trainer with two additions: a first batch that is compared with
    plain torch, and batches whose order hangs on seed and epoch alone. Built
    when called: unsloth must have changed trl before."""
    import torch
    import trl

    class Trainer(trl.SFTTrainer):
        lengths: Mapping[bytes, int]  #: set by `train`
        first_batch: tuple[float, float] | None = None  #: loss, reference

        def training_step(self, model, inputs, num_items_in_batch=None):
            if self.first_batch:
                return super().training_step(
                    model, inputs, num_items_in_batch
                )
            batch = dict(self._prepare_inputs(inputs))
            try:
                with self.compute_loss_context_manager():
                    total, n = reference_loss(model, batch, self.lengths)
            except ValueError as error:
                raise CourseError(
                    "Training was stopped before its first step: a row of "
                    "the first batch is not what it was given.",
                    f"{error} (begin and end tokens included).".capitalize(),
                    'Set BACKEND = "peft", or install the versions in '
                    "constraints.txt.",
                ) from error
            with embedding_gradients(self.model) as gradients:
                loss = super().training_step(
                    model, inputs, num_items_in_batch
                )
            if num_items_in_batch is None:
                share = n * self.current_gradient_accumulation_steps
            else:
                share = float(num_items_in_batch) / self.args.world_size
            learned = [
                bool(part[row, first:last].any())
                for part in gradients
                if part.shape[:2] == batch["input_ids"].shape
                for row, first, last in batch_rows(batch)
            ]
            self.first_batch = float(loss) * share / n, total / n
            refuse_wrong_loss(*self.first_batch, learned or [False])
            return loss

        def _get_train_sampler(self, *given):
            """By length over a whole update, in an order of seed and epoch
            alone: taken from the global random numbers it would be another
            one in a training that is resumed in its second epoch."""
            sampler = super()._get_train_sampler(*given)
            if hasattr(sampler, "lengths"):
                sampler.batch_size *= self.args.world_size
                sampler.generator = torch.Generator()
                sampler.set_epoch = lambda epoch: (
                    sampler.generator.manual_seed(self.args.seed + epoch)
                )
            return sampler

        def _get_eval_sampler(self, rows):
            """Shortest first: the same batches every time, little padding."""
            lengths = [len(row) for row in rows["input_ids"]]
            return sorted(range(len(lengths)), key=lengths.__getitem__)

    return Trainer


# --- the training ------------------------------------------------------------


class Training(NamedTuple):
    """What `train` gives back; the model itself is trained in place."""

    log: pd.DataFrame  #: artifact ``training_log``
    facts: dict[str, Any]  #: what really ran: optimizer, padding, steps


def train(
    model: Any,
    tokenizer: Any,
    pairs: pd.DataFrame,
    folder: Path,
    settings: Mapping[str, Any],
    loss_on: str = "completion",
    patience: int | None = None,
) -> Training:
    """Supervised fine-tuning with trl, resumed where a killed run stopped.

    Parameters
    ----------
    model, tokenizer
        From `load_in_4bit` and `add_lora`, or a plain model (pre-training).
    pairs : DataFrame
        ``split`` (train, val), ``prompt``, ``completion``.
    folder : Path
        For checkpoints; emptied when the training is complete.
    settings : mapping
        Arguments of ``trl.SFTConfig``. Where several processes train
        (`launch`) they share the studies of an update.
    loss_on : {"completion", "all"}
        Which tokens the loss is taken on.
    patience : int, optional
        Evaluations without a better validation loss before training stops;
        the best checkpoint is restored at the end.

    Raises
    ------
    CourseError
        No training pairs; a completion that would be cut; an unknown
        `loss_on`; a full disk; a loss that is not the reference's.
    """
    from datasets import Dataset, disable_progress_bars
    from transformers import EarlyStoppingCallback, PrinterCallback
    from transformers.utils import logging
    from trl import SFTConfig

    if loss_on not in ("completion", "all"):
        raise CourseError(
            f"LOSS_ON = {loss_on!r} is not known.",
            "The loss is taken on the completion or on all tokens.",
            'Set LOSS_ON to "completion" or "all".',
        )
    parts = {
        split: pairs.loc[pairs["split"] == split, ["prompt", "completion"]]
        for split in ("train", "val")
    }
    if parts["train"].empty:
        raise CourseError(
            "There is nothing to train on.",
            "No row of the prompts has split = train.",
            "Look at the split in 03_build_prompts.",
        )
    lengths = completion_lengths(
        pairs, tokenizer, loss_on, settings.get("max_length", MAX_LENGTH)
    )
    watch = patience is not None and not parts["val"].empty
    device = machine.pick_device()[0]
    config: dict[str, Any] = {
        "max_length": MAX_LENGTH,
        "bf16": False,  # True in trl: slow on CPUs without AVX512-BF16
        "completion_only_loss": loss_on == "completion",
        "eval_strategy": "epoch" if watch else "no",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "load_best_model_at_end": watch,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,  # the patience
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "ddp_find_unused_parameters": False,  # every weight has a gradient
        **settings,
    }
    disable_progress_bars()  # five of trl's for a second of work
    args = SFTConfig(output_dir=str(folder), **config)
    share_batch(args, args.world_size)
    with args.main_process_first(local=False):  # one writer a folder
        mark = {**config, "model": _identity(model), "on": loss_on}
        _keep_if_same(folder, pairs, mark)
        last = last_checkpoint(folder)
    trainer = trainer_class()(
        model=model,
        args=args,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict(parts["train"].to_dict("list")),
        eval_dataset=Dataset.from_dict(parts["val"].to_dict("list"))
        if watch
        else None,
        callbacks=[_progress()]
        + ([EarlyStoppingCallback(patience)] if watch else []),
    )
    trainer.lengths = lengths
    trainer.remove_callback(PrinterCallback)  # `_progress` says it better
    for weight in model.parameters():
        if weight.requires_grad:
            # trl makes a 4-bit model's adapter bfloat16, which is too coarse
            # for the paper's learning rate: most steps would be rounded off.
            weight.data = weight.data.float()
    logging.disable_progress_bar()  # of every checkpoint that is written
    began = time.perf_counter()
    if last:
        print(f"Resuming from {last.name} (an earlier run was interrupted).")
    with disk_errors(folder):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    log = _log(trainer.state.log_history)
    returned, expected = trainer.first_batch or (None, None)
    facts = {
        "first_batch_loss": returned,
        "first_batch_loss_by_plain_torch": expected,
        "optimizer": _optimizer(trainer.optimizer),
        "steps": trainer.state.global_step,
        "best_checkpoint": Path(
            trainer.state.best_model_checkpoint or "last"
        ).name,
        "best_val_loss": trainer.state.best_metric,
        "resumed": bool(last),
        "processes": args.world_size,
        "minutes": round((time.perf_counter() - began) / 60, 2),
    }
    trainer.accelerator.wait_for_everyone()  # all have read the best one
    if args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
    return Training(log, facts)


def choose_rows(pairs: pd.DataFrame, rows: str) -> pd.DataFrame:
    """The prompts that training is given: ``split`` is train or val.

    With ``rows="all"`` every row is trained on, test rows too: the published
    notebook's leak, said aloud. ``rows="train"`` is honest.
    """
    if rows == "train":
        return pairs[pairs["split"].isin(["train", "val"])]
    if rows != "all":
        raise CourseError(
            f"ROWS = {rows!r} is not known.",
            "Training gets the training split, or every row as in the "
            "published notebook.",
            'Set ROWS to "train" or "all".',
        )
    print(f"ROWS = all: {LEAK}")
    val = pairs[pairs["split"].eq("val")]
    return pd.concat([pairs.assign(split="train"), val], ignore_index=True)


def share_batch(args: Any, processes: int) -> None:
    """Divide the studies of an update among processes, in place: the
    accumulation first, then the batch, so that no process needs more memory.
    """
    batch = args.per_device_train_batch_size
    steps = args.gradient_accumulation_steps
    common = math.gcd(steps, processes)
    if batch % (processes // common):
        raise CourseError(
            f"{processes} processes cannot share an update evenly.",
            f"It sees {batch} x {steps} studies (BATCH_SIZE x ACCUMULATION).",
            f"Take a number of processes that divides {batch * steps}.",
        )
    args.gradient_accumulation_steps = steps // common
    args.per_device_train_batch_size = batch // (processes // common)


def one_pass(model: Any, tokenizer: Any, pairs: pd.DataFrame) -> Any:
    """What `machine.pick_threads` times: a function of n that runs the loss
    of n pairs of middle length forward and backward. No weight changes."""
    texts = pairs["prompt"] + pairs["completion"]
    order = texts.str.len().argsort().to_numpy()

    def work(n: int) -> None:
        first = max(0, (len(texts) - n) // 2)
        some = list(texts.iloc[order[first : first + n]])
        batch = tokenizer(some, return_tensors="pt", padding=True)
        batch = batch.to(model.device)
        model(**batch, labels=batch["input_ids"]).loss.backward()
        model.zero_grad()

    return work


def _identity(model: Any) -> list:
    """What tells one model from another: the shapes of its weights and the
    first of the frozen ones. Trained weights do not count: after Ctrl-C in a
    notebook they are not what they were."""
    return [
        (
            name,
            tuple(weight.shape),
            None
            if weight.requires_grad
            else weight.detach().flatten()[:64].float().tolist(),
        )
        for name, weight in model.named_parameters()
    ] + [
        [getattr(adapter, knob, None)  # prefix tuning has neither
         for knob in ("lora_alpha", "lora_dropout")]
        for adapter in getattr(model, "peft_config", {}).values()
    ]


def _optimizer(optimizer: Any) -> str:
    """Package, class, and how many of its states really are in 8 bit: small
    weights stay in 32."""
    inner = getattr(optimizer, "optimizer", optimizer)
    small = sum(
        any(str(getattr(v, "dtype", "")) == "torch.uint8" for v in s.values())
        for s in inner.state.values()
    )
    package = type(inner).__module__.partition(".")[0]
    return (
        f"{package} {type(inner).__name__}, "
        f"{small} of {len(inner.state)} states in 8 bit"
    )


def _keep_if_same(folder: Path, pairs: pd.DataFrame, config: dict) -> None:
    """Throw away checkpoints that belong to other data or settings."""
    text = json.dumps(config, sort_keys=True, default=str) + pairs.to_csv()
    mark = {"fingerprint": hashlib.sha256(text.encode()).hexdigest()}
    file = folder / "fingerprint.json"
    if not (file.is_file() and json.loads(file.read_text()) == mark):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(file, mark)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; others are removed. (The Trainer
    writes ``trainer_state.json`` last.)"""
    from zipfile import is_zipfile  # what torch.save writes

    from safetensors import SafetensorError, safe_open

    checkpoints = sorted(
        folder.glob("checkpoint-*"),
        key=lambda path: int(path.name.rsplit("-", 1)[1]),
        reverse=True,
    )
    for checkpoint in checkpoints:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
            for weights in checkpoint.glob("*.safetensors"):
                with safe_open(weights, "pt"):  # reads its length, no tensor
                    pass
            if all(map(is_zipfile, checkpoint.glob("*.pt*"))):
                return checkpoint
            raise ValueError("a file of torch is cut")
        except (OSError, ValueError, SafetensorError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def _progress() -> Any:
    """A line at every log: step, loss, time left. Light on the notebook."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.began, self.first = time.perf_counter(), state.global_step

        def on_log(self, args, state, control, logs=None, **kwargs):
            logs = logs or {}
            value = logs.get("loss", logs.get("eval_loss"))
            if value is None:
                return
            done = max(state.global_step - self.first, 1)
            spent = time.perf_counter() - self.began
            left = spent / done * (state.max_steps - state.global_step)
            kind = "train" if "loss" in logs else "val  "
            print(
                f"step {state.global_step:5d}/{state.max_steps} · {kind} "
                f"loss {float(value):.3f} · {spent:4.0f} s, about "
                f"{left:.0f} s left",
                flush=True,
            )

    return Progress()


def _log(history: list[dict]) -> pd.DataFrame:
    """The Trainer's history as the artifact ``training_log``."""
    rows = [
        {
            "step": entry["step"],
            "epoch": round(entry["epoch"], 3),
            "split": "train" if "loss" in entry else "val",
            "loss": float(entry.get("loss") or entry["eval_loss"]),
            "learning_rate": entry.get("learning_rate"),
            "seconds": entry.get("eval_runtime"),
        }
        for entry in history
        if "loss" in entry or "eval_loss" in entry
    ]
    columns = ["step", "epoch", "split", "loss", "learning_rate", "seconds"]
    return pd.DataFrame(rows, columns=columns)


# --- the base of a run -------------------------------------------------------


def make_base(
    nb: Run,
    name: str,
    tokenizer_folder: Path,
    corpus: pd.DataFrame,
    settings: Mapping[str, Any],
) -> tuple[str, Training | None]:
    """Where the base is, for `load_in_4bit`: made and pre-trained now on
    `corpus` (`models.pretraining_pairs`) and saved as ``base_model``, or
    published. The training, too, when there was one."""
    if not models.made_here(name):
        print(f"{name} is published: no pre-training.")
        return models.locate(name), None
    if _left_by_interrupted_run(nb):
        print("The base of the interrupted run is whole: used again.")
        path = artifacts.path_of(nb.folder, "base_model")
        nb.outputs["base_model"] = path
        return str(path), None
    if nb.knobs.get("BACKEND") == "unsloth":
        import_unsloth()  # it wants to be imported before trl
    tokenizer = load_tokenizer(str(tokenizer_folder))
    model = models.new_llama(name, tokenizer, int(settings["seed"]))
    result = train(
        model,
        tokenizer,
        corpus.assign(split="train"),
        nb.folder / "checkpoints-base",
        settings,
    )
    nb.save(
        "base_model",
        lambda folder: models.save_model(model, tokenizer, folder),
        inputs=["studies", "tokenizer"],
    )
    return str(nb.outputs["base_model"]), result


def _left_by_interrupted_run(nb: Run) -> bool:
    """True if ``base_model`` is up to date, was made with these knobs, and
    is not the one that the notebook's last *finished* run recorded."""
    manifest = artifacts.manifest(nb.folder, "base_model")
    if not manifest or artifacts.stale_because(nb.folder, "base_model"):
        return False
    finished = read_record(nb.folder, nb.notebook) or {"outputs": {}}
    same = manifest["parameters"] == {"images": nb.images, **nb.knobs}
    return same and manifest["sha256"] != finished["outputs"].get("base_model")


# --- the adapter -------------------------------------------------------------


def save_adapter(
    nb: Run,
    model: Any,
    base_name: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Save the artifact ``adapter``: safetensors, and a model card with what
    was asked for (`settings`) and what really ran (`facts`)."""
    leaks = nb.knobs.get("ROWS") == "all"
    template = Path(__file__).parents[1] / "data" / "adapter_card.md"
    card = template.read_text("utf-8").format(
        images=nb.images,
        warning=WARNING,
        stamp=nb.stamp,
        base=base_name,
        about=base(base_name).about,
        stored=stored_as(model),
        rows="all rows" if leaks else "training split",
        leak=f" **{LEAK}**" if leaks else "",
        settings=_listed(settings),
        metrics=_listed(facts),
        source=base(base_name).source or "base_model",
    )

    def write(folder: Path) -> None:
        model.save_pretrained(folder)  # with an empty card, replaced here
        (folder / "README.md").write_text(card, "utf-8")

    nb.save("adapter", write)


def _listed(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def load_adapter(
    source: str,
    adapter: Path,
    backend: str = "peft",
    precision: str = "auto",
) -> tuple[Any, Any]:
    """Base in 4 bit with a saved adapter on it, ready to generate: model
    and tokenizer, by `load_in_4bit`."""
    model, tokenizer = load_in_4bit(source, backend, precision)
    from peft import PeftModel

    model = PeftModel.from_pretrained(model, str(adapter))
    keep_weights_packed_once(model)
    return model.eval(), tokenizer
