"""From pairs of texts to tables of systems, and the command ``score FILE``.

First what notebook 06 tabulates: intervals, paired tests, one row a system.
Then all of it for anyone's file of predictions, as text or JSON. Every row
says protocol, split, images and n; no image is looked at.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..course.artifacts import sha256
from ..course.errors import CourseError
from ..course.run import WARNING
from ..datasets import reports
from . import baselines, stats
from .clinical import SCORES, clinical_scores, scores_from_statistics
from .metrics import METRICS, plain, says_something, score_reports

#: (system, protocol) -> result of `metrics.score_reports`.
Results = Mapping[tuple[str, str], Mapping[str, Any]]
#: Protocol -> its metrics, in words.
PROTOCOLS = {
    "r2gen": "corpus BLEU, ROUGE-L (beta 1.2), METEOR 1.5, CIDEr",
    "llamaxr": "mean nltk BLEU, rouge_score ROUGE-L, nltk METEOR",
    "labels": "findings of 18 conditions; hallucinations, omissions a report",
}
#: Systems that look at no image: reports alone, or labels of people.
WITHOUT_IMAGES = ("constant by ", "random report", "ceiling: true labels")
#: The metrics that paired tests are made of.
TESTED = ("BLEU-4", "ROUGE-L", "METEOR", "CIDEr")
KEYS = ["system", "protocol", "split", "images", "n"]


# --- tables of systems ------------------------------------------------------


def statistics_of(
    result: Mapping[str, Any],
) -> tuple[np.ndarray, stats.Function, list[str]]:
    """`stats.metric_statistics`, one row a study."""
    if "statistics" in result:  # of `clinical_scores`
        return result["statistics"], scores_from_statistics, list(SCORES)
    return stats.metric_statistics(dict(result))


def summarise(results: Results, *, split: str, images: str, n_samples: int,
              seed: int,
              rows: Sequence[int] | np.ndarray | None = None) -> pd.DataFrame:
    """Artifact ``summary``: one row a system, protocol and metric, with
    ``value`` and a 95 % interval by study, ``low`` and ``high``.

    ``images`` is "none" for `WITHOUT_IMAGES`; METEOR under ``r2gen`` without
    Java has no value, and ``note`` says so. `rows` takes only these of the
    scored pairs; CIDEr keeps the word weights of the whole.
    """
    lines: list[tuple] = []
    for (system, protocol), result in results.items():
        statistics, function, names = statistics_of(result)
        statistics = statistics if rows is None else statistics[rows]
        interval = stats.bootstrap_interval(
            statistics, function, n_samples=n_samples, seed=seed)
        source = "none" if system.startswith(WITHOUT_IMAGES) else images
        key = (system, protocol, split, source, len(statistics))
        values = zip(names, *(interval[k] for k in ("value", "low", "high")))
        lines += [(*key, *numbers, "") for numbers in values]
        if result.get("METEOR", 0) is None:
            java = str(result["record"]["java"])
            lines.append((*key, "METEOR", None, None, None, java))
    columns = [*KEYS, "metric", "value", "low", "high", "note"]
    return pd.DataFrame(lines, columns=columns)


def paired_tests(results: Results, system: str, protocol: str,
                 n_samples: int, seed: int) -> pd.DataFrame:
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
                 for i, metric in enumerate(names) if metric in TESTED]
    table = pd.DataFrame(rows, columns=["other", "metric", "difference", "p"])
    return table.assign(p_holm=stats.holm(table["p"]))


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
    table: pd.DataFrame  #: study_id, generated, reference
    split: str
    notes: list[str]


def read_predictions(path: str | Path) -> Predictions:
    """A CSV with the columns ``id`` (``CXR3030``, ``CXR3030_IM-1405``) and
    ``generated``, with its references: the findings of these studies (never
    the file's own: the cleaning of a reference moves every score).

    Studies without findings are left out, and counted in ``notes``.
    ``split`` is "r2gen test" for all studies of that list ("part of test"
    for some), "mixed" or "not known".
    """
    table = _read_csv(path)
    ids = table["id"].str.strip().str.replace(r"_IM-[\d-]+$", "", regex=True)
    twice = ids[ids.duplicated()]
    _refuse(path, len(twice), f"has {len(twice)} studies more than once",
            _some(twice))
    findings = reports.load_studies().set_index("study_id")["findings"]
    unknown = ids[~ids.isin(findings.index)]
    _refuse(path, len(unknown), f"has {len(unknown)} ids that are not IU "
            "X-ray studies", _some(unknown))
    table = table.assign(study_id=ids, reference=ids.map(findings))
    kept = table[table["reference"].map(says_something)]
    _refuse(path, kept.empty, "holds no study with findings to score against",
            f"It holds {len(table)} studies.")
    left_out = len(table) - len(kept)
    silent = len(kept) - kept["generated"].map(says_something).sum()
    split = _split(kept["study_id"])
    notes = {
        f"{left_out} studies left out: they have no findings.": left_out,
        f"{silent} generated reports are empty and score 0.": silent,
        "Part of a test list (its first 170 studies are unlike the others): "
        "compare with these rows alone.": split == "part of test"}
    return Predictions(
        kept[["study_id", "generated", "reference"]].reset_index(drop=True),
        split, [note for note, holds in notes.items() if holds])


def _read_csv(path: str | Path) -> pd.DataFrame:
    """The rows of a file of predictions, as texts."""
    try:
        with warnings.catch_warnings():
            # pandas only warns where a bare comma costs it text.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False,
                                encoding="utf-8-sig", index_col=False)
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        _refuse(path, True, "was not found or can't be read", str(error))
    table = table.rename(columns=str.strip).fillna("")
    _refuse(path, not {"id", "generated"} <= set(table),
            "has no column id, or no column generated", _some(table.columns))
    _refuse(path, table.empty, "holds no predictions", "It has no row.")
    return table


def _refuse(path: str | Path, wrong: Any, what: str, why: str) -> None:
    if wrong:
        raise CourseError(
            f"{Path(path).name} {what}.", plain(why),
            "Give a CSV: UTF-8, the first line `id,generated`, one line a "
            "study (CXR3030), texts that hold commas in double quotes.")


def _some(names: Iterable[str]) -> str:
    """The first five names, none of them long."""
    return ", ".join(name[:40] for name in list(names)[:5]) + " ..."


def _split(ids: pd.Series) -> str:
    """Which of R2Gen's lists the studies are."""
    lists = reports.r2gen_split().set_index("study_id")["split"]
    name, *others = set(ids.map(lists).fillna("not known"))
    if others or name == "not known":
        return "mixed" if others else name
    return f"{'r2gen' if len(ids) == sum(lists == name) else 'part of'} {name}"


# --- the file is scored -----------------------------------------------------


def score_file(path: str | Path, n_samples: int = 1000,
               seed: int = 3407) -> dict[str, Any]:
    """Everything that can be said of a file of generated reports: ``rows``,
    DataFrame of `summarise`, with clinical scores under "labels";
    ``distinct``, DataFrame: number of different reports, share of the
    commonest; ``records``, ``notes``, and what the file is."""
    given = read_predictions(path)
    ids, truth = given.table["study_id"], list(given.table["reference"])
    name = plain(Path(path).name)[:36]
    systems = {name: list(given.table["generated"])}
    systems |= _baselines(given, seed)

    results: dict[tuple[str, str], Any] = {}
    for system, texts in tqdm(systems.items(), "Scoring"):
        for protocol in ("r2gen", "llamaxr"):
            results[system, protocol] = score_reports(truth, texts, protocol)
        results[system, "labels"] = clinical_scores(truth, texts)

    counts = {system: pd.Series(texts).value_counts()
              for system, texts in systems.items()}
    terms: dict[str, Any] = {"split": given.split, "images": "not known",
                             "n_samples": n_samples, "seed": seed}
    return {
        "schema": 1, "file": name, "sha256": sha256(Path(path)),
        "n": len(ids), **terms,
        "rows": summarise(results, **terms),
        "distinct": pd.DataFrame({
            "system": list(systems),
            "distinct reports": map(len, counts.values()),
            "share of the commonest": [
                one.max() / len(ids) for one in counts.values()]}),
        "records": {p: results[name, p]["record"]
                    for p in ("r2gen", "llamaxr")},
        "notes": given.notes,
    }


def _baselines(given: Predictions, seed: int) -> dict[str, list[str]]:
    """Reports from R2Gen's training list, if the studies allow it."""
    train = reports.load_studies().query("split_r2gen == 'train'")
    n, texts = len(given.table), list(train["findings"])
    known = given.table["study_id"].isin(train["study_id"]).sum()
    if known or given.split == "not known":
        given.notes.append(
            "No baselines: they are for studies of R2Gen's lists; "
            f"{known} of these are in its training list.")
        return {}
    return {f"constant by {name}": [baselines.medoid(texts, utility=name)] * n
            for name in ("BLEU-4", "ROUGE-L")} | {
        "random report": baselines.random_reports(texts, n, seed)}


# --- shown and written ------------------------------------------------------


def as_text(scored: dict[str, Any]) -> str:
    """`score_file` for a terminal: a row a metric, a column a system."""
    lines = ["{file}: {n} studies, references: findings, split: {split}, "
             "images: {images}; 95 % intervals.".format(**scored)]
    rows, order = scored["rows"], [*METRICS, "CIDEr", *SCORES]
    text = rows["value"].map("{:.3f}".format)
    text += rows.apply(" [{low:.2f}, {high:.2f}]".format_map, axis=1)
    rows = rows.assign(text=text.where(rows["value"].notna(), rows["note"]))
    for (protocol, n), part in rows.groupby(["protocol", "n"], sort=False):
        table = part.pivot(index="metric", columns=["system", "images"],
                           values="text").rename_axis(index=None)
        table = table.loc[[m for m in order if m in table.index]]
        title = f"Protocol {protocol}, split {scored['split']}, n {n}: "
        lines += ["", title + PROTOCOLS[protocol],
                  table.to_string(line_width=100)]
    lines += ["", scored["distinct"].to_string(
        index=False, float_format="{:.0%}".format), ""]
    lines += [*(f"Note: {note}" for note in scored["notes"]), WARNING]
    return "\n".join(lines)


def as_json(scored: dict[str, Any]) -> str:
    """`score_file` with all rows of all systems; NaN is null."""
    return json.dumps({
        key: value.astype(object).where(value.notna(), None).to_dict(
            "records") if isinstance(value, pd.DataFrame) else value
        for key, value in scored.items()}, indent=1)
