"""A blinded reader study of two systems: sheet, key, answers, agreement.

The sheet is one HTML file that works offline: studies in random order, the
two reports as A and B, at random which is which; the key lies in another
file. What readers answer comes back as a CSV. How many readers and studies a
question needs is not decided here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..course.files import write_whole
from ..course.run import WARNING
from .findings import FINDINGS, label_report
from .stats import N_SAMPLES, SEED, bootstrap_corpus

#: What a reader can tick beside a finding: one of the first three, and the
#: last with any.
TICKS = ("correct", "missed", "added", "harmful")
PREFERENCES = ("A", "B", "none")
PAGE = Path(__file__).parents[1] / "data" / "review.html"


def write_review(
    studies: pd.DataFrame,
    folder: str | Path,
    systems: tuple[str, str],
    seed: int = SEED,
) -> tuple[Path, Path]:
    """The sheet for the readers and the key for the one who asks.

    Parameters
    ----------
    studies : DataFrame
        ``study_id``, ``reference``, ``first``, ``second``: the reports of
        the two systems.
    folder : path
        Gets ``review.html`` and, to be kept apart, ``key.csv``.
    systems : (str, str)
        Names of the two; they stand in the key alone.
    seed : int
        Of the order of studies and of who is A.

    Returns
    -------
    (Path, Path)
        Sheet and key (``sheet``, ``study_id``, ``A``, ``B``).

    Raises
    ------
    CourseError
        A column is missing, a study stands twice, the names are equal.
    """
    need = ["study_id", "reference", "first", "second"]
    lacking = [c for c in need if c not in studies]
    if lacking or studies.empty or studies["study_id"].duplicated().any():
        raise CourseError(
            "These studies can't be reviewed.",
            f"Missing: {', '.join(lacking) or 'nothing'}; {len(studies)} "
            "rows, each study once.",
            f"Give a table with the columns {', '.join(need)}.",
        )
    if len(set(systems)) < 2:
        raise CourseError(
            f"Both systems are called {systems[0]!r}.",
            "The key could not say who is who.",
            "Give two names.",
        )
    rng = np.random.default_rng(seed)
    shuffled = studies.iloc[rng.permutation(len(studies))]
    swapped = rng.permutation(len(studies)) % 2  # each is A half of the time
    mixed = hashlib.sha256(f"{seed}{studies.to_json()}".encode()).hexdigest()
    sheet, cases, keys = mixed[:12], [], []
    for row, swap in zip(shuffled.to_dict("records"), swapped, strict=True):
        order = ("second", "first") if swap else ("first", "second")
        texts = [str(row[c]) for c in ("reference", *order)]
        mentioned = {f for text in texts for f in label_report(text)}
        cases.append(
            {
                "id": str(row["study_id"]),
                "reference": texts[0],
                "A": texts[1],
                "B": texts[2],
                "findings": [f for f in FINDINGS[1:] if f in mentioned]
                + ["something else"],
            }
        )
        names = systems[::-1] if swap else systems
        keys.append((sheet, str(row["study_id"]), *names))
    content = {"sheet": sheet, "ticks": TICKS, "cases": cases}
    # "</script>" in a report must not end the script.
    text = json.dumps(content).replace("<", "\\u003c")
    page = PAGE.read_text("utf-8").replace("WARNING", escape(WARNING), 1)
    page = page.replace("CONTENT", text, 1)
    folder = Path(folder)
    paths = folder / "review.html", folder / "key.csv"
    key = pd.DataFrame(keys, columns=["sheet", "study_id", "A", "B"])
    write_whole(paths[0], lambda part: part.write_text(page, "utf-8"))
    write_whole(paths[1], lambda part: key.to_csv(part, index=False))
    return paths


def read_review(answers: str | Path, key: str | Path) -> pd.DataFrame:
    """A reader's answers with the systems' names.

    Parameters
    ----------
    answers : path
        The CSV that the sheet saves.
    key : path
        The ``key.csv`` that was written with the sheet.

    Returns
    -------
    DataFrame
        ``sheet``, ``reader``, ``study_id``, ``system`` (a name of the key;
        "" for a question about both), ``question`` (a finding, "preference"
        or "comment"), ``answer``: "correct", "missed", "added" or "",
        with " harmful" where it was ticked; a system's name or "none"; text.
        Only studies with a preference count as read.

    Raises
    ------
    CourseError
        Another sheet's key or answers, or a file of another form.
    """
    try:
        table, who = (
            pd.read_csv(path, dtype=str, keep_default_na=False)
            for path in (answers, key)
        )
        names = who.set_index("study_id")[["A", "B"]].to_dict("index")
        items = table[["study_id", "system", "question"]]
        sheets = {*table["sheet"], *who["sheet"]}
        fits = len(sheets) == 1 and {*items["study_id"]} <= {*names}
        reason = f"Sheets: {', '.join(sorted(sheets))}"
        if fits and items.duplicated().any():
            fits, reason = False, "An item was answered twice"
    except (OSError, ValueError, KeyError) as error:
        fits, reason = False, f"{type(error).__name__}: {error}"
    if not fits:
        raise CourseError(
            f"{Path(answers).name} does not go with {Path(key).name}.",
            f"{reason}.",
            "Give the CSV that the sheet saved, one reader's, and the key "
            "that was written with the sheet.",
        )

    def name(study: str, letter: str) -> str:
        return names[study].get(letter, letter)

    done = table.loc[table["question"].eq("preference")
                     & table["answer"].isin(PREFERENCES), "study_id"]
    table = table[table["study_id"].isin(done)].reset_index(drop=True)
    table["system"] = list(map(name, table["study_id"], table["system"]))
    asked = table["question"].eq("preference")
    table.loc[asked, "answer"] = list(
        map(name, table.loc[asked, "study_id"], table.loc[asked, "answer"])
    )
    return table


def counts(review: pd.DataFrame) -> pd.DataFrame:
    """How often each of `TICKS` was given: a row a system and finding."""
    ticked = review[review["system"].ne("")]
    columns = {tick: ticked["answer"].str.contains(tick) for tick in TICKS}
    table = pd.DataFrame(columns).astype(int)
    groups = [ticked["system"], ticked["question"].rename("finding")]
    return table.groupby(groups).sum().reset_index()


def kappa_of_counts(totals: np.ndarray) -> np.ndarray:
    """Cohen's kappa of confusion counts, shape (..., k * k) -> (...); NaN
    where chance alone would agree always."""
    k = round(np.shape(totals)[-1] ** 0.5)
    table = np.asarray(totals, float).reshape(*np.shape(totals)[:-1], k, k)
    n = table.sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.trace(table, axis1=-2, axis2=-1) / n
        chance = (table.sum(-1) * table.sum(-2)).sum(-1) / n**2
        return (seen - chance) / (1 - chance)


def agreement(
    one: pd.DataFrame,
    other: pd.DataFrame,
    about: str = "findings",
    n_samples: int = N_SAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Cohen's kappa of two readers (Cohen 1960), with its interval.

    Parameters
    ----------
    one, other : DataFrame
        Of `read_review`; studies that both have read are compared.
    about : {"findings", "harmful", "preference"}
        Every finding of both systems as correct, missed, added or blank;
        whether it was called harmful; which system was preferred.
    n_samples, seed : int
        Of the bootstrap, which draws studies: the findings of a study are
        not independent.

    Returns
    -------
    dict
        ``value``, ``low``, ``high`` and more (`stats.bootstrap_corpus`, n
        studies); ``items``; ``agree``, the share of equal answers.

    Raises
    ------
    CourseError
        No study in common, or an unknown `about`.
    """
    pairs = _items(one, about).to_frame("one").join(
        _items(other, about).rename("other"), how="inner"
    )
    if pairs.empty:
        raise CourseError(
            "The two readers have no study in common.",
            "Agreement is about the same items.",
            "Let both read the same sheet to the end.",
        )
    words = sorted({*pairs["one"], *pairs["other"]})
    cell = len(words) * pairs["one"].map(words.index)
    cell += pairs["other"].map(words.index)
    tables = pd.crosstab(pairs.index.get_level_values("study_id"), cell)
    tables = tables.reindex(columns=range(len(words) ** 2), fill_value=0)
    found = bootstrap_corpus(
        tables.to_numpy(), kappa_of_counts, n_samples=n_samples, seed=seed
    )
    same = float((pairs["one"] == pairs["other"]).mean())
    return {**found, "items": len(pairs), "agree": same}


def _items(review: pd.DataFrame, about: str) -> pd.Series:
    """Answers by study, system and question."""
    if about not in ("findings", "harmful", "preference"):
        raise CourseError(
            f"about = {about!r} is not known.",
            "Readers answer on findings, harm and preference.",
            'Use "findings", "harmful" or "preference".',
        )
    about_both = about == "preference"
    both = review["question"].eq("preference")
    part = review[both if about_both else review["system"].ne("")]
    answers = part.set_index(["study_id", "system", "question"])["answer"]
    if about == "harmful":
        return answers.str.contains("harmful").map({True: "yes", False: "no"})
    return answers.str.replace("harmful", "").str.strip()


def preference_test(
    reviews: Sequence[pd.DataFrame], systems: tuple[str, str]
) -> dict[str, Any]:
    """Which system is preferred: an exact sign test over studies.

    Parameters
    ----------
    reviews : sequence of DataFrame
        Of `read_review`, one a reader. A study goes to the system that more
        of its readers preferred; equal votes are a tie.
    systems : (str, str)

    Returns
    -------
    dict
        Studies for the first and the second (by name), ``tie``; ``share``
        of the first among those not tied, with ``low`` and ``high`` (exact
        95 % interval, Clopper and Pearson 1934) and two-sided ``p`` of the
        binomial test (ties left out). NaN where all are ties.

    Raises
    ------
    CourseError
        If nobody has read a study, or names of others stand in a review.
    """
    from scipy.stats import binomtest

    said = pd.concat(reviews)
    said = said[said["question"].eq("preference")]
    strange = {*said["answer"]} - {*systems, "none"}
    if said.empty or strange:
        raise CourseError(
            "These reviews say nothing about the two systems.",
            f"Other names: {', '.join(sorted(strange)) or 'none'}; "
            f"{len(said)} preferences.",
            "Name the systems as in the key.",
        )
    votes = said["answer"].map({systems[0]: 1, systems[1]: -1, "none": 0})
    by_study = np.sign(votes.groupby(said["study_id"]).sum())
    first, second = int((by_study == 1).sum()), int((by_study == -1).sum())
    result = {systems[0]: first, systems[1]: second,
              "tie": int((by_study == 0).sum())}
    if not first + second:
        nan = float("nan")
        return {**result, "share": nan, "low": nan, "high": nan, "p": nan}
    test = binomtest(first, first + second)
    ends = test.proportion_ci(0.95, method="exact")
    return {
        **result,
        "share": first / (first + second),
        "low": float(ends.low),
        "high": float(ends.high),
        "p": float(test.pvalue),
    }
