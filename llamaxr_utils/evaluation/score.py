"""From pairs of texts to tables of systems, and the command ``score FILE``.

First what notebook 06 tabulates: intervals, paired tests, one row a system.
Then all of it for anyone's file of predictions, as text and JSON. Every row
says protocol, split, images and n; no image is looked at.
"""

from __future__ import annotations

import json
import re
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
#: Systems that look at no image: reports alone, or labels of people.
WITHOUT_IMAGES = ("most frequent report", "medoid report", "random report",
                  "ceiling: true labels")
#: The metrics that paired tests are made of.
TESTED = ("BLEU-4", "ROUGE-L", "METEOR", "CIDEr", *SCORES[:3])
KEYS = ["system", "protocol", "split", "images", "n"]
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
    result = each[0] | {
        "per_report": pd.concat([one["per_report"] for one in each]),
        "record": each[0]["record"] | {
            "repeats": len(runs), "n_empty_candidates": empty}}
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
    scored pairs; CIDEr keeps the word weights of the whole.
    """
    lines: list[tuple] = []
    for (system, protocol), result in results.items():
        statistics, function, names = statistics_of(result)
        interval = stats.bootstrap_corpus(
            statistics if rows is None else statistics[rows], function,
            n_samples=n_samples, seed=seed)
        source = "none" if system.startswith(WITHOUT_IMAGES) else images
        key = (system, protocol, split, source, interval["n"])
        values = zip(names, *(interval[k] for k in ("value", "low", "high")))
        lines += [(*key, *numbers, "") for numbers in values]
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
        table = table.assign(study_id=[study_ids[i] for i in table.index])
        long = table.melt("study_id", var_name="metric")
        parts.append(long.assign(system=system, protocol=protocol))
    columns = ["study_id", "system", "protocol", "metric", "value"]
    return pd.concat(parts, ignore_index=True)[columns]


# --- a file of predictions --------------------------------------------------


class Predictions(NamedTuple):
    """A file of predictions: `table` has study_id, generated, reference;
    `references` says where these are from."""

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
    findings = table["study_id"].map(studies["findings"]).fillna("")
    if references == "wheel":
        table["reference"] = findings
    empty = ~table["reference"].map(says_something)
    _refuse(path, empty.all(), "has no reference to score against",
            f"All {len(table)} references are empty.")
    own, theirs = (texts[~unknown].map(plain).map(reports.normalise)
                   for texts in (table["reference"], findings))
    other = (own != theirs).sum()
    kept = table.loc[~empty, ["study_id", "generated", "reference"]]
    split = _split(kept["study_id"])
    silent = (~kept["generated"].map(says_something)).sum()
    notes = {
        f"{empty.sum()} studies left out: no reference text.": empty.any(),
        f"{unknown.sum()} ids are not IU X-ray studies.": unknown.any(),
        f"{other} references are not the collection's findings (case and "
        "punctuation aside). Cleaning moves every score; --references wheel "
        "takes the findings.": other,
        f"{silent} generated reports are empty and score 0.": silent,
        "Part of a test list (its first 170 studies are unlike the others): "
        "compare with these rows alone.": split == "part of test",
    }
    return Predictions(
        kept.reset_index(drop=True), split,
        {"column": "column `reference`", "wheel": "findings"}[references],
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
    _refuse(path, not {"id", "generated"} <= set(table),
            "has no column id, or no column generated",
            f"It has {_some(table.columns)}.")
    silent = table["generated"].isna().sum()
    _refuse(path, silent, f"has {silent} cases without `model_prediction`",
            "ReXrank's data files hold references only.")
    ids = table["id"].str.strip()
    _refuse(path, ids.empty or ids.eq("").any(),
            f"holds no predictions, or has {ids.eq('').sum()} rows without id",
            "Every report belongs to a study.")
    table["study_id"] = ids.str.replace(
        r"^(CXR\d+)(?:_IM-[\d-]+)?$", r"\1", regex=True)
    twice = table.loc[table["study_id"].duplicated(), "study_id"].unique()
    _refuse(path, len(twice), f"has {len(twice)} studies more than once",
            f"{_some(twice)}.")
    return table


def _case(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """A case of ReXrank's JSON (its older example writes ``findings`` for
    ``section_findings``) as a row; what follows "Impression:" in a
    prediction is not compared with the findings."""
    generated = case.get("model_prediction")
    if generated is not None:
        generated = re.split(r"(?i)\bimpression\s*:", str(generated))[0]
        generated = re.sub(r"(?i)^\s*findings\s*:", "", generated).strip()
    reference = case.get("section_findings", case.get("findings"))
    return {"id": name, "generated": generated,
            "reference": plain(reference).strip()}


def _refuse(path: str | Path, wrong: Any, what: str, why: str) -> None:
    if wrong:
        raise CourseError(f"{Path(path).name} {what}.", why, FORM)


def _some(names: Iterable[str]) -> str:
    """Five names for a message: short, and without control characters."""
    shown = [repr(plain(name)[:40]) for name in names]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more


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
    references: str | None = None, n_samples: int = 1000, seed: int = 3407,
    say: Callable[[str], Any] = lambda text: None,
) -> dict[str, Any]:
    """Everything that can be said of a file of generated reports; `against`
    is a second one, of the same studies; `say` is told what is being done.

    The dictionary has ``rows``: DataFrame of `summarise`, clinical scores
    under "labels"; ``paired``: DataFrame or None, Holm over all its tests;
    ``distinct``: different reports, share of the commonest; ``records``,
    ``notes``, and what the file is.
    """
    given = read_predictions(path, references)
    ids, truth = given.table["study_id"], list(given.table["reference"])
    notes = [*given.notes]
    name = plain(Path(path).name)[:36]
    systems = {name: [list(given.table["generated"])]}
    if against is not None:
        rival = plain(Path(against).name)[:36]
        rival = f"{rival} (2)" if rival == name else rival
        theirs = read_table(against).set_index("study_id")["generated"]
        missing = ids[~ids.isin(theirs.index)]
        _refuse(against, len(missing), f"lacks {len(missing)} of the "
                f"{len(ids)} studies", f"It has no {_some(missing)}.")
        systems[rival] = [list(theirs.reindex(ids))]
    files = list(systems)
    systems |= _baselines(given, notes, seed)

    results: dict[tuple[str, str], Any] = {}
    status = ids.map(reports.load_studies().set_index("study_id")["status"])
    kinds = None if status.isna().any() else list(status)
    for system, runs in systems.items():
        for protocol in PROTOCOLS:
            say(f"{protocol}: {system}")
            results[system, protocol] = score_repeats(truth, runs, protocol)
        each = [clinical_scores(truth, run, kinds) for run in runs]
        results[system, "labels"] = {
            "statistics": np.mean([one["statistics"] for one in each], axis=0)}
    records = {p: results[name, p]["record"] for p in PROTOCOLS}
    if results[name, "r2gen"]["METEOR"] is None:
        notes.append(f"r2gen has no METEOR: {records['r2gen']['java']}.")
    draws: dict[str, Any] = {"n_samples": n_samples, "seed": seed}
    what: dict[str, Any] = {"split": given.split, "images": "not known"}
    return {
        "schema": 1, "file": name, "files": files, **what, **draws,
        "sha256": sha256(Path(path)), "n": len(ids),
        "references": given.references,
        "rows": summarise(results, **what, **draws),
        "paired": _paired(results, files, **draws) if against else None,
        "distinct": _distinct(systems, pd.Series(each[0]["status"])),
        "records": records, "notes": notes,
    }


def _baselines(given: Predictions, notes: list[str],
               seed: int) -> dict[str, list[list[str]]]:
    """Reports from R2Gen's training list, if the studies allow it."""
    train = reports.load_studies().query("split_r2gen == 'train'")
    n, texts = len(given.table), list(train["findings"])
    known = given.table["study_id"].isin(train["study_id"]).sum()
    if known or given.split == "not known":
        notes.append("No baselines: they are for studies of R2Gen's lists; "
                     f"{known} of these are in its training list.")
        return {}
    draws = [baselines.random_reports(texts, n, seed + i) for i in range(5)]
    return {"most frequent report": [[baselines.most_frequent(texts)] * n],
            "medoid report": [[baselines.medoid(texts)] * n],
            "random report, 5 seeds": draws}


def _paired(results: Results, files: list[str], n_samples: int,
            seed: int) -> pd.DataFrame:
    """First file minus second: one Holm over the tests of all protocols."""
    pair = {key: r for key, r in results.items() if key[0] in files}
    table = pd.concat(
        [paired_tests(pair, files[0], protocol, n_samples, seed).assign(
            protocol=protocol) for protocol in (*PROTOCOLS, "labels")],
        ignore_index=True)
    table["p_holm"] = stats.holm(table["p"].to_numpy())
    return table[["protocol", "metric", "difference", "p", "p_holm"]]


def _distinct(systems: dict[str, list[list[str]]],
              kinds: pd.Series) -> pd.DataFrame:
    """How many different reports, and how common the commonest is."""
    lines = []
    for system, runs in systems.items():
        texts = pd.Series(runs[0]).str.split().str.join(" ")
        for kind in ("all", "abnormal", "normal"):
            counts = texts[kinds.eq(kind) | (kind == "all")].value_counts()
            if n := counts.sum():
                lines.append((system, kind, n, len(counts), counts.max() / n))
    columns = ["system", "studies", "n", "distinct reports"]
    return pd.DataFrame(lines, columns=[*columns, "share of the commonest"])


# --- shown and written ------------------------------------------------------

ORDER = (*METRICS, "CIDEr", *SCORES)
TITLES = {
    "r2gen": "corpus BLEU, ROUGE-L (beta 1.2), METEOR 1.5, CIDEr",
    "llamaxr": "mean nltk BLEU, rouge_score ROUGE-L, nltk METEOR",
    "labels": "findings, by report labels; hallucinations, omissions a report",
}


def as_text(scored: dict[str, Any]) -> str:
    """`score_file` for a terminal: a row a metric, a column a system."""
    lines = ["{file}: {n} studies, references: {references}, split: {split}, "
             "images: {images}; 95 % intervals.".format(**scored)]
    rows = scored["rows"]
    text = rows["value"].map("{:.3f}".format)
    text += rows.apply(" [{low:.2f}, {high:.2f}]".format_map, axis=1)
    rows = rows.assign(text=text.where(rows["value"].notna(), rows["note"]))
    for (protocol, n), part in rows.groupby(["protocol", "n"], sort=False):
        table = part.pivot(index="metric", columns=["system", "images"],
                           values="text").rename_axis(index=None)
        table = table.loc[[m for m in ORDER if m in table.index]]
        title = f"Protocol {protocol}, split {scored['split']}, n {n}: "
        lines += ["", title + TITLES[protocol],
                  table.to_string(line_width=100)]
    if scored["paired"] is not None:
        lines += ["", f"{' minus '.join(scored['files'])}, paired by study",
                  scored["paired"].to_string(index=False, float_format="%.3f")]
    lines += ["", scored["distinct"].to_string(
        index=False, float_format="{:.0%}".format), ""]
    lines += [*(f"Note: {note}" for note in scored["notes"]), WARNING]
    return "\n".join(lines)


def check_output(path: str | None, *inputs: str | None) -> None:
    """Refuse a file that cannot be written before a minute is spent."""
    out = Path(path or "nowhere").resolve()
    taken = [Path(name).resolve() for name in inputs if name]
    if out.is_dir() or not out.parent.is_dir() or out in taken:
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
