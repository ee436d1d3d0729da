"""What designs are compared on: a run's studies, baselines, and the rows.

Takes reports and gives numbers; it trains and decodes nothing (`designs`).
The limits of `judge` are the project's own goals, no standard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..course import artifacts, files
from ..datasets import mesh
from ..datasets.conditions import CONDITIONS, VIEWS
from ..evaluation import baselines, metrics, stats
from ..evaluation.clinical import true_scores
from ..evaluation.findings import label_report
from ..llm import generate, prompts, soft_tokens
from ..vision import backbones
from .grounding import GAP, swap_test

#: Numbers of a row that are averaged over seeds.
AVERAGED = (
    "f1", "gap", "bleu4", "rouge_l", "cider", "bleu4_over_nn",
    "cider_over_nn", "distinct", "normal_called", "abnormal_called", "tokens",
    "base_seconds", "train_seconds", "decode_seconds",
)  # fmt: skip


class Data(NamedTuple):
    """A finished run, as `load_data` found it."""

    folder: Path  #: the run
    images: str
    base_name: str
    studies: pd.DataFrame  #: those of a split; a few may have no scores
    scores: Mapping[str, prompts.Scores]
    test: pd.DataFrame  #: the test studies, with both views
    neighbours: list[str]  #: their nearest neighbours' reports
    scratch: Path  #: bases, embeddings, unfinished work
    base: Path | None  #: one base for all designs; None: each its own
    n_train: int  #: training studies an adapter sees (and a quarter as
    #: many for its validation); 0: all


def load_data(
    folder: Path,
    scratch: Path,
    base: Path | None = None,
    n_test: int = 0,
    n_train: int = 0,
    seed: int = 3407,
) -> Data:
    """Studies, scores and nearest neighbours of a run (notebooks 01-03).

    Parameters
    ----------
    folder, scratch : Path
        The run; where bases and unfinished work are kept.
    base : Path, optional
        Take this base for all designs instead of pre-training.
    n_test, n_train : int
        Size of seeded samples of the test studies and of those that an
        adapter is trained on; 0: all.
    seed : int
        Of the test sample.
    """
    table = artifacts.load(folder, "image_scores")
    scores = prompts.by_study(table)
    studies = artifacts.load(folder, "studies").query("split != 'none'")
    whole = table.dropna(subset=list(CONDITIONS)).groupby("study_id").size()
    n_views = studies["study_id"].map(whole).fillna(0)
    test = studies[studies["split"].eq("test") & n_views.eq(len(VIEWS))]
    if n_test:
        test = test.sample(min(n_test, len(test)), random_state=seed)
    train = studies[studies["split"].eq("train") & n_views.gt(0)]
    vectors = [
        np.array([prompts.both_views(scores[s]) for s in part["study_id"]])
        for part in (train, test)
    ]
    near = baselines.nearest_neighbour(
        vectors[0], list(train["findings"]), vectors[1]
    )
    made = [artifacts.manifest(folder, name) or {"parameters": {}}
            for name in ("image_scores", "tokenizer")]
    images, base_name = (one["parameters"].get(knob, "") for one, knob
                         in zip(made, ("images", "BASE"), strict=True))
    return Data(folder, images, base_name, studies, scores, test, near,
                scratch, base, n_train)  # fmt: skip


def points_of(data: Data, beta: float) -> dict[str, float]:
    """Operating points against the training studies' MeSH labels."""
    known = data.studies.query("split == 'train' and status != 'not indexed'")
    truth = dict(zip(known["study_id"], known["mesh"].map(mesh.labels)))
    table = prompts.operating_points(data.scores, truth, beta)
    return dict(zip(table["condition"], table["operating_point"]))


def embeddings_of(data: Data) -> pd.DataFrame:
    """`soft_tokens.study_embeddings` of the run, kept in the scratch."""
    folder = artifacts.load(data.folder, "backbone")
    file = data.scratch / f"embeddings-{files.sha256(folder)[:16]}.parquet"
    if not file.is_file():
        views = artifacts.load(data.folder, "views")
        views = views[views["study_id"].isin(data.studies["study_id"])]
        made = soft_tokens.study_embeddings(backbones.load(folder), views)
        made = made.rename(columns=str)
        files.write_whole(file, lambda part: made.to_parquet(part))
    return pd.read_parquet(file)


# --- one row ----------------------------------------------------------------


def head(name: str, data: Data, seed: int) -> dict[str, Any]:
    """The first columns of a row: what it is of."""
    backbone = artifacts.load(data.folder, "image_scores")["backbone"].iloc[0]
    return {"design": name, "images": data.images, "backbone": backbone,
            "seed": seed}


def measure(
    data: Data, texts: Sequence[str], n_samples: int = 1000
) -> dict[str, float]:
    """Numbers about the reports of ``data.test``.

    Parameters
    ----------
    data : Data
    texts : sequence of str
        A report a test study.
    n_samples : int
        Of the bootstraps by study.

    Returns
    -------
    dict
        ``n``; ``f1``, ``f1_shuffled``, ``gap`` with ``gap_low`` and
        ``gap_high`` (findings of the 18 conditions; a study's report against
        another's, `grounding.swap_test`); ``bleu4``, ``rouge_l``, ``cider``
        (r2gen); ``bleu4_over_nn``, ``cider_over_nn``, each with ``_low`` and
        ``_high``: minus the nearest neighbour on the same scores, paired by
        study; ``distinct`` reports, and those of abnormal studies;
        ``normal_called``, ``abnormal_called``: share of the normal studies,
        and of the abnormal ones with one of the 18 conditions, whose report
        is abnormal.
    """
    truth, texts = list(data.test["findings"]), list(texts)
    donors = generate.swap(len(truth), 3407)
    tests = swap_test(
        truth, texts, [texts[i] for i in donors], n_samples=n_samples
    )
    found = {row["measure"]: row for row in tests}
    kind = data.test["status"].to_numpy()
    has = [any(mesh.labels(m).values()) for m in data.test["mesh"]]
    sick = (kind == "abnormal") & np.array(has)
    called = np.array(
        [label_report(t).get("No Finding") == "absent" for t in texts]
    )
    scored = metrics.score_reports(truth, texts, "r2gen")
    nearest = _nearest(tuple(truth), tuple(data.neighbours))
    row: dict[str, float] = {
        "n": len(truth),
        "f1": found["findings F1, own"]["value"],
        "f1_shuffled": found["findings F1, shuffled"]["value"],
        "gap": found[GAP]["value"],
        "gap_low": found[GAP]["low"],
        "gap_high": found[GAP]["high"],
        "bleu4": scored["BLEU-4"],
        "rouge_l": scored["ROUGE-L"],
        "cider": scored["CIDEr"],
    }
    ours, function, names = stats.metric_statistics(scored)
    theirs, _, _ = stats.metric_statistics(nearest)
    over = stats.paired_interval(ours, theirs, function, n_samples=n_samples)
    for key, name in (("bleu4", "BLEU-4"), ("cider", "CIDEr")):
        ends = {"": "value", "_low": "low", "_high": "high"}
        row |= {f"{key}_over_nn{end}": float(over[which][names.index(name)])
                for end, which in ends.items()}
    said = np.array(texts, dtype=object)
    return row | {
        "distinct": len(set(texts)),
        "distinct_abnormal": len(set(said[kind == "abnormal"])),
        "normal_called": _share(called[kind == "normal"]),
        "abnormal_called": _share(called[sick]),
    }


@lru_cache(maxsize=2)
def _nearest(truth: tuple[str, ...], texts: tuple[str, ...]) -> dict:
    return metrics.score_reports(truth, texts, "r2gen")


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def baseline_rows(data: Data, n_samples: int = 1000) -> pd.DataFrame:
    """The same numbers for writers that learn no language: the nearest
    neighbour, and the template on the same scores and on true labels."""

    def template(beta: float) -> list[str]:
        points = points_of(data, beta)
        named = [prompts.names_above(data.scores[s], points) or []
                 for s in data.test["study_id"]]
        return [baselines.template_report(names) for names in named]

    half = dict.fromkeys(CONDITIONS, 0.5)
    truth = [prompts.names_above(true_scores(mesh.labels(m)), half) or []
             for m in data.test["mesh"]]
    texts = {
        "nearest neighbour": data.neighbours,
        "template, F1 points": template(1.0),
        "template, F2 points": template(2.0),
        "template, true labels": [*map(baselines.template_report, truth)],
    }
    return pd.DataFrame(
        [head(name, data, 0) | measure(data, made, n_samples)
         for name, made in texts.items()]
    )  # fmt: skip


# --- a log of rows ----------------------------------------------------------


def over_seeds(log: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, with Student's 95 % interval for the gap.

    Parameters
    ----------
    log : DataFrame
        Of `design_runs.run_design`: one a design, kind of images and seed.

    Returns
    -------
    DataFrame
        ``design``, ``images``, ``seeds``, the means of `AVERAGED`,
        ``gap_from`` and ``gap_to`` over seeds (NaN of one seed),
        ``gap_low``: the lowest end of the seeds' own intervals by study,
        ``bleu4_over_nn_high``, ``cider_over_nn_high``: means. Best gap
        first.
    """
    from scipy.stats import t

    keys = ["design", "images"]
    extra = ["gap_low", "bleu4_over_nn_high", "cider_over_nn_high"]
    log = log.reindex(columns=[*keys, *AVERAGED, *extra])
    groups = log.groupby(keys, sort=False)
    table = groups[list(AVERAGED)].mean()
    n, spread = groups.size(), groups["gap"].std(ddof=1)
    half = t.ppf(0.975, np.maximum(n - 1, 1)) * spread / np.sqrt(n)
    table.insert(0, "seeds", n)
    table["gap_from"], table["gap_to"] = (
        table["gap"] - half, table["gap"] + half
    )  # fmt: skip
    table["gap_low"] = groups["gap_low"].min()
    for column in extra[1:]:
        table[column] = groups[column].mean()
    order = {"by": "gap", "ascending": False, "kind": "stable"}
    return table.reset_index().sort_values(**order).reset_index(drop=True)


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """The goals, one column each, for rows of `over_seeds`.

    Returns
    -------
    DataFrame
        ``design``, ``images`` and, as bool: ``gap`` at least .10 with every
        interval above 0; ``abnormal``: at least 60 % called so; ``normal``:
        at most 20 %; ``bleu4``, ``cider`` not below the nearest neighbour
        (its paired interval reaches 0); ``reached``: how many. Most first,
        then the larger gap.
    """
    goals = pd.DataFrame({
        "gap": table["gap"].ge(0.10) & table["gap_low"].gt(0),
        "abnormal": table["abnormal_called"].ge(0.60),
        "normal": table["normal_called"].le(0.20),
        "bleu4": table["bleu4_over_nn_high"].ge(0),
        "cider": table["cider_over_nn_high"].ge(0),
    })  # fmt: skip
    goals["reached"] = goals.sum(axis=1)
    goals = pd.concat([table[["design", "images"]], goals], axis=1)
    size = table["gap"].where(table["gap"].notna(), -1)
    order = np.lexsort((-size, -goals["reached"]))
    return goals.iloc[order].reset_index(drop=True)


def recommend(goals: pd.DataFrame, about: Mapping[str, str]) -> str:
    """The first design of `judge` in a sentence; `about`: what it changes."""
    if goals.empty:
        return "The log has no design for these images: nothing to recommend."
    first = goals.iloc[0]
    reached = int(first["reached"])
    text = f"By these numbers: {first['design']}, {reached} of 5 goals"
    return f"{text} ({about.get(first['design'], 'not in the table')})."
