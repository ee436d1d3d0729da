"""What a profile asks of a machine: its plan, and GPU memory by a formula.

Sizes are estimates from a model's shape, stated in `training_gb`; what a
machine has is not known here (`machine_facts`), nor is anything measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..llm import models
from . import run

#: GB (10^9 bytes): CUDA context and libraries, our allowance.
CONTEXT = 1.5
#: Of a GPU's free memory, the share that is planned with.
SHARE = 0.95


class Shape(NamedTuple):
    """Of a published Llama, from its config.json."""

    layers: int
    width: int
    kv: int  #: width of keys and of values
    hidden: int  #: of the feed-forward part
    vocabulary: int
    tied: bool  #: one matrix for input and output embedding

    @property
    def linear(self) -> int:
        """Weights of the seven linear layers, all blocks."""
        attention = 2 * self.width * (self.width + self.kv)
        return self.layers * (attention + 3 * self.width * self.hidden)

    @property
    def embeddings(self) -> int:
        return (1 if self.tied else 2) * self.vocabulary * self.width

    def lora(self, rank: int) -> int:
        """Trainable parameters of LoRA on the seven linear layers."""
        ends = 2 * (self.width + self.width) + 2 * (self.width + self.kv)
        return self.layers * rank * (ends + 3 * (self.width + self.hidden))


SHAPES = {
    "smollm2-135m": Shape(30, 576, 192, 1536, 49_152, True),
    "llama-3.2-1b": Shape(16, 2048, 512, 8192, 128_256, True),
    "llama-3.1-8b": Shape(32, 4096, 1024, 14_336, 128_256, False),
}


def base_gb(shape: Shape) -> float:
    """GB of the base: linear layers in NF4 with double quantisation, 4.127
    bits a weight (arXiv 2305.14314, section 3), embeddings in 16 bit."""
    return (shape.linear * 4.127 / 8 + shape.embeddings * 2) / 1e9


def training_gb(
    shape: Shape, rank: int, batch: int, length: int, backend: str
) -> dict[str, float]:
    """GB of GPU memory that QLoRA training needs, by its parts.

    An estimate, not a measurement::

        weights      `base_gb`, and one linear layer unpacked to 16 bit
        adapter      8 bytes a trainable parameter: weight, gradient (fp32)
        optimizer    2 bytes a trainable parameter: two states in 8 bit
                     (arXiv 2110.02861)
        activations  a token: 2 bytes x width x layers, the inputs that
                     checkpointing keeps (arXiv 2205.05198, section 5), and
                     4 bytes x (6 width + 2 kv + 4 hidden), one block,
                     computed again, with its gradients
        logits       12 bytes x vocabulary a token with plain transformers:
                     twice the batch in evaluation, in 16 and 32 bit;
                     unsloth computes the loss in pieces, in the allowance
        context      `CONTEXT`, an allowance

    Parameters
    ----------
    batch, length : int
        Studies a step and tokens a study; all of full length, the worst.
    backend : {"peft", "unsloth"}
    """
    trained, tokens = shape.lora(rank), batch * length
    block = 6 * shape.width + 2 * shape.kv + 4 * shape.hidden
    whole = 12 * shape.vocabulary if backend == "peft" else 0
    kept = 2 * shape.layers * shape.width
    return {
        "weights": base_gb(shape) + 2 * shape.width * shape.hidden / 1e9,
        "adapter": 8 * trained / 1e9,
        "optimizer": 2 * trained / 1e9,
        "activations": tokens * (kept + 4 * block) / 1e9,
        "logits": tokens * whole / 1e9,
        "context": CONTEXT,
    }


# --- the plan of a profile ---------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The knobs of a profile that a machine must stand."""

    profile: str
    images: str
    base: str
    backbone: str
    backend: str
    rank: int
    batch: int
    accumulation: int
    length: int
    precision: str

    @property
    def needs_gpu(self) -> bool:
        """Bases that are published in 4 bit are for a GPU."""
        return "4bit" in models.base(self.base).source


def plan(profile: str, images: str | None = None) -> Plan:
    """The `Plan` of a profile; an unknown one is a `CourseError`."""
    run.run_name(profile, images)

    def knob(notebook: str, name: str):
        return run.knob_value(notebook, name, profile, images)

    tuning = "04_finetune_qlora"
    return Plan(
        profile,
        images or run.declared()["profiles"][profile]["images"],
        knob("03_build_prompts", "BASE"),
        knob("02_extract_features", "BACKBONE"),
        knob(tuning, "BACKEND"),
        knob(tuning, "RANK"),
        knob(tuning, "BATCH_SIZE"),
        knob(tuning, "ACCUMULATION"),
        knob(tuning, "MAX_LENGTH"),
        knob(tuning, "PRECISION"),
    )


def smaller(wanted: Plan, free: float) -> str:
    """What fits into `free` GB: the largest halved batch, accumulated to the
    same number of studies an update; else another profile."""
    batch, steps = wanted.batch, wanted.accumulation
    while batch > 1:
        batch, steps = batch // 2, steps * 2
        size = (wanted.rank, batch, wanted.length, wanted.backend)
        if sum(training_gb(SHAPES[wanted.base], *size).values()) <= (
            SHARE * free
        ):
            return (
                f"set BATCH_SIZE = {batch} and ACCUMULATION = {steps}; an "
                f"update still sees {batch * steps} studies"
            )
    if wanted.base == "llama-3.2-1b":
        return "free the GPU (nvidia-smi lists its processes), or PROFILE=cpu"
    return "take a larger GPU, or PROFILE=t4 (Llama 3.2 1B)"
