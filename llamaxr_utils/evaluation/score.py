"""From pairs of texts to tables of systems, and the command ``score FILE``.

First what notebook 06 tabulates: intervals, paired tests, one row a system.
Then all of it for anyone's file of predictions, beside constant reports and
the paper's Table 3, as text or JSON. Every row says protocol, split, images
and n; no image is looked at.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml
from pandas.io.common import get_handle
from tqdm.auto import tqdm

from ..course.artifacts import load, manifest, path_of, sha256, write_json
from ..course.errors import printable, problem
from ..course.run import WARNING
from ..datasets import reports
from ..datasets.reports import DATA
from . import baselines, stats
from .clinical import clinical_scores
from .metrics import METRICS, plain, says_something, score_reports

#: (system, protocol) -> result of `metrics.score_reports`.
Results = Mapping[tuple[str, str], Mapping[str, Any]]
WORDS = yaml.safe_load((DATA / "score.yaml").read_text("utf-8"))
PROTOCOLS: dict[str, str] = WORDS["protocols"]
#: Systems that look at no image: reports alone, or labels of people.
WITHOUT_IMAGES = ("constant by ", "random report", "ceiling: true labels")
LARGEST = 250_000_000  #: characters of a file; 200,000 reports have a fifth
#: The metrics that paired tests are made of.
TESTED = ("BLEU-4", "ROUGE-L", "METEOR", "CIDEr")
KEYS = ["system", "protocol", "split", "images", "n"]
#: A loop: one to 20 words, three times or more in direct succession.
LOOP = re.compile(r"(?<!\S)(\S+(?: \S+){0,19}?)(?: \1){2,}(?!\S)")


# --- tables of systems ------------------------------------------------------

def summarise(results: Results, *, split: str, images: str, n_samples: int,
              seed: int) -> pd.DataFrame:
    """Artifact ``summary``: one row a system, protocol and metric, with
    ``value`` and a 95 % interval by study, ``low`` and ``high``.

    ``images`` is "none" for `WITHOUT_IMAGES`; METEOR under ``r2gen`` without
    Java has no value, and ``note`` says so.
    """
    lines: list[tuple] = []
    for (system, protocol), result in results.items():
        statistics, function, names = stats.metric_statistics(result)
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
    ours, function, names = stats.metric_statistics(results[system, protocol])
    rows = []
    for other in [s for s, p in results if p == protocol and s != system]:
        theirs = stats.metric_statistics(results[other, protocol])[0]
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

def read_predictions(path: str | Path) -> tuple[pd.DataFrame, dict, list]:
    """Generated reports: a CSV, ReXrank's JSON (id -> sections,
    https://github.com/rajpurkarlab/ReXrank) or the folder of a run (what its
    tuned model wrote); columns are called as in ``data/score.yaml``.

    Ids are IU X-ray's (``CXR3030``, ``CXR3030_IM-1405``, Kaggle's ``uid``)
    and references the findings of these studies, for the cleaning of a
    reference moves every score; only if an id is not, the file's own. Of a
    text with headings "Findings:" counts; the word "None" is no text.

    Returns the table (``study_id``, ``generated``, ``reference``), what a row
    of results says (``split``: "r2gen test" for all studies of that list,
    "part of test", "mixed", "not known"), and notes, the first on what was
    taken. CourseError if nothing can be scored.
    """
    given, names = _read(path := Path(path))
    texts = given.drop(columns="id").replace(
        r"(?is)^\s*findings\s*:\s*|(?<!\s)\s*\bimpression\s*:.*", "",
        regex=True)
    cut = (texts["generated"] != given["generated"]).sum()
    texts = texts.replace(r"(?i)^\s*(none|nan)\s*$", "", regex=True)
    ids = given["id"].map(plain).str.strip().replace(
        r"^(CXR)?(\d+)_IM-\d\S*$", r"CXR\2", regex=True)
    if names["id"] == "uid":
        ids = ids.replace(r"^(?=\d+$)", "CXR", regex=True)

    findings = reports.load_studies().set_index("study_id")["findings"]
    unknown = ids[~ids.isin(findings.index)]
    own = len(unknown) > 0 and "reference" in names
    if not own:
        _refuse(path, unknown, "has {} ids that are not IU X-ray studies")
        texts["reference"] = ids.map(findings)
    table = texts.assign(study_id=ids).drop_duplicates()
    _refuse(path, table[table.duplicated("study_id")]["study_id"],
            "has {} studies more than once")
    kept = table[table["reference"].map(says_something)]
    _refuse(path, ids if kept.empty else [], "holds no study with findings")
    terms = {
        "split": "not known" if own else _split(kept["study_id"]),
        "images": (manifest(path, "generations") or {"parameters": {}})[
            "parameters"].get("images", "not known"),
        "references": f"own {names['reference']}" if own else "findings"}
    silent = len(kept) - kept["generated"].map(says_something).sum()
    facts = names | {
        "kept": len(kept), "given": len(given), "cut": cut, "silent": silent,
        "mute": len(table) - len(kept), "again": len(given) - len(table),
        "unknown": len(unknown)}
    holds = {"taken": True, "silent": silent, "unknown": own,
             "part": terms["split"] == "part of test"}
    notes = [WORDS["notes"][n].format_map(facts) for n in holds if holds[n]]
    return kept.reset_index(drop=True), terms, notes


def _read(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Texts ``id``, ``generated``, ``reference``; how the file calls them."""
    if os.path.isdir(path):
        table = load(path, "generations").query(
            "model == 'tuned' and scores_from == 'own'")
    else:
        try:
            table = _table(path)
        except Exception as error:  # noqa: BLE001 (a damaged file's are many)
            why = f"{error or type(error).__name__}"
            _refuse(path, [why], "was not found or can't be read")
    there = [re.sub(r"\W+", "_", str(c).lower()).strip("_") for c in table]
    if "section_findings" in there:  # ReXrank's reference has both sections
        there = [name if name != "report" else "" for name in there]
    names: dict[str, str] = {}
    for name, words in WORDS["names"].items():
        for word in words:
            if word in there and word not in names.values():
                names.setdefault(name, word)
    if table.empty or not {"id", "generated"} <= set(names):
        _refuse(path, there or ["It is empty"],
                "has no row, no column of ids or none of reports")
    _refuse(path, [w for w in names.values() if there.count(w) > 1],
            "has {} columns whose name stands twice")
    texts = pd.DataFrame({name: table.iloc[:, there.index(word)]
                          for name, word in names.items()}, dtype=object)
    texts[list(names)[2:]] = texts[list(names)[2:]].fillna("")  # reference
    lacks = ~texts.map(lambda cell: isinstance(cell, str)).all(axis=1)
    _refuse(path, texts["id"][lacks].map(str), "has {} rows without a text")
    return texts, names


def _table(path: Path) -> pd.DataFrame:
    """The cells of a CSV or a JSON, which may be packed, as they are."""
    if not path.is_file():
        raise OSError("it is no file")
    # pandas would take a .zst that was cut for a whole one.
    part = pa.input_stream(path) if path.suffix == ".zst" else path
    with get_handle(part, "r", encoding="utf-8-sig", compression="infer") as h:
        text = h.handle.read(LARGEST)
    if len(text) == LARGEST:
        raise ValueError(f"it has {LARGEST:,} characters or more")
    if ".json" in path.suffixes:  # pairs: no name may hide another
        cases = json.loads(text, object_pairs_hook=list)
        rows = [dict(sections) | {"id": i} for i, sections in cases]
        heads = [[name for name, _ in pairs]
                 for pairs in (cases, *(part for _, part in cases))]
    else:
        lines = csv.DictReader(io.StringIO(text.lstrip("\r\n"), ""),
                               strict=True)
        rows, heads = [*lines], [list(lines.fieldnames or [])]
    table = pd.DataFrame(rows, dtype=object)
    if None in table or any(len({*head}) < len(head) for head in heads):
        raise ValueError("a name stands twice, or a row is too long")
    return table


def _refuse(path: Path, wrong: Iterable[str], what: str) -> None:
    """An error about a file, if something is wrong."""
    if wrong := list(wrong):
        raise problem(
            "predictions", file=path.name, what=what.format(len(wrong)),
            examples=plain(", ".join(text[:99] for text in wrong[:5])))


def _split(ids: pd.Series) -> str:
    """Which of R2Gen's lists the studies are."""
    lists = reports.r2gen_split().set_index("study_id")["split"]
    name, *others = set(ids.map(lists).fillna("not known"))
    if others or name == "not known":
        return "mixed" if others else name
    return f"{'r2gen' if len(ids) == sum(lists == name) else 'part of'} {name}"


def write_rexrank(path: str | Path, table: pd.DataFrame) -> None:
    """``study_id`` and ``generated`` in ReXrank's form, without a reference:
    the ids of its IU X-ray file (R2Gen's) -> ``model_prediction``."""
    ids = reports.r2gen_split().set_index("study_id")["r2gen_id"]
    texts = "Findings: " + table.set_index("study_id")["generated"]
    write_json(Path(path), {ids.get(study, study): {"model_prediction": text}
                            for study, text in texts.items()})


# --- the file is scored -----------------------------------------------------

def score_file(path: str | Path, n_samples: int = 1000, seed: int = 3407,
               radeval: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that can be said of a file: ``rows`` (`summarise`, clinical
    scores under "labels"), ``texts`` (DataFrame: different reports, share of
    the commonest, reports with a `LOOP`, the study of the longest),
    ``table_3``, ``radeval``, ``constants``, ``records``, ``notes``, terms."""
    if not 1 <= n_samples <= 100_000:
        raise problem("samples", n=n_samples)
    table, terms, notes = read_predictions(path := Path(path))
    ids, truth = table["study_id"], list(table["reference"])
    name = plain(path.name)[:36]
    if name.startswith(WITHOUT_IMAGES):  # a baseline's
        name = f"file {name}"
    systems = pd.DataFrame({name: table["generated"], **_baselines(
        ids, terms["split"], notes, seed)}).set_axis(ids)
    results: dict[tuple[str, str], Any] = {}
    vocabulary = None if terms["references"] == "findings" else ()
    for system, texts in tqdm(systems.items(), "Scoring", systems.shape[1]):
        for protocol in ("r2gen", "llamaxr"):
            results[system, protocol] = score_reports(
                truth, list(texts), protocol, vocabulary)
        results[system, "labels"] = clinical_scores(truth, texts)
    rows = summarise(results, split=terms["split"], images=terms["images"],
                     n_samples=n_samples, seed=seed)
    loops = systems.map(loop_length)
    return {
        "schema": 2, "file": name, "n": len(ids), **terms,
        "sha256": sha256(path_of(path, "generations") if path.is_dir()
                         else path),
        "n_samples": n_samples, "seed": seed, "rows": rows,
        "texts": pd.DataFrame({
            "distinct reports": systems.nunique(),
            "share of the commonest": systems.apply(
                lambda texts: texts.value_counts(normalize=True).max()),
            "with a loop": (loops > 0).sum(),
            "the longest in": loops.idxmax().where(loops.any(), ""),
        }).rename_axis("system").reset_index(),
        "table_3": beside_table_3(rows),
        "radeval": radeval_values(truth, systems, radeval, notes),
        "constants": systems.filter(regex="^constant by").iloc[0].to_dict(),
        "records": {p: results[name, p]["record"]
                    for p in ("r2gen", "llamaxr")},
        "notes": notes,
    }


def _baselines(ids: pd.Series, split: str, notes: list[str],
               seed: int) -> dict[str, Any]:
    """Reports from R2Gen's training list, if the studies allow it."""
    train = reports.load_studies().query("split_r2gen == 'train'")
    texts, known = list(train["findings"]), ids.isin(train["study_id"]).sum()
    if known or split == "not known":
        notes.append("No baselines: they are for studies of R2Gen's lists; "
                     f"{known} of these are in its training list.")
        return {}
    return baselines.constants() | {
        "random report": baselines.random_reports(texts, len(ids), seed)}


def loop_length(text: str) -> int:
    """Words of the longest `LOOP`, case and punctuation aside; 0 without. Of
    IU X-ray's 3,955 findings four have one, the blank "XXXX" thrice."""
    loops = LOOP.finditer(reports.normalise(text))
    return max((len(loop[0].split()) for loop in loops), default=0)


def quoted_rows() -> pd.DataFrame:
    """Table 3 of the paper as printed (NaN: a dash), with what is known of
    each row: ``protocol`` and how it is known (``protocol is``: "proven" by
    public predictions, "read in code", "assumed"), ``split`` ("r2gen": its
    authors' rows, and the one whose predictions are public) and ``n``;
    ``origin`` and ``images``."""
    table = pd.read_csv(DATA / "published_results.csv")
    return table.assign(origin="quoted", images="X-rays")


def beside_table_3(rows: pd.DataFrame) -> pd.DataFrame:
    """Which systems of the paper's Table 3 lie below each value of
    `summarise` under the same protocol, to three digits as printed: ``above``
    (number), ``of`` and ``systems``. Of R2Gen's whole test list alone."""
    printed = quoted_rows().rename(columns={"system": "systems"}).melt(
        ["systems", "protocol"], METRICS, "metric", "printed").dropna()
    pairs = rows[rows["split"] == "r2gen test"].dropna(subset="value").merge(
        printed.sort_values("printed"), on=["protocol", "metric"])
    below = pairs["printed"] < pairs["value"].round(3)
    pairs["systems"] = pairs["systems"].where(below)
    groups = pairs.groupby([*KEYS[:2], "metric", "value"], sort=False)
    return groups["systems"].agg(
        above="count", of="size",
        systems=lambda names: ", ".join(names.dropna())).reset_index()


def radeval_values(truth: list[str], systems: pd.DataFrame,
                   metrics: Sequence[str], notes: list[str]) -> pd.DataFrame:
    """RadEval's `metrics` (https://github.com/jbdel/RadEval, 2.2), a row a
    value, a column a system; a note where package or weights are missing."""
    values: dict[str, dict[str, float]] = {system: {} for system in systems}
    for metric in metrics:
        try:
            from radeval import RadEval

            scorer = RadEval(metrics=[metric], show_progress=False)
            for system, texts in systems.items():
                values[system] |= scorer(refs=truth, hyps=list(texts))
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            notes.append(
                f"No {metric} ({type(error).__name__}: {plain(error)[:80]}). "
                "`pip install radeval`; it loads weights at first use.")
    return pd.DataFrame(values).rename_axis("RadEval").reset_index()


# --- shown and written ------------------------------------------------------

def as_text(scored: dict[str, Any]) -> str:
    """`score_file` for a terminal: a row a metric, a column a system."""
    lines = ["{file}: {n} studies, references: {references}, split: {split}, "
             "images: {images}; 95 % intervals.".format(**scored)]
    rows = scored["rows"]
    text = rows.apply("{value:.3f} [{low:.2f}, {high:.2f}]".format_map, axis=1)
    rows = rows.assign(text=text.where(rows["value"].notna(), rows["note"]))
    for (protocol, n), part in rows.groupby(["protocol", "n"], sort=False):
        table = part.pivot(index="metric", columns=["system", "images"],
                           values="text").rename_axis(index=None)
        order = dict.fromkeys([*METRICS, *part["metric"]])
        table = table.loc[[m for m in order if m in table.index]]
        title = f"Protocol {protocol}, split {scored['split']}, n {n}: "
        lines += ["", title + PROTOCOLS[protocol],
                  table.to_string(line_width=100)]
    lines += ["", scored["texts"].to_string(
        index=False, float_format="{:.0%}".format), ""]
    if len(scored["radeval"]):
        lines += [scored["radeval"].to_string(index=False), ""]
    lines += [f"{name}, of the training list: {text}"
              for name, text in scored["constants"].items()]
    above = scored["table_3"].query("metric in @TESTED and above > 0")
    lines += ["", WORDS["table_3"]] if len(above) else []
    lines += ["{system}: {protocol} {metric} {value:.3f}, {above} of {of}: "
              "{systems}".format_map(row) for row in above.to_dict("records")]
    lines += ["", *(f"Note: {note}" for note in scored["notes"]), WARNING]
    return printable("\n".join(lines))


def as_json(scored: dict[str, Any]) -> str:
    """`score_file` with all rows of all systems; NaN is null."""
    return json.dumps(scored, indent=1, default=lambda table: json.loads(
        table.to_json(orient="records", double_precision=15)))
