"""The two protocols behind the paper's Table 3, each a few library calls.

`score_reports` scores a list of pairs as the paper does (``llamaxr``) or as
the systems that it is compared with do (``r2gen``); cleaning is a step of its
own. This module measures words, not findings (`findings`), and draws no
conclusions (`stats`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from .cleaning import (
    CLEANINGS,
    R2GEN_MAX_WORDS,
    clean_r2gen,
    plain,
    r2gen_vocabulary,
)
from .meteor import MAX_WORDS, java_version, run_meteor, summable, wordnet

__all__ = [
    "CLEANINGS",
    "bleu_from_statistics",
    "bleu_statistics",
    "clean_r2gen",
    "r2gen_vocabulary",
    "read_statistics",
    "score_reports",
]

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
TOKENISATION = {
    "llamaxr": "BLEU and METEOR: white space; ROUGE-L: rouge_score, stemmed",
    "r2gen": "white space after cleaning; METEOR: its own (-norm)",
}
#: What each protocol's source does.
DEFAULT_CLEANING = {"llamaxr": "none", "r2gen": "r2gen"}


def score_reports(
    references: Sequence[str],
    generated: Sequence[str],
    protocol: str = "llamaxr",
    vocabulary: Collection[str] | None = None,
    cleaning: str | None = None,
    max_words: int | None = R2GEN_MAX_WORDS,
) -> dict[str, Any]:
    """Score generated reports against references, paired by position.

    ``llamaxr`` (paper, section 3.6; the settings that give its Table 4):
    nltk sentence BLEU, smoothing method 1, mean; rouge_score ROUGE-L F1,
    stemmed; nltk METEOR. ``r2gen`` (Table 3's other rows): references in
    R2Gen's vocabulary and length, then pycocoevalcap's corpus BLEU, ROUGE-L
    (beta 1.2), METEOR 1.5's corpus figure and CIDEr.

    Control characters and line breaks count as blanks, None and NaN as "".
    A text without a letter or digit is empty: an empty candidate scores 0
    and is counted, a pair with an empty reference is dropped and counted.
    CIDEr of a single pair is 0 (its weights need other studies). There is no
    upper length, but METEOR 1.5 sees the first 1,000 words (recorded), and
    ROUGE-L's memory grows with the product of the two lengths.

    Parameters
    ----------
    references, generated : sequences of str, the same length
        Raw texts.
    protocol : {"llamaxr", "r2gen"}
    vocabulary : collection of str, optional
        ``r2gen`` only: other words of a *reference* become ``<unk>``. By
        default `r2gen_vocabulary` under this cleaning; empty: none replaced.
    cleaning : str, optional
        A name in `CLEANINGS`; by default the protocol's own.
    max_words : int or None
        ``r2gen`` only: a *reference* is cut here; None: no cut.

    Returns
    -------
    dict
        ``BLEU-1`` .. ``BLEU-4``, ``ROUGE-L``, ``METEOR`` (``r2gen`` also
        ``CIDEr``): float, all in [0, 1] but CIDEr (0 to 10). METEOR is None
        where ``r2gen`` finds no Java. ``per_report``: DataFrame, a row a
        scored pair, indexed by position in the input; for ``r2gen`` with
        ``bleu_stats`` and ``meteor_stats`` (see `read_statistics`).
        ``record``: dict, how the numbers came about.

    Raises
    ------
    CourseError
        Different lengths, no pair to score, an unknown name, a package
        missing.
    """
    protocol = _known(protocol, DEFAULT_CLEANING, "protocol")
    cleaning = cleaning or DEFAULT_CLEANING[protocol]
    clean = CLEANINGS[_known(cleaning, CLEANINGS, "cleaning")]
    texts = _pairs(references, generated).map(lambda t: _words(clean(t)))
    record: dict[str, Any] = {
        "protocol": protocol,
        "cleaning": cleaning,
        "tokenisation": TOKENISATION[protocol],
        "n_given": len(texts),
    }
    texts = texts[texts["reference"] != ""]
    empty = record["n_given"] - len(texts)
    record |= {
        "n": len(texts),
        "n_dropped": empty,
        "dropped": {"empty reference": empty} if empty else {},
        "n_empty_candidates": int((texts["candidate"] == "").sum()),
    }
    if texts.empty:
        raise CourseError(
            "There is no pair to score.",
            f"{empty} of {empty} references are empty.",
            "Pass at least one reference that holds a word.",
        )
    if protocol == "r2gen":
        if vocabulary is None:
            vocabulary = r2gen_vocabulary(cleaning=cleaning)
        words = frozenset(vocabulary)
        texts["reference"] = [
            " ".join(
                word if word in words or not words else "<unk>"
                for word in text.split()[:max_words]
            )
            for text in texts["reference"]
        ]
        record |= {"vocabulary_words": len(words), "max_words": max_words}
    score = {"llamaxr": _score_llamaxr, "r2gen": _score_r2gen}[protocol]
    per_report, corpus, used = score(*(texts[c].tolist() for c in texts))
    per_report.index = texts.index
    record |= used
    means = per_report.mean(numeric_only=True).to_dict()
    numbers = {k: v if v is None else float(v) for k, v in corpus.items()}
    return means | numbers | {"per_report": per_report, "record": record}


def _score_llamaxr(references: list[str], generated: list[str]) -> tuple:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from nltk.translate.meteor_score import meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    smooth = SmoothingFunction().method1
    weights = [(1 / n,) * n for n in (1, 2, 3, 4)]  # the paper's equation 7
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    reader, synonyms = wordnet()
    rows = []
    for reference, candidate in zip(references, generated, strict=True):
        r, c = reference.split(), candidate.split()
        bleu = sentence_bleu([r], c, weights, smooth) if c else [0.0] * 4
        f1 = rouge.score(reference, candidate)["rougeL"].fmeasure
        rows.append([*bleu, f1, meteor_score([r], c, wordnet=reader)])
    table = pd.DataFrame(rows, columns=[*BLEU, "ROUGE-L", "METEOR"])
    used = {
        "synonyms": synonyms,
        "java": "not used",
        "versions": {p: version(p) for p in ("nltk", "rouge-score")},
    }
    return table.astype(float), {}, used


def _score_r2gen(references: list[str], generated: list[str]) -> tuple:
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise CourseError(
            "Protocol r2gen cannot run.",
            f"The package pycocoevalcap is missing ({error}).",
            "Run `make setup`, or `pip install pycocoevalcap`.",
        ) from error
    truth = {i: [text] for i, text in enumerate(references)}
    guess = {i: [text] for i, text in enumerate(generated)}
    bleu, bleu_each = Bleu(4).compute_score(truth, guess, verbose=0)
    table = pd.DataFrame(dict(zip(BLEU, bleu_each, strict=True)))
    table["ROUGE-L"] = Rouge().compute_score(truth, guess)[1]
    table["METEOR"] = np.nan
    table["CIDEr"] = Cider().compute_score(truth, guess)[1]
    counts = bleu_statistics(references, generated).astype(str)
    table["bleu_stats"] = [" ".join(row) for row in counts]
    corpus: dict[str, Any] = dict(zip(BLEU, bleu, strict=True))
    corpus["METEOR"] = None
    java = java_version()
    if java is not None:
        try:
            corpus["METEOR"], table["METEOR"], table["meteor_stats"] = (
                run_meteor(references, generated)
            )
        except (OSError, EOFError, ValueError) as error:
            java = f"{java}, but METEOR stopped ({type(error).__name__})"
    used = {
        "synonyms": "METEOR 1.5's own",
        "java": java or "needs Java",
        "n_cut_for_meteor": sum(len(t.split()) > MAX_WORDS for t in generated),
        "versions": {"pycocoevalcap": version("pycocoevalcap")},
    }
    return table, corpus, used


def bleu_statistics(
    references: Sequence[str], generated: Sequence[str]
) -> np.ndarray:
    """What corpus BLEU sums over studies, from tokenised texts.

    Returns
    -------
    ndarray, shape (n, 10), int
        Clipped n-gram matches (n = 1 .. 4), n-grams of the candidate (4),
        length of candidate and reference.
    """
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    rows = []
    for reference, candidate in zip(references, generated, strict=True):
        s = cook_test(candidate, cook_refs([reference]))
        lengths = [s["testlen"], *s["reflen"]]
        rows.append([*s["correct"], *s["guess"], *lengths])
    return np.array(rows, dtype=int)


def bleu_from_statistics(statistics: np.ndarray) -> np.ndarray:
    """BLEU-1 to 4 from (sums of) `bleu_statistics` (paper, eq. 4-7).

    Parameters
    ----------
    statistics : ndarray, shape (..., 10)
        Sum over studies first for a corpus figure.

    Returns
    -------
    ndarray, shape (..., 4)
        In [0, 1]; equal to pycocoevalcap's to 1e-8.
    """
    s = np.asarray(statistics, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(s[..., 0:4] / s[..., 4:8])
        penalty = np.minimum(0.0, 1 - s[..., 9:10] / s[..., 8:9])
        mean = np.cumsum(logs, axis=-1) / np.arange(1, 5)
    return np.nan_to_num(np.exp(mean + penalty), nan=0.0)


def read_statistics(column: Iterable[str]) -> np.ndarray:
    """``bleu_stats`` or ``meteor_stats`` -> (n, 10) or (n, 23), summable."""
    numbers = np.array([line.split() for line in column], dtype=float)
    return summable(numbers) if numbers.shape[1] == 23 else numbers


def _pairs(references: Sequence, generated: Sequence) -> pd.DataFrame:
    """Both columns as plain text, or a refusal."""
    sides = {"reference": references, "candidate": generated}
    for side, texts in sides.items():
        if isinstance(texts, (str, bytes)):
            raise CourseError(
                f"The {side}s are one text, not a list.",
                "Texts are scored in pairs, one pair a study.",
                "Pass a list, also for a single pair: [text].",
            )
    table = {side: [plain(t) for t in texts] for side, texts in sides.items()}
    if len(table["reference"]) != len(table["candidate"]):
        raise CourseError(
            f"{len(table['reference'])} references, but "
            f"{len(table['candidate'])} generated reports.",
            "Texts are paired by position, so the lengths must be equal.",
            "Join the two tables on `study_id` first.",
        )
    return pd.DataFrame(table, dtype=object)


def _words(text: str) -> str:
    """A text that holds no letter and no digit is empty."""
    return text if any(c.isalnum() for c in text) else ""


def _known(name: str, names: Collection[str], kind: str) -> str:
    if name not in names:
        raise CourseError(
            f"The {kind} {name!r} is not known.",
            f"There are: {', '.join(names)}.",
            f"Choose one of these as {kind}.",
        )
    return name
