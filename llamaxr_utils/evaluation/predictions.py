"""Files of generated reports, from anyone: read, checked, references found.

A CSV of ``id``, ``generated`` and perhaps ``reference`` becomes a table by
study; what is wrong with it is said before anything is scored. What the
texts are worth is not known here (`score`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..course.errors import CourseError
from ..datasets.reports import load_studies, normalise, r2gen_split
from .exchange import read_rexrank
from .metrics import plain

_ID = re.compile(r"(CXR\d+)(?:_IM-[\d-]+)?")


class Predictions(NamedTuple):
    """A file of predictions, read and checked."""

    name: str
    table: pd.DataFrame  #: study_id, generated, reference; one row a study
    split: str
    references: str  #: where they come from
    notes: list[str]


def read_predictions(
    path: str | Path, references: str | None = None
) -> Predictions:
    """A predictions file with its references.

    Parameters
    ----------
    path : path
        See `read_table`.
    references : {"column", "wheel"}, optional
        The file's own column, or the findings of the report archive by id;
        None: the column if there is one. Studies with an empty reference
        are left out, and counted in ``notes``.

    Returns
    -------
    Predictions
        ``split`` is "r2gen test" for all studies of that list ("part of
        test" for some), "mixed" or "not known".

    Raises
    ------
    CourseError
        As `read_table`; an id that is unknown where it is needed; no
        reference at all.
    """
    path = Path(path)
    table = read_table(path)
    if references is None:
        references = "column" if "reference" in table else "wheel"
    if references == "column" and "reference" not in table:
        raise _lacks(path, ["reference"], table)
    studies = load_studies().set_index("study_id")
    unknown = ~table["study_id"].isin(studies.index)
    if references == "wheel" and unknown.any():
        raise CourseError(
            f"{path.name}: {unknown.sum()} ids are not IU X-ray studies.",
            f"They are {_some(table.loc[unknown, 'study_id'])}; references "
            "are found by the id.",
            "Write ids like CXR3030 or CXR3030_IM-1405, or give a column "
            "`reference`.",
        )
    own = studies["findings"].reindex(table["study_id"]).fillna("")
    if references == "wheel":
        table["reference"] = own.to_numpy()
    notes = []
    empty = ~table["reference"].map(_says_something)
    if empty.all():
        raise CourseError(
            f"{path.name}: there is no reference to score against.",
            f"All {len(table)} references are empty.",
            "Check the ids, or fill the column `reference`.",
        )
    if empty.any():
        notes.append(f"{empty.sum()} studies left out: no reference text.")
    if unknown.any():
        notes.append(f"{unknown.sum()} ids are not IU X-ray studies.")
    pairs = zip(table["reference"], own, unknown, strict=True)
    other = sum(
        normalise(plain(a)) != normalise(b) for a, b, new in pairs if not new
    )
    if other:
        notes.append(
            f"{other} references are not the collection's findings (case "
            "and punctuation aside). Cleaning moves every score; "
            "--references wheel takes the findings."
        )
    kept = table.loc[~empty, ["study_id", "generated", "reference"]]
    kept = kept.reset_index(drop=True)
    silent = int((~kept["generated"].map(_says_something)).sum())
    if silent:
        notes.append(f"{silent} generated reports are empty and score 0.")
    return Predictions(
        path.name,
        kept,
        _split(kept["study_id"]),
        {"column": "column `reference`", "wheel": "findings"}[references],
        notes,
    )


def read_table(path: str | Path) -> pd.DataFrame:
    """The rows of a predictions file, one a study.

    Parameters
    ----------
    path : path
        A CSV with the columns ``id`` (``CXR3030``, ``CXR3030_IM-1405``) and
        ``generated``; an empty report is a report. Or ReXrank's ``.json``.

    Returns
    -------
    DataFrame
        All columns as text, and ``study_id``: ``CXR3030``, or the id as it
        is where it has another form.

    Raises
    ------
    CourseError
        Not a CSV, empty, a column or an id missing, a study twice.
    """
    path = Path(path)
    is_json = path.suffix == ".json"
    table = read_rexrank(path) if is_json else _read_csv(path)
    lacking = [c for c in ("id", "generated") if c not in table]
    if lacking:
        raise _lacks(path, lacking, table)
    if table.empty:
        raise CourseError(
            f"{path.name} holds no predictions.",
            "There is nothing below its first line.",
            "Write one line a study.",
        )
    ids = table["id"].str.strip()
    missing = ids.eq("")
    if missing.any():
        raise CourseError(
            f"{path.name}: {missing.sum()} rows have no id.",
            f"The first is row {int(missing.argmax()) + 1} of the data.",
            "Give every row the id of its study, like CXR3030.",
        )
    matched = [(_ID.fullmatch(i), i) for i in ids]
    table["study_id"] = [m[1] if m else i for m, i in matched]
    twice = table.loc[table["study_id"].duplicated(), "study_id"].unique()
    if len(twice):
        raise CourseError(
            f"{path.name}: {len(twice)} studies stand in it more than once.",
            f"They are {_some(twice)}.",
            "Keep one generated report a study.",
        )
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # pandas only warns where a comma without quotes costs it text.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
            )
    except FileNotFoundError as error:
        raise CourseError(
            f"{path.name} was not found.",
            f"There is no such file in {path.absolute().parent}.",
            "Check the path.",
        ) from error
    except pd.errors.EmptyDataError as error:
        raise CourseError(
            f"{path.name} is empty.",
            "It holds no line.",
            "Write a CSV with the columns `id` and `generated`.",
        ) from error
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        reason = " ".join(plain(str(error)).split()).rstrip(".")
        raise CourseError(
            f"{path.name} is not a CSV that can be read.",
            f"{reason or type(error).__name__}.",
            "Save it as CSV: UTF-8, commas between columns, texts that hold "
            "commas in double quotes.",
        ) from error
    table.columns = [str(column).strip() for column in table.columns]
    return table.fillna("")  # a row that ends early


def _lacks(path: Path, names: list[str], table: pd.DataFrame) -> CourseError:
    columns = [c for c in table if c != "study_id"]
    return CourseError(
        f"{path.name} has no column {' and no column '.join(names)}.",
        f"Its first line names {_some(columns)}.",
        "Begin it with the line `id,generated` (or `id,generated,reference`),"
        " separated by commas.",
    )


def _some(names: Iterable[str], most: int = 5) -> str:
    """A list for a message: short, and without control characters."""
    shown = [repr(plain(name)[:40]) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def _says_something(text: str) -> bool:
    """As in `metrics`: a text without a letter or digit is empty."""
    return any(c.isalnum() for c in text)


def _split(ids: pd.Series) -> str:
    """Which of R2Gen's lists the studies are."""
    lists = r2gen_split().set_index("study_id")["split"]
    found = set(ids.map(lists).fillna("none"))
    if len(found) > 1:
        return "mixed"
    name = found.pop()
    if name == "none":
        return "not known"
    whole = len(ids) == int((lists == name).sum())
    return f"r2gen {name}" if whole else f"part of {name}"
