"""Text cleaning, a step of its own before any protocol of `metrics`.

Each published score rests on a cleaning of the text, and the cleaning alone
moves BLEU-4 by a factor of two and more. Here they have names. Nothing here
repairs a report for a reader: cleaned text is for scorers only.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import pandas as pd

#: R2Gen: ``max_seq_length`` 60 less the start token, ``threshold`` 3
#: (https://github.com/cuhksz-nlp/R2Gen, options for IU X-ray).
R2GEN_MAX_WORDS, R2GEN_MIN_COUNT = 59, 3
_R2GEN_DROPPED = str.maketrans("", "", ".,?;*!%^&_+()[]{}:<=>@\"'/\\")


def plain(text: Any) -> str:
    """Any cell -> str without control characters or lone surrogates."""
    if not isinstance(text, str) and pd.isna(text):
        return ""
    odd = {"Cc", "Cs", "Zl", "Zp"}
    return "".join(
        " " if unicodedata.category(c) in odd else c for c in str(text)
    )


def clean_none(text: str) -> str:
    """The text as it is, white space folded."""
    return " ".join(text.split())


def clean_r2gen(text: str) -> str:
    """R2Gen's cleaning of IU X-ray reports, rule for rule.

    List numbers and most punctuation go, hyphens stay, case goes, a full
    stop is a word of its own. Source: ``clean_report_iu_xray`` in
    https://github.com/cuhksz-nlp/R2Gen.

    Parameters
    ----------
    text : str
        A report.

    Returns
    -------
    str
        Words separated by blanks; a text without words becomes ".".
    """
    for _ in range(3):
        text = text.replace("..", ".")
    text = text.replace("1. ", "")
    for before in (".", ""):
        for number in "2345":
            text = text.replace(f"{before} {number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    kept = [s.strip().translate(_R2GEN_DROPPED) for s in sentences]
    return clean_none(" . ".join(kept) + " .")


def clean_author(text: str) -> str:
    """The cleaning in the paper authors' published notebook.

    Hyphens become blanks, every letter x goes (``XXXX``, and
    "pneumothora"), so do all characters but letters, full stops and commas,
    and then all words of one or two letters except "no" in lower case: a
    sentence that begins with "No" loses its negation.
    """
    text = text.replace("-", " ").translate(str.maketrans("", "", "xX"))
    text = "".join(c for c in text if c.isalpha() or c in "., \n\t")
    words = [(w, w.strip(".,")) for w in text.split()]
    kept = (w for w, bare in words if len(bare) > 2 or bare == "no")
    return " ".join(kept)


#: Name -> function on one text. Any protocol runs on any cleaning.
CLEANINGS: dict[str, Callable[[str], str]] = {
    "none": clean_none,
    "r2gen": clean_r2gen,
    "author": clean_author,
}


def r2gen_vocabulary(
    train_texts: Iterable[str] | None = None, cleaning: str = "r2gen"
) -> set[str]:
    """Words seen at least three times in the cleaned training reports.

    Parameters
    ----------
    train_texts : iterable of str, optional
        By default the findings of R2Gen's training split (2,069 studies).
    cleaning : str
        A name in `CLEANINGS`.

    Returns
    -------
    set of str
        759 words for the defaults; R2Gen writes ``<unk>`` for all others.
    """
    if train_texts is None:
        return set(_bundled_vocabulary(cleaning))
    clean = CLEANINGS[cleaning]
    counts = Counter(w for t in train_texts for w in clean(plain(t)).split())
    return {w for w, count in counts.items() if count >= R2GEN_MIN_COUNT}


@lru_cache(maxsize=8)
def _bundled_vocabulary(cleaning: str) -> frozenset[str]:
    from ..datasets.reports import load_studies

    studies = load_studies()
    train = studies.loc[studies["split_r2gen"] == "train", "findings"]
    return frozenset(r2gen_vocabulary(train, cleaning))
