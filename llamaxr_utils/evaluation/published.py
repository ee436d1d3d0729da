"""The paper's own numbers, and whether one was reproduced.

They come from ``data/published_results.csv`` and ``published_designs.csv``;
the answer is one of four words, by the rule of `verdict`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..datasets.reports import DATA

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "METEOR")
VERDICTS = ("reproduced", "differs", "not comparable", "not run")
#: Rows of Table 3 that are known to stand on R2Gen's split: its authors', and
#: the one whose predictions are public.
ON_R2GEN_SPLIT, R2GEN_TEST = ("R2Gen", "R2GenCMN", "CvT-DistilGPT2"), 590


def published_results() -> pd.DataFrame:
    """Table 3 of the paper as printed: ``system``, ``year``, ``citation``
    and six metrics; NaN where the paper has a dash."""
    return pd.read_csv(DATA / "published_results.csv")


def table_1() -> pd.DataFrame:
    """Table 1 of the paper as printed, and two columns of ours:
    ``predictions public`` (the generated test reports of IU X-ray) and
    ``split public`` (its study ids) are "yes" or "not known to us", which is
    no claim that they are not. "-" and the marks are the paper's."""
    return pd.read_csv(DATA / "published_designs.csv", keep_default_na=False)


def verdict(
    paper: float, value: Any, low: Any, high: Any, *, paper_split: str,
    split: str, images: str, command: str,
) -> tuple[str, str]:
    """One of `VERDICTS` on a number of the paper, and why.

    The first that holds: *not run*: there is no value of ours (then the
    command that gives it); *not comparable*: the paper prints none, or ours
    is of phantoms or another split, or has no interval; *reproduced*: the
    paper's number lies inside our 95 % interval (its ends rounded as the
    paper rounds, to three digits); *differs*. Both are of one protocol.
    """
    if pd.isna(value):
        return "not run", command
    if pd.isna(paper):
        return "not comparable", "the paper prints no number"
    if images == "phantom":
        return "not comparable", "drawings, not X-rays"
    if split != paper_split:
        return "not comparable", f"the paper's split: {paper_split}"
    if pd.isna(low) or pd.isna(high):
        return "not comparable", "no interval: a single study"
    low, high = round(float(low), 3), round(float(high), 3)
    word, side = "differs", "outside"
    if low <= paper <= high:
        word, side = "reproduced", "inside"
    return word, f"{paper:.3f} lies {side} [{low:.3f}, {high:.3f}]"


def _terms(systems: pd.Series) -> pd.DataFrame:
    """What is known of rows of Table 3: ``protocol``, ``split``, ``n``."""
    own, known = systems.eq("LLaMA-XR"), systems.isin(ON_R2GEN_SPLIT)
    split = known.map({True: "r2gen", False: "as published"})
    return pd.DataFrame({
        "protocol": own.map({True: "llamaxr", False: "r2gen"}),
        "split": split.mask(own, "70/10/20, no list published"),
        "n": known.map({True: R2GEN_TEST, False: None})})


def compare_with_paper(
    summary: pd.DataFrame, system: str = "this run", paper: str = "LLaMA-XR",
    *, paper_split: str | None = None,
    command: str = "make course PROFILE=paper",
) -> pd.DataFrame:
    """Each number of a row of the paper's Table 3, and its `verdict`.

    `summary` is `score.summarise`'s, `system` one of its systems, `paper` a
    row of Table 3 (KeyError if there is none). A split that was not published
    is comparable with none, and so is the paper's own row, unless
    `paper_split` says what to take it for. `command` would give a value that
    is missing.

    Returns ``metric``, ``protocol`` and ``split`` (the paper's), ``paper``,
    ``this run``, ``difference`` (NaN unless comparable), ``verdict``, ``why``.
    """
    quoted = published_results().set_index("system").loc[paper]
    protocol, split, _ = _terms(pd.Series([paper])).iloc[0]
    split = paper_split or split
    rows = summary[summary["system"].eq(system)
                   & summary["protocol"].eq(protocol)]
    rows = rows.drop_duplicates("metric").set_index("metric").reindex(
        METRICS, columns=["value", "low", "high", "split", "images", "n",
                          "note"])
    lines = []
    for metric, ours in rows.iterrows():
        its_split = str(ours["split"]).removesuffix(" test")
        if its_split == "r2gen" and ours["n"] != R2GEN_TEST:
            its_split = "a part of r2gen"
        printed, note = quoted[metric], ours["note"]
        word, why = verdict(
            printed, ours["value"], ours["low"], ours["high"],
            paper_split=split, split=its_split, images=ours["images"],
            command=note if isinstance(note, str) and note else command)
        is_comparable = word in VERDICTS[:2]
        if is_comparable and paper_split:
            why += f", taking the paper's split to be {paper_split}"
        gap = ours["value"] - printed if is_comparable else None
        lines.append((metric, protocol, split, printed, ours["value"], gap,
                      word, why))
    numbers = ["paper", "this run", "difference"]
    columns = ["metric", "protocol", "split", *numbers, "verdict", "why"]
    return pd.DataFrame(lines, columns=columns).astype(
        dict.fromkeys(numbers, float))


def quoted_rows() -> pd.DataFrame:
    """Table 3 as printed, with ``origin``, ``images``, and what is known of
    ``protocol``, ``split`` and ``n``."""
    quoted = published_results()
    return quoted.join(_terms(quoted["system"])).assign(
        origin="quoted", images="X-rays")
