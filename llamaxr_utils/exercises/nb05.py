"""Exercises of notebook 05: greedy decoding as a loop over a batch, how the
swap test is to be read, and guidance."""

import numpy as np

from ..course.exercises import Exercise, NotYet, choice, expect, seed


def greedy(model, ids, mask, eos, max_new_tokens):
    """New tokens of left-padded prompts, shape (n, steps); eos at the end."""
    import torch

    start = ids.shape[1]
    done = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(max_new_tokens):
        logits = model(ids, attention_mask=mask).logits
        token = logits[:, -1].argmax(-1)
        token[done] = eos
        done = done | (token == eos)
        ids = torch.cat([ids, token[:, None]], 1)
        mask = torch.cat([mask, torch.ones_like(token)[:, None]], 1)
        if done.all():
            break
    return ids[:, start:]


def _greedy(answer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(4)
    config = LlamaConfig(vocab_size=24, hidden_size=16, intermediate_size=32,
                         num_hidden_layers=2, num_attention_heads=2,
                         initializer_range=0.6)
    model = LlamaForCausalLM(config).eval()
    ids = torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8], [0, 9, 10, 11]])
    mask = (ids != 0).long()
    free = model.generate(ids, attention_mask=mask, do_sample=False,
                          max_new_tokens=8, eos_token_id=None,
                          pad_token_id=0)
    for case, eos in (
        ("three prompts, none ends", 99),
        ("one report ends early", int(free[0, 6])),
    ):
        right = model.generate(ids, attention_mask=mask, do_sample=False,
                               max_new_tokens=8, eos_token_id=eos,
                               pad_token_id=eos)[:, 4:]
        with torch.no_grad():
            ours = answer(model, ids, mask, eos, 8)
        for row, (mine, theirs) in enumerate(zip(ours, right, strict=True)):
            if mine.tolist() != theirs.tolist():
                padded = "padded " if not mask[row].all() else ""
                raise NotYet(
                    f"{case}, {padded}prompt {ids[row].tolist()}: you write "
                    f"{mine.tolist()}, generate() {theirs.tolist()}.")


def guide(logits, blank, scale):
    """Log-probabilities, moved away from those of the blank prompt."""
    told, silent = logits.log_softmax(-1), blank.log_softmax(-1)
    return silent + scale * (told - silent)


def _guide(answer):
    import torch

    torch.manual_seed(5 + seed())
    logits, blank = torch.randn(2, 1, 6)
    for scale in (1.0, 2.0, 0.0):
        expect(f"six tokens, scale {scale}",
               np.asarray(answer(logits, blank, scale)),
               guide(logits, blank, scale).numpy())


EXERCISES = {
    "05a": Exercise(_greedy, greedy, """
        The next token stands at the last position: `logits[:, -1].argmax(-1)`.
        Append it to `ids`, and a 1 to `mask`.

        On the left is padding, which must not be read: pass the mask at every
        step.

        A report that has ended goes on with `eos`; stop when all have ended.
        Return the new tokens only.
        """,
        "The same tokens as `generate`. Greedy decoding is these ten lines; "
        "the rest is speed."),
    "05b": Exercise(choice("c", {
        "a": "Many different reports say that the *text* varies; it may vary "
             "with chance, or with beams, and not with the findings.",
        "b": "A changed report may have changed its wording and no finding. "
             "Compare what is *right* under both scores.",
    }), "c", """
        Which of the three would a model that writes nonsense at random pass?

        Only one compares the report with what is true of the study.
        """,
        "The grounding gap is what the scores contribute; the rest is there "
        "without them."),
    "05c": Exercise(_guide, guide, """
        Logits are not log-probabilities yet: `log_softmax(-1)` makes them so,
        for each prompt alone.

        The equation starts at the blank prompt and goes `scale` times the way
        to the other. At scale 1 it arrives there; beyond, it goes on.
        """,
        "At 1 nothing is guided, at 0 nothing is read; above 1 a word gains "
        "by what the prompt adds to it. `generate(guidance_scale=...)` does "
        "this at every step."),
}
