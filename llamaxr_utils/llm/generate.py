"""Write reports with a model: batched decoding, one row a prompt.

Greedy by default, because only then do counts of distinct reports mean
anything; beam search and minimum Bayes risk are there to be compared. The
module decodes; it neither loads models nor scores texts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from .finetune import keep_weights_packed_once
from .guidance import Guidance
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
    in the order of `prompts`. Without sampling the same prompt gets the same
    report, so each distinct prompt is decoded once.

    In float32 greedy text does not depend on `batch_size`. bfloat16 and
    float16 round a matrix product differently for another shape of the
    batch, and on a GPU 4-bit weights have another kernel for a single row:
    where the two best words lie within rounding (2**-8 of the logit in
    bfloat16) another may be chosen, and the text goes on from there.

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
        Guide the report away from what this prompt would get, with
        ``guidance_scale`` s > 1: each token's log-probability becomes
        ``l(against) + s (l(prompt) - l(against))`` (`guidance`).
    **decoding
        Passed to ``model.generate``; nothing means greedy. Beam search:
        ``num_beams=4, length_penalty=1.0``, also with guidance.

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
    for prompt in prompts:
        if not prompt.endswith(RESPONSE_HEADER):
            raise CourseError(
                "A prompt does not end with the response header.",
                f"It ends with {prompt[-30:]!r}; the model would continue "
                "the input instead of answering.",
                "Build prompts with prompts.build_prompt().",
            )
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


def minimum_bayes_risk(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    n_samples: int = 8,
    seed: int = 3407,
    **settings: Any,
) -> pd.DataFrame:
    """Of several sampled reports the one most like all the others.

    Each distinct prompt is sampled once, so the same prompt gets the same
    report. (Eikema and Aziz 2020, arXiv 2005.10283.)

    Parameters
    ----------
    model, tokenizer, prompts
        As for `generate_reports`.
    n_samples : int
        Reports sampled a prompt.
    seed : int
        Of the samples.
    **settings
        For `generate_reports`: ``batch_size``, ``temperature`` ...

    Returns
    -------
    DataFrame
        As `generate_reports`; ``seconds`` are those of all samples.
    """
    import torch

    todo = list(dict.fromkeys(prompts))
    torch.manual_seed(seed)
    drawn = generate_reports(
        model,
        tokenizer,
        [prompt for prompt in todo for _ in range(n_samples)],
        **{"do_sample": True, **settings},
    )
    chosen = {}
    for i, prompt in enumerate(todo):
        some = drawn.iloc[i * n_samples : (i + 1) * n_samples]
        best = some.iloc[most_alike(list(some["generated"]))].copy()
        best["seconds"] = some["seconds"].sum()
        chosen[prompt] = best
    rows = [chosen[prompt] for prompt in prompts]
    return pd.DataFrame(rows, columns=drawn.columns).reset_index(drop=True)


def most_alike(texts: Sequence[str]) -> int:
    """Position of the text that is most like the others, on the mean: F1 of
    the longest common subsequence of words (ROUGE-L). Ties: the first."""
    from rapidfuzz.distance import LCSseq

    words = [text.split() for text in texts]
    n = len(texts)
    f1 = np.ones((n, n))
    for i in range(n):
        for j in range(i):
            shared = LCSseq.similarity(words[i], words[j])
            total = max(len(words[i]) + len(words[j]), 1)
            f1[i, j] = f1[j, i] = 2 * shared / total
    return int(f1.sum(axis=1).argmax())


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
    """Schema ``generations``.

    Parameters
    ----------
    made : mapping
        (model, scores_from) -> (rows of ``prompts``, result of
        `generate_reports` in the same order).
    decoding : str
        `describe_decoding`.
    """
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
