"""The two protocols behind the paper's Table 3, each a few library calls.

Cleaning is a step of its own: it alone moves BLEU-4 by a factor of two.
"""

import unicodedata
from collections import Counter, UserList
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError, problem
from ..datasets.reports import load_studies
from .meteor import MAX_WORDS, java_version, run_meteor, wordnet

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
#: The columns of the paper's Table 3.
METRICS = (*BLEU, "ROUGE-L", "METEOR")
#: R2Gen: ``max_seq_length`` 60 less the start token, ``threshold`` 3
#: (https://github.com/cuhksz-nlp/R2Gen, options for IU X-ray).
R2GEN_MAX_WORDS, R2GEN_MIN_COUNT = 59, 3
_R2GEN_DROPPED = str.maketrans("", "", ".,?;*!%^&_+()[]{}:<=>@\"'/\\")


# --- cleaning ---------------------------------------------------------------


def plain(text: Any) -> str:
    """Any cell -> str without control characters or lone surrogates."""
    if pd.api.types.is_list_like(text):
        raise TypeError(f"a report is a text, not a {type(text).__name__}")
    if not isinstance(text, str) and pd.isna(text):
        return ""
    odd = {"Cc", "Cs", "Zl", "Zp"}
    return "".join(" " if unicodedata.category(c) in odd else c
                   for c in str(text))


def says_something(text: str) -> bool:
    """Whether a text holds a letter or a digit."""
    return any(c.isalnum() for c in text)


def clean_r2gen(text: str) -> str:
    """R2Gen's cleaning of IU X-ray reports, rule for rule.

    List numbers, most punctuation and case go, a full stop is a word of its
    own. Source: ``clean_report_iu_xray``, https://github.com/cuhksz-nlp/R2Gen.
    """
    for _ in range(3):
        text = text.replace("..", ".")
    text = text.replace("1. ", "")
    for before in (".", ""):
        for number in "2345":
            text = text.replace(f"{before} {number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    kept = [s.strip().translate(_R2GEN_DROPPED) for s in sentences]
    return " ".join(f"{' . '.join(kept)} .".split())


def clean_author(text: str) -> str:
    """The cleaning in the paper authors' published notebook.

    Hyphens become blanks; every letter x goes ("pneumothora"), so do digits
    and signs, and words of one or two letters except "no" in lower case: a
    sentence that begins with "No" loses its negation.
    """
    text = text.replace("-", " ").translate(str.maketrans("", "", "xX"))
    text = "".join(c for c in text if c.isalpha() or c in "., \n\t")
    words = [(w, w.strip(".,")) for w in text.split()]
    return " ".join(w for w, bare in words if len(bare) > 2 or bare == "no")


#: Any protocol runs on any cleaning.
CLEANINGS: dict[str, Callable[[str], str]] = {
    "none": lambda text: " ".join(text.split()),
    "r2gen": clean_r2gen, "author": clean_author}


@lru_cache
def r2gen_vocabulary(cleaning: str = "r2gen") -> frozenset[str]:
    """Words seen at least three times in R2Gen's 2,069 cleaned training
    reports, where they are 759; others become ``<unk>``."""
    train = load_studies().query("split_r2gen == 'train'")["findings"]
    clean = CLEANINGS[cleaning]
    counts = Counter(w for text in train for w in clean(plain(text)).split())
    return frozenset(w for w, n in counts.items() if n >= R2GEN_MIN_COUNT)


# --- the protocols ----------------------------------------------------------


def score_reports(references: Sequence[str], generated: Sequence[str],
                  protocol: str = "llamaxr",
                  vocabulary: Collection[str] | None = None,
                  cleaning: str | None = None,
                  meteor: bool = True) -> dict[str, Any]:
    """Score generated reports against references, paired by position.

    ``llamaxr`` (paper, section 3.6; the settings that give its Table 4):
    nltk sentence BLEU, smoothing method 1, mean; rouge_score ROUGE-L F1,
    stemmed; nltk METEOR. ``r2gen`` (Table 3's other rows): references in
    R2Gen's vocabulary and length, then pycocoevalcap's corpus BLEU, ROUGE-L
    (beta 1.2), METEOR 1.5's corpus figure and CIDEr.

    An empty candidate (no letter or digit) scores 0, a pair with an empty
    reference is dropped. Under ``r2gen`` words of a *reference* that are not
    in `vocabulary` (None: `r2gen_vocabulary`; empty: any word is) become
    ``<unk>``. `cleaning`: of `CLEANINGS`, not the protocol's own. Without
    `meteor` no Java is started for ``r2gen``.

    Returns ``BLEU-1`` .. ``BLEU-4``, ``ROUGE-L``, ``METEOR`` in [0, 1],
    ``r2gen`` also ``CIDEr`` in [0, 10] (of a single pair 0); METEOR is None
    where ``r2gen`` finds no Java. ``per_report``: DataFrame, a row a scored
    pair, indexed by position in the input; for ``r2gen`` with ``bleu_stats``
    and ``meteor_stats``, arrays that corpus figures sum over pairs.
    ``record``: dict, how the numbers came about.
    """
    score = {"llamaxr": partial(_score_llamaxr),
             "r2gen": partial(_score_r2gen, meteor)}[protocol]
    cleaning = cleaning or ("r2gen" if protocol == "r2gen" else "none")
    sides = {"reference": list(references), "candidate": list(generated)}
    given = pd.DataFrame(sides, dtype=object).map(plain)
    given = given.map(CLEANINGS[cleaning])
    given = given.where(given.map(says_something), "")
    texts = given[given["reference"] != ""]
    if texts.empty:
        raise problem("no pairs", n=len(given))
    record: dict[str, Any] = {
        "protocol": protocol, "cleaning": cleaning, "n": len(texts),
        "n_dropped": len(given) - len(texts),
        "n_empty_candidates": int((texts["candidate"] == "").sum()),
    }
    if protocol == "r2gen":
        words = frozenset(r2gen_vocabulary(cleaning) if vocabulary is None
                          else vocabulary)
        record |= {"vocabulary_words": len(words),
                   "max_words": R2GEN_MAX_WORDS}
        texts = texts.assign(reference=[
            " ".join(word if word in words or not words else "<unk>"
                     for word in text.split()[:R2GEN_MAX_WORDS])
            for text in texts["reference"]])
    per_report, corpus, used = score(*(texts[c].tolist() for c in texts))
    per_report.index = texts.index
    means = per_report.mean(numeric_only=True).to_dict()
    return means | corpus | {"per_report": per_report, "record": record | used}


def _score_llamaxr(references: list[str], generated: list[str]) -> tuple:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from nltk.translate.meteor_score import meteor_score
    from rapidfuzz.distance import LCSseq
    from rouge_score import rouge_scorer

    # Its own table takes minutes and gigabytes of two long texts.
    rouge_scorer._lcs_table = lambda *two: [[LCSseq.similarity(*two)]]
    smooth = SmoothingFunction().method1
    weights = [(1 / n,) * n for n in (1, 2, 3, 4)]  # the paper's equation 7
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    # Both stem the same words again and again.
    porter = rouge._tokenizer._stemmer
    porter.stem = lru_cache(maxsize=None)(porter.stem)
    rows = []
    for reference, candidate in zip(references, generated, strict=True):
        r, c = reference.split(), candidate.split()
        bleu = sentence_bleu([r], c, weights, smooth) if c else [0.0] * 4
        f1 = rouge.score(reference, candidate)["rougeL"].fmeasure
        meteor = meteor_score([r], c, stemmer=porter, wordnet=wordnet())
        rows.append([*bleu, f1, meteor])
    table = pd.DataFrame(rows, columns=METRICS)
    return table.astype(float), {}, {
        "synonyms": "WordNet 3.0 table of the METEOR 1.5 jar",
        "versions": {p: version(p) for p in ("nltk", "rouge-score")}}


class _Counted(UserList):
    """Texts whose n-grams are counted when they are read, and not kept: those
    of all are gigabytes. Of a list of references, a list of counts."""

    def __iter__(self) -> Iterator[Any]:
        from pycocoevalcap.cider.cider_scorer import cook_refs, cook_test

        return (cook_refs(text) if isinstance(text, list) else cook_test(text)
                for text in self.data)


def _score_r2gen(meteor: bool, references: list[str],
                 generated: list[str]) -> tuple:
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider_scorer import CiderScorer
    from pycocoevalcap.rouge import rouge
    from rapidfuzz.distance import LCSseq

    rouge.my_lcs = LCSseq.similarity  # as for `llamaxr`
    java = java_version() if meteor else None
    jar = ThreadPoolExecutor(1).submit(  # it works beside Python
        run_meteor, references, generated) if java else None
    scorer, cider = BleuScorer(), CiderScorer()
    statistics = bleu_statistics(references, generated)
    scorer.ctest = [
        {"correct": s[:4], "guess": s[4:8], "testlen": s[8], "reflen": s[9:]}
        for s in statistics.tolist()]
    bleu, bleu_each = scorer.compute_score("closest")
    table = pd.DataFrame(dict(zip(BLEU, bleu_each, strict=True)))
    table["ROUGE-L"] = [rouge.Rouge().calc_score([guess], [truth])
                        for truth, guess in zip(references, generated)]
    table["METEOR"] = np.nan
    cider.crefs = _Counted([text] for text in references)
    cider.ctest = _Counted(generated)
    cider.document_frequency = Counter()  # which a look-up does not fill
    table["CIDEr"] = cider.compute_score()[1]
    table["bleu_stats"] = list(statistics)
    corpus = dict(zip(BLEU, map(float, bleu), strict=True)) | {"METEOR": None}
    if jar is not None:
        try:
            corpus["METEOR"], table["METEOR"], sums = jar.result()
            table["meteor_stats"] = list(sums)
        except (CourseError, OSError, EOFError, ValueError) as error:
            java = f"{java}, but METEOR stopped ({type(error).__name__})"
    return table, corpus, {
        "java": java or "needs Java",
        "n_cut_for_meteor": sum(len(t.split()) > MAX_WORDS for t in generated),
        "versions": {"pycocoevalcap": version("pycocoevalcap")}}


def bleu_statistics(references: Sequence[str],
                    generated: Sequence[str]) -> np.ndarray:
    """What corpus BLEU sums over tokenised texts, int, shape (n, 10):
    clipped n-gram matches (n = 1 .. 4), n-grams of the candidate (4), length
    of candidate and reference."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    cooked = (cook_test(candidate, cook_refs([reference])) for
              reference, candidate in zip(references, generated, strict=True))
    return np.array([[*s["correct"], *s["guess"], s["testlen"], *s["reflen"]]
                     for s in cooked], dtype=int)


def bleu_from_statistics(statistics: np.ndarray) -> np.ndarray:
    """BLEU-1 to 4 (paper, eq. 4-7), shape (..., 4), from `bleu_statistics`
    or sums of them; equal to pycocoevalcap's to 1e-8."""
    s = np.asarray(statistics, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(s[..., 0:4] / s[..., 4:8])
        penalty = np.minimum(0.0, 1 - s[..., 9:10] / s[..., 8:9])
        mean = np.cumsum(logs, axis=-1) / np.arange(1, 5)
    return np.nan_to_num(np.exp(mean + penalty), nan=0.0)
