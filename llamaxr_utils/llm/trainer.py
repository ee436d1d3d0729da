"""trl's trainer, with three changes: padding is counted; the order of batches
hangs on seed and epoch alone; and on a CPU the logits over the vocabulary are
computed only where there is a label, once. `training` decides the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from ..course import machine


def share_of_padding(lengths: Sequence[int], size: int) -> float:
    """Share of padded tokens when rows are batched in this order.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each row; a batch is as wide as its longest row.
    size : int
        Rows a batch.
    """
    parts = [lengths[i : i + size] for i in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(len(part) * max(part) for part in parts)


def loss_type() -> dict[str, str]:
    """The setting of ``SFTConfig`` that `Trainer` looks at.

    trl's own loss (``chunked_nll``) also takes labelled positions alone, but
    computes their logits twice to save a GPU's memory, and accuracy and
    entropy besides: on a CPU 4 % of a step with 2,000 words, 13 % with
    49,000. unsloth brings its own loss.
    """
    plain = machine.pick_device()[0] == "cpu" and "unsloth" not in sys.modules
    return {"loss_type": "nll"} if plain else {}


def one_pass(
    model: Any, tokenizer: Any, pairs: pd.DataFrame
) -> Callable[[int], None]:
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


def trainer_class() -> Any:
    """Built when called: unsloth must have changed trl before."""
    import torch
    import trl
    from transformers import Trainer as Plain

    class Trainer(trl.SFTTrainer):
        real = places = 0

        def _get_train_sampler(self, *given):
            """By length over a whole update, in an order of seed and epoch
            alone: taken from the global random numbers it would be another
            one in a training that is resumed in its second epoch."""
            made = super()._get_train_sampler(*given)
            if hasattr(made, "lengths"):
                made.batch_size *= self.args.world_size
                made.generator = torch.Generator()
                made.set_epoch = lambda epoch: made.generator.manual_seed(
                    self.args.seed + epoch
                )
            return made

        def _get_eval_sampler(self, rows):
            """Shortest first: the same batches every time, little padding."""
            lengths = [len(row) for row in rows["input_ids"]]
            return sorted(range(len(lengths)), key=lengths.__getitem__)

        def training_step(self, model, inputs, *args, **kwargs):
            mask = inputs.get("attention_mask")
            if mask is not None:
                self.real = self.real + mask.sum()  # no wait for a GPU
                self.places += mask.numel()
            return super().training_step(model, inputs, *args, **kwargs)

        def compute_loss(self, model, inputs, *args, **kwargs):
            if self.args.loss_type != "nll":
                return super().compute_loss(model, inputs, *args, **kwargs)
            inputs.pop("_prediction_loss_only", None)  # trl's own note
            targets = inputs["labels"][:, 1:]
            columns = (targets != -100).any(dim=0).nonzero()[:, 0]
            inputs |= {
                "logits_to_keep": columns,
                "shift_labels": targets[:, columns].contiguous(),
                "use_cache": False,
            }
            return Plain.compute_loss(self, model, inputs, *args, **kwargs)

        def padding(self) -> dict[str, float]:
            """Share of padded tokens in the training batches as they were
            made, and what a random order would have had."""
            rows = self.train_dataset.shuffle(seed=0)["input_ids"]
            lengths = [len(row) for row in rows]
            size = self.args.train_batch_size
            # Without places nothing was left to train, or nothing padded.
            made = 1 - float(self.real) / self.places if self.places else 0.0
            return {
                "padding": round(made, 3),
                "padding_in_random_order": round(
                    share_of_padding(lengths, size), 3
                ),
            }

    return Trainer
