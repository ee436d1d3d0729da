"""Write reports with a model: batched decoding, one row a prompt.

Greedy by default, because only then do counts of distinct reports mean
anything. The module decodes; it neither loads models nor scores texts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .errors import CourseError
from .finetune import keep_weights_packed_once
from .prompts import RESPONSE_HEADER


def generate_reports(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    batch_size: int = 16,
    max_new_tokens: int = 200,
    progress: Callable[[int, int], None] | None = None,
    **decoding: Any,
) -> pd.DataFrame:
    """Decode one report per prompt.

    Prompts are batched by length and padded on the left; the rows come back
    in the order of `prompts`.

    Parameters
    ----------
    model, tokenizer
        From `finetune.load_adapter` or `finetune.load_in_4bit`.
    prompts : sequence of str
        Each ends with the response header (`prompts.build_prompt`).
    batch_size, max_new_tokens : int
    progress : callable, optional
        Called with (done, all) after each batch.
    **decoding
        Passed to ``model.generate``; nothing means greedy.

    Returns
    -------
    DataFrame
        ``generated`` (str), ``n_tokens`` (int, without the end token),
        ``finished`` (bool: stopped at the end token), ``seconds`` (float,
        the batch's time shared out).

    Raises
    ------
    CourseError
        If a prompt does not end with the response header.
    """
    import torch

    for prompt in prompts:
        if not prompt.endswith(RESPONSE_HEADER):
            raise CourseError(
                "A prompt does not end with the response header.",
                f"It ends with {prompt[-30:]!r}; the model would continue "
                "the input instead of answering.",
                "Build prompts with prompts.build_prompt().",
            )
    if tokenizer.padding_side != "left":
        tokenizer.padding_side = "left"
    keep_weights_packed_once(model)
    model.eval()
    lengths = [len(ids) for ids in tokenizer(list(prompts))["input_ids"]] if (
        len(prompts)
    ) else []
    order = np.argsort(lengths, kind="stable")
    rows: dict[int, tuple[str, int, bool, float]] = {}
    settings = {"do_sample": False, "max_new_tokens": max_new_tokens}
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        began = time.perf_counter()
        batch = tokenizer(
            [prompts[i] for i in chosen], return_tensors="pt", padding=True
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **{**settings, **decoding},
            )
        answers = output[:, batch["input_ids"].shape[1] :].tolist()
        seconds = (time.perf_counter() - began) / len(chosen)
        for i, ids in zip(chosen, answers):
            finished = tokenizer.eos_token_id in ids
            if finished:
                ids = ids[: ids.index(tokenizer.eos_token_id)]
            text = tokenizer.decode(ids, skip_special_tokens=True).strip()
            rows[int(i)] = (text, len(ids), finished, seconds)
        if progress:
            progress(len(rows), len(order))
    return pd.DataFrame(
        [rows[i] for i in range(len(order))],
        columns=["generated", "n_tokens", "finished", "seconds"],
    )


def describe_decoding(**decoding: Any) -> str:
    """One word or a short line for the column ``decoding``."""
    if not decoding:
        return "greedy"
    return ", ".join(f"{k}={v}" for k, v in sorted(decoding.items()))
