"""The paper's own numbers, whether one was reproduced, and what the audit in
notebook 08 uses more than once.

The numbers come from ``data/published_results.csv`` and
``published_designs.csv``; a `verdict` on one is one of four words. A section
of the audit ends in a `Measured`: other data, another verdict. Nobody's
intentions are judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..course.tables import markdown
from ..datasets.reports import DATA
from ..evaluation.metrics import METRICS

VERDICTS = ("reproduced", "differs", "not comparable", "not run")
R2GEN_TEST = 590  #: studies in the test part of R2Gen's split
MOVED = ("BLEU-4", "ROUGE-L", "METEOR")
LOGGED_ROWS = 2780  #: in the log of the published notebook
BATCH = 32  #: studies a step, in the paper and in that log
AS_SAVED = "The notebook as saved; the final run may have differed."


@dataclass(frozen=True)
class Measured:
    """One section of the audit: its letter in the ledger, the words that
    other data turn into others, a sentence with the numbers, the table, and
    the effect by metric."""

    item: str
    answer: str
    verdict: str
    table: pd.DataFrame
    effect: dict[str, float] = field(default_factory=dict)

    def _repr_markdown_(self) -> str:
        words = f"**{self.item} · {self.answer}.** {self.verdict}"
        return f"{markdown(self.table)}\n\n{words}"


def data(name: str) -> pd.DataFrame:
    """A table of quotations: ``ledger``, ``unmeasured``, ``paper_fragments``
    and ``figure_4_scores`` are the paper's; ``score_spread`` describes 198
    real score vectors (https://github.com/fdalto/torchxraydensenet)."""
    return pd.read_csv(DATA / f"{name}.csv", keep_default_na=False)


def rows(results: Mapping[Any, Mapping[str, Any]],
         keys: list[str]) -> pd.DataFrame:
    """A row a result of `metrics.score_reports`, its key in front."""
    lines = [(*key, *(r[m] for m in MOVED)) for key, r in results.items()]
    return pd.DataFrame(lines, columns=[*keys, *MOVED])


def difference(a: Any, b: Any) -> dict[str, float]:
    """Metric -> a minus b, for the metrics that both have."""
    both = [m for m in MOVED if pd.notna(a.get(m)) and pd.notna(b.get(m))]
    return {m: float(a[m] - b[m]) for m in both}


# --- the paper, reproduced or not ------------------------------------------


def quoted_rows() -> pd.DataFrame:
    """Table 3 of the paper as printed (NaN: a dash), with what is known of
    each row: ``protocol``, ``split`` ("r2gen": its authors' rows, and the one
    whose predictions are public) and ``n``; ``origin`` and ``images``."""
    table = pd.read_csv(DATA / "published_results.csv")
    return table.assign(origin="quoted", images="X-rays")


def table_1() -> pd.DataFrame:
    """Table 1 of the paper as printed ("-" and the marks are the paper's),
    and two columns of ours, ``predictions public`` and ``split public`` (of
    IU X-ray): "yes" or "not known to us", no claim that they are not."""
    return pd.read_csv(DATA / "published_designs.csv", keep_default_na=False)


def verdict(paper: float, ours: pd.Series, paper_split: str,
            command: str) -> tuple[str, str]:
    """One of `VERDICTS` on a number of the paper, and why; `ours` is a row
    of `score.summarise`, of the same protocol.

    The first that holds: *not run*: there is no value of ours (then its
    note, or the `command` that gives it); *not comparable*: the paper prints
    none, or ours is of phantoms or another split, or has no interval;
    *reproduced*: the paper's number lies inside our 95 % interval (its ends
    rounded as the paper rounds, to three digits); *differs*.
    """
    if pd.isna(ours["value"]):
        has_note = isinstance(ours["note"], str) and ours["note"]
        return "not run", ours["note"] if has_note else command
    if pd.isna(paper):
        return "not comparable", "the paper prints no number"
    if ours["images"] == "phantom":
        return "not comparable", "drawings, not X-rays"
    split = ours["split"].removesuffix(" test")
    is_part = split == "r2gen" and ours["n"] != R2GEN_TEST
    if split != paper_split or is_part:
        return "not comparable", f"the paper's split: {paper_split}"
    if pd.isna(ours["low"]) or pd.isna(ours["high"]):
        return "not comparable", "no interval: a single study"
    low, high = round(float(ours["low"]), 3), round(float(ours["high"]), 3)
    if low <= paper <= high:
        return "reproduced", f"{paper:.3f} lies inside [{low:.3f}, {high:.3f}]"
    return "differs", f"{paper:.3f} lies outside [{low:.3f}, {high:.3f}]"


def compare_with_paper(
    summary: pd.DataFrame, paper: str = "LLaMA-XR", *,
    paper_split: str | None = None, command: str = "make course PROFILE=paper",
) -> pd.DataFrame:
    """Each number of a row of the paper's Table 3, and its `verdict`.

    `summary` is `score.summarise`'s, `paper` a row of Table 3. A split that
    was not published is comparable with none, so the paper's own row neither,
    unless `paper_split` says what to take it for. Returns ``metric``,
    ``protocol`` and ``split`` (the paper's), ``paper``, ``this run``,
    ``difference`` (NaN unless comparable), ``verdict``, ``why``.
    """
    quoted = quoted_rows().set_index("system").loc[paper]
    split = paper_split or quoted["split"]
    rows = summary[summary["system"].eq("this run")
                   & summary["protocol"].eq(quoted["protocol"])]
    lines = []
    for metric, ours in rows.set_index("metric").reindex(METRICS).iterrows():
        printed, gap = quoted[metric], float("nan")
        word, why = verdict(printed, ours, split, command)
        if word in VERDICTS[:2]:
            gap = ours["value"] - printed
            if paper_split:
                why += f", taking the paper's split to be {paper_split}"
        lines.append((metric, quoted["protocol"], split, printed,
                      ours["value"], gap, word, why))
    table = pd.DataFrame(lines, columns=[
        "metric", "protocol", "split", "paper", "this run", "difference",
        "verdict", "why"])
    return table.astype({"paper": float, "this run": float})
