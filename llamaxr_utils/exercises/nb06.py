"""Exercises of notebook 06: BLEU of a whole corpus by hand, as the protocol
of the quoted systems counts it, and the text that scores best for all."""

from collections import Counter

import numpy as np

from ..course.exercises import Exercise, NotYet, expect

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


EXERCISES = {
    "06a": Exercise(_bleu, corpus_bleu, """
        Start from `runs` and `bleu` above; here matches and runs are summed
        over all pairs, for each n, before you divide.

        `there & written` of two Counters keeps the smaller count: that is the
        clip.

        The penalty, too, is one for all: the words of all references against
        those of all candidates.
        """,
        "This is the corpus BLEU of protocol `r2gen`; pycocoevalcap gives "
        "the same. A mean of sentence scores is another number."),
    "06b": Exercise(_constant, best_constant, """
        `max(texts, key=...)` does it: the key is the score of one text against
        all references.

        The candidates are that one text, as often as there are references:
        `[text] * len(references)`.

        The score is `corpus_bleu(..., 2)`, of the whole corpus. Why not the
        mean of the pairs' own scores? Most of those are 0, because a pair
        without a common run of words has none; the corpus only asks what all
        of them have together.
        """,
        "No image was read. It wins by its length (the penalty compares all "
        "words with all words) and by stock phrases."),
}
