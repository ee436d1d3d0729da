"""Files of generated reports, from anyone: read, checked, references found.

A CSV of ``id``, ``generated`` and perhaps ``reference``, or the JSON of the
ReXrank leaderboard, becomes a table by study; what is wrong with it is said
before anything is scored. What the texts are worth, `score` says.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..course.errors import CourseError
from ..course.files import write_json
from ..datasets.reports import load_studies, normalise, r2gen_split
from .metrics import plain

_ID = re.compile(r"(CXR\d+)(?:_IM-[\d-]+)?")
FORM = (
    "Give a CSV: UTF-8, the first line `id,generated` (or "
    "`id,generated,reference`), one line a study (CXR3030), texts that hold "
    "commas in double quotes. Or ReXrank's JSON with `model_prediction`."
)
#: Fields of ReXrank's cases that travel along unread.
ALONG = ("image_path", "key_image_path", "frontal_lateral", "context", "split")


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
    """
    path = Path(path)
    table = read_table(path)
    references = references or ("column" if "reference" in table else "wheel")
    check(path, references == "column" and "reference" not in table,
           "has no column reference", "The references are to be its own.")
    studies = load_studies().set_index("study_id")
    unknown = ~table["study_id"].isin(studies.index)
    check(path, references == "wheel" and unknown.any(),
           f"has {unknown.sum()} ids that are not IU X-ray studies",
           f"{some(table.loc[unknown, 'study_id'])}: references are found "
           "by the id, or stand in a column `reference`.")
    findings = studies["findings"].reindex(table["study_id"]).fillna("")
    if references == "wheel":
        table["reference"] = findings.to_numpy()
    empty = ~table["reference"].map(_says_something)
    check(path, empty.all(), "has no reference to score against",
           f"All {len(table)} references are empty.")
    pairs = zip(table["reference"], findings, unknown, strict=True)
    other = sum(
        normalise(plain(a)) != normalise(b) for a, b, new in pairs if not new
    )
    kept = table.loc[~empty, ["study_id", "generated", "reference"]]
    silent = (~kept["generated"].map(_says_something)).sum()
    notes = {
        f"{empty.sum()} studies left out: no reference text.": empty.any(),
        f"{unknown.sum()} ids are not IU X-ray studies.": unknown.any(),
        f"{other} references are not the collection's findings (case and "
        "punctuation aside). Cleaning moves every score; --references wheel "
        "takes the findings.": other,
        f"{silent} generated reports are empty and score 0.": silent,
    }
    return Predictions(
        path.name,
        kept.reset_index(drop=True),
        _split(kept["study_id"]),
        {"column": "column `reference`", "wheel": "findings"}[references],
        [note for note, holds in notes.items() if holds],
    )


def read_table(path: str | Path) -> pd.DataFrame:
    """The rows of a predictions file, one a study.

    Parameters
    ----------
    path : path
        A CSV with the columns ``id`` (``CXR3030``, ``CXR3030_IM-1405``) and
        ``generated``; an empty report is a report. Or ReXrank's ``.json``:
        case id -> ``model_prediction``, ``section_findings``,
        ``section_impression`` and more
        (https://github.com/rajpurkarlab/ReXrank); of its prediction what
        stands before an "Impression:" is compared with the findings.

    Returns
    -------
    DataFrame
        All columns, texts as str, and ``study_id``: ``CXR3030``, or the id
        as it is where it has another form.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            cases = json.loads(path.read_text("utf-8-sig"))
            table = pd.DataFrame([_case(*item) for item in cases.items()])
        else:
            table = _read_csv(path)
    except (OSError, ValueError, AttributeError, TypeError,
            pd.errors.ParserWarning) as error:  # fmt: skip
        reason = " ".join(plain(str(error)).split()).rstrip(".")
        raise CourseError(
            f"{path.name} was not found or can't be read.",
            f"{type(error).__name__}: {reason}.",
            FORM,
        ) from error
    lacking = [c for c in ("id", "generated") if c not in table]
    check(path, lacking, f"has no column {' and no column '.join(lacking)}",
           f"It has {some(table.columns)}.")
    check(path, table.empty, "holds no predictions", "It has no rows.")
    silent = table["generated"].isna().sum()
    check(path, silent, f"has {silent} cases without `model_prediction`",
           "ReXrank's data files hold references only.")
    ids = table["id"].str.strip()
    check(path, ids.eq("").any(), f"has {ids.eq('').sum()} rows without id",
           f"The first is row {int(ids.eq('').argmax()) + 1} of the data.")
    matched = [(_ID.fullmatch(i), i) for i in ids]
    table["study_id"] = [m[1] if m else i for m, i in matched]
    twice = table.loc[table["study_id"].duplicated(), "study_id"].unique()
    check(path, len(twice), f"has {len(twice)} studies more than once",
           f"{some(twice)}.")
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        # pandas only warns where a comma without quotes costs it text.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(path, dtype=str, keep_default_na=False,
                            encoding="utf-8-sig", index_col=False)
    table.columns = [str(column).strip() for column in table.columns]
    return table.fillna("")  # a row that ends early


def _case(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """A case of ReXrank's JSON (its older example writes ``findings`` for
    ``section_findings``) as a row."""
    findings, impression = (
        _text(case.get(f"section_{s}", case.get(s)))
        for s in ("findings", "impression")
    )
    generated = case.get("model_prediction")
    if generated is not None:
        cut = re.split(r"(?i)\bimpression\s*:", _text(generated))[0]
        generated = re.sub(r"(?i)^\s*findings\s*:", "", cut).strip()
    return {
        "id": name,
        "reference": findings,
        "generated": generated,
        "impression": impression,
        **{key: case[key] for key in ALONG if key in case},
    }


def write_rexrank(table: pd.DataFrame, path: str | Path) -> None:
    """Predictions into ReXrank's JSON: ``id`` or ``study_id`` (each once),
    ``generated``, ``reference``; ``impression`` and `ALONG` if there."""
    ids = table["id" if "id" in table else "study_id"]
    if ids.duplicated().any():
        raise ValueError("a case stands twice: the ids are the JSON's keys")
    cases = {}
    for name, row in zip(ids, table.to_dict("records"), strict=True):
        findings = _text(row["reference"])
        impression = _text(row.get("impression"))
        cases[str(name)] = {
            "report": f"Findings: {findings} Impression: {impression}",
            "section_findings": findings,
            "section_impression": impression,
            **{key: row[key] for key in ALONG if key in row},
            "model_prediction": row["generated"],
        }
    write_json(Path(path), cases)


def check(path: Path, wrong: Any, what: str, why: str) -> None:
    """Refuse a file of predictions."""
    if wrong:
        raise CourseError(f"{path.name} {what}.", why, FORM)


def some(names: Iterable[str], most: int = 5) -> str:
    """A list for a message: short, and without control characters."""
    shown = [repr(plain(name)[:40]) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def _text(value: Any) -> str:
    """A section; null and NaN are no text."""
    return value.strip() if isinstance(value, str) else ""


def _says_something(text: str) -> bool:
    """As in `metrics`: a text without a letter or digit is empty."""
    return any(c.isalnum() for c in text)


def _split(ids: pd.Series) -> str:
    """Which of R2Gen's lists the studies are."""
    lists = r2gen_split().set_index("study_id")["split"]
    names = set(ids.map(lists).fillna("none"))
    if len(names) > 1:
        return "mixed"
    name = names.pop()
    if name == "none":
        return "not known"
    whole = len(ids) == int((lists == name).sum())
    return f"r2gen {name}" if whole else f"part of {name}"
