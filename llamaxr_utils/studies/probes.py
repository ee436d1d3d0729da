"""Move the scores, keep the rest: writers, and how to probe them.

A *writer* is any function from the scores of some studies to their reports:
this run's model, a template, a system of your own. The probes change what it
is given; what its reports are worth is judged in `grounding`. Reports that
someone else's writer made are read from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..course.errors import CourseError
from ..datasets.conditions import CONDITIONS, FINDING_OF
from ..datasets.reports import load_studies
from ..evaluation.clinical import present
from ..evaluation.findings import label_report
from ..llm.generate import generate_reports
from ..llm.prompts import Scores, build_prompt

Writer = Callable[[Sequence[Scores]], list[str]]


# --- writers ----------------------------------------------------------------


def model_writer(
    model: Any,
    tokenizer: Any,
    score_format: str,
    operating_points: Mapping[str, float],
    known: Mapping[str, str] | None = None,
    progress: Callable[[], Any] | None = None,
    **settings: Any,
) -> Writer:
    """A language model as a writer: each prompt is decoded once.

    Parameters
    ----------
    model, tokenizer
        Of `finetune.load_adapter`.
    score_format, operating_points
        As in `prompts.build_prompt`.
    known : mapping, optional
        Prompt -> report that this model has written before.
    progress : callable, optional
        Makes a callback for each decoding (`plots.progress`).
    **settings
        Of `generate.generate_reports`, without sampling.
    """
    memory = dict(known or {})

    def write(scores: Sequence[Scores]) -> list[str]:
        asked = [
            build_prompt(one, score_format, operating_points)
            for one in scores
        ]
        new = [p for p in dict.fromkeys(asked) if p not in memory]
        if new:
            show = progress() if progress else None
            made = generate_reports(
                model, tokenizer, new, progress=show, **settings
            )
            memory.update(zip(new, made["generated"], strict=True))
        return [memory[prompt] for prompt in asked]

    return write


def constant_input(write: Writer, scores: Scores) -> Writer:
    """A bug, on purpose: every study is written from the same `scores`.

    The authors' published notebook formats a prompt for each study, throws
    it away, and gives the model one fixed prompt.
    """
    return lambda asked: write([scores] * len(asked))


# --- scores -----------------------------------------------------------------


def with_scores(
    scores: Scores, changes: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """A study's scores with some conditions set, in every view it has."""
    return {view: {**values, **changes} for view, values in scores.items()}


def other_status(status: Sequence[str], seed: int) -> np.ndarray:
    """For every study a donor: a normal one for an abnormal one, and back.

    Donors are used equally often, as far as the numbers allow. A study that
    is neither gets one of either kind and is nobody's donor.

    Parameters
    ----------
    status : sequence of str, length n
        "normal", "abnormal", or anything else.
    seed : int

    Returns
    -------
    ndarray of int, shape (n,)

    Raises
    ------
    CourseError
        If there are not both normal and abnormal studies.
    """
    kinds = np.array(list(status))
    sick, well = kinds == "abnormal", kinds == "normal"
    if not (sick.any() and well.any()):
        raise CourseError(
            "There is no study of another status to take scores from.",
            f"{sick.sum()} studies are abnormal and {well.sum()} normal.",
            "Take a sample with both.",
        )
    known = sick | well
    rng = np.random.default_rng(seed)
    donors = np.empty(len(kinds), dtype=int)
    for rows, pool in ((sick, well), (well, sick), (~known, known)):
        drawn = rng.permutation(np.flatnonzero(pool))
        donors[rows] = np.resize(drawn, rows.sum())
    return donors


def one_view(
    write: Writer, scores: Sequence[Scores], view: str
) -> list[str] | None:
    """Reports with the other view missing.

    None where the score format has no way to say so (the paper's).
    """
    try:
        return write([{view: s[view]} if view in s else {} for s in scores])
    except CourseError:
        return None


# --- dose and response ------------------------------------------------------


def dose_response(
    write: Writer,
    scores: Sequence[Scores],
    doses: Sequence[float],
    conditions: Sequence[str] = CONDITIONS,
) -> pd.DataFrame:
    """Sweep one condition's score, the rest as it is, and read the report.

    Parameters
    ----------
    write : Writer
    scores : sequence of Scores
        Of the sampled studies.
    doses : sequence of float
        The scores to set, in both views.
    conditions : sequence of str

    Returns
    -------
    DataFrame
        ``condition``, ``finding`` (the labeller's name), ``dose``, ``study``
        (position in `scores`), ``mentioned`` (bool: stated as present).
    """
    keys = [
        (condition, FINDING_OF[condition], float(dose), study)
        for condition in conditions
        for dose in doses
        for study in range(len(scores))
    ]
    # One call for all, so that a model can fill its batches.
    reports = write([with_scores(scores[i], {c: d}) for c, _, d, i in keys])
    columns = ["condition", "finding", "dose", "study"]
    table = pd.DataFrame(keys, columns=columns)
    table["mentioned"] = [
        key[1] in present(text)
        for key, text in zip(keys, reports, strict=True)
    ]
    return table


def monotonicity(dose: pd.DataFrame) -> pd.DataFrame:
    """How each condition's mention rate goes with its score.

    Parameters
    ----------
    dose : DataFrame
        Of `dose_response`.

    Returns
    -------
    DataFrame
        ``condition``, ``finding``; ``low``, ``high``, ``rise``: mention rate
        at the lowest and at the highest dose, and their difference; ``rho``:
        Spearman's, of dose and rate, NaN for a flat curve; ``falling``:
        share of the steps at which the rate falls. Steepest first.
    """
    rows = []
    keys = ["condition", "finding"]
    for names, part in dose.groupby(keys, sort=False):
        rate = part.groupby("dose")["mentioned"].mean()
        ranks = rate.rank().to_numpy()
        rho = np.nan
        if rate.nunique() > 1:
            rho = np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]
        low, high = rate.iloc[0], rate.iloc[-1]
        falling = float((np.diff(rate) < 0).mean())
        rows.append((*names, low, high, high - low, rho, falling))
    columns = [*keys, "low", "high", "rise", "rho", "falling"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.sort_values("rise", ascending=False, kind="stable")
    return table.reset_index(drop=True)


# --- what others have written -----------------------------------------------


def read_swapped(path: str | Path) -> pd.DataFrame:
    """Reports of any system under own and under shuffled scores.

    Parameters
    ----------
    path : path
        A CSV with ``id`` (or ``study_id``), ``generated`` and
        ``scores_from`` ("own" or "shuffled"), two rows a study.
        ``reference`` may be left out for IU X-ray ids; without ``status``
        the reference's own findings decide. Of an artifact ``generations``
        the rows of the model "tuned" are taken.

    Returns
    -------
    DataFrame
        ``id``, ``reference``, ``status``, ``own``, ``shuffled``.

    Raises
    ------
    CourseError
        No such file or column; a study that is not there once under each;
        no reference.
    """
    path = Path(path)
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        ).rename(columns={"study_id": "id"})
    except (OSError, ValueError) as error:
        raise CourseError(
            f"{path.name} could not be read as a CSV.",
            f"{type(error).__name__}: {str(error).splitlines()[0]}.",
            "Check the path; save it as UTF-8, commas between columns.",
        ) from error
    lacking = {"id", "generated", "scores_from"} - set(table.columns)
    if lacking:
        raise CourseError(
            f"{path.name} has no column {', '.join(sorted(lacking))}.",
            f"It has {', '.join(map(str, table.columns))}.",
            "Begin it with `id,generated,scores_from,reference`.",
        )
    if "model" in table and table["model"].eq("tuned").any():
        table = table[table["model"].eq("tuned")]
    own, shuffled = (
        table[table["scores_from"].eq(side)].set_index("id")
        for side in ("own", "shuffled")
    )
    unique = own.index.is_unique and shuffled.index.is_unique
    if not (len(own) and unique and set(own.index) == set(shuffled.index)):
        raise CourseError(
            f"{path.name} does not have each study once under own and once "
            "under shuffled scores.",
            f"{len(own)} rows are own, {len(shuffled)} are shuffled.",
            "Decode the same studies twice and fill `scores_from`.",
        )
    own = own.assign(own=own["generated"], shuffled=shuffled["generated"])
    if "reference" not in own:
        known = load_studies().set_index("study_id")["findings"]
        own["reference"] = known.reindex(own.index).fillna("")
    if own["reference"].str.strip().eq("").any():
        raise CourseError(
            f"{path.name}: a study has no reference report.",
            "Its findings are compared with those of the reference.",
            "Fill the column `reference`, or use ids like CXR3030.",
        )
    if "status" not in own:
        kind = {"present": "normal", "absent": "abnormal"}
        own["status"] = [
            kind.get(label_report(text).get("No Finding", ""), "")
            for text in own["reference"]
        ]
    columns = ["id", "reference", "status", "own", "shuffled"]
    return own.reset_index()[columns]
