"""Train a model on prompts and completions, and take up a killed run.

The training loop is trl's `SFTTrainer` (`trainer`); nothing of it is written
again here. What is trained, a plain model or LoRA matrices, is `finetune`'s
business.

Source of the settings: paper, section 3.5.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..course import machine
from ..course.errors import CourseError
from ..course.files import disk_errors, write_json
from .finetune import MAX_LENGTH
from .launch import share_batch
from .trainer import loss_type, trainer_class


class Training(NamedTuple):
    """What `train` gives back; the model itself is trained in place."""

    log: pd.DataFrame  #: artifact ``training_log``
    facts: dict[str, Any]  #: what really ran: optimizer, padding, steps


def check_lengths(pairs: pd.DataFrame, tokenizer: Any, limit: int) -> None:
    """Refuse to train when a completion would be cut.

    Parameters
    ----------
    pairs : DataFrame
        ``prompt``, ``completion``.
    limit : int
        ``max_length`` in tokens, end-of-sequence included.
    """
    texts = list(pairs["prompt"] + pairs["completion"])
    lengths = pd.Series(map(len, tokenizer(texts)["input_ids"])) + 1
    if (lengths > limit).any():
        raise CourseError(
            f"{int((lengths > limit).sum())} of {len(pairs)} reports would "
            "be cut.",
            f"The longest prompt and report have {lengths.max()} tokens, "
            f"max_length is {limit}.",
            f"Set MAX_LENGTH to at least {lengths.max()}, or choose a "
            "shorter SCORE_FORMAT in 03_build_prompts.",
        )


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
        Arguments of ``trl.SFTConfig``. With `patience`, evaluation and
        checkpoints come once an epoch unless the settings say otherwise.
        Where several processes train (`launch`), batch x accumulation is
        shared among them: an update sees as many studies as with one.
    loss_on : {"completion", "all"}
        Which tokens the loss is taken on.
    patience : int, optional
        Early stopping: evaluations without a better validation loss before
        training stops. The best checkpoint is restored at the end.

    Returns
    -------
    Training

    Raises
    ------
    CourseError
        No training pairs; a completion that would be cut; an unknown
        `loss_on`; a full disk.
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
    check_lengths(pairs, tokenizer, settings.get("max_length", MAX_LENGTH))
    watch = patience is not None and not parts["val"].empty
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
        "use_cpu": machine.pick_device()[0] == "cpu",
        "dataloader_pin_memory": machine.pick_device()[0] == "cuda",
        "ddp_find_unused_parameters": False,  # every weight has a gradient
        **loss_type(),
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
    facts = {
        "optimizer": _optimizer(trainer.optimizer),
        "steps": trainer.state.global_step,
        "best_checkpoint": Path(
            trainer.state.best_model_checkpoint or "last"
        ).name,
        "best_val_loss": trainer.state.best_metric,
        **trainer.padding(),
        "resumed": bool(last),
        "processes": args.world_size,
        "minutes": round((time.perf_counter() - began) / 60, 2),
    }
    trainer.accelerator.wait_for_everyone()  # all have read the best one
    if args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
    return Training(log, facts)


def _identity(model: Any) -> list:
    """What tells one model from another: the shape of every weight, the
    first bytes of the frozen ones, the adapter's kind and scale. Trained
    weights do not count: after Ctrl-C in a notebook they are not what they
    were."""
    weights = [
        (
            name,
            tuple(weight.shape),
            None
            if weight.requires_grad
            else weight.detach().flatten()[:64].float().tolist(),
        )
        for name, weight in model.named_parameters()
    ]
    facts = ("peft_type", "lora_alpha", "lora_dropout")  # not all have all
    adapters = getattr(model, "peft_config", {}).values()
    return [weights, [[getattr(c, f, None) for f in facts] for c in adapters]]


def _optimizer(optimizer: Any) -> str:
    """Package, class, and how many of its states really are in 8 bit:
    several packages call theirs AdamW, and small weights stay in 32."""
    inner = getattr(optimizer, "optimizer", optimizer)
    states = [
        {str(getattr(value, "dtype", "")) for value in state.values()}
        for state in inner.state.values()
    ]
    small = sum("torch.uint8" in dtypes for dtypes in states)
    package = type(inner).__module__.partition(".")[0]
    return (
        f"{package} {type(inner).__name__}, "
        f"{small} of {len(states)} states in 8 bit"
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
    """The newest checkpoint that is whole.

    The Trainer writes ``trainer_state.json`` last; one that does not parse
    means that the process died while writing.
    """
    from zipfile import is_zipfile  # what torch.save writes

    from safetensors import SafetensorError, safe_open

    found = sorted(
        folder.glob("checkpoint-*"),
        key=lambda path: int(path.name.rsplit("-", 1)[1]),
        reverse=True,
    )
    for checkpoint in found:
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
