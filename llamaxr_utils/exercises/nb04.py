"""Exercises of notebook 04: the layer of low rank, the labels that the loss is
taken on, the parameters that are trained."""

import numpy as np

from ..course.exercises import Exercise, NotYet, expect, seed
from ..llm.models import LLAMA_8B


def lora_forward(x, W0, A, B, scale):
    """The frozen layer, and the low-rank change beside it."""
    return x @ W0.T + scale * (x @ A.T) @ B.T


def mask_labels(prompt, completion):
    """Labels of prompt + completion: the prompt's tokens are not learned."""
    return [-100] * len(prompt) + list(completion)


def lora_parameters(rank, shapes):
    """Trained numbers: A is rank x inputs, B is outputs x rank."""
    return sum(rank * (n_in + n_out) for n_out, n_in in shapes)


#: Of one block: (outputs, inputs), as torch keeps a weight.
SHAPES = [(outputs, inputs) for inputs, outputs in LLAMA_8B.values()]


def _lora(answer):
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed())
    net = torch.nn.Sequential(torch.nn.Linear(6, 5, bias=False))
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["0"])
    layer = get_peft_model(net, config).base_model.model[0]
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    W0, x = layer.base_layer.weight, torch.randn(3, 6)

    def compare(case):
        given = [t.detach() for t in (x, W0, A, B)]
        with torch.no_grad():
            right = layer(x).numpy()
        expect(case, np.asarray(answer(*given, 3.0)), right, atol=1e-5)

    compare("B = 0, as at the start (alpha / r = 3)")
    torch.nn.init.normal_(B)
    compare("A and B trained (alpha / r = 3)")


def _mask(answer):
    for case, prompt, completion in (
        ("prompt [5, 6, 7], completion [8, 9]", [5, 6, 7], [8, 9]),
        ("a prompt that holds the completion's tokens", [8, 9], [8, 9]),
        ("an empty completion", [5], []),
    ):
        labels = list(answer(prompt, completion))
        expect(case, len(labels), len(prompt) + len(completion))
        if labels[: len(prompt)] == prompt != []:
            raise NotYet(f"{case}: the prompt is still to be predicted.")
        expect(case, labels, [-100] * len(prompt) + completion)


def _count(answer):
    expect("rank 1, one layer of 3 outputs and 2 inputs",
           int(answer(1, [(3, 2)])), 5)
    expect("rank 16, the seven layers in 32 blocks of Llama 3.1 8B",
           int(answer(16, 32 * SHAPES)), 41_943_040)


EXERCISES = {
    "04a": Exercise(_lora, lora_forward, """
        torch keeps a weight as (outputs, inputs), so the frozen layer is `x @
        W0.T`.

        `A` brings x down to `r` numbers, `B` brings them up to the outputs;
        add that to the frozen layer's result.

        `x @ W0.T + scale * (x @ A.T) @ B.T`
        """,
        "At B = 0 it is the frozen layer; peft's layer gives the same."),
    "04b": Exercise(_mask, mask_labels, """
        torch's cross-entropy leaves out the label -100.

        One label a token, in the order of prompt + completion.

        `[-100] * len(prompt) + completion`
        """,
        "The model reads the prompt, and is asked for the report alone."),
    "04c": Exercise(_count, lora_parameters, """
        `A` has rank x inputs numbers, `B` has outputs x rank.

        Sum `rank * (inputs + outputs)` over the layers.
        """,
        "41,943,040 is the number that the paper prints: rank 16 on the "
        "seven linear layers."),
}
