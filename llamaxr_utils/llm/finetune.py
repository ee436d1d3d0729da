"""Settings, data, model, train, save: QLoRA with trl, top to bottom.

One path for every size and backend (transformers + peft, or unsloth). Before
the first step the loss of one batch is compared with plain torch.
Sources: QLoRA (arXiv 2305.14314); paper, 3.2 and 3.5.
"""

import argparse
import hashlib
import math
import os
import runpy
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..course import artifacts, machine, run
from ..course.errors import problem, refuse_unknown
from . import models
from .prompts import as_words, one_section

#: The seven linear layers of a Llama block (paper: 41,943,040 parameters).
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj",
                "gate_proj", "up_proj", "down_proj")
MAX_LENGTH = 1024
#: Relative difference to plain torch that a first batch's loss may have:
#: half precision moves it by less than half of that.
TOLERANCE = 0.01
#: What every training shares, as arguments of ``trl.SFTConfig``.
SHARED: dict[str, Any] = {
    "max_length": MAX_LENGTH,
    "bf16": False,  # True in trl: slow on CPUs without AVX512-BF16
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "restore_callback_states_from_checkpoint": True,  # the patience
    "report_to": "none",
    "dataloader_pin_memory": False,
    # An update sees as many studies on several GPUs as on one.
    "accelerator_config": {"split_batches": True},
    "ddp_find_unused_parameters": False,  # every weight has a gradient
}

# --- data --------------------------------------------------------------------

def completion_lengths(pairs: pd.DataFrame, tokenizer: Any, loss_on: str,
                       limit: int) -> dict[tuple[int, ...], int]:
    """Tokens of each text (prompt, completion, end) -> at how many of them,
    counted from the end, the loss is taken. Text over `limit` is refused."""
    texts = pairs["prompt"] + pairs["completion"] + tokenizer.eos_token
    whole = tokenizer(list(texts))["input_ids"]
    prompts = tokenizer(list(pairs["prompt"]))["input_ids"]
    longest = max(map(len, whole))
    if longest > limit:
        raise problem("reports would be cut", limit=limit, longest=longest)
    if loss_on == "all":
        prompts = [[]] * len(whole)  # the first token alone is not predicted
    return {tuple(ids): len(ids) - max(len(prompt), 1)
            for ids, prompt in zip(whole, prompts, strict=True)}


# --- model -------------------------------------------------------------------

def load_in_4bit(source: str, backend: str = "peft",
                 precision: str = "auto") -> tuple[Any, Any]:
    """A base (folder or hub id) in NF4 with double quantisation, and its
    tokenizer; unquantised, as a printed sentence says, where `no_4bit`.

    `precision` (auto, fp32, bf16, fp16) is that of the training to come: on a
    GPU the 4-bit layers compute in it, whatever dtype a checkpoint names.
    """
    refuse_unknown("BACKEND", backend, ("peft", "unsloth"))
    unsloth = import_unsloth() if backend == "unsloth" else None  # first
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tokenizer = models.load_tokenizer(source)
    device, dtype = machine.compute_dtype(precision)
    reason, compute = no_4bit(device, dtype), getattr(torch, dtype)
    if unsloth:  # left to itself it computes in bfloat16 on some CPUs
        model, _ = unsloth.from_pretrained(
            source, MAX_LENGTH, dtype=compute, load_in_4bit=True)
    else:  # "cuda" alone is this process's own GPU, {"": ...} the first
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=compute, device_map=device,
            quantization_config=None if reason else BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=compute))
    for part in model.modules():
        if hasattr(part, "compute_dtype"):
            part.compute_dtype = compute
    keep_weights_packed_once(model)
    if (stored := stored_as(model)) != "nf4":
        print(f"LoRA, not QLoRA: the base stays in {stored}. bitsandbytes "
              f"can't train 4-bit weights on this {device} "
              f"({reason or 'unsloth says why'}).")
    return model, tokenizer


def import_unsloth() -> Any:
    """Its loader; called before trl, transformers and peft are imported."""
    try:
        from unsloth import FastLanguageModel
    except Exception as error:
        raise problem("unsloth", why=f"{error!r}".splitlines()[0]) from error
    return FastLanguageModel


def no_4bit(device: str, dtype: str) -> str:
    """Why 4-bit weights can't be trained on a device, "" where they can:
    found by trying, for bitsandbytes may import without a kernel."""
    try:
        import bitsandbytes
        import torch

        with torch.inference_mode(False):
            x = torch.eye(64, device=device, dtype=getattr(torch, dtype))
            packed, state = bitsandbytes.functional.quantize_4bit(
                x, quant_type="nf4", compress_statistics=True)
            x.requires_grad_()
            bitsandbytes.matmul_4bit(x, packed.t(), state).sum().backward()
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as e:
        return f"{type(e).__name__}: {e}".splitlines()[0]
    return ""


def keep_weights_packed_once(model: Any) -> None:
    """Switch off bitsandbytes' in-place repacking on AVX512-BF16 CPUs: after
    an evaluation or a generation it repacks the 4-bit weights, and the
    gradients of a later training are silently wrong."""
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False


def stored_as(model: Any) -> str:
    """How the frozen linear layers (before LoRA's) are stored: nf4 ..."""
    weight = next(w for n, w in model.named_parameters() if "q_proj" in n)
    state = getattr(weight, "quant_state", None)
    return state.quant_type if state else str(weight.dtype).split(".")[1]


def add_lora(model: Any, rank: int = 16, alpha: int = 16,
             dropout: float = 0.0, backend: str = "peft",
             seed: int = 3407) -> Any:
    """Wrap the frozen base with trainable low-rank matrices, a `PeftModel`:
    ``h = W0 x + (alpha / rank) B A x`` (paper, eq. 3; Hu et al., LoRA)."""
    shape: dict[str, Any] = dict(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none",
        target_modules=list(LORA_TARGETS))
    on_gpu = next(model.parameters()).device.type == "cuda"
    if backend == "unsloth":
        return import_unsloth().get_peft_model(
            model, **shape, random_state=seed,
            use_gradient_checkpointing="unsloth" if on_gpu else False)
    from peft import LoraConfig, get_peft_model
    from peft import prepare_model_for_kbit_training as prepare
    from transformers import set_seed

    set_seed(seed)
    if stored_as(model) == "nf4":  # of 16 bit it would make 32
        model = prepare(model, use_gradient_checkpointing=on_gpu)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **shape))


# --- train -------------------------------------------------------------------

class Training(NamedTuple):
    log: pd.DataFrame  #: artifact ``training_log``
    facts: dict[str, Any]  #: what really ran: loss, optimizer, steps


def train(model: Any, tokenizer: Any, pairs: pd.DataFrame, folder: Path,
          settings: Mapping[str, Any], loss_on: str = "completion",
          patience: int | None = None) -> Training:
    """Supervised fine-tuning with trl, resumed where a killed run stopped.

    The model, of `add_lora` or a plain one, is trained in place on `pairs`:
    ``split`` (train, val), ``prompt``, ``completion``. `folder` is for
    checkpoints; `settings` go to ``trl.SFTConfig``; `loss_on` is completion
    or all (tokens). After `patience` evaluations without a better validation
    loss training stops; the best checkpoint is restored at the end.
    """
    from datasets import Dataset, disable_progress_bars
    from transformers import EarlyStoppingCallback
    from transformers.utils import logging
    from trl import SFTConfig

    refuse_unknown("LOSS_ON", loss_on, ("completion", "all"))
    columns = ["prompt", "completion"]
    pairs = pairs.assign(
        prompt=as_words(tokenizer, pairs["prompt"]), completion=as_words(
            tokenizer, pairs["completion"].map(one_section)))
    data = {split: Dataset.from_dict(part[columns].to_dict("list"))
            for split, part in pairs.groupby("split")}
    watched = patience is not None and "val" in data
    config = SHARED | dict(
        completion_only_loss=loss_on == "completion",
        use_cpu=machine.pick_device()[0] == "cpu",
        eval_strategy="epoch" if watched else "no",
        load_best_model_at_end=watched) | dict(settings)
    lengths = completion_lengths(pairs, tokenizer, loss_on,
                                 config["max_length"])
    args = SFTConfig(output_dir=str(folder), **config)
    with args.main_process_first(local=False):  # one writer a folder
        keep_if_same(folder, model, pairs, config)
        last = last_checkpoint(folder)

    disable_progress_bars()  # five of trl's for a second of work
    trainer = trainer_class()(
        model=model, args=args, processing_class=tokenizer,
        train_dataset=data["train"],
        eval_dataset=data["val"] if watched else None,
        callbacks=[EarlyStoppingCallback(patience)] if watched else None)
    trainer.lengths = lengths
    logging.disable_progress_bar()  # of every checkpoint that is written
    # trl makes a 4-bit model's adapter bfloat16, which is too coarse for the
    # paper's learning rate: most steps would be rounded off.
    for weight in filter(lambda w: w.requires_grad, model.parameters()):
        weight.data = weight.data.float()
    if last:
        print(f"Resuming from {last.name} (an earlier run was interrupted).")
    began = time.perf_counter()
    with artifacts.disk_errors(folder):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    state = trainer.state
    facts = {
        "first_batch_loss": trainer.first_batch[0],
        "first_batch_loss_by_plain_torch": trainer.first_batch[1],
        "optimizer": type(trainer.optimizer.optimizer).__module__,
        "steps": state.global_step,
        "best_checkpoint": Path(state.best_model_checkpoint or "last").name,
        "best_val_loss": state.best_metric,
        "resumed": bool(last),
        "processes": args.world_size,
        "minutes": round((time.perf_counter() - began) / 60, 2),
    }
    trainer.accelerator.wait_for_everyone()  # all have read the best one
    if args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
    return Training(log_table(state.log_history), facts)


def trainer_class() -> Any:
    """trl's trainer, as unsloth has left it by now, whose first batch is
    compared with plain torch, and whose order hangs on seed and epoch."""
    import torch
    import trl

    class Trainer(trl.SFTTrainer):
        lengths: Mapping[tuple[int, ...], int]  #: set by `train`
        first_batch = None, None  #: loss, reference

        def training_step(self, model, inputs, num_items_in_batch=None):
            if all(self.first_batch):
                return super().training_step(model, inputs, num_items_in_batch)
            batch = dict(self._prepare_inputs(inputs))
            rows = batch_rows(batch)
            texts = [batch["input_ids"][row] for row in rows]
            with self.compute_loss_context_manager(), torch.no_grad():
                total, n = reference_loss(model, texts, self.lengths)
            gradients = []  # of the embedded tokens: (rows, tokens, width)

            def watch(_module, _inputs, embedded):
                if torch.is_grad_enabled():
                    embedded.requires_grad_(True)
                    embedded.register_hook(gradients.append)

            embedding = self.model.get_input_embeddings()
            handle = embedding.register_forward_hook(watch)
            loss = super().training_step(model, inputs, num_items_in_batch)
            handle.remove()
            # The tokens that the trainer divided this batch's sum by.
            tokens = n * self.current_gradient_accumulation_steps
            if num_items_in_batch is not None:
                tokens = float(num_items_in_batch) / self.args.world_size
            returned, expected = float(loss) * tokens / n, total / n
            learned = [bool(part[row].any()) for part in gradients
                       if part.shape[:2] == batch["input_ids"].shape
                       for row in rows]
            close = math.isclose(returned, expected, rel_tol=TOLERANCE)
            if not (close and learned and all(learned)):
                raise problem(
                    "first loss", returned=returned, expected=expected,
                    learned=sum(learned), n=len(rows))
            self.first_batch = returned, expected
            return loss

        def _get_train_sampler(self, *given):
            """Taken from the global random numbers, the order would be
            another one after a resume."""
            sampler = super()._get_train_sampler(*given)
            if hasattr(sampler, "lengths"):
                sampler.generator = torch.Generator()
                sampler.set_epoch = lambda epoch: (
                    sampler.generator.manual_seed(self.args.seed + epoch))
            return sampler

        def _get_eval_sampler(self, rows):
            """Shortest first: the same batches every time, little padding."""
            lengths = [len(row) for row in rows["input_ids"]]
            return sorted(range(len(lengths)), key=lengths.__getitem__)

    return Trainer


def batch_rows(batch: Mapping[str, Any]) -> list[tuple[int, slice]]:
    """Where each text of a batch is, padding left out: (row, columns). A
    padding-free batch is one long row in which positions begin anew."""
    if "attention_mask" not in batch:
        starts = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
        ends = [*starts[1:], batch["input_ids"].shape[1]]
        return [(0, slice(*at)) for at in zip(starts, ends, strict=True)]
    places = [row.nonzero()[:, 0].tolist() for row in batch["attention_mask"]]
    return [(i, slice(at[0], at[-1] + 1)) for i, at in enumerate(places)]


def reference_loss(model: Any, texts: list[Any],
                   lengths: Mapping[tuple[int, ...], int]
                   ) -> tuple[float, int]:
    """Cross-entropy of some texts (tokens), its sum, and of how many tokens:
    one by one, from full logits. NaN where a text is none of the known."""
    from torch.nn.functional import cross_entropy

    total, count = 0.0, 0
    model.eval()
    for ids in texts:
        n = lengths.get(tuple(ids.tolist()))
        if n is None:
            return math.nan, 1
        logits = model(input_ids=ids[None], use_cache=False).logits
        total += float(cross_entropy(logits[0, -n - 1 : -1].float(), ids[-n:],
                                     reduction="sum"))
        count += n
    return total, count


def log_table(history: list[dict]) -> pd.DataFrame:
    """The Trainer's history as the artifact ``training_log``."""
    rows = [(entry["step"], round(entry["epoch"], 3),
             "train" if "loss" in entry else "val",
             entry.get("loss", entry.get("eval_loss")),
             entry.get("learning_rate"), entry.get("eval_runtime"))
            for entry in history if "loss" in entry or "eval_loss" in entry]
    return pd.DataFrame(rows, columns=[
        "step", "epoch", "split", "loss", "learning_rate", "seconds"])


def keep_if_same(folder: Path, model: Any, pairs: pd.DataFrame,
                 config: Mapping[str, Any]) -> None:
    """Throw away checkpoints that belong to another model, other data or
    settings. Trained weights do not count: after Ctrl-C in a notebook they
    are not what they were."""
    facts = repr((
        [(name, weight.shape, weight.requires_grad
          or weight.detach().flatten()[:64].float().tolist())
         for name, weight in model.named_parameters()],
        [getattr(lora, "lora_alpha", 0)
         for lora in getattr(model, "peft_config", {}).values()],
        sorted(config.items()), pairs.to_csv()))
    mark = hashlib.sha256(facts.encode()).hexdigest()
    file = folder / "fingerprint.txt"
    if not (file.is_file() and file.read_bytes() == mark.encode()):
        shutil.rmtree(folder, ignore_errors=True)
        artifacts.write_whole(
            file, lambda part: part.write_bytes(mark.encode()))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end (its state comes
    last) and is whole, as is the best one so far; others are removed."""
    last = None
    for checkpoint in sorted(folder.glob("checkpoint-*/"),
                             key=lambda path: int(path.name.split("-")[1])):
        state = artifacts.read_json(
            checkpoint / "trainer_state.json", global_step=int, max_steps=int,
            log_history=list) or {"best_model_checkpoint": "no such folder"}
        best = state.get("best_model_checkpoint") or checkpoint
        torch_files = [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]
        if os.path.isdir(best) and all(map(zipfile.is_zipfile, torch_files)):
            last = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return last


# --- save --------------------------------------------------------------------

def load_adapter(source: str, adapter: Path, backend: str = "peft",
                 precision: str = "auto") -> tuple[Any, Any]:
    """Base in 4 bit (`load_in_4bit`) with a saved adapter on it, ready to
    generate: model and tokenizer."""
    model, tokenizer = load_in_4bit(source, backend, precision)
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).eval(), tokenizer


def launch() -> None:
    """Notebook 04 on several GPUs, one process each (DDP), after 01 to 03::

        accelerate launch --multi_gpu --num_processes 2 \\
            -m llamaxr_utils.llm.finetune --profile a100

    torch's variables (``RANK`` ...) reach the notebook's kernel. The first
    process writes the run folder, the others a copy that is thrown away.
    """
    parser = argparse.ArgumentParser(prog="llamaxr_utils.llm.finetune")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--images", help="phantom or real")
    whole = run.runs_folder() / run.run_name(**vars(parser.parse_args()))
    sys.argv[1:1] = ["course", "--force", "--from", "04", "--to", "04"]
    with tempfile.TemporaryDirectory() as runs:
        if os.environ.get("RANK", "0") != "0":
            copy = Path(runs, whole.name)  # of what no training writes
            shutil.copytree(whole, copy, ignore=shutil.ignore_patterns(
                "tables", "figures", "notebooks", "records", "adapter*",
                "training_log*", "check*", ".*"))
            checkpoints = whole / "checkpoints"  # these all read
            (copy / "checkpoints").symlink_to(checkpoints.resolve())
            os.environ["LLAMAXR_RUNS"] = runs
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        runpy.run_module("llamaxr_utils", run_name="__main__")


if __name__ == "__main__":
    launch()
