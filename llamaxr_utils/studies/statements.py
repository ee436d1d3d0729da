"""What the paper and its published notebook state, checked against data.

As `audit`, for statements instead of scores: each function takes data and
gives a `Measured`. "Notebook" is the authors' published one as saved; the
run behind the paper may have differed. The quotations are in `ledger`.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..datasets.conditions import CONDITIONS, NATIVE_ORDER
from ..datasets.mesh import labels
from ..evaluation.baselines import nearest_neighbour
from ..evaluation.findings import label_report
from ..evaluation.metrics import clean_author, score_reports
from ..evaluation.stats import paired_interval
from ..vision.score_quality import auc_table
from .audit import MOVED, Measured, difference

AS_SAVED = "The notebook as saved; the final run may have differed."
#: Rows in the log of the published notebook; studies a step.
LOGGED_ROWS, BATCH = 2780, 32


# --- d, e, g: the notebook's rows, training and cleaner ---------------------


def repeated_rows(
    vectors: pd.DataFrame,
    texts: pd.Series,
    copies: int = 3,
    n_scored: int = 200,
    seed: int = 0,
) -> Measured:
    """d: each study `copies` times in the table, then a split by row.

    Parameters
    ----------
    vectors : DataFrame, index study id, float
        Scores without NaN; the nearest training study's report is copied.
    texts : Series, index study id
    copies, n_scored, seed : int
        At most `n_scored` test studies are scored, under ``llamaxr``.
    """
    rng = np.random.default_rng(seed)
    ids, lines = vectors.index.to_numpy(), []
    tables = {f"{copies} times, by row": np.repeat(ids, copies)}
    for name, rows in (tables | {"once, by study": ids}).items():
        order = rng.permutation(rows)  # 70 / 7.5 / 22.5, as the notebook
        train = np.unique(order[: round(0.7 * len(order))])
        test = order[len(order) - math.ceil(0.225 * len(order)) :]
        share = np.isin(test, train).mean()
        test = rng.permutation(np.unique(test))[:n_scored]
        copied = nearest_neighbour(
            vectors.loc[train].to_numpy(),
            list(texts[train]),
            vectors.loc[test].to_numpy(),
        )
        scores = score_reports(list(texts[test]), copied)
        lines.append((name, share, *(scores[m] for m in MOVED)))
    columns = ["rows", "test rows with their study in train", *MOVED]
    table = pd.DataFrame(lines, columns=columns)
    leaky, clean = table.loc[0], table.loc[1]
    whole = LOGGED_ROWS % copies == 0
    verdict = (
        f"{leaky.iloc[1]:.0%} of the test rows then have their study in "
        f"training; the nearest training report scores METEOR "
        f"{leaky['METEOR']:.3f} instead of {clean['METEOR']:.3f}. The "
        f"{LOGGED_ROWS:,} rows of the saved log are "
        f"{'' if whole else 'not '}a multiple of {copies}."
    )
    answer = f"a split by row {'leaks' if leaky.iloc[1] else 'does not leak'}"
    effect = difference(leaky, clean)
    return Measured("d", answer, verdict, table, effect)


def rows_trained(
    rows: int, steps: int, epochs: int = 10, share: float = 0.7
) -> Measured:
    """e1: which rows the logged number of steps belongs to."""
    lines = [
        (name, n, epochs * math.ceil(n / BATCH))
        for name, n in {
            "all rows": rows,
            f"the training {share:.0%}": round(share * rows),
        }.items()
    ]
    table = pd.DataFrame(lines, columns=["trained on", "rows", "steps"])
    fits = table.loc[table["steps"] == steps, "trained on"].tolist()
    verdict = (
        f"{epochs} epochs in batches of {BATCH} give {lines[0][2]} steps on "
        f"all {rows:,} rows and {lines[1][2]} on the training part; the log "
        f"shows {steps}. {AS_SAVED}"
    )
    answer = f"the log fits {fits[0] if fits else 'neither'}"
    return Measured("e1", answer, verdict, table)


def shuffled_outputs(
    references: Sequence[str],
    systems: Mapping[str, Sequence[str]],
    n_samples: int = 1000,
    seed: int = 0,
) -> Measured:
    """e2: do the reports of a system belong to their studies?

    They are dealt out anew over the studies. A system that was given one
    prompt for all must score the same (paired bootstrap by study).

    Parameters
    ----------
    references : sequence of str, length n
    systems : mapping
        System -> n reports. The first one gives the effect.
    n_samples, seed : int
    """
    order = np.random.default_rng(seed).permutation(len(references))
    lines = []
    for name, generated in systems.items():
        own = score_reports(references, generated)["per_report"]
        dealt = [generated[i] for i in order]
        other = score_reports(references, dealt)["per_report"]
        gap = paired_interval(
            own[list(MOVED)].to_numpy(), other[list(MOVED)].to_numpy(),
            n_samples=n_samples, seed=seed,
        )
        tied = gap["low"][2] > 0
        lines.append(
            (name, len(set(generated)), own["METEOR"].mean(), *gap["value"],
             gap["low"][2], gap["high"][2], "yes" if tied else "no")
        )
    names = [f"{m}, own minus shuffled" for m in MOVED]
    columns = ["system", "distinct", "METEOR", *names, "low", "high", "tied"]
    table = pd.DataFrame(lines, columns=columns)
    loose = table.loc[table["tied"] == "no", "system"].tolist()
    answer = f"shuffling changes nothing for {', '.join(loose)}"
    if not loose:
        answer = "shuffling lowers every score"
    verdict = "METEOR, own minus shuffled: " + "; ".join(
        f"{row[0]} {row[5]:+.3f} [{row[6]:+.3f}, {row[7]:+.3f}]"
        for row in lines
    )
    effect = dict(zip(MOVED, table.loc[0, names].astype(float)))
    return Measured("e2", answer, f"{verdict}.", table, effect)


def lost_negations(
    texts: Sequence[str],
    clean: Callable[[str], str] = clean_author,
    effect: dict[str, float] | None = None,
) -> Measured:
    """g: findings that a report denies and its cleaned text reports.

    Labels are those of `findings.label_report`. For contrast the same
    cleaning of the texts with every "No" in lower case. `effect` is what the
    cleaning does to the scores (`audit.difference`).
    """
    lines: Counter[tuple[str, bool]] = Counter()
    flipped = {"No": [0, 0], "no": [0, 0]}  # findings, reports
    for text in texts:
        denied = [k for k, v in label_report(text).items() if v == "absent"]
        denied = [k for k in denied if k != "No Finding"]
        for word, counts in flipped.items():
            cleaned = label_report(clean(text.replace("No ", f"{word} ")))
            turned = [k for k in denied if cleaned.get(k) == "present"]
            counts[0] += len(turned)
            counts[1] += bool(turned)
            if word == "No":
                lines.update((k, k in turned) for k in denied)
    rows = [
        (k, lines[k, True] + lines[k, False], lines[k, True])
        for k in dict.fromkeys(k for k, _ in lines)
    ]
    table = pd.DataFrame(rows, columns=["finding", "denied", "then present"])
    table = table.sort_values("then present", ascending=False)[:8]
    findings, reports = flipped["No"]
    verdict = (
        f"{findings:,} of {sum(r[1] for r in rows):,} denied findings, in "
        f"{reports:,} of {len(texts):,} reports, read as present once the "
        f'text is cleaned. Had every "No" been "no": {flipped["no"][0]:,}.'
    )
    answer = f"the cleaner {'loses' if findings else 'keeps'} negations"
    table = table.reset_index(drop=True)
    return Measured("g", answer, verdict, table, effect or {})


# --- h, i: Figure 4 and the extractor ---------------------------------------


def score_order(
    printed: pd.DataFrame,
    spread: pd.DataFrame,
    n_orders: int = 5000,
    seed: int = 0,
) -> Measured:
    """h: in which order the printed scores stand.

    Parameters
    ----------
    printed : DataFrame
        One row a position, one column a view.
    spread : DataFrame
        ``condition``, ``mean``, ``std`` of real scores. The fit of an order
        is the log likelihood of independent normal distributions.
    n_orders, seed : int
        Random orders, to compare with.
    """
    at = spread.set_index("condition").loc[list(NATIVE_ORDER)]
    mean, std = at["mean"].to_numpy(), at["std"].to_numpy()
    values = printed[["first", "second"]].to_numpy(float).T

    def fit(order: np.ndarray) -> np.ndarray:
        z = (values - mean[order]) / std[order]
        return -(z**2 / 2 + np.log(std[order])).sum(axis=1)

    rng = np.random.default_rng(seed)
    native = fit(np.arange(len(mean)))
    named = fit(np.array([NATIVE_ORDER.index(c) for c in CONDITIONS]))
    other = [fit(rng.permutation(len(mean))).sum() for _ in range(n_orders)]
    orders = {"torchxrayvision's": native, "the alphabetical": named}
    table = pd.DataFrame(
        [
            (name, *found, np.mean(other >= found.sum()))
            for name, found in orders.items()
        ],
        columns=["order", "fit, first 18", "fit, last 18"]
        + ["random orders that fit as well"],
    )
    gap = float(native.sum() - named.sum())
    best = table.iloc[0 if gap > 0 else 1]
    verdict = (
        f"Both views together, torchxrayvision's order fits by {gap:+.1f} "
        f"against the one the prompt names (log likelihood); "
        f"{best.iloc[3]:.2%} of random orders fit as well as the better one."
    )
    answer = f"the numbers fit {best['order']} order"
    return Measured("h", answer, verdict, table)


def extractor(
    trained_on: str, image_scores: pd.DataFrame, studies: pd.DataFrame
) -> Measured:
    """i: has the extractor seen the test images, and what is it worth?

    Parameters
    ----------
    trained_on : str
        The extractor's own description of its training data.
    image_scores : DataFrame
        This run's scores; its backbone was trained on training studies.
    studies : DataFrame
        ``study_id``, ``mesh``, ``split``.
    """
    truth = studies.set_index("study_id")
    named = pd.DataFrame([labels(m) for m in truth["mesh"]], truth.index)
    parts = []
    for split in ("train", "test"):
        ids = truth.index[truth["split"] == split]
        part = image_scores[image_scores["study_id"].isin(ids)]
        found = auc_table(part, named.loc[ids]).query("view == 'frontal'")
        parts.append(found.set_index("condition")[["positives", "auc"]])
    table = pd.concat(parts, axis=1, keys=["train", "test"], join="inner")
    table.columns = [f"{name} {when}" for when, name in table.columns]
    counts = {c: int for c in table if c.startswith("positives")}
    table = table.rename_axis("condition").reset_index().astype(counts)
    means = table[["auc train", "auc test"]].mean()
    backbone = ", ".join(image_scores["backbone"].unique())
    seen = "openi" in trained_on.lower()
    verdict = f"Its training data: {trained_on}" + (
        ", so any IU X-ray study may be known to it. " if seen else ". "
    )
    verdict += (
        f"This run's own backbone ({backbone}) "
        f"has a mean AUC of {means.iloc[0]:.3f} on training studies and "
        f"{means.iloc[1]:.3f} on test studies ({len(table)} conditions)."
        if len(table)
        else "This run has too few studies to say what that is worth."
    )
    answer = f"the extractor has {'seen' if seen else 'not seen'} OpenI"
    return Measured("i", answer, verdict, table)


def released_extractor() -> str:
    """Data sets of densenet121-res224-all, as torchxrayvision describes it
    (read from its source text, so without torch)."""
    spec = importlib.util.find_spec("torchxrayvision")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "models.py").read_text("utf-8")
    block = text[text.index("model_urls['all']") :]
    found = re.search(r"trained on the datasets: (\S+)", block)
    return found[1] if found else "not described"
