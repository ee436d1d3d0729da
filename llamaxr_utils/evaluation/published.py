"""The paper's own numbers, and whether one was reproduced.

They come from ``data/published_results.csv`` and ``published_designs.csv``;
the answer is one of four words, by the rule of `verdict`.
"""

from __future__ import annotations

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
    """Table 1 of the paper as printed ("-" and the marks are the paper's),
    and two columns of ours: ``predictions public`` (generated test reports
    of IU X-ray) and ``split public`` (its study ids): "yes", else "not known
    to us", which is no claim that they are not."""
    return pd.read_csv(DATA / "published_designs.csv", keep_default_na=False)


def verdict(
    paper: float | None,
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    paper_protocol: str,
    protocol: str,
    paper_split: str,
    split: str,
    images: str,
    command: str,
    decimals: int = 3,
) -> tuple[str, str]:
    """One of `VERDICTS` on a number of the paper, and why.

    The first that holds: *not run*: there is no value of ours (`command`
    gives it); *not comparable*: the paper prints none, or ours is of
    phantoms, of another protocol or another split (a split that nobody
    published equals none), or has no interval; *reproduced*: the paper's
    number lies inside our 95 % interval, its ends rounded to the paper's
    `decimals`; *differs*: it does not.
    """
    if value is None or pd.isna(value):
        return "not run", command
    if paper is None or pd.isna(paper):
        return "not comparable", "the paper prints no number"
    if images == "phantom":
        return "not comparable", "drawings, not X-rays"
    if protocol != paper_protocol:
        return "not comparable", f"the paper's protocol is {paper_protocol}"
    if split != paper_split:
        return "not comparable", f"the paper's split: {paper_split}"
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return "not comparable", "no interval: a single study"
    ends = round(float(low), decimals), round(float(high), decimals)
    inside = ends[0] <= paper <= ends[1]
    words = f"[{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]"
    if inside:
        return "reproduced", f"{paper:.{decimals}f} lies inside {words}"
    return "differs", f"{paper:.{decimals}f} lies outside {words}"


def quoted_terms(systems: pd.Series) -> pd.DataFrame:
    """``protocol``, ``split`` and ``n`` behind rows of Table 3, as far as
    they are known; one row a system."""
    own, known = systems.eq("LLaMA-XR"), systems.isin(ON_R2GEN_SPLIT)
    split = known.map({True: "r2gen", False: "as published"})
    return pd.DataFrame(
        {
            "protocol": own.map({True: "llamaxr", False: "r2gen"}),
            "split": split.mask(own, "70/10/20, no list published"),
            "n": known.map({True: R2GEN_TEST, False: None}),
        }
    )


def compare_with_paper(
    summary: pd.DataFrame,
    system: str = "this run",
    paper: str = "LLaMA-XR",
    *,
    paper_split: str | None = None,
    command: str = "make course PROFILE=paper",
) -> pd.DataFrame:
    """Each number of a row of the paper's Table 3, and its `verdict`.

    `summary` is of `score.summarise`; `system` is set beside the row `paper`
    ("CvT-DistilGPT2" can be checked from predictions). `paper_split` takes
    the paper's split to be this one: one that was not published, as the
    paper's own, is comparable with none. Columns: ``metric``, ``protocol``
    and ``split`` (the paper's), ``paper``, ``this run``, ``difference``
    (missing unless comparable), ``verdict``, ``why``.
    """
    quoted = published_results().set_index("system")
    terms = quoted_terms(pd.Series([paper])).iloc[0]
    split = paper_split or str(terms["split"])
    same = summary[summary["system"].eq(system)
                   & summary["protocol"].eq(terms["protocol"])]
    same = same.set_index("metric")
    lines = []
    for metric in METRICS:
        printed = quoted.loc[paper, metric]
        ours = same.loc[metric] if metric in same.index else {}
        n, value, note = (ours.get(key) for key in ("n", "value", "note"))
        its_split = str(ours.get("split", "")).removesuffix(" test")
        if its_split == "r2gen" and n != R2GEN_TEST:
            its_split = f"{n} of r2gen's {R2GEN_TEST}"
        word, why = verdict(
            printed,
            value,
            ours.get("low"),
            ours.get("high"),
            paper_protocol=terms["protocol"],
            protocol=terms["protocol"],
            paper_split=split,
            split=its_split,
            images=str(ours.get("images", "")),
            command=note if isinstance(note, str) and note else command,
        )
        comparable = word in ("reproduced", "differs")
        if comparable and paper_split:
            why += f", taking the paper's split to be {paper_split}"
        gap = value - printed if comparable else None
        lines.append((metric, printed, value, gap, word, why))
    columns = ["metric", "paper", "this run", "difference", "verdict", "why"]
    table = pd.DataFrame(lines, columns=columns)
    table[columns[1:4]] = table[columns[1:4]].astype(float)
    table.insert(1, "protocol", terms["protocol"])
    table.insert(2, "split", split)
    return table


def table_3(summary: pd.DataFrame, run: str, note: str = "") -> pd.DataFrame:
    """The paper's Table 3, quoted, then every system of this run: ``system``,
    ``year``, ``origin`` (quoted / computed here), ``protocol``, ``split``,
    ``images``, ``n`` (missing where a paper does not say), the six metrics,
    and where they were computed here the ends of their 95 % intervals
    (``METEOR low`` ...)."""
    quoted = published_results().drop(columns="citation")
    quoted = quoted.join(quoted_terms(quoted["system"]))
    quoted["origin"], quoted["images"] = "quoted", "X-rays"
    keys = ["system", "protocol", "split", "images", "n"]
    wanted = summary[summary["metric"].isin(METRICS)]
    computed = wanted.pivot(
        index=keys, columns="metric", values=["value", "low", "high"]
    )
    computed.columns = [
        metric if kind == "value" else f"{metric} {kind}"
        for kind, metric in computed.columns
    ]
    computed = computed.reset_index()
    order = {s: i for i, s in enumerate(summary["system"].unique())}
    computed = computed.sort_values(
        ["protocol", "system"],
        key=lambda c: c.map(order) if c.name == "system" else c,
        ascending=[False, True],
    )
    computed["origin"] = "computed here"
    computed["system"] = computed["system"].where(
        ~computed["system"].str.startswith(run), computed["system"] + note
    )
    table = pd.concat([quoted, computed], ignore_index=True)
    table["year"] = table["year"].astype("Int64")
    table["n"] = table["n"].astype("Int64")
    ends = [f"{m} {end}" for m in METRICS for end in ("low", "high")]
    head = ["system", "year", "origin", *keys[1:], *METRICS]
    return table.reindex(columns=[*head, *ends])
