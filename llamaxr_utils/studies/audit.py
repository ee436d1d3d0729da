"""The audit: what moves the paper's scores, one thing at a time.

Each function takes data and gives a `Measured`, whose words follow from the
numbers: other data, another verdict. What the paper and its published
notebook state is checked in `statements`; nobody's intentions are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..course.tables import markdown, published_results
from ..datasets.reports import FIRST_PART as FIRST
from ..datasets.reports import normalise, r2gen_split
from ..evaluation.baselines import medoid
from ..evaluation.evaluate import statistics_of
from ..evaluation.metrics import CLEANINGS, score_reports
from ..evaluation.stats import bootstrap_interval

MOVED = ("BLEU-4", "ROUGE-L", "METEOR")
PROTOCOLS = ("llamaxr", "r2gen")
Result = Mapping[str, Any]  #: of `metrics.score_reports`


@dataclass(frozen=True)
class Measured:
    """One section of the audit; a notebook shows its table and verdict."""

    item: str  #: letter in the ledger
    answer: str  #: the words that other data turn into others
    verdict: str  #: a sentence with the numbers
    table: pd.DataFrame
    #: metric -> the difference that this makes
    effect: dict[str, float] = field(default_factory=dict)

    def _repr_markdown_(self) -> str:
        said = f"**{self.item} · {self.answer}.** {self.verdict}"
        return f"{markdown(self.table)}\n\n{said}"


# --- a, b: the ruler, and what needs no image -------------------------------


def score_all(
    references: Sequence[str], generated: Sequence[str]
) -> dict[tuple[str, str], Result]:
    """Results of `score_reports` by (protocol, cleaning)."""
    return {
        (p, c): score_reports(references, generated, protocol=p, cleaning=c)
        for p in PROTOCOLS
        for c in CLEANINGS
    }


def difference(a: Result, b: Result) -> dict[str, float]:
    """What a choice does: metric -> a minus b; without METEOR, no METEOR."""
    return {
        m: float(a[m] - b[m])
        for m in MOVED
        if a[m] is not None and b[m] is not None
    }


def same_predictions(results: Mapping[tuple[str, str], Result]) -> Measured:
    """a: one set of reports (`score_all`) under every protocol and cleaning.

    The gain compares each protocol with its own cleaning: ``none`` for
    ``llamaxr``, ``r2gen`` for ``r2gen``.
    """
    table = _table(results, ["protocol", "cleaning"])
    ours, theirs = results["llamaxr", "none"], results["r2gen", "r2gen"]
    quoted = published_results().set_index("system")["METEOR"]
    claimed = quoted["LLaMA-XR"] / quoted.drop("LLaMA-XR").max() - 1
    if not theirs["METEOR"]:
        why = f"r2gen's METEOR is {theirs['METEOR']} (None: no Java)."
        return Measured("a", "not measurable here", why, table)
    gain = ours["METEOR"] / theirs["METEOR"] - 1
    most = gain / claimed >= 0.5
    effect = difference(ours, theirs)
    bleu = table["BLEU-4"]
    verdict = (
        f"The same texts score {gain:+.0%} in METEOR under llamaxr, beside "
        f"r2gen; the paper claims {claimed:+.0%} over systems measured by "
        f"r2gen's ruler. ROUGE-L moves by {effect['ROUGE-L']:+.3f}; over all "
        f"rows BLEU-4 goes from {bleu.min():.3f} to {bleu.max():.3f}."
    )
    answer = f"the ruler {'gives' if most else 'does not give'} the gain"
    return Measured("a", answer, verdict, table, effect)


def best_meteor(train_texts: Sequence[str], seed: int = 0) -> str:
    """A training report with a high mean METEOR against the others.

    Twelve reports are shortlisted by METEOR's F of word types
    (10PR / (R + 9P)) and scored on 100 training reports: good, not proven
    the best.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    weights = Counter(t for t in train_texts if t.strip())
    texts, times = list(weights), np.array(list(weights.values()))
    words = CountVectorizer(binary=True, token_pattern=r"\S+")
    bags = words.fit_transform(texts).astype(np.float32)
    common, size = (bags @ bags.T).toarray(), np.asarray(bags.sum(1))
    p, r = common / size.reshape(-1, 1), common / size.reshape(1, -1)
    f = 10 * p * r / np.maximum(r + 9 * p, 1e-9)
    shortlist = np.argsort(-(f @ times), kind="stable")[:12]
    drawn = np.random.default_rng(seed).choice(len(train_texts), 100)
    sample = [train_texts[i] for i in drawn]
    means = [
        score_reports(sample, [texts[i]] * 100)["METEOR"] for i in shortlist
    ]
    return texts[shortlist[int(np.argmax(means))]]


def constant_report(
    train_texts: Sequence[str],
    references: Sequence[str],
    n_samples: int = 1000,
    seed: int = 0,
) -> tuple[Measured, Result]:
    """b: one training report for every study, against the paper's claims.

    Returns
    -------
    Measured, dict
        And the medoid's result under ``r2gen``, for `r2gen_list`.
    """
    plain = [t for t in train_texts if "XXXX" not in t]
    constants = {
        "medoid": medoid(train_texts),
        "medoid of reports without XXXX": medoid(plain, "llamaxr"),
        "high METEOR in training": best_meteor(train_texts, seed),
    }
    results = {
        (name, p): score_reports(references, [text] * len(references), p)
        for name, text in constants.items()
        for p in PROTOCOLS
    }
    table = _table(results, ["constant", "protocol"])
    ours = table[table["protocol"] == "llamaxr"].set_index("constant")
    value, best = ours[list(MOVED)].max(), ours[list(MOVED)].idxmax()
    named = results[best["METEOR"], "llamaxr"]["per_report"]
    interval = bootstrap_interval(
        named["METEOR"].to_numpy(), n_samples=n_samples, seed=seed
    )
    kept = [i for i, text in enumerate(references) if "XXXX" not in text]
    for m in MOVED[1:]:  # means of reports, so a selection needs no scoring
        table[f"{m}, no XXXX"] = [
            result["per_report"][m].reindex(kept).mean()
            if protocol == "llamaxr"
            else None
            for (_, protocol), result in results.items()
        ]
    quoted = published_results().set_index("system")
    claim, others = quoted.loc["LLaMA-XR"], quoted.drop("LLaMA-XR")["ROUGE-L"]
    first = results["medoid", "r2gen"]
    beaten = int((others < first["ROUGE-L"]).sum())
    reached = [m for m in MOVED[1:] if value[m] >= claim[m]]
    verdict = (
        f"Without a look at an image: METEOR {value['METEOR']:.3f} "
        f"[{interval['low']:.3f}, {interval['high']:.3f}] ({best['METEOR']}; "
        f"claimed {claim['METEOR']:.3f}), ROUGE-L {value['ROUGE-L']:.3f} "
        f"({best['ROUGE-L']}; claimed {claim['ROUGE-L']:.3f}); without XXXX "
        f"up to {table['METEOR, no XXXX'].max():.3f} and "
        f"{table['ROUGE-L, no XXXX'].max():.3f}. Under r2gen the medoid's "
        f"ROUGE-L {first['ROUGE-L']:.3f} lies above {beaten} of the "
        f"{others.count()} quoted systems."
    )
    one = len({best[m] for m in reached}) == 1
    answer = f"{'one constant report reaches' if one else 'constants reach'}"
    answer += f" the claimed {' and '.join(reached)}"
    if not reached:
        answer = "no constant report reaches a claimed number"
    effect = difference(value, claim)
    return Measured("b", answer, verdict, table, effect), first


# --- c, f: which studies ----------------------------------------------------


def r2gen_list(
    studies: pd.DataFrame,
    scored: Mapping[str, tuple[Sequence[str], Result]],
    n_splits: int = 20,
    seed: int = 0,
) -> Measured:
    """c: R2Gen's test list, its two parts, and random lists of its size.

    Parameters
    ----------
    studies : DataFrame
        ``study_id``, ``findings``, ``status``.
    scored : mapping
        System -> (study ids, result under ``r2gen``): its BLEU-4 a part. The
        last system's two parts, first minus second, are the effect.
    n_splits, seed : int
        Random splits by study into lists of the same sizes.
    """
    columns = ["study_id", "findings", "status"]
    listed = r2gen_split().merge(studies[columns], on="study_id")
    text = listed["findings"].map(normalise).to_numpy()
    normal = listed["status"].eq("normal").to_numpy()
    split = listed["split"].to_numpy()
    train = np.flatnonzero(split == "train")
    test = np.flatnonzero(split == "test")

    def shares(rows: np.ndarray, known_rows: np.ndarray) -> tuple:
        known = set(text[known_rows])
        return normal[rows].mean(), np.mean([t in known for t in text[rows]])

    parts = {"all": test, "1-170": test[:FIRST], "171-590": test[FIRST:]}
    lines = [(k, len(v), *shares(v, train)) for k, v in parts.items()]
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(listed)) for _ in range(n_splits)]
    n, end = len(test), len(test) + len(train)
    draws = [shares(order[:n], order[n:end]) for order in orders]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    lines += [("random, low end", n, *low), ("random, high end", n, *high)]
    names = ["test list", "n", "normal", "verbatim in train"]
    table = pd.DataFrame(lines, columns=names)
    place = {s: i for i, s in enumerate(listed["study_id"].iloc[test])}
    effect: dict[str, float] = {}
    for system, (ids, result) in scored.items():
        at = np.array([place.get(s, -1) for s in ids])
        whole, a, b = (
            _part(result, mask)
            for mask in (at >= 0, (at >= 0) & (at < FIRST), at >= FIRST)
        )
        bleu = [p.get("BLEU-4") for p in (whole, a, b)]
        table[f"{system}: BLEU-4"] = [*bleu, None, None]
        effect = {m: a[m] - b[m] for m in MOVED if m in a and m in b}
    shown, first, rest = table.loc[[0, 1, 2], names[2:]].to_numpy(float)
    like = ((low <= shown) & (shown <= high)).all()
    verdict = (
        f"{shown[0]:.0%} of it are normal and {shown[1]:.0%} stand word for "
        f"word in training; 95 % of random lists have {low[0]:.0%} to "
        f"{high[0]:.0%} and {low[1]:.0%} to {high[1]:.0%}. Its first {FIRST} "
        f"studies: {first[0]:.0%} and {first[1]:.0%}; the others: "
        f"{rest[0]:.0%} and {rest[1]:.0%}."
    )
    answer = f"R2Gen's test list is {'' if like else 'not '}like a random one"
    return Measured("c", answer, verdict, table, effect)


def selections(
    result: Result,
    references: Sequence[str],
    place: Sequence[int],
    n_draws: int = 1000,
    n: int = 100,
    seed: int = 0,
) -> Measured:
    """f: the same scored reports, other studies counted.

    Parameters
    ----------
    result : dict
        Of `score_reports` under ``llamaxr``, whose scores are means.
    references : sequence of str
    place : sequence of int
        Each study's place in R2Gen's test list, for its first `n`.
    n_draws, n, seed : int
        Random draws of `n` studies, to compare the first `n` with.
    """
    scores = result["per_report"][list(MOVED)]
    plain = np.array(["XXXX" not in references[i] for i in scores.index])
    kept = scores[plain]
    if kept.empty:
        return Measured("f", "not measurable here", "All have XXXX.", kept)
    first = scores.iloc[np.argsort(np.asarray(place)[scores.index])]
    n = min(n, len(scores))
    rng = np.random.default_rng(seed)
    draws = [
        scores.sample(n, random_state=rng).mean() for _ in range(n_draws)
    ]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    lines = {
        "all": (len(scores), *scores.mean()),
        "without XXXX": (len(kept), *kept.mean()),
        f"first {n} of the list": (n, *first[:n].mean()),
        f"random {n}, low end": (n, *low),
        f"random {n}, high end": (n, *high),
    }
    table = pd.DataFrame(lines, index=["n", *MOVED]).T.astype({"n": int})
    table = table.rename_axis("studies").reset_index()
    effect = difference(kept.mean(), scores.mean())
    word = "raises" if effect["METEOR"] > 0 else "does not raise"
    verdict = (
        f"Leaving out {len(scores) - len(kept)} of {len(scores)} studies "
        f"moves METEOR by {effect['METEOR']:+.3f}. The first {n} of the list "
        f"score {table.loc[2, 'METEOR']:.3f}; 95 % of random {n} lie between "
        f"{low[2]:.3f} and {high[2]:.3f}."
    )
    answer = f"dropping XXXX {word} the score"
    return Measured("f", answer, verdict, table, effect)


# --- helpers ----------------------------------------------------------------


def _table(results: Mapping[Any, Result], keys: list[str]) -> pd.DataFrame:
    """A row a result, its key in front."""
    lines = [(*key, *(r[m] for m in MOVED)) for key, r in results.items()]
    return pd.DataFrame(lines, columns=[*keys, *MOVED])


def _part(result: Result, mask: np.ndarray) -> dict[str, float]:
    """The scores of some of the studies; {} of none."""
    rows, function, names = statistics_of(result)
    if not mask.any():
        return {}
    return dict(zip(names, function(rows[mask].sum(axis=0)).tolist()))
