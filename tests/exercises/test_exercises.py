"""Each exercise: its stub, typical wrong answers, and its solution."""

import numpy as np
import pytest

from llamaxr_utils.course import exercises
from llamaxr_utils.exercises import nb04_to_07

ALL = {name: exercises.find(name) for name in exercises.words()}


def endless(model, ids, mask, eos, n, masked=True, last=True):
    import torch

    start = ids.shape[1]
    for _ in range(n):
        out = model(ids, attention_mask=mask if masked else None).logits
        token = out[:, -1 if last else start - 1].argmax(-1)
        ids = torch.cat([ids, token[:, None]], 1)
        mask = torch.cat([mask, torch.ones_like(token)[:, None]], 1)
    return ids[:, start:]


#: Name -> what a learner may well write first, and what the answer says;
#: without a line here: every wrong letter of a choice.
WRONG = {
    "01a": [
        (lambda test, train: np.mean([t in train for t in test]), "capitals")],
    "02a": [
        (lambda p, n: np.mean(np.array(p)[:, None] > np.array(n)), "a tie")],
    "02b": [("a", "hardly moved"), ("c", "wrong range"), (7, "one of a, b")],
    "02c": [
        (lambda p, t: p / (2 * t), "0.2"),
        (lambda p, t: np.where(p < t, 0.0, 1.0), ".5"),
    ],
    "03a": [
        (lambda s, p: [c for c in p if max(
            v[c] for v in s.values()) >= p[c]], "the mean counts"),
        (lambda s, p: [c for c in p if np.mean(
            [v[c] for v in s.values()]) > p[c]], "exactly at"),
        (lambda s, p: [c for c in p if np.mean(
            [v[c] for v in s.values()]) >= p[c]], "no lateral"),
    ],
    "03b": [(lambda s, t: min(s), "")],
    "04a": [
        (lambda x, W0, A, B, s: x @ W0.T + (x @ A.T) @ B.T, "trained"),
        (lambda x, W0, A, B, s: s * (x @ A.T) @ B.T, "B = 0"),
    ],
    "04b": [
        (lambda p, c: p + c, "still to be predicted"),
        (lambda p, c: [0] * len(p) + c, "-100"),
        (lambda p, c: c, "expected 5"),
    ],
    "04c": [(lambda r, s: sum(r * a * b for a, b in s), "rank 1")],
    "05a": [
        (lambda *a: endless(*a, masked=False), "padded prompt"),
        (lambda *a: endless(*a), "ends early"),
        (lambda *a: endless(*a, last=False), "none ends"),
    ],
    "05c": [
        (lambda a, b, s: b + s * (a - b), "scale 1.0"),
        (lambda a, b, s: a.log_softmax(-1) * s, "scale 2.0"),
    ],
    "06a": [
        (lambda r, c: np.mean([nb04_to_07.corpus_bleu([a], [b], 2)
                               for a, b in zip(r, c)]), ""),
    ],
    "06b": [(lambda r, t: max(t, key=len), "")],
    "07a": [(lambda r, g: {}, "enlarged")],
    "08a": [
        (lambda s, e, b: (s * b - b + 1, s * b), "expected (25, 32)")],
    "08c": [
        (lambda t: [w.strip(".,") for w in t.split() if len(w.strip(".,")) < 3
                    and w.lower() != "no"], "['No']"),
        (lambda t: [w.strip(".,") for w in t.split() if len(w.strip(".,")) < 3
                    and w != "no"], "['XXXX']"),
    ],
    "09a": [
        (lambda a, b: 2 * sum(len(x & y) for x, y in zip(a, b)) /
         sum(map(len, [*a, *b])), "Edema"),
    ],
    "10a": [
        (lambda v: (np.mean(v) - 1.96 * np.std(v), np.mean(v) + 1.96 *
                    np.std(v)), "values")],
    "11a": [
        (lambda p, low, high, same: "reproduced" if low and p and
         low <= p <= high else "differs", "not comparable"),
        (lambda p, low, high, same: "not run" if low is None else "differs",
         "reproduced"),
    ],
}


def outcome(capsys, name, answer):
    exercises.check(name, answer)
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", sorted(ALL))
def test_stub_wrong_and_right_answers(name, capsys):
    for stub in (..., lambda *_: ...):
        if stub is ... or callable(ALL[name].solution):
            assert "not attempted" in outcome(capsys, name, stub)
    wrong = WRONG.get(name) or [
        (letter, "") for letter in {*"abc"} - {ALL[name].solution}]
    for answer, says in wrong:
        text = outcome(capsys, name, answer)
        assert f"{name} · not yet." in text
        assert says in text
    right = outcome(capsys, name, ALL[name].solution)
    assert right.startswith(f"{name} · correct. ")
    assert ALL[name].meaning in right


def test_hints_say_more_each_time_and_end_at_the_solution(capsys):
    said = []
    for _ in range(4):
        exercises.hint("04a")
        said.append(" ".join(capsys.readouterr().out.split()))
    assert "hint 1 of 3" in said[0]
    assert "hint 3 of 3" in said[2] == said[3]
    assert ['solution("04a")' in words for words in said[::2]] == [False, True]
    exercises.solution("04a")
    assert "def lora_forward(x, W0, A, B, scale)" in capsys.readouterr().out


def test_an_error_in_the_answer_is_told_with_its_line(capsys):
    def divides(test, train):
        return len(test) / 0

    text = outcome(capsys, "01a", divides)
    assert "ZeroDivisionError" in text
    assert "len(test) / 0" in text
    with pytest.raises(ValueError, match="no exercise '99z'"):
        exercises.check("99z", 1)
