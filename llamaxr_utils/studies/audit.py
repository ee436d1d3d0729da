"""The paper's own numbers, whether one was reproduced, and the quotations
that the audit in notebook 08 measures. Nobody's intentions are judged.

The numbers come from ``data/published_results.csv`` (`quoted_rows`) and
``published_designs.csv``; a `verdict` on one is one of four words.
"""

import pandas as pd

from ..datasets.reports import DATA, normalise
from ..evaluation.metrics import METRICS, score_reports
from ..evaluation.score import quoted_rows

VERDICTS = ("reproduced", "differs", "not comparable", "not run")
R2GEN_TEST = 590  #: studies in the test part of R2Gen's split
MOVED = ["BLEU-4", "ROUGE-L", "METEOR"]
LOGGED_ROWS, LOGGED_STEPS = 2780, 870  #: of 10 epochs in the saved log
BATCH = 32  #: studies a step, in the paper and in that log


def data(name: str) -> pd.DataFrame:
    """A table of the audit: ``ledger`` and ``smaller_findings`` hold its
    words; ``unmeasured``, ``paper_fragments``, ``figure_4_scores`` and
    ``table_4`` (two generated texts, scored) are the paper's; ``score_spread``
    is of 198 real vectors (https://github.com/fdalto/torchxraydensenet)."""
    return pd.read_csv(DATA / f"{name}.csv", keep_default_na=False)


def measured_here(sentence: str) -> str:
    """The sentence, unless a number of it is missing."""
    missing = "not measured here: METEOR 1.5 needs Java"
    return missing if " nan" in sentence else sentence


def table_4(studies: pd.DataFrame) -> float:
    """How far Table 4's scores lie from ours at most; its reference is the
    commonest report with the printed words."""
    words = data("paper_fragments").set_index("place")["fragment"]["Table 4"]
    has_it = studies["findings"].str.contains(words, regex=False)
    reference, printed = studies["findings"][has_it].mode()[0], data("table_4")
    again = score_reports([reference] * len(printed), list(printed["text"]))
    return (again["per_report"][MOVED] - printed[MOVED]).abs().max(axis=None)


def traced(studies: pd.DataFrame) -> list[str]:
    """Results whose printed words stand in one study, with R2Gen's part."""
    texts, lines = studies["findings"].map(normalise), []
    for row in data("paper_fragments").query("kind == 'result'").itertuples():
        hits = studies[texts.str.contains(normalise(str(row.fragment)))]
        if len(hits) == 1:
            study, part = hits[["study_id", "split_r2gen"]].iloc[0]
            lines.append(f"{row.place}: {study} ({part})")
    return lines


# --- the paper, reproduced or not ------------------------------------------

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
