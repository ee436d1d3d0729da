"""Write reports with a model: batched decoding, one row a prompt.

Greedy by default, because only then do counts of distinct reports mean
anything; beam search and guidance are there to be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .finetune import keep_weights_packed_once
from .prompts import BLANK, RESPONSE_HEADER, count_tokens

Row = tuple[str, int, bool, float]


def generate_reports(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    batch_size: int = 16,
    max_new_tokens: int = 200,
    progress: Callable[[int, int], None] | None = None,
    against: str | None = None,
    **decoding: Any,
) -> pd.DataFrame:
    """Decode one report per prompt.

    Prompts are batched by length and padded on the left; the rows come back
    in the order of `prompts`. Without sampling each distinct prompt is decoded
    once. In float32 greedy text does not depend on `batch_size`; half
    precision and 4-bit kernels round otherwise for another shape of the
    batch, and two words that lie that close may change places.

    Parameters
    ----------
    model, tokenizer
        From `finetune.load_adapter` or `finetune.load_in_4bit`.
    prompts : sequence of str
        Each ends with the response header (`prompts.build_prompt`).
    batch_size, max_new_tokens : int
    progress : callable, optional
        Called with (done, all) after each batch.
    against : str, optional
        With ``guidance_scale`` above 1: guide the report away from what this
        prompt would get (`Guidance`).
    **decoding
        Passed to ``model.generate``; nothing means greedy.

    Returns
    -------
    DataFrame
        ``generated`` (str), ``n_tokens`` (int, without the end token),
        ``finished`` (bool: stopped at the end token), ``seconds`` (float,
        the batch's time shared out).
    """
    if not all(prompt.endswith(RESPONSE_HEADER) for prompt in prompts):
        raise ValueError(f"each prompt must end with {RESPONSE_HEADER!r}")
    tokenizer.padding_side = "left"
    keep_weights_packed_once(model)
    model.eval()
    # Without sampling a report is a function of its prompt: decoded once.
    sampled = decoding.get("do_sample", False)
    todo = list(prompts) if sampled else list(dict.fromkeys(prompts))
    lengths = count_tokens(tokenizer, todo)
    order = np.argsort(lengths, kind="stable")
    rows: list[Row | None] = [None] * len(todo)
    settings = {"do_sample": False, "max_new_tokens": max_new_tokens}
    for first in range(0, len(todo), batch_size):
        chosen = order[first : first + batch_size]
        texts = [todo[i] for i in chosen]
        answers = _decode(
            model, tokenizer, texts, {**settings, **decoding}, against
        )
        for i, row in zip(chosen, answers, strict=True):
            rows[i] = row
        if progress:
            progress(first + len(chosen), len(todo))
    if not sampled:
        by_prompt = dict(zip(todo, rows, strict=True))
        rows = [by_prompt[prompt] for prompt in prompts]
    return pd.DataFrame(
        rows, columns=["generated", "n_tokens", "finished", "seconds"]
    )


def _decode(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    settings: dict,
    against: str | None = None,
) -> list[Row]:
    """One batch; the rows of `generate_reports`."""
    import torch

    began = time.perf_counter()
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    batch = batch.to(model.device)
    if against is not None:
        settings = settings | _guide(model, tokenizer, against, **settings)
    with torch.inference_mode():
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **settings,
        )
    seconds = (time.perf_counter() - began) / len(texts)
    rows: list[Row] = []
    for ids in output[:, batch["input_ids"].shape[1] :].tolist():
        finished = tokenizer.eos_token_id in ids
        if finished:
            ids = ids[: ids.index(tokenizer.eos_token_id)]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        rows.append((text, len(ids), finished, seconds))
    return rows


def _guide(
    model: Any,
    tokenizer: Any,
    against: str,
    guidance_scale: float = 1.0,
    num_beams: int = 1,
    **_: Any,
) -> dict[str, Any]:
    """What ``model.generate`` takes to be guided by `Guidance`."""
    ids = tokenizer(against, return_tensors="pt")["input_ids"][0]
    guide = Guidance(model, ids.to(model.device), guidance_scale, num_beams)
    return {
        "guidance_scale": None,  # transformers' own
        "logits_processor": [guide],
        "renormalize_logits": True,
    }


class Guidance:
    """A logits processor for ``model.generate``: each token away from what
    another prompt would get (classifier-free guidance, Sanchez et al. 2023,
    arXiv 2306.17806). transformers' own knows no beams: they change places at
    every step, and the second reading has to follow them.

    A token's log-probability becomes ``l(against) + s (l(prompt) -
    l(against))``. Give ``renormalize_logits=True`` too, for beams add up
    log-probabilities.

    Parameters
    ----------
    model
        That of ``generate``.
    against : Tensor, shape (length,), int64
        Tokens of the other prompt.
    scale : float
        s; 1 changes nothing.
    beams : int
        ``num_beams`` of ``generate``.
    """

    def __init__(self, model: Any, against: Any, scale: float, beams: int):
        self.model, self.against = model, against
        self.scale, self.beams = scale, beams
        self.cache: Any = None  #: keys and values of the second reading
        self.before: Any = None  #: rows of the step before, (rows, tokens)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        away = self._logits(input_ids).log_softmax(-1)
        return away + self.scale * (scores.log_softmax(-1) - away)

    def _logits(self, rows: Any) -> Any:
        """Of the next token after the other prompt and what was written."""
        if self.cache is None:
            read = self.against.expand(len(rows), -1)
        else:
            self.cache.reorder_cache(self._parents(rows))
            read = rows[:, -1:]
        answer = self.model(read, past_key_values=self.cache, use_cache=True)
        self.cache, self.before = answer.past_key_values, rows
        return answer.logits[:, -1].float()

    def _parents(self, rows: Any) -> Any:
        """The row of the step before that each row goes on from."""
        import torch

        shape = (len(rows) // self.beams, self.beams, -1)
        now, before = rows[:, :-1].view(shape), self.before.view(shape)
        same = (now[:, :, None] == before[:, None]).all(-1)
        first = torch.arange(0, len(rows), self.beams, device=rows.device)
        return (first[:, None] + same.int().argmax(-1)).flatten()


def swap(n: int, seed: int) -> np.ndarray:
    """A permutation of ``range(n)`` in which nothing stays in its place.

    Each study gets another study's scores; with n = 1 there is no other.
    """
    order = np.random.default_rng(seed).permutation(n)
    donors = np.empty(n, dtype=int)
    donors[order] = np.roll(order, 1)
    return donors


def as_artifact(
    made: Mapping[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]],
    decoding: str,
) -> pd.DataFrame:
    """Schema ``generations``. `made`: (model, scores_from) -> (rows of
    ``prompts``, result of `generate_reports` in the same order)."""
    parts = []
    for (model, scores_from), (rows, texts) in made.items():
        part = texts.reset_index(drop=True).assign(
            model=model, scores_from=scores_from, decoding=decoding
        )
        part.insert(0, "study_id", rows["study_id"].to_numpy())
        part.insert(1, "reference", rows["completion"].to_numpy())
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def guided(scale: float, beams: int = 1) -> dict[str, Any]:
    """Settings of `generate_reports`: guided away from what the prompt
    without a finding would get (formats of words only), or not for a scale
    of 1; beam search, or greedy for 1."""
    settings: dict[str, Any] = {"num_beams": int(beams)} if beams > 1 else {}
    if scale != 1:
        settings |= {"guidance_scale": float(scale), "against": BLANK}
    return settings


def describe_decoding(**decoding: Any) -> str:
    """One word or a short line for the column ``decoding``."""
    if set(decoding) <= {"guidance_scale", "against", "num_beams"}:
        beams = decoding.get("num_beams", 1)
        scale = decoding.get("guidance_scale")
        return (f"{beams} beams" if beams > 1 else "greedy") + (
            f", guidance {scale:g}" if scale else ""
        )
    return ", ".join(f"{k}={v}" for k, v in sorted(decoding.items()))
