"""Exercises of notebooks 04 to 07: the layer of low rank, the labels that the
loss is taken on, a greedy loop over a batch, guidance, BLEU of a whole corpus,
the text that scores best for all, and findings found, missed or added.
"""

from collections import Counter

import numpy as np

from ..course.exercises import NotYet, cases, expect, same_as, seed, words
from ..evaluation.findings import label_report
from ..evaluation.metrics import bleu_from_statistics, bleu_statistics
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
    for case, (prompt, completion) in cases("04b").items():
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


#: Ten pairs of our own: reference, candidate.
PAIRS = words()["06a"]["pairs"]


def runs(text, n):
    tokens = text.split()
    return Counter(zip(*(tokens[i:] for i in range(n))))


def corpus_bleu(references, candidates, order=4):
    """Matches and runs are added up over all pairs before the division."""
    logs = []
    for n in range(1, order + 1):
        matches = total = 0
        for reference, candidate in zip(references, candidates):
            there, written = runs(reference, n), runs(candidate, n)
            matches += (there & written).total()  # at most as often as there
            total += written.total()
        logs.append(np.log(matches / total))
    r = sum(len(text.split()) for text in references)
    c = sum(len(text.split()) for text in candidates)
    return min(1, np.exp(1 - r / c)) * np.exp(np.mean(logs))


def _bleu(answer):
    for case, pairs in (
        ("the same text twice", PAIRS[:1]),
        ("a candidate that repeats itself (clip)", PAIRS[1:2]),
        ("a candidate shorter than its reference", PAIRS[6:7]),
        ("ten pairs together", PAIRS),
    ):
        given = [[*side] for side in zip(*pairs)]
        right = bleu_from_statistics(bleu_statistics(*given).sum(axis=0))[3]
        expect(case, float(answer(*given)), float(right))


def best_constant(references, texts):
    """The text that scores best when it is written for every study."""
    return max(texts, key=lambda text: corpus_bleu(
        references, [text] * len(references), 2))


def _constant(answer):
    all_texts = [reference for reference, _ in PAIRS]

    def score(text):
        return float(corpus_bleu(all_texts, [text] * len(PAIRS), 2))

    for case, texts in (("a choice of three", all_texts[:3]),
                        ("a choice of ten", all_texts)):
        text = answer(all_texts, texts)
        if text not in texts:
            raise NotYet(f"{case}: return one of the texts, not {text!r}.")
        expect(f"{case}, BLEU-2 of your text {text!r}", score(text),
               max(map(score, texts)))


def marks(reference, generated):
    """Finding -> found, missed, added or contradicts."""
    there, written = label_report(reference), label_report(generated)
    result = {}
    for finding in there | written:
        pair = there.get(finding), written.get(finding)
        reported = [state in ("present", "uncertain") for state in pair]
        if all(reported):
            result[finding] = "found"
        elif any(reported):
            denied = "absent" in pair
            one_sided = "missed" if reported[0] else "added"
            result[finding] = "contradicts" if denied else one_sided
    return result


EXERCISES = {
    "04a": (_lora, lora_forward),
    "04b": (_mask, mask_labels),
    "04c": (_count, lora_parameters),
    "05a": (_greedy, greedy),
    "05c": (_guide, guide),
    "06a": (_bleu, corpus_bleu),
    "06b": (_constant, best_constant),
    "07a": (same_as(marks, "07a", dict), marks),
}
