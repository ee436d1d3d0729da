"""Exercises of notebook 06: BLEU of a whole corpus by hand, as the protocol
of the quoted systems counts it."""

from collections import Counter

import numpy as np

from ..course.exercises import Exercise, expect

#: Ten pairs of our own: reference, candidate.
PAIRS = [
    ("the heart is normal in size", "the heart is normal in size"),
    ("the lungs are clear", "the lungs are clear the lungs are clear"),
    ("no pleural effusion or pneumothorax", "no effusion or pneumothorax"),
    ("mild cardiomegaly is present", "the heart is mildly enlarged"),
    ("there is a small left effusion", "there is a small right effusion"),
    ("the mediastinum is unremarkable", "the mediastinum is normal"),
    ("no acute bony abnormality is seen", "no bony abnormality is seen"),
    ("the spine shows degenerative change", "degenerative change of spine"),
    ("the lungs are hyperexpanded", "the lungs are clear and expanded"),
    ("no focal consolidation", "there is no focal consolidation today"),
]


def runs(text, n):
    words = text.split()
    return Counter(tuple(words[i:i + n]) for i in range(len(words) - n + 1))


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
    from pycocoevalcap.bleu.bleu import Bleu

    def right(pairs):
        references = {i: [pair[0]] for i, pair in enumerate(pairs)}
        candidates = {i: [pair[1]] for i, pair in enumerate(pairs)}
        return Bleu(4).compute_score(references, candidates, verbose=0)[0][3]

    for case, pairs in (
        ("the same text twice", PAIRS[:1]),
        ("a candidate that repeats itself (clip)", PAIRS[1:2]),
        ("a candidate shorter than its reference", PAIRS[6:7]),
        ("ten pairs together", PAIRS),
    ):
        value = answer(*map(list, zip(*pairs)))
        expect(case, float(value), float(right(pairs)))


EXERCISES = {
    "06a": Exercise(
        _bleu,
        corpus_bleu,
        """
            Start from `runs` and `bleu` above; here matches and
            runs are summed over all pairs, for each n, before you
            divide.

            `there & written` of two Counters keeps the smaller
            count: that is the clip.

            The penalty, too, is one for all: the words of all
            references against those of all candidates.
        """,
        "This is the corpus BLEU of protocol `r2gen`; pycocoevalcap gives "
        "the same. A mean of sentence scores is another number.",
    ),
}
