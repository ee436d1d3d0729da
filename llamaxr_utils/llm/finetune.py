"""Load a base in 4 bit, wrap it with LoRA, save and reload an adapter.

One path for every size: the five-million-parameter Llama on a laptop and
Llama 3.1 8B on an A100 go through the same functions, with plain
transformers + peft + bitsandbytes or with unsloth; in 16 bit, said aloud,
where bitsandbytes has no kernel. The loop that trains it is `training`.

Sources: QLoRA (arXiv 2305.14314); paper, sections 3.2 and 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..course import machine
from ..course.errors import CourseError
from ..course.run import WARNING, Run
from .models import base, download_error, load_tokenizer
from .paper_settings import LEAK

#: The seven linear layers of a Llama block (paper: 41,943,040 trainable
#: parameters, which is rank 16 on all seven of Llama 3.1 8B).
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj",
                "gate_proj", "up_proj", "down_proj")
MAX_LENGTH = 1024


def keep_weights_packed_once(model: Any) -> int:
    """Switch off bitsandbytes' in-place repacking on AVX512-BF16 CPUs.

    Without this, an evaluation or a generation *before* training repacks the
    4-bit weights, and later gradients are silently wrong.

    Returns
    -------
    int
        Number of modules that had the switch.
    """
    switch = "support_avx512bf16_for_cpu"
    modules = [part for part in model.modules() if hasattr(part, switch)]
    for part in modules:
        setattr(part, switch, False)
    return len(modules)


def no_4bit(device: str, dtype: str) -> str:
    """Why 4-bit weights can't be trained on a device; empty where they can.

    A product and its gradient are tried: bitsandbytes may import without a
    kernel for the device. (0.50.2 has no wheel for Macs with Intel.)
    """
    try:
        import bitsandbytes
        import torch

        on: dict[str, Any] = dict(device=device, dtype=getattr(torch, dtype))
        with torch.inference_mode(False):  # whatever the caller is in
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


def load_in_4bit(source: str, backend: str = "peft") -> tuple[Any, Any]:
    """A base model in NF4 with double quantisation, and its tokenizer.

    Where that can't be trained (`no_4bit`) it stays in 16 bit, on a CPU in
    float32, and a printed sentence says so; `stored_as` is the record.

    Parameters
    ----------
    source : str
        A folder or a hub id (`models.locate`).
    backend : {"peft", "unsloth"}
        unsloth must be imported before trl, transformers and peft.

    Returns
    -------
    model, tokenizer

    Raises
    ------
    CourseError
        Unknown backend; unsloth that does not import; no such model.
    """
    if backend not in ("peft", "unsloth"):
        raise CourseError(
            f"BACKEND = {backend!r} is not known.",
            "There are peft (plain transformers + peft) and unsloth.",
            'Set BACKEND to "peft" or "unsloth".',
        )
    unsloth = _unsloth() if backend == "unsloth" else None  # before the rest
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    device, dtype, _ = machine.pick_device()
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
    keep_weights_packed_once(model)
    if (stored := stored_as(model)) != "nf4":
        print(f"LoRA, not QLoRA: the base stays in {stored}. bitsandbytes "
              f"can't train 4-bit weights on this {device} "
              f"({reason or 'unsloth says why'}).")
    return model, load_tokenizer(source)


def _unsloth() -> Any:
    try:
        from unsloth import FastLanguageModel
    except Exception as error:
        raise CourseError(
            "unsloth could not be imported.",
            f"{type(error).__name__}: {error}".splitlines()[0],
            'Set BACKEND = "peft": the same settings without unsloth.',
        ) from error
    return FastLanguageModel


def add_lora(
    model: Any,
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.0,
    backend: str = "peft",
    seed: int = 3407,
) -> Any:
    """Wrap the frozen base with trainable low-rank matrices.

    ``h = W0 x + (alpha / rank) B A x`` (paper, eq. 3; Hu et al., LoRA).
    B starts at zero, so the wrapped model starts as the base.

    Returns
    -------
    peft.PeftModel
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
        return _unsloth().get_peft_model(
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


CARD = """\
---
library_name: peft
license: other
language: en
tags: [lora, chest-x-ray, report-generation]
---

# LoRA adapter: chest X-ray reports from {images} images

**{warning}**

{stamp}

## Base

{base}: {about}; frozen in {stored}. The adapter alone writes nothing.

## Data

Findings of IU X-ray (OpenI, Indiana University; Demner-Fushman et al. 2016),
{rows}; scores of {images} images.{leak}

## Licence

The reports are CC BY-NC-ND 4.0: name the source, no commercial use, no
altered copies. Whether weights trained on them are such a copy is not
settled, so ask before you publish this adapter. The base's own licence
(above) holds too; Llama's asks for "Built with Llama" and for "Llama" at the
beginning of a published model's name.

## Settings

{settings}

## Metrics

{metrics}

Scores on test reports stand in the run's `summary.csv`, each with its
protocol, split and images.

## Limits

- Reads the scores of 18 conditions a view, no pixels: what they do not name
  (spine, devices, calcification ...) can only be guessed.
- English, one hospital network, de-identified text; no comparison with
  earlier studies.
- Fluent text is no evidence that it follows the image: notebook 09 tests it.

## Use

```python
from llamaxr_utils.llm.finetune import load_adapter
model, tokenizer = load_adapter("{source}", "this/folder")
```
"""


def save_adapter(
    nb: Run,
    model: Any,
    base_name: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Save the artifact ``adapter``: safetensors and a model card.

    Parameters
    ----------
    nb : Run
        Of notebook 04, with the knob ``ROWS``.
    model : peft.PeftModel
    base_name : str
        A key of `models.BASES`.
    settings, facts : mapping
        What was asked for and what really ran; both into the card.
    """
    known = base(base_name)
    leaks = nb.knobs.get("ROWS") == "all"
    card = CARD.format(
        images=nb.images,
        warning=WARNING,
        stamp=nb.stamp,
        base=base_name,
        about=known.about,
        stored=stored_as(model),
        rows="all rows" if leaks else "training split",
        leak=f" **{LEAK}**" if leaks else "",
        settings=_listed(settings),
        metrics=_listed(facts),
        source=known.source or "base_model",
    )

    def write(folder: Path) -> None:
        model.save_pretrained(folder)  # with an empty card, replaced here
        (folder / "README.md").write_text(card, "utf-8")

    nb.save("adapter", write)


def _listed(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def load_adapter(source: str, adapter: Path, backend: str = "peft") -> Any:
    """Base in 4 bit with a saved adapter on it, ready to generate.

    Returns
    -------
    model, tokenizer
    """
    model, tokenizer = load_in_4bit(source, backend)
    from peft import PeftModel

    model = PeftModel.from_pretrained(model, str(adapter))
    keep_weights_packed_once(model)
    return model.eval(), tokenizer
