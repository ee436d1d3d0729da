"""Reports written without looking at the image, or hardly.

A trained model is worth its cost only above these. They return texts, which
`metrics` scores as those of any other system."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd

from ..datasets.reports import DATA, load_studies
from .metrics import clean_r2gen

#: One sentence a condition, in our own words, and "none", a normal report.
SENTENCES: dict[str, str] = dict(
    pd.read_csv(DATA / "sentences.csv").to_numpy())


def medoid(train_texts: Sequence[str], utility: str = "ROUGE-L") -> str:
    """The constant report of highest mean `utilities`: the training report
    most like all the others (ties: the first)."""
    mean = utilities(train_texts, utility).mean(axis=1)
    return train_texts[int(mean.round(12).argmax())]


def constants() -> dict[str, str]:
    """``constant by METEOR`` and the like -> the report that, written for all
    of R2Gen's training list, has the highest figure of a metric; by `r2gen`,
    and by `llamaxr` where it chooses another (``data/constants.csv``)."""
    table = pd.read_csv(DATA / "constants.csv", index_col="study_id")
    findings = load_studies().set_index("study_id")["findings"]
    return dict(zip("constant by " + table["metric"], findings[table.index]))


def utilities(texts: Sequence[str], utility: str = "ROUGE-L") -> np.ndarray:
    """What each text is worth if each is the truth: (candidate, reference).

    Exact, of R2Gen's cleaned words: F1 of the longest common subsequence
    (``ROUGE-L``), or sentence BLEU-4 whose orders above the first count one
    match and one n-gram more (``BLEU-4``; Lin and Och 2004,
    https://aclanthology.org/C04-1072)."""
    words = [tuple(clean_r2gen(text).split()) for text in texts]
    unique = list(dict.fromkeys(words))
    place = {report: i for i, report in enumerate(unique)}
    rows = [place[report] for report in words]
    values = {"ROUGE-L": _rouge_l, "BLEU-4": _bleu_4}[utility](unique)
    return values[np.ix_(rows, rows)]


def _rouge_l(reports: Sequence[tuple[str, ...]]) -> np.ndarray:
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    common = cdist(reports, reports, scorer=LCSseq.similarity, dtype=np.int32)
    length = np.array([len(report) for report in reports])
    return 2 * common / np.maximum(length[:, None] + length[None, :], 1)


def _bleu_4(reports: Sequence[tuple[str, ...]]) -> np.ndarray:
    """An n-gram that stands k times is k different ones (its first, its
    second ...): then clipped matches are a product of 0/1 matrices."""
    from sklearn.feature_extraction import DictVectorizer

    length = np.array([len(report) for report in reports])
    logs = np.minimum(0, 1 - length[None, :] / np.maximum(length, 1)[:, None])
    for n in range(1, 5):
        grams = []
        for report in reports:
            seen: Counter[tuple] = Counter()
            grams.append({(gram, seen.update([gram]) or seen[gram]): 1.0
                          for gram in zip(*(report[i:] for i in range(n)))})
        table = DictVectorizer().fit_transform(grams)
        matches = (table @ table.T).toarray() + (n > 1)
        total = np.maximum(length - n + 1, 0)[:, None] + (n > 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = logs + np.log(np.nan_to_num(matches / total)) / 4
    return np.exp(logs)


def consensus(closeness: np.ndarray, train_texts: Sequence[str],
              utility: np.ndarray) -> list[str]:
    """For each test study the training report of highest expected utility
    (`utilities` of `train_texts`), if these have the weights exp(`closeness`),
    (test, train): e.g. -distance / tau. A large tau gives everyone the
    `medoid`, a small one the nearest neighbour's report."""
    from scipy.special import softmax

    weights = softmax(closeness, axis=1)
    best = (weights @ utility.T).round(12).argmax(axis=1)
    return [train_texts[i] for i in best]


def random_reports(train_texts: Sequence[str], n: int,
                   seed: int = 0) -> list[str]:
    """`n` training reports, drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(0, len(train_texts), n)
    return [train_texts[i] for i in drawn]


def nearest_neighbour(train_vectors: np.ndarray, train_texts: Sequence[str],
                      test_vectors: np.ndarray,
                      metric: str = "euclidean") -> list[str]:
    """For each test study the report of the most similar training study.

    Vectors are (n, k) without NaN: the 36 scores, or true labels (then a
    *ceiling*: it has read the answer). `metric` is of scipy's `cdist`. Of
    equally near studies (labels tie often) their `medoid` is taken."""
    from scipy.spatial.distance import cdist

    @cache  # ties come in the same groups
    def agreed(near: tuple[int, ...]) -> str:
        return medoid([train_texts[i] for i in near])

    return [agreed(tuple(np.flatnonzero(row <= row.min() + 1e-12).tolist()))
            for row in cdist(test_vectors, train_vectors, metric=metric)]


def template_report(present: Sequence[str]) -> str:
    """One sentence a condition, by name; without any, a normal report."""
    names = sorted(set(present)) or ["none"]
    return " ".join(SENTENCES[name] for name in names)
