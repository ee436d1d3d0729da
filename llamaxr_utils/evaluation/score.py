"""From pairs of texts to tables of systems, and the command ``score FILE``.

First what notebook 06 tabulates: intervals, paired tests, one row a system.
Then all of it for anyone's file of predictions, read and checked here, as
text and JSON. Every row says protocol, split, images and n; no
image is looked at.
"""

from __future__ import annotations

import json
import re
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course.artifacts import sha256, write_json
from ..course.errors import CourseError
from ..course.run import WARNING
from ..datasets import reports
from . import baselines, stats
from .clinical import SCORES, clinical_scores, scores_from_statistics
from .metrics import plain, says_something, score_reports
from .published import METRICS

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
FORM = (
    "Give a CSV: UTF-8, the first line `id,generated` (or "
    "`id,generated,reference`), one line a study (CXR3030), texts that hold "
    "commas in double quotes. Or ReXrank's JSON with `model_prediction`."
)


# --- tables of systems ------------------------------------------------------


def statistics_of(
    result: Mapping[str, Any],
) -> tuple[np.ndarray, stats.Function, list[str]]:
    """`stats.metric_statistics`, one row a study: repeats are averaged."""
    if "statistics" in result:  # of `clinical_scores`
        return result["statistics"], scores_from_statistics, list(SCORES)
    rows, function, names = stats.metric_statistics(dict(result))
    repeats = result["record"].get("repeats", 1)
    return rows.reshape(repeats, -1, rows.shape[1]).mean(0), function, names


def score_repeats(references: Sequence[str], runs: Sequence[Sequence[str]],
                  protocol: str) -> dict[str, Any]:
    """`metrics.score_reports` of a system that was run several times.

    The numbers are over all runs (a corpus metric: of the pooled runs),
    ``per_report`` holds them one after the other, and the record has
    ``repeats``. Intervals draw a study with all of its runs.
    """
    each = [score_reports(references, run, protocol) for run in runs]
    if len(each) == 1:
        return each[0]
    empty = sum(one["record"]["n_empty_candidates"] for one in each)
    record = {"repeats": len(runs), "n_empty_candidates": empty}
    result = each[0] | {
        "per_report": pd.concat([one["per_report"] for one in each]),
        "record": each[0]["record"] | record}
    rows, function, names = statistics_of(result)
    return result | dict(zip(names, function(rows.sum(axis=0)).tolist()))


def summarise(
    results: Results, *, split: str, images: str, n_samples: int, seed: int,
    rows: Sequence[int] | np.ndarray | None = None,
) -> pd.DataFrame:
    """Artifact ``summary``: one row a system, protocol and metric, with
    ``value`` and a 95 % interval by study, ``low`` and ``high``.

    ``images`` is "none" for `WITHOUT_IMAGES`; METEOR under ``r2gen`` without
    Java has no value, and ``note`` says so. `rows` takes only these of the
    scored pairs, a part of the split; CIDEr keeps the word weights of the
    whole.
    """
    lines: list[tuple] = []
    for (system, protocol), result in results.items():
        statistics, function, names = statistics_of(result)
        if rows is not None:
            statistics = statistics[rows]
        interval = stats.bootstrap_corpus(statistics, function,
                                    n_samples=n_samples, seed=seed)
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
    results: Results, system: str, protocol: str, n_samples: int, seed: int,
    metrics: Collection[str] = TESTED,
) -> pd.DataFrame:
    """One system against all others under a protocol, paired by study:
    ``other``, ``metric``, ``difference`` (system minus other), ``p``
    (approximate randomisation), ``p_holm`` (adjusted over the table)."""
    ours, function, names = statistics_of(results[system, protocol])
    rows = []
    for other in [s for s, p in results if p == protocol and s != system]:
        theirs = statistics_of(results[other, protocol])[0]
        test = stats.paired_randomisation(ours, theirs, function, n_samples,
                                          seed)
        rows += [(other, metric, test["difference"][i], test["p"][i])
                 for i, metric in enumerate(names) if metric in metrics]
    table = pd.DataFrame(rows, columns=["other", "metric", "difference", "p"])
    return table.assign(p_holm=stats.holm(table["p"].to_numpy(float)))


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


class Predictions(NamedTuple):
    """A file of predictions, read and checked: `references` says where they
    come from; `table` has study_id, generated, reference."""

    name: str
    table: pd.DataFrame
    split: str
    references: str
    notes: list[str]


def read_predictions(path: str | Path,
                     references: str | None = None) -> Predictions:
    """A predictions file (`read_table`) with its references.

    `references` is "column", the file's own, or "wheel", the findings of the
    report archive by id; None: the column if there is one. Studies with an
    empty reference are left out, and counted in ``notes``. ``split`` is
    "r2gen test" for all studies of that list ("part of test" for some),
    "mixed" or "not known".
    """
    path = Path(path)
    table = read_table(path)
    references = references or ("column" if "reference" in table else "wheel")
    _refuse(path, references == "column" and "reference" not in table,
            "has no column reference", "The references are to be its own.")
    studies = reports.load_studies().set_index("study_id")
    unknown = ~table["study_id"].isin(studies.index)
    _refuse(path, references == "wheel" and unknown.any(),
            f"has {unknown.sum()} ids that are not IU X-ray studies",
            f"{_some(table.loc[unknown, 'study_id'])}: references are found "
            "by the id, or stand in a column `reference`.")
    findings = studies["findings"].reindex(table["study_id"]).fillna("")
    if references == "wheel":
        table["reference"] = findings.to_numpy()
    empty = ~table["reference"].map(says_something)
    _refuse(path, empty.all(), "has no reference to score against",
            f"All {len(table)} references are empty.")
    pairs = zip(table["reference"], findings, unknown, strict=True)
    other = sum(reports.normalise(plain(a)) != reports.normalise(b)
                for a, b, is_new in pairs if not is_new)
    kept = table.loc[~empty, ["study_id", "generated", "reference"]]
    silent = (~kept["generated"].map(says_something)).sum()
    notes = {
        f"{empty.sum()} studies left out: no reference text.": empty.any(),
        f"{unknown.sum()} ids are not IU X-ray studies.": unknown.any(),
        f"{other} references are not the collection's findings (case and "
        "punctuation aside). Cleaning moves every score; --references wheel "
        "takes the findings.": other,
        f"{silent} generated reports are empty and score 0.": silent,
    }
    source = {"column": "column `reference`", "wheel": "findings"}[references]
    return Predictions(path.name, kept.reset_index(drop=True),
                       _split(kept["study_id"]), source,
                       [note for note, holds in notes.items() if holds])


def read_table(path: str | Path) -> pd.DataFrame:
    """The rows of a predictions file as texts, one a study, and ``study_id``
    (``CXR3030``, or an id of another form as it is).

    A CSV with the columns ``id`` (``CXR3030``, ``CXR3030_IM-1405``) and
    ``generated``, or ReXrank's ``.json``: case id -> ``model_prediction``,
    ``section_findings`` ... (https://github.com/rajpurkarlab/ReXrank).
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            cases = json.loads(path.read_text("utf-8-sig"))
            table = pd.DataFrame([_case(*item) for item in cases.items()])
        else:
            with warnings.catch_warnings():
                # pandas only warns where a bare comma costs it text.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(path, dtype=str, keep_default_na=False,
                                    encoding="utf-8-sig", index_col=False)
            table = table.rename(columns=str.strip).fillna("")
    except (OSError, ValueError, AttributeError, TypeError,
            pd.errors.ParserWarning) as error:
        reason = " ".join(plain(str(error)).split()).rstrip(".")
        raise CourseError(f"{path.name} was not found or can't be read.",
                          f"{type(error).__name__}: {reason}.",
                          FORM) from error
    lacking = [c for c in ("id", "generated") if c not in table]
    _refuse(path, lacking, f"has no column {' and no column '.join(lacking)}",
            f"It has {_some(table.columns)}.")
    _refuse(path, table.empty, "holds no predictions", "It has no rows.")
    silent = table["generated"].isna().sum()
    _refuse(path, silent, f"has {silent} cases without `model_prediction`",
            "ReXrank's data files hold references only.")
    ids = table["id"].str.strip()
    _refuse(path, ids.eq("").any(), f"has {ids.eq('').sum()} rows without id",
            f"The first is row {int(ids.eq('').argmax()) + 1} of the data.")
    table["study_id"] = ids.str.replace(
        r"^(CXR\d+)(?:_IM-[\d-]+)?$", r"\1", regex=True)
    twice = table.loc[table["study_id"].duplicated(), "study_id"].unique()
    _refuse(path, len(twice), f"has {len(twice)} studies more than once",
            f"{_some(twice)}.")
    return table


def _text(value: Any) -> str:
    """A section; null and NaN are no text."""
    return value.strip() if isinstance(value, str) else ""


def _case(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """A case of ReXrank's JSON (its older example writes ``findings`` for
    ``section_findings``) as a row; what follows "Impression:" in a
    prediction is not compared with the findings."""
    generated = case.get("model_prediction")
    if generated is not None:
        cut = re.split(r"(?i)\bimpression\s*:", _text(generated))[0]
        generated = re.sub(r"(?i)^\s*findings\s*:", "", cut).strip()
    reference = case.get("section_findings", case.get("findings"))
    return {"id": name, "reference": _text(reference), "generated": generated}


def _refuse(path: Path, wrong: Any, what: str, why: str) -> None:
    if wrong:
        raise CourseError(f"{path.name} {what}.", why, FORM)


def _some(names: Iterable[str], most: int = 5) -> str:
    """A list for a message: short, and without control characters."""
    shown = [repr(plain(name)[:40]) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def _split(ids: pd.Series) -> str:
    """Which of R2Gen's lists the studies are."""
    lists = reports.r2gen_split().set_index("study_id")["split"]
    name, *others = set(ids.map(lists).fillna("not known"))
    if others or name == "not known":
        return "mixed" if others else name
    return f"{'r2gen' if len(ids) == sum(lists == name) else 'part of'} {name}"


# --- the file is scored -----------------------------------------------------


def score_file(
    path: str | Path, against: str | Path | None = None,
    references: str | None = None, n_samples: int = 1000, seed: int = SEED,
    say: Callable[[str], Any] = lambda text: None,
) -> dict[str, Any]:
    """Everything that can be said of a file of generated reports; `against`
    is a second one, of the same studies; `say` is told what is being done.

    The dictionary has ``rows``: DataFrame of `summarise`, clinical scores
    under "labels", for R2Gen's test list also its first 170 and other 420
    studies; ``paired``: DataFrame or None, Holm over all its tests;
    ``distinct``: different reports, share of the commonest; ``records``,
    ``notes``, and what the file is.
    """
    given = read_predictions(path, references)
    name, table, notes = plain(given.name)[:36], given.table, [*given.notes]
    systems = {name: [list(table["generated"])]}
    if against is not None:
        rival = plain(Path(against).name)[:36]
        rival = f"{rival} (2)" if rival == name else rival
        systems[rival] = [_aligned(Path(against), given)]
    files = list(systems)
    systems |= _baselines(given, notes, seed)
    truth = list(table["reference"])
    results: dict[tuple[str, str], Any] = {}
    for protocol in PROTOCOLS:
        for system, runs in systems.items():
            say(f"{protocol}: {system}")
            results[system, protocol] = score_repeats(truth, runs, protocol)
    say("clinical scores")
    status = reports.load_studies().set_index("study_id")["status"]
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
                places.get(protocol, np.arange(len(table))), part)))
        for protocol in (*PROTOCOLS, LABELS) for split, part in parts.items()
    ]
    records = {p: results[name, p]["record"] for p in PROTOCOLS}
    if results[name, "r2gen"]["METEOR"] is None:
        notes.append(f"r2gen has no METEOR: {records['r2gen']['java']}.")
    return {
        "schema": 1, "file": name, "files": files,
        "sha256": sha256(Path(path)), "n": len(table),
        "split": given.split, "images": "not known",
        "references": given.references, "n_samples": n_samples, "seed": seed,
        "rows": pd.concat(rows, ignore_index=True),
        "paired": _paired(results, files, n_samples, seed),
        "distinct": _distinct(systems, kinds or []),
        "records": records, "notes": notes,
    }


def _aligned(path: Path, first: Predictions) -> list[str]:
    """The second file's reports, in the order of the first."""
    ids = first.table["study_id"]
    theirs = read_table(path).set_index("study_id")["generated"]
    missing = ids[~ids.isin(theirs.index)]
    _refuse(path, len(missing), f"lacks {len(missing)} of the {len(ids)} "
            f"studies of {first.name}", "A paired test needs both on the same "
            f"studies; missing: {_some(missing)}.")
    return list(theirs.reindex(ids))


def _baselines(given: Predictions, notes: list[str],
               seed: int) -> dict[str, list[list[str]]]:
    """Reports from R2Gen's training list, if the studies allow it."""
    studies = reports.load_studies()
    train = studies[studies["split_r2gen"] == "train"]
    n, texts = len(given.table), list(train["findings"])
    seen = int(given.table["study_id"].isin(train["study_id"]).sum())
    if seen or given.split == "not known":
        notes.append("No baselines: " + (
            f"{seen} of the studies are in R2Gen's training list." if seen
            else "the studies are in none of R2Gen's lists."))
        return {}
    draws = [baselines.random_reports(texts, n, seed + i)
             for i in range(SEEDS)]
    return {"most frequent report": [[baselines.most_frequent(texts)] * n],
            MEDOID: [[baselines.medoid(texts)] * n],
            f"random report, {SEEDS} seeds": draws}


def _parts(given: Predictions, notes: list[str]) -> dict[str, np.ndarray]:
    """Name of the split -> positions of its studies."""
    ids = given.table["study_id"]
    parts = {given.split: np.arange(len(ids))}
    if given.split not in ("r2gen test", "part of test"):
        return parts
    edge, split = reports.FIRST_PART, reports.r2gen_split()
    test = list(split.query("split == 'test'")["study_id"])
    first = ids.isin(test[:edge]).to_numpy()
    if given.split == "part of test":
        notes.append(
            f"{len(ids)} of R2Gen's {len(test)} test studies, {first.sum()} "
            f"of them among its first {edge}, which are unlike the rest: "
            "compare with nothing but the rows here.")
    if first.any() and not first.all():
        parts[f"test 1-{edge}"] = np.flatnonzero(first)
        parts[f"test {edge + 1}-{len(test)}"] = np.flatnonzero(~first)
        notes.append("In the two parts, CIDEr keeps the word weights of all "
                     f"{len(ids)} references.")
    return parts


def _paired(results: Results, files: list[str], n_samples: int,
            seed: int) -> pd.DataFrame | None:
    """First file minus second, with intervals: one Holm over all tests."""
    if len(files) == 1:
        return None
    first, second = files
    pair = {k: r for k, r in results.items() if k[0] in files}
    parts = []
    for protocol in (*PROTOCOLS, LABELS):
        table = paired_tests(pair, first, protocol, n_samples, seed)
        a, function, names = statistics_of(pair[first, protocol])
        b = statistics_of(pair[second, protocol])[0]
        span = stats.paired_interval(a, b, function, 0.95, n_samples, seed)
        at = [names.index(metric) for metric in table["metric"]]
        parts.append(table.assign(protocol=protocol, n=len(a),
                                  low=span["low"][at], high=span["high"][at]))
    table = pd.concat(parts, ignore_index=True)
    table["p_holm"] = stats.holm(table["p"].to_numpy())
    return table[["protocol", "metric", "n", "difference", "low", "high",
                  "p", "p_holm"]]


def _distinct(systems: dict[str, list[list[str]]],
              kinds: Sequence[str]) -> pd.DataFrame:
    """How many different reports, and how common the commonest is."""
    lines = []
    for system, runs in systems.items():
        texts = pd.Series(runs[0]).str.split().str.join(" ")
        for kind in ("all", "abnormal", "normal"):
            part = texts[[kind in ("all", k) for k in kinds]]
            if n := len(part):
                most = part.value_counts().max() / n
                lines.append((system, kind, n, part.nunique(), most))
    columns = ["system", "studies", "n", "distinct reports"]
    return pd.DataFrame(lines, columns=[*columns, "share of the commonest"])


# --- shown and written ------------------------------------------------------

_SHORT = dict(zip(SCORES, ("mic.F1", "mac.F1", "neg.F1", "halluc.", "omiss.",
                           "abn.", "norm."), strict=True))
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
    """`score_file` for a terminal, at most 100 columns. The parts of R2Gen's
    test list only for the files and the medoid report; JSON has all."""
    headline = ("{file}: {n} studies, references: {references}, split: "
                "{split}, images: {images}.").format(**scored)
    wrap = textwrap.TextWrapper(_LEFT + 7 * _CELL, subsequent_indent="  ").wrap
    rows, distinct, paired = (
        scored[key] for key in ("rows", "distinct", "paired"))
    shown = rows[rows["split"].eq(scored["split"])
                 | rows["system"].isin([*scored["files"], MEDOID])]
    lines = wrap(headline)
    lines += ["Below a system: protocol | split | images | n; 95 % intervals."]
    for protocol, title in TITLES.items():
        lines += ["", title, *_block(shown[shown["protocol"] == protocol])]
    if paired is not None:
        lines += ["", f"{' minus '.join(scored['files'])}, paired by study",
                  paired.to_string(index=False, float_format="{:.3f}".format)]
    distinct = distinct[distinct["system"].isin(scored["files"])]
    lines += ["", "Distinct reports", distinct.to_string(
        index=False, float_format="{:.0%}".format)]
    lines += [""] * bool(scored["notes"])
    for note in scored["notes"]:
        lines += wrap(f"Note: {note}")
    return "\n".join([*lines, "", WARNING])


def check_output(path: str | None, *inputs: str | None) -> None:
    """Refuse a file that cannot be written before a minute is spent."""
    out = Path(path or "nowhere").absolute()
    taken = [Path(name).resolve() for name in inputs if name]
    if out.is_dir() or not out.parent.is_dir() or out.resolve() in taken:
        raise CourseError(
            f"Results cannot be written to {out.name}.",
            "It is a folder, one of the files to score, or in no folder.",
            "Name another file.")


def write(scored: dict[str, Any], path: str | Path) -> None:
    """All rows of all systems as JSON; NaN is null."""
    write_json(Path(path), {
        key: value.astype(object).where(value.notna(), None).to_dict(
            "records") if isinstance(value, pd.DataFrame) else value
        for key, value in scored.items()})


def _block(rows: pd.DataFrame) -> list[str]:
    """Two lines a system: values; what they rest on, and intervals."""

    def line(left: str, cells: Iterable[str]) -> str:
        return f"{left:<{_LEFT}}" + "".join(f"{c:>{_CELL}}" for c in cells)

    names = (*METRICS, "CIDEr", *SCORES)
    metrics = [m for m in names if m in set(rows["metric"])]
    lines = [line("", [_SHORT.get(metric, metric) for metric in metrics])]
    keys = ["split", "system", "protocol", "images", "n"]
    for key, part in rows.groupby(keys, sort=False):
        split, system, protocol, images, n = key
        by = part.set_index("metric").reindex(metrics)
        values = ["-" if pd.isna(v) else f"{v:.3f}" for v in by["value"]]
        left = f"  {protocol} | {split} | {images} | n {n}"
        lines += [line(system, values),
                  line(left, map(_span, by["low"], by["high"]))]
    return lines


def _span(low: float, high: float) -> str:
    """".46-.49", or "1.0-1.2": seven characters."""
    if pd.isna(low) or pd.isna(high):
        return ""
    if high >= 0.995:
        return f"{low:.1f}-{high:.1f}"
    return f"{low:.2f}-{high:.2f}".replace("0.", ".")
