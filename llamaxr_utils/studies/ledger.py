"""The ledger: claim, paper, notebook, measurement and effect, side by side.

What is quoted lies in ``data``; what is measured comes from `audit`,
`statements` and, for settings, examples and bare claims, from here.
"Notebook" is the published one as saved; the final run may have differed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..course.run import cache_folder, project_folder, read_record
from ..datasets.downloads import SOURCES
from ..datasets.reports import DATA, normalise
from ..evaluation.predictions import read_predictions
from .audit import MOVED, Measured
from .statements import BATCH

#: The paper's text, section 3.5; rows: R2Gen's training list.
PAPER = {"rows": 2069, "epochs": 3, "rate": 2e-6, "warm-up": 30}
#: What the published notebook's training log says.
NOTEBOOK = {"rows": 2780, "epochs": 10, "rate": 2e-4, "warm-up": 30}


def data(name: str) -> pd.DataFrame:
    """A table of ``llamaxr_utils/data``.

    ``ledger``, ``unmeasured``: quotations, with their section.
    ``paper_fragments``: words printed in the paper's figures and tables.
    ``figure_4_scores``: the 36 numbers of its Figure 4. ``score_spread``:
    mean and standard deviation of 198 real score vectors of
    densenet121-res224-all on CheXpert's validation patients
    (https://github.com/fdalto/torchxraydensenet).
    """
    return pd.read_csv(DATA / f"{name}.csv", keep_default_na=False)


def choose_predictions(
    own: pd.DataFrame, label: str
) -> tuple[str, pd.DataFrame]:
    """The published predictions if they were fetched, else the run's own.

    Parameters
    ----------
    own : DataFrame
        Artifact ``generations``: reports of the tuned model are taken.
    label : str
        What the run's own are called.

    Returns
    -------
    str, DataFrame
        Whose they are; ``study_id``, ``reference``, ``generated``.
    """
    columns = ["study_id", "reference", "generated"]
    path = cache_folder() / SOURCES["cvt2distilgpt2"].saves
    if path.is_file():
        table = read_predictions(path, "wheel").table
        return "CvT2DistilGPT2, as published", table[columns]
    tuned = own["model"].eq("tuned") & own["scores_from"].eq("own")
    return label, own.loc[tuned, columns].reset_index(drop=True)


def measured_here(folder: Path) -> dict[str, tuple[float | None, str]]:
    """Memory, speed, energy and hallucinations of the run in a folder.

    Returns
    -------
    dict
        Claim -> value (None: the run has none) and unit.
    """
    training = read_record(folder, "04_finetune_qlora") or {}
    clinical = Path(folder) / "tables" / "clinical.csv"
    added = None
    if clinical.is_file():
        added = pd.read_csv(clinical).set_index("system")["hallucinations"]
        added = float(added["this run"])
    minutes = training.get("seconds", np.nan) / 60
    return {
        "memory": (training.get("peak_memory_gb"), "GB, peak of notebook 04"),
        "speed": (minutes if training else None, "minutes, notebook 04"),
        "energy": (None, "no meter read"),
        "hallucination": (added, "a report: findings not in its reference"),
    }


# --- j, k, l: settings, examples, bare claims -------------------------------


def rate_log(folder: Path | None = None) -> pd.DataFrame | None:
    """Both rates in notebook 10's log (``figures/data/designs.csv``), if it
    has them on the same images with the same seed: ``learning_rate`` and
    ``loss`` (validation)."""
    folder = folder or project_folder() / "figures" / "data"
    path = folder / "designs.csv"
    log = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    rates = {"lr-2e-6": PAPER["rate"], "stated": NOTEBOOK["rate"]}
    rate = log.get("design", pd.Series(dtype=str)).map(rates)
    if set(rate.dropna()) != set(rates.values()):
        return None
    log = log[rate.notna()].assign(learning_rate=rate, loss=log["val_loss"])
    both = log.groupby(["images", "seed"])["learning_rate"].transform(
        "nunique"
    )
    log = log.loc[both.eq(2), ["images", "seed", "learning_rate", "loss"]]
    return None if log.empty else log


def learning_rates(log: pd.DataFrame | None = None) -> Measured:
    """j: how far 2e-6 and 2e-4 can move a weight.

    AdamW moves a weight by about the learning rate a step at most (Kingma
    and Ba 2015, section 2.1), so the sum over the schedule is a bound.

    Parameters
    ----------
    log : DataFrame, optional
        Notebook 10's: ``learning_rate`` and ``loss``, a row a run.
    """
    lines = []
    for name, s in {"paper": PAPER, "notebook, as saved": NOTEBOOK}.items():
        steps = math.ceil(s["rows"] / BATCH) * int(s["epochs"])
        area = s["warm-up"] / 2 + (steps - s["warm-up"]) / 2  # linear
        lines.append((name, s["rate"], steps, s["rate"] * area))
    columns = ["source", "learning rate", "steps", "sum of the rates"]
    table = pd.DataFrame(lines, columns=columns)
    table = table.map(lambda x: f"{x:.1e}" if isinstance(x, float) else x)
    ratio = lines[1][3] / lines[0][3]
    verdict = (
        f"From zero, an entry of that matrix comes no further than about "
        f"{lines[0][3]:.5f} by the paper's text and {lines[1][3]:.3f} by the "
        f"log: a factor of {ratio:.0f}. "
    )
    answer = "computed, not trained"
    if log is None:
        verdict += "What it does to the loss: run 10_compare_designs."
    else:
        loss = log.groupby("learning_rate")["loss"].mean()
        low, high = loss[loss.index.min()], loss[loss.index.max()]
        verdict += f"Loss after training: {low:.3f} and {high:.3f} (10's log)."
        answer = f"the small rate learns {'less' if low > high else 'as much'}"
    return Measured("j", answer, verdict, table)


def paper_examples(fragments: pd.DataFrame, studies: pd.DataFrame) -> Measured:
    """k: in which of R2Gen's lists the paper's examples stand.

    Parameters
    ----------
    fragments : DataFrame
        ``place``, ``kind`` (prompt, example, result), ``fragment``.
    studies : DataFrame
        ``study_id``, ``findings``, ``split_r2gen``.
    """
    texts = studies["findings"].map(normalise)
    lines = []
    for row in fragments.itertuples():
        found = studies[texts.str.contains(normalise(row.fragment))]
        counts = found["split_r2gen"].value_counts()
        one = found["study_id"].iloc[0] if len(found) == 1 else "–"
        lists = ", ".join(f"{k} {v}" for k, v in sorted(counts.items()))
        lines.append((row.place, row.kind, len(found), one, lists))
    columns = ["printed in", "as", "studies with it", "study", "R2Gen's lists"]
    table = pd.DataFrame(lines, columns=columns)
    sure = table[(table["as"] == "result") & (table["study"] != "–")]
    odd = sure[sure["R2Gen's lists"] != "test 1"]
    traced = zip(sure["study"], sure["printed in"], sure["R2Gen's lists"])
    named = ", ".join(f"{a} ({b}; {c.split()[0]})" for a, b, c in traced)
    verdict = f"Results traced to one study: {named or 'none'}."
    answer = (
        "a result of the paper is not in R2Gen's test list"
        if len(odd)
        else "no traced result is outside R2Gen's test list"
    )
    return Measured("k", answer, verdict, table)


def never_measured(
    quoted: pd.DataFrame, here: Mapping[str, tuple[float | None, str]]
) -> Measured:
    """l: claims without a number in the paper, and this run's.

    Parameters
    ----------
    quoted : DataFrame
        ``claim``, ``paper``, ``number`` ("none": the paper has none).
    here : mapping
        Claim -> value (None: not measured) and its unit.
    """
    lines = [
        (*row, *here.get(row[0], (None, "")))
        for row in quoted.itertuples(index=False, name=None)
    ]
    columns = ["claim", "the paper says", "its own number", "this run", "unit"]
    table = pd.DataFrame(lines, columns=columns)
    done = table["this run"].notna().sum()
    none = (table["its own number"] == "none").sum()
    verdict = (
        f"{none} of {len(table)} claims have no number of the paper's own. "
        f"The {done} of this run are of another model on another machine and "
        f"have nothing beside them; comparisons are notebook 10's."
    )
    return Measured("l", f"{done} of {len(table)} measured", verdict, table)


# --- the closing table ------------------------------------------------------


def ledger(found: Mapping[str, Measured]) -> pd.DataFrame:
    """The closing table: a row for every quoted claim.

    Parameters
    ----------
    found : mapping
        Item -> `Measured`; an item that is missing reads "not run".

    Returns
    -------
    DataFrame
        ``item``, ``claim``, ``paper``, ``notebook`` (as saved), ``measured
        here``, and the ``effect of`` what on each metric (missing: none
        measured).
    """
    table = data("ledger")
    table["measured here"] = [
        found[i].answer if i in found else "not run" for i in table["item"]
    ]
    table["effect of"] = table.pop("effect of").replace("", "–")
    for metric in MOVED:
        table[metric] = [
            found[i].effect.get(metric, np.nan) if i in found else np.nan
            for i in table["item"]
        ]
    return table
