"""From pairs of texts to tables of systems, and the command ``score FILE``.

First what notebook 06 tabulates: intervals, paired tests, one row a system.
Then all of it for a file of predictions by anyone, as text, Markdown and
JSON. Every row says protocol, split, images and n; no image is looked at.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..course.files import sha256, write_json, write_whole
from ..course.run import WARNING
from ..course.tables import METRICS, markdown
from ..datasets.reports import FIRST_PART as FIRST
from ..datasets.reports import load_studies, r2gen_split
from . import baselines
from .clinical import SCORES, clinical_scores, scores_from_statistics
from .metrics import plain, score_reports
from .predictions import (
    Predictions,
    check,
    read_predictions,
    read_table,
    some,
)
from .stats import (
    Function,
    bootstrap_corpus,
    holm,
    metric_statistics,
    paired_interval,
    paired_randomisation,
)

#: (system, protocol) -> result of `metrics.score_reports`.
Results = Mapping[tuple[str, str], Mapping[str, Any]]

PROTOCOLS = ("r2gen", "llamaxr")
LABELS = "labels"  #: in place of a protocol, for the clinical scores
#: Systems that look at no image: reports alone, or labels of people.
WITHOUT_IMAGES = ("most frequent report", "medoid report", "random report",
                  "ceiling: true labels")
#: The metrics that paired tests are made of.
TESTED = ("BLEU-4", "ROUGE-L", "METEOR", "CIDEr", *SCORES[:3])
KEYS = ["system", "protocol", "split", "images", "n"]
SEEDS, SEED = 5, 3407  #: of the random baseline; of all that is drawn
MEDOID = "medoid report"


# --- tables of systems ------------------------------------------------------


def statistics_of(
    result: Mapping[str, Any],
) -> tuple[np.ndarray, Function, list[str]]:
    """`stats.metric_statistics`, one row a study: repeats are averaged."""
    if "statistics" in result:  # of `clinical_scores`
        return result["statistics"], scores_from_statistics, list(SCORES)
    rows, function, names = metric_statistics(dict(result))
    repeats = result["record"].get("repeats", 1)
    return rows.reshape(repeats, -1, rows.shape[1]).mean(0), function, names


def score_repeats(
    references: Sequence[str], runs: Sequence[Sequence[str]], protocol: str
) -> dict[str, Any]:
    """`metrics.score_reports` of a system that was run several times.

    As of the first run, but the numbers are over all runs (a corpus metric:
    of the pooled runs), ``per_report`` holds them one after the other, and
    the record has ``repeats``. Intervals draw a study with all of its runs.
    """
    each = [score_reports(references, run, protocol) for run in runs]
    empty = sum(one["record"]["n_empty_candidates"] for one in each)
    result = each[0] | {
        "per_report": pd.concat([one["per_report"] for one in each]),
        "record": each[0]["record"]
        | {"repeats": len(runs), "n_empty_candidates": empty},
    }
    rows, function, names = statistics_of(result)
    numbers = function(rows.sum(axis=0)).tolist()
    return result | dict(zip(names, numbers, strict=True))


def summarise(
    results: Results,
    *,
    split: str,
    images: str,
    n_samples: int,
    seed: int,
    rows: Sequence[int] | np.ndarray | None = None,
) -> pd.DataFrame:
    """One row a system, protocol and metric, with a 95 % interval by study.

    ``images`` is "none" for `WITHOUT_IMAGES`. `rows` takes only these of the
    scored pairs, a part of the split; CIDEr keeps the word weights of the
    whole.

    Returns
    -------
    DataFrame
        Artifact ``summary``: ``system``, ``protocol``, ``split``,
        ``images``, ``n``, ``metric``, ``value``, ``low``, ``high``. METEOR
        under ``r2gen`` without Java has no value, and ``note`` says so.
    """
    lines = []
    for (system, protocol), result in results.items():
        statistics, function, names = statistics_of(result)
        if rows is not None:
            statistics = statistics[rows]
        interval = bootstrap_corpus(
            statistics, function, n_samples=n_samples, seed=seed
        )
        seen = "none" if system.startswith(WITHOUT_IMAGES) else images
        key = (system, protocol, split, seen, interval["n"])
        for i, metric in enumerate(names):
            numbers = [interval[k][i] for k in ("value", "low", "high")]
            lines.append((*key, metric, *numbers, ""))
        if result.get("METEOR", 0) is None:
            java = str(result["record"]["java"])
            lines.append((*key, "METEOR", None, None, None, java))
    columns = [*KEYS, "metric", "value", "low", "high", "note"]
    return pd.DataFrame(lines, columns=columns)


def paired_tests(
    results: Results,
    system: str,
    protocol: str,
    n_samples: int,
    seed: int,
    metrics: Collection[str] = TESTED,
) -> pd.DataFrame:
    """One system against all others under a protocol, paired by study:
    ``other``, ``metric``, ``difference`` (system minus other), ``p``
    (approximate randomisation), ``p_holm`` (adjusted over the table)."""
    ours, function, names = statistics_of(results[system, protocol])
    rows = []
    for other in [s for s, p in results if p == protocol and s != system]:
        theirs = statistics_of(results[other, protocol])[0]
        test = paired_randomisation(ours, theirs, function, n_samples, seed)
        rows += [
            (other, metric, test["difference"][i], test["p"][i])
            for i, metric in enumerate(names) if metric in metrics
        ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["other", "metric", "difference", "p"])
    return table.assign(p_holm=holm(table["p"].to_numpy(float)))


def winners(
    results: Results, n_samples: int, seed: int, alpha: float = 0.05
) -> set[tuple[str, str, str]]:
    """What a table may print in bold: (system, protocol, metric).

    The system with the best value of a metric of Table 3, if it is better
    than *each* other system under the same protocol: paired approximate
    randomisation, Holm over all tests of the protocol. Two equal bests:
    neither.
    """
    bold = set()
    for protocol in dict.fromkeys(protocol for _, protocol in results):
        values = pd.DataFrame(
            {s: [r[m] for m in METRICS]
             for (s, p), r in results.items() if p == protocol},
            index=METRICS, dtype=float,
        )  # fmt: skip
        is_best = values.eq(values.max(axis=1), axis=0)
        tests = pd.concat(
            paired_tests(results, system, protocol, n_samples, seed,
                         is_best.index[is_best[system]]).assign(system=system)
            for system in values if is_best[system].any()
        )  # fmt: skip
        tests["p"] = holm(tests["p"].to_numpy(float))
        worst = tests.groupby(["system", "metric"])["p"].max()
        bold |= {(s, protocol, m) for s, m in worst.index[worst < alpha]}
    return bold


def per_study(results: Results, study_ids: Sequence[str]) -> pd.DataFrame:
    """Artifact ``metrics``: one row a study, system, protocol and metric."""
    parts = []
    for (system, protocol), result in results.items():
        table = result["per_report"].select_dtypes("number")
        table.index = [study_ids[i] for i in table.index]
        long = table.rename_axis("study_id").reset_index()
        long = long.melt("study_id", var_name="metric")
        parts.append(long.assign(system=system, protocol=protocol))
    columns = ["study_id", "system", "protocol", "metric", "value"]
    return pd.concat(parts, ignore_index=True)[columns]


# --- a file of predictions --------------------------------------------------


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
    path, references
        See `predictions.read_predictions`.
    against : path, optional
        A second such file, of the same studies, for a paired test. The
        references are those of the first.
    say : callable
        Told what is being done: it takes a minute.

    Returns
    -------
    dict
        ``rows``: DataFrame of `summarise`, clinical scores under "labels";
        for R2Gen's test list also its first 170 and other 420 studies.
        ``paired``: DataFrame or None, Holm over all its tests. ``distinct``:
        different reports, share of the commonest. ``records``, ``notes``,
        and what the file is.
    """
    given = read_predictions(path, references)
    name, table, notes = plain(given.name)[:36], given.table, [*given.notes]
    systems = {name: [list(table["generated"])]}
    if against is not None:
        rival = plain(Path(against).name)[:36]
        rival = f"{rival} (2)" if rival == name else rival
        systems[rival] = [_aligned(Path(against), given)]
    systems |= _baselines(given, notes, seed)
    truth = list(table["reference"])
    results: dict[tuple[str, str], Any] = {}
    for protocol in PROTOCOLS:
        for system, runs in systems.items():
            say(f"{protocol}: {system}")
            results[system, protocol] = (
                score_reports(truth, runs[0], protocol) if len(runs) == 1
                else score_repeats(truth, runs, protocol)
            )  # fmt: skip
    say("clinical scores")
    status = load_studies().set_index("study_id")["status"]
    status = status.reindex(table["study_id"])
    kinds = None if status.isna().any() else list(status)
    for system, runs in systems.items():
        each = [clinical_scores(truth, run, kinds) for run in runs]
        mean = np.mean([one["statistics"] for one in each], axis=0)
        results[system, LABELS] = {"statistics": mean}
        kinds = list(each[0]["per_report"]["status"])
    places = {p: results[name, p]["per_report"].index for p in PROTOCOLS}
    parts = _parts(given, notes)
    rows = [
        summarise(
            {key: r for key, r in results.items() if key[1] == protocol},
            split=split, images="not known", n_samples=n_samples, seed=seed,
            rows=np.flatnonzero(np.isin(
                places.get(protocol, np.arange(len(table))), part)),
        )
        for protocol in (*PROTOCOLS, LABELS) for split, part in parts.items()
    ]  # fmt: skip
    records = {p: results[name, p]["record"] for p in PROTOCOLS}
    if results[name, "r2gen"]["METEOR"] is None:
        notes.append(f"r2gen has no METEOR: {records['r2gen']['java']}.")
    return {
        "schema": 1,
        "file": name,
        "files": [name] if against is None else [name, rival],
        "sha256": sha256(Path(path)),
        "n": len(table),
        "split": given.split,
        "images": "not known",
        "references": given.references,
        "n_samples": n_samples,
        "seed": seed,
        "rows": pd.concat(rows, ignore_index=True),
        "paired": None if against is None else _paired(
            results, name, rival, n_samples, seed),
        "distinct": _distinct(systems, kinds or []),
        "records": records,
        "notes": notes,
    }  # fmt: skip


def _aligned(path: Path, first: Predictions) -> list[str]:
    """The second file's reports, in the order of the first."""
    ids = first.table["study_id"]
    reports = read_table(path).set_index("study_id")["generated"]
    missing = ids[~ids.isin(reports.index)]
    check(path, len(missing), f"lacks {len(missing)} of the {len(ids)} "
          f"studies of {first.name}", "A paired test needs both on the same "
          f"studies; missing: {some(missing)}.")  # fmt: skip
    return list(reports.reindex(ids))


def _baselines(
    given: Predictions, notes: list[str], seed: int
) -> dict[str, list[list[str]]]:
    """Reports from R2Gen's training list, if the studies allow it."""
    studies = load_studies()
    train = studies[studies["split_r2gen"] == "train"]
    n, texts = len(given.table), list(train["findings"])
    seen = int(given.table["study_id"].isin(train["study_id"]).sum())
    if given.split == "not known" or seen:
        why = (
            f"{seen} of the studies are in R2Gen's training list"
            if seen
            else "the studies are in none of R2Gen's lists"
        )
        notes.append(f"No baselines: {why}.")
        return {}
    return {
        "most frequent report": [[baselines.most_frequent(texts)] * n],
        MEDOID: [[baselines.medoid(texts)] * n],
        f"random report, {SEEDS} seeds": [
            baselines.random_reports(texts, n, seed + i) for i in range(SEEDS)
        ],
    }


def _parts(given: Predictions, notes: list[str]) -> dict[str, np.ndarray]:
    """Name of the split -> positions of its studies."""
    ids = given.table["study_id"]
    parts = {given.split: np.arange(len(ids))}
    if given.split not in ("r2gen test", "part of test"):
        return parts
    test = list(r2gen_split().query("split == 'test'")["study_id"])
    first = ids.isin(test[:FIRST]).to_numpy()
    if given.split == "part of test":
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


def _paired(
    results: Results, first: str, second: str, n_samples: int, seed: int
) -> pd.DataFrame:
    """First file minus second, with intervals: one Holm over all tests."""
    pair = {k: r for k, r in results.items() if k[0] in (first, second)}
    parts = []
    for protocol in (*PROTOCOLS, LABELS):
        table = paired_tests(pair, first, protocol, n_samples, seed)
        a, function, names = statistics_of(pair[first, protocol])
        b = statistics_of(pair[second, protocol])[0]
        span = paired_interval(a, b, function, 0.95, n_samples, seed)
        at = [names.index(metric) for metric in table["metric"]]
        parts.append(table.assign(protocol=protocol, n=len(a),
                                  low=span["low"][at], high=span["high"][at]))
    table = pd.concat(parts, ignore_index=True)
    table["p_holm"] = holm(table["p"].to_numpy())
    return table[["protocol", "metric", "n", "difference", "low", "high",
                  "p", "p_holm"]]  # fmt: skip


def _distinct(
    systems: dict[str, list[list[str]]], kinds: Sequence[str]
) -> pd.DataFrame:
    """How many different reports, and how common the commonest is."""
    lines = []
    for system, runs in systems.items():
        texts = [" ".join(text.split()) for text in runs[0]]
        for kind in ("all", "abnormal", "normal"):
            some = Counter(t for t, k in zip(texts, kinds, strict=True)
                           if kind in ("all", k))  # fmt: skip
            if n := some.total():
                most = some.most_common(1)[0][1] / n
                lines.append((system, kind, n, len(some), most))
    columns = ["system", "studies", "n", "distinct reports"]
    return pd.DataFrame(lines, columns=[*columns, "share of the commonest"])


# --- shown and written ------------------------------------------------------

_SHORT = dict(zip(SCORES, ("mic.F1", "mac.F1", "neg.F1", "halluc.", "omiss.",
                           "abn.", "norm."), strict=True))  # fmt: skip
_LEFT, _CELL = 44, 8  # a line is 44 + 7 * 8 = 100 columns at most
TITLES = {
    "r2gen": "Protocol r2gen: corpus BLEU, ROUGE-L (beta 1.2), METEOR 1.5, "
    "CIDEr of pycocoevalcap",
    "llamaxr": "Protocol llamaxr: mean nltk BLEU, rouge_score ROUGE-L, nltk "
    "METEOR",
    LABELS: "Findings, by report labels: F1 micro, macro, of denials; added "
    "and omitted a report;\nshares of abnormal and of normal studies "
    "reported as such",
}


def as_text(scored: dict[str, Any]) -> str:
    """`score_file` for a terminal, at most 100 columns.

    The parts of R2Gen's test list only for the files and the medoid report,
    distinct reports only for the files; Markdown and JSON have all systems.
    """
    rows, distinct = scored["rows"], scored["distinct"]
    lines = _wrapped(_headline(scored))
    lines += ["Below a system: protocol | split | images | n; 95 % intervals."]
    whole = rows["split"] == scored["split"]
    files = rows["system"].isin([*scored["files"], MEDOID])
    for protocol, title in TITLES.items():
        part = rows[(rows["protocol"] == protocol) & (whole | files)]
        lines += ["", title, *_block(part)]
    if scored["paired"] is not None:
        lines += ["", _pair_title(scored)]
        lines += [scored["paired"].to_string(
            index=False, float_format="{:.3f}".format)]  # fmt: skip
    distinct = distinct[distinct["system"].isin(scored["files"])]
    lines += ["", "Distinct reports", distinct.to_string(
        index=False, float_format="{:.0%}".format)]  # fmt: skip
    lines += [""] * bool(scored["notes"])
    for note in scored["notes"]:
        lines += _wrapped(f"Note: {note}")
    return "\n".join([*lines, "", WARNING])


def as_markdown(scored: dict[str, Any]) -> str:
    """All rows, a table a protocol."""
    pieces = [f"# Scores of {scored['file']}", _headline(scored)]
    for protocol, title in TITLES.items():
        rows = scored["rows"][scored["rows"]["protocol"] == protocol]
        shown = rows.assign(
            shown=[
                f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]"
                if pd.notna(r.value) else r.note or "–"
                for r in rows.itertuples()
            ]
        )  # fmt: skip
        wide = pd.DataFrame(
            dict(zip(KEYS, key)) | dict(zip(part["metric"], part["shown"]))
            for key, part in shown.groupby(KEYS, sort=False)
        )
        pieces += ["## " + title.replace("\n", " ")]
        pieces += [markdown(wide[[*KEYS, *_columns(rows)]])]
    if scored["paired"] is not None:
        pieces += [f"## {_pair_title(scored)}"]
        pieces += [markdown(scored["paired"], 4)]
    pieces += ["## Distinct reports", markdown(scored["distinct"])]
    pieces += [f"- {note}" for note in scored["notes"]]
    record = json.dumps(scored["records"], default=str)
    return "\n\n".join([*pieces, f"Record: `{record}`", WARNING]) + "\n"


def check_output(path: str | None, *inputs: str | None) -> None:
    """Refuse a file that cannot be written before a minute is spent."""
    out = Path(path or "nowhere").absolute()
    taken = [Path(name).resolve() for name in inputs if name]
    if out.is_dir() or not out.parent.is_dir() or out.resolve() in taken:
        raise CourseError(
            f"Results cannot be written to {out.name}.",
            "It is a folder, one of the files to score, or in no folder.",
            "Name another file.",
        )


def write(scored: dict[str, Any], json_to: str | None, page: str | None):
    """Write JSON (NaN is null) and Markdown where they are wanted."""
    if json_to:
        content = {
            key: value.astype(object).where(value.notna(), None).to_dict(
                "records") if isinstance(value, pd.DataFrame) else value
            for key, value in scored.items()
        }  # fmt: skip
        write_json(Path(json_to), content)
    if page:
        text = as_markdown(scored)
        write_whole(Path(page), lambda part: part.write_text(text, "utf-8"))


def _headline(scored: dict[str, Any]) -> str:
    return (
        f"{scored['file']}: {scored['n']} studies, references: "
        f"{scored['references']}, split: {scored['split']}, images: "
        f"{scored['images']}."
    )


def _pair_title(scored: dict[str, Any]) -> str:
    return f"{' minus '.join(scored['files'])}, paired by study"


def _columns(rows: pd.DataFrame) -> list[str]:
    """The metrics of some rows, in the order of the tables."""
    names = (*METRICS, "CIDEr", *SCORES)
    return [m for m in names if m in set(rows["metric"])]


def _block(rows: pd.DataFrame) -> list[str]:
    """Two lines a system: values; what they rest on, and intervals."""
    metrics = _columns(rows)
    lines = [_line("", [_SHORT.get(metric, metric) for metric in metrics])]
    keys = ["split", "system", "protocol", "images", "n"]
    for key, part in rows.groupby(keys, sort=False):
        split, system, protocol, images, n = key
        by = part.set_index("metric").reindex(metrics)
        values = ["-" if pd.isna(v) else f"{v:.3f}" for v in by["value"]]
        left = f"  {protocol} | {split} | {images} | n {n}"
        lines.append(_line(system, values))
        lines.append(_line(left, list(map(_span, by["low"], by["high"]))))
    return lines


def _line(left: str, cells: Sequence[str]) -> str:
    return f"{left:<{_LEFT}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _span(low: float, high: float) -> str:
    """".46-.49", or "1.0-1.2": seven characters."""
    if pd.isna(low) or pd.isna(high):
        return ""
    if high >= 0.995:
        return f"{low:.1f}-{high:.1f}"
    return f"{low:.2f}-{high:.2f}".replace("0.", ".")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _LEFT + 7 * _CELL, subsequent_indent="  ")
