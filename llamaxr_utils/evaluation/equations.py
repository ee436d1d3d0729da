"""The paper's equations 4 to 15, as printed, on one pair of texts.

A few lines each, to be read beside the paper, and to see what the equations
leave open. Scores come from the libraries (`metrics`), never from here:
`beside_libraries` shows where the two agree. Words are separated by blanks.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from itertools import pairwise

import pandas as pd

from .meteor import ALPHA, BETA, GAMMA, JarWordNet


def bleu(
    reference: str, candidate: str, order: int = 4, clip: bool = False
) -> float:
    """BLEU of one pair, equations 4 to 7.

    Parameters
    ----------
    reference, candidate : str
    order : int
        N, the longest n-gram.
    clip : bool
        Equation 6 counts *matching* n-grams: as printed, a word of the
        candidate counts as often as the candidate repeats it. True: at most
        as often as the reference has it, as in BLEU (Papineni et al. 2002,
        P02-1040) and in every library.

    Returns
    -------
    float
        In [0, 1]; 0 if no n-gram of some length matches (no smoothing).
    """
    r, c = reference.split(), candidate.split()
    log_mean = 0.0
    for n in range(1, order + 1):
        said, there = _ngrams(c, n), _ngrams(r, n)
        if clip:
            matching = (said & there).total()
        else:
            matching = sum(k for gram, k in said.items() if gram in there)
        if matching == 0:
            return 0.0
        log_mean += math.log(matching / said.total()) / order  # eq. 6, 7
    penalty = 1.0 if len(c) > len(r) else math.exp(1 - len(r) / len(c))
    return penalty * math.exp(log_mean)  # eq. 5, 4


def rouge_l(reference: str, candidate: str, beta: float = 1.0) -> float:
    """ROUGE-L of one pair, equations 8 to 10.

    Parameters
    ----------
    reference, candidate : str
    beta : float
        The paper names 1 (rouge_score); pycocoevalcap, and so every other
        row of Table 3 as far as its code is public, has 1.2.

    Returns
    -------
    float
        In [0, 1].
    """
    r, c = reference.split(), candidate.split()
    row = [0] * (len(r) + 1)  # longest common subsequence so far
    for word in c:
        old = row[:]
        for j, other in enumerate(r, start=1):
            same = word == other
            row[j] = old[j - 1] + 1 if same else max(old[j], row[j - 1])
    if row[-1] == 0:
        return 0.0
    precision, recall = row[-1] / len(c), row[-1] / len(r)
    weight = beta**2
    return (1 + weight) * precision * recall / (weight * precision + recall)


def meteor(
    reference: str,
    candidate: str,
    alpha: float = 0.9,
    beta: float = 3.0,
    gamma: float = 0.5,
) -> float:
    """METEOR of one pair by exact matches, equations 11 to 15.

    Equations 12 and 13 do not say what matches: libraries match stems and
    synonyms too. Here, as in nltk, words match from the end of the text on,
    and chunks are counted over that match.

    Parameters
    ----------
    reference, candidate : str
    alpha, beta, gamma : float
        The paper names gamma 0.5 and beta 3; with alpha 0.9 these are
        nltk's. METEOR 1.5, which scored the other rows of Table 3, has
        0.85, 0.2 and 0.6, and weights for stems, synonyms, paraphrases and
        function words.

    Returns
    -------
    float
        In [0, 1].
    """
    r, c = reference.lower().split(), candidate.lower().split()
    free = {word: [j for j, w in enumerate(r) if w == word] for word in c}
    pairs: list[tuple[int, int]] = []
    for i, word in reversed(list(enumerate(c))):
        if free[word]:
            pairs.insert(0, (i, free[word].pop()))
    if not pairs:
        return 0.0
    chunks = 1 + sum(
        (next_i, next_j) != (i + 1, j + 1)
        for (i, j), (next_i, next_j) in pairwise(pairs)
    )
    precision, recall = len(pairs) / len(c), len(pairs) / len(r)
    mean = precision * recall / (alpha * precision + (1 - alpha) * recall)
    return mean * (1 - gamma * (chunks / len(pairs)) ** beta)


def beside_libraries(reference: str, candidate: str) -> pd.DataFrame:
    """What the equations give for a pair, and what the libraries give.

    Parameters
    ----------
    reference, candidate : str
        Lower-case words without punctuation: the libraries cut the rest in
        different ways.

    Returns
    -------
    DataFrame
        ``metric``, ``equations``, ``reading`` (what had to be chosen),
        ``value``, ``library``, ``library value`` (None: there is none).
    """
    from nltk.translate.bleu_score import sentence_bleu
    from nltk.translate.meteor_score import single_meteor_score
    from pycocoevalcap.rouge.rouge import Rouge
    from rouge_score.rouge_scorer import RougeScorer

    pair = reference, candidate
    r, c = reference.split(), candidate.split()
    with warnings.catch_warnings():  # nltk's on a count of zero
        warnings.simplefilter("ignore")
        with_nltk = round(sentence_bleu([r], c), 12)
    f1 = RougeScorer(["rougeL"]).score(*pair)["rougeL"].fmeasure
    coco = float(Rouge().calc_score([candidate], [reference]))
    exact = single_meteor_score(
        r, c, stemmer=_NoStems(), wordnet=JarWordNet(None)
    )
    bleus, rouges, meteors = "4-7", "8-10", "11-15"
    rows = [
        ("BLEU-4", bleus, "as printed: no clipping", bleu(*pair), "", None),
        ("BLEU-4", bleus, "clipped", bleu(*pair, clip=True), "nltk")
        + (with_nltk,),
        ("ROUGE-L", rouges, "beta 1", rouge_l(*pair), "rouge_score", f1),
        ("ROUGE-L", rouges, "beta 1.2", rouge_l(*pair, beta=1.2))
        + ("pycocoevalcap", coco),
        ("METEOR", meteors, "alpha 0.9, beta 3, gamma 0.5", meteor(*pair))
        + ("nltk, exact matches only", exact),
        ("METEOR", meteors, f"alpha {ALPHA}, beta {BETA}, gamma {GAMMA}")
        + (meteor(*pair, ALPHA, BETA, GAMMA), "", None),
    ]
    columns = ["metric", "equations", "reading", "value", "library"]
    return pd.DataFrame(rows, columns=[*columns, "library value"])


def _ngrams(words: list[str], n: int) -> Counter:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


class _NoStems:
    """A stemmer for nltk that changes nothing."""

    def stem(self, word: str) -> str:
        return word
