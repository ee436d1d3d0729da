"""Reports written without looking at the image, or hardly.

A trained model is worth its cost only above these: one constant report, a
random one, the report of the most similar study, one sentence a condition.
They return texts; `metrics` scores them as it scores any other system.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..datasets.reports import DATA
from .metrics import clean_r2gen

#: One sentence a condition, in our own words.
SENTENCES: dict[str, str] = dict(
    pd.read_csv(DATA / "sentences.csv").to_numpy())
#: What the template writer says when no condition is present.
NORMAL_REPORT = (
    "The heart is normal in size. The mediastinum is unremarkable. The lungs "
    "are clear. There is no pleural effusion or pneumothorax. The bones are "
    "intact.")


def _reports(texts: Sequence[str]) -> list[str]:
    """The texts that hold something."""
    return [t for t in texts if isinstance(t, str) and t.strip()]


def most_frequent(train_texts: Sequence[str]) -> str:
    """The report that stands most often in training (ties: the first)."""
    return Counter(_reports(train_texts)).most_common(1)[0][0]


def medoid(train_texts: Sequence[str], protocol: str = "r2gen") -> str:
    """The training report most like all the others, by mean ROUGE-L.

    Exact: the F1 of the longest common subsequence of words (R2Gen's cleaned
    ones; under "llamaxr" rouge_score's stems) of every pair. Ties: the first.
    """
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist
    from rouge_score.tokenizers import DefaultTokenizer

    stems = DefaultTokenizer(use_stemmer=True).tokenize
    texts = _reports(train_texts)
    words = [tuple(clean_r2gen(text).split() if protocol == "r2gen"
                   else stems(text)) for text in texts]
    weights = Counter(words)
    unique = list(weights)
    common = cdist(unique, unique, scorer=LCSseq.similarity, dtype=np.int32)
    length = np.array([len(report) for report in unique])
    f1 = 2 * common / np.maximum(length[:, None] + length[None, :], 1)
    mean = f1 @ np.array(list(weights.values()))
    return texts[words.index(unique[int(mean.argmax())])]


def random_reports(train_texts: Sequence[str], n: int,
                   seed: int = 0) -> list[str]:
    """`n` training reports, drawn with replacement."""
    texts = _reports(train_texts)
    drawn = np.random.default_rng(seed).integers(0, len(texts), n)
    return [texts[i] for i in drawn]


def nearest_neighbour(train_vectors: np.ndarray, train_texts: Sequence[str],
                      test_vectors: np.ndarray,
                      metric: str = "euclidean") -> list[str]:
    """For each test study the report of the most similar training study.

    Vectors are (n, k) without NaN: the 36 scores, or true labels (then a
    *ceiling*: it has read the answer). `metric` is of scipy's `cdist`. Of
    equally near studies (labels tie often) their `medoid` is taken.
    """
    from scipy.spatial.distance import cdist

    medoids: dict[tuple[int, ...], str] = {}  # ties come in the same groups
    reports = []
    for distances in cdist(test_vectors, train_vectors, metric=metric):
        near = np.flatnonzero(distances <= distances.min() + 1e-12).tolist()
        group = tuple(near)
        if group not in medoids:
            medoids[group] = medoid([train_texts[i] for i in near])
        reports.append(medoids[group])
    return reports


def template_report(present: Sequence[str]) -> str:
    """One sentence a condition, by name; without any, `NORMAL_REPORT`."""
    sentences = [SENTENCES[name] for name in sorted(set(present))]
    return " ".join(sentences) or NORMAL_REPORT
