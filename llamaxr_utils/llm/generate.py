"""Write reports: batched decoding, one row a prompt; greedy by default."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .prompts import BLANK, as_words, count_tokens


def generate_reports(model: Any, tokenizer: Any, prompts: Sequence[str],
                     batch_size: int = 16, max_new_tokens: int = 200,
                     progress: Callable[[int, int], None] | None = None,
                     **decoding: Any) -> pd.DataFrame:
    """Decode one report per prompt (each ends with the response header); the
    rows are in the prompts' order. Nothing in `decoding` means greedy;
    ``guidance_scale``: away from the report of `BLANK` (`Guidance`).

    Without sampling each distinct prompt is decoded once. In float32 greedy
    text does not depend on `batch_size`; half precision and 4-bit kernels
    round otherwise for another batch.

    Returns
    -------
    DataFrame
        ``generated``, ``n_tokens`` (without the end token), ``finished``
        (bool: stopped there), ``seconds`` (the batch's time shared out).
    """
    tokenizer.padding_side = "left"
    prompts = as_words(tokenizer, prompts)
    model.eval()
    settings = dict(do_sample=False, max_new_tokens=max_new_tokens) | decoding
    sampled = settings["do_sample"]
    todo = list(prompts) if sampled else list(dict.fromkeys(prompts))
    order = np.argsort(count_tokens(tokenizer, todo), kind="stable")
    rows: list[tuple] = []
    for first in range(0, len(todo), batch_size):
        batch = [todo[i] for i in order[first : first + batch_size]]
        rows += _decode(model, tokenizer, batch, settings)
        if progress:
            progress(len(rows), len(todo))
    columns = ["generated", "n_tokens", "finished", "seconds"]
    reports = pd.DataFrame(rows, columns=columns).iloc[np.argsort(order)]
    if not sampled:
        reports = reports.set_axis(todo).loc[list(prompts)]
    return reports.reset_index(drop=True)


def _decode(model: Any, tokenizer: Any, texts: list[str],
            settings: dict[str, Any]) -> list[tuple[str, int, bool, float]]:
    """One batch; the rows of `generate_reports`."""
    import torch

    began = time.perf_counter()
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    batch = batch.to(model.device)
    if "guidance_scale" in settings:
        blank = tokenizer(BLANK, return_tensors="pt")["input_ids"][0]
        guide = Guidance(model, blank.to(model.device),
                         settings["guidance_scale"],
                         settings.get("num_beams", 1))
        settings = settings | dict(
            logits_processor=[guide], renormalize_logits=True,
            guidance_scale=None)  # that would be transformers' own
    end = tokenizer.eos_token_id
    with torch.inference_mode():
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            pad_token_id=tokenizer.pad_token_id, eos_token_id=end, **settings)
    seconds = (time.perf_counter() - began) / len(texts)
    rows = []
    for ids in output[:, batch["input_ids"].shape[1] :].tolist():
        report = ids[: ids.index(end)] if end in ids else ids
        text = tokenizer.decode(report, skip_special_tokens=True).strip()
        rows.append((text, len(report), end in ids, seconds))
    return rows


class Guidance:
    """A logits processor: ``l(blank) + s (l(prompt) - l(blank))``, each token
    away from what a prompt without a finding (its tokens) would get:
    classifier-free guidance, Sanchez et al. 2023, arXiv 2306.17806. Unlike
    transformers' own the second reading follows beams that change places."""

    def __init__(self, model: Any, blank: Any, scale: float, beams: int):
        self.model, self.blank = model, blank
        self.scale, self.beams = scale, beams
        self.cache: Any = None  # the second reading's keys and values

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        away = self._logits(input_ids).log_softmax(-1)
        return away + self.scale * (scores.log_softmax(-1) - away)

    def _logits(self, rows: Any) -> Any:
        if self.cache is None:
            read = self.blank.expand(len(rows), -1)
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


def guided(scale: float, beams: int = 1) -> dict[str, Any]:
    """Settings of `generate_reports`; 1 and 1 is plain greedy."""
    beam = {"num_beams": int(beams)} if beams > 1 else {}
    return beam | ({"guidance_scale": float(scale)} if scale != 1 else {})


def describe_decoding(num_beams: int = 1, guidance_scale: float = 0) -> str:
    """Settings of `guided` in a few words, for the column ``decoding``."""
    text = f"{num_beams} beams" if num_beams > 1 else "greedy"
    return f"{text}, guidance {guidance_scale:g}" if guidance_scale else text


def swap(n: int, seed: int) -> np.ndarray:
    """A permutation of ``range(n)`` in which nothing stays in its place: each
    study gets another's scores (with n = 1 there is no other)."""
    order = np.random.default_rng(seed).permutation(n)
    donors = np.empty(n, dtype=int)
    donors[order] = np.roll(order, 1)
    return donors
