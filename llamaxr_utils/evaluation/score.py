"""Score a file of predictions: ``python -m llamaxr_utils score FILE``.

For anyone with generated IU X-ray reports, outside of the course: both
protocols, intervals, clinical scores and baselines, each row with what it
rests on. It arranges what `metrics`, `clinical`, `stats` and `baselines`
compute. It reads texts only: the images behind them are not known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..course.files import sha256
from ..datasets.reports import FIRST_PART as FIRST
from ..datasets.reports import load_studies, r2gen_split
from . import baselines, evaluate
from .clinical import SCORES, clinical_scores, scores_from_statistics
from .metrics import plain, score_reports
from .predictions import Predictions, read_predictions, read_table
from .stats import (
    bootstrap_corpus,
    holm,
    paired_interval,
    paired_randomisation,
)

PROTOCOLS = ("r2gen", "llamaxr")
LABELS = "labels"  #: in place of a protocol, for the clinical scores
IMAGES = "not known"
SEEDS = 5  #: of the random baseline
SEED = 3407
MEDOID = "medoid report"
_PAIRED = ("BLEU-4", "ROUGE-L", "METEOR", "CIDEr", *SCORES[:3])


def score_file(
    path: str | Path,
    against: str | Path | None = None,
    references: str | None = None,
    n_samples: int = 1000,
    seed: int = SEED,
    say: Callable[[str], Any] = lambda text: None,
) -> dict[str, Any]:
    """Everything that can be said of a file of generated reports.

    Parameters
    ----------
    path : path
        See `predictions.read_table`.
    against : path, optional
        A second such file, of the same studies, for a paired test. The
        references are those of the first.
    references : {"column", "wheel"}, optional
        See `predictions.read_predictions`.
    n_samples, seed : int
        Of bootstrap and randomisation, and of the random baseline.
    say : callable
        Told what is being done: it takes a minute.

    Returns
    -------
    dict
        ``rows``: DataFrame, a row a system, protocol ("labels" for clinical
        scores), split and metric, as `evaluate.summarise`; for R2Gen's test
        list also its first 170 and other 420 studies. ``paired``: DataFrame
        or None, Holm over all its tests. ``distinct``: DataFrame of distinct
        reports and the share of the commonest. ``records``, ``notes``, and
        what the file is.

    Raises
    ------
    CourseError
        For a file that cannot be scored.
    """
    own = read_predictions(path, references)
    name, table = _short_name(own.name), own.table
    systems = {name: [list(table["generated"])]}
    if against is not None:
        rival = _short_name(Path(against).name)
        rival = f"{rival} (2)" if rival == name else rival
        systems[rival] = [_aligned(Path(against), own)]
    notes = list(own.notes)
    systems |= _baselines(own, notes, seed)

    truth = list(table["reference"])
    status = load_studies().set_index("study_id")["status"]
    known = status.reindex(table["study_id"])
    kinds = None if known.isna().any() else list(known)
    parts = _parts(own, notes)
    results, clinics, rows = {}, {}, []
    for protocol in PROTOCOLS:
        for system, runs in systems.items():
            say(f"{protocol}: {system}")
            results[system, protocol] = (
                score_reports(truth, runs[0], protocol)
                if len(runs) == 1
                else evaluate.score_repeats(truth, runs, protocol)
            )
        scored = {k: v for k, v in results.items() if k[1] == protocol}
        places = results[name, protocol]["per_report"].index
        for split, part in parts.items():
            rows.append(
                evaluate.summarise(
                    scored,
                    split=split,
                    images=IMAGES,
                    n_samples=n_samples,
                    seed=seed,
                    rows=np.flatnonzero(np.isin(places, part)),
                )
            )
    say("clinical scores")
    for system, runs in systems.items():
        found = [clinical_scores(truth, run, kinds) for run in runs]
        clinics[system] = np.mean([f["statistics"] for f in found], axis=0)
        kinds = list(found[0]["per_report"]["status"])
    for split, part in parts.items():
        for system, statistics in clinics.items():
            interval = bootstrap_corpus(
                statistics[part],
                scores_from_statistics,
                n_samples=n_samples,
                seed=seed,
            )
            rows.append(_clinical_rows(system, split, interval))
    records = {p: results[name, p]["record"] for p in PROTOCOLS}
    if results[name, "r2gen"]["METEOR"] is None:
        java = records["r2gen"]["java"]
        notes.append(f"r2gen has no METEOR: {java}.")
    paired = None
    if against is not None:
        pair = {k: v for k, v in results.items() if k[0] in (name, rival)}
        paired = _paired(pair, clinics, name, rival, n_samples, seed)
    return {
        "schema": 1,
        "file": name,
        "files": [name] if against is None else [name, rival],
        "sha256": sha256(Path(path)),
        "n": len(table),
        "split": own.split,
        "images": IMAGES,
        "references": own.references,
        "n_samples": n_samples,
        "seed": seed,
        "rows": pd.concat(rows, ignore_index=True),
        "paired": paired,
        "distinct": _distinct(systems, kinds or []),
        "records": records,
        "notes": notes,
    }


def _aligned(path: Path, own: Predictions) -> list[str]:
    """The second file's reports, in the order of the first."""
    reports = read_table(path).set_index("study_id")["generated"]
    missing = own.table.loc[
        ~own.table["study_id"].isin(reports.index), "study_id"
    ]
    if len(missing):
        raise CourseError(
            f"{path.name} lacks {len(missing)} of the {len(own.table)} "
            f"studies of {own.name}.",
            f"A paired test needs both on the same studies; the first "
            f"missing is {plain(missing.iloc[0])!r}.",
            "Score the studies that both have.",
        )
    return list(reports.reindex(own.table["study_id"]))


def _baselines(
    own: Predictions, notes: list[str], seed: int
) -> dict[str, list[list[str]]]:
    """Reports from R2Gen's training list, if the studies allow it."""
    studies = load_studies()
    train = studies[studies["split_r2gen"] == "train"]
    n = len(own.table)
    seen = int(own.table["study_id"].isin(train["study_id"]).sum())
    if own.split == "not known" or seen:
        why = (
            f"{seen} of the studies are in R2Gen's training list"
            if seen
            else "the studies are in none of R2Gen's lists"
        )
        notes.append(f"No baselines: {why}.")
        return {}
    texts = list(train["findings"])
    drawn = [
        baselines.random_reports(texts, n, seed + i) for i in range(SEEDS)
    ]
    return {
        "most frequent report": [[baselines.most_frequent(texts)] * n],
        MEDOID: [[baselines.medoid(texts)] * n],
        f"random report, {SEEDS} seeds": drawn,
    }


def _parts(own: Predictions, notes: list[str]) -> dict[str, np.ndarray]:
    """Name of the split -> positions of its studies."""
    ids = own.table["study_id"]
    parts = {own.split: np.arange(len(ids))}
    if own.split not in ("r2gen test", "part of test"):
        return parts
    lists = r2gen_split()
    test = lists.loc[lists["split"] == "test", "study_id"]
    first = ids.isin(test[:FIRST]).to_numpy()
    if own.split == "part of test":
        notes.append(
            f"{len(ids)} of R2Gen's {len(test)} test studies, {first.sum()} "
            f"of them among its first {FIRST}, which are unlike the rest: "
            "compare with nothing but the rows here."
        )
    if first.any() and not first.all():
        parts[f"test 1-{FIRST}"] = np.flatnonzero(first)
        parts[f"test {FIRST + 1}-{len(test)}"] = np.flatnonzero(~first)
        notes.append(
            f"In the two parts, CIDEr keeps the word weights of all "
            f"{len(ids)} references."
        )
    return parts


def _clinical_rows(
    system: str, split: str, interval: dict[str, Any]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "system": system,
            "protocol": LABELS,
            "split": split,
            "images": evaluate.seen_by(system, IMAGES),
            "n": interval["n"],
            "metric": SCORES,
            **{k: interval[k] for k in ("value", "low", "high")},
            "note": "",
        }
    )


def _paired(
    results: evaluate.Results,
    clinics: dict[str, np.ndarray],
    name: str,
    rival: str,
    n_samples: int,
    seed: int,
) -> pd.DataFrame:
    """First file minus second: one Holm over all tests of the table."""
    tests = []
    for protocol in PROTOCOLS:
        a, function, names = evaluate.statistics_of(results[name, protocol])
        b = evaluate.statistics_of(results[rival, protocol])[0]
        tests.append((protocol, a, b, function, names))
    pair = clinics[name], clinics[rival]
    tests.append((LABELS, *pair, scores_from_statistics, list(SCORES)))
    lines = []
    for protocol, a, b, function, names in tests:
        test = paired_randomisation(a, b, function, n_samples, seed)
        span = paired_interval(a, b, function, 0.95, n_samples, seed)
        lines += [
            (protocol, metric, len(a), test["difference"][i])
            + (span["low"][i], span["high"][i], test["p"][i])
            for i, metric in enumerate(names)
            if metric in _PAIRED
        ]
    columns = ["protocol", "metric", "n", "difference", "low", "high", "p"]
    table = pd.DataFrame(lines, columns=columns)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def _distinct(
    systems: dict[str, list[list[str]]], kinds: Sequence[str]
) -> pd.DataFrame:
    """How many different reports, and how common the commonest is."""
    lines = []
    for system, runs in systems.items():
        texts = [" ".join(text.split()) for text in runs[0]]
        for kind in ("all", "abnormal", "normal"):
            some = [
                t
                for t, k in zip(texts, kinds, strict=True)
                if kind in ("all", k)
            ]
            if some:
                most = Counter(some).most_common(1)[0][1] / len(some)
                lines.append((system, kind, len(some), len(set(some)), most))
    columns = ["system", "studies", "n", "distinct reports"]
    return pd.DataFrame(lines, columns=[*columns, "share of the commonest"])


def _short_name(name: str) -> str:
    return plain(name)[:36]
