"""Predictions in the JSON of the ReXrank leaderboard, in and out.

The form in which other people's systems can be scored here, and ours there.
Nothing is downloaded, and no text is changed beyond cutting it into its
sections.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from ..course.errors import CourseError
from ..course.files import write_json

#: ReXrank's field -> our column, for what travels along unread.
ALONG = {
    "image_path": "image_path",
    "key_image_path": "key_image_path",
    "frontal_lateral": "frontal_lateral",
    "context": "context",
    "split": "split",
}


def read_rexrank(path: str | Path, part: str = "findings") -> pd.DataFrame:
    """Predictions in ReXrank's JSON.

    A case id -> ``model_prediction``, ``section_findings``,
    ``section_impression`` and more, as in the leaderboard's data files and
    its evaluation script (https://github.com/rajpurkarlab/ReXrank; its older
    example writes ``findings`` and ``impression``).

    Parameters
    ----------
    path : path
    part : {"findings", "report"}
        What is compared: the findings section, and of the prediction what
        stands before an "Impression:"; or both sections, as ReXrank does.

    Returns
    -------
    DataFrame
        ``id``, ``reference``, ``generated``, ``findings``, ``impression``,
        and of `ALONG` what the file has. Missing texts are "".

    Raises
    ------
    CourseError
        Not such a JSON, a case without a prediction, an unknown `part`.
    """
    if part not in ("findings", "report"):
        raise CourseError(
            f"part = {part!r} is not known.",
            "Reports are compared by findings or as a whole.",
            'Use "findings" or "report".',
        )
    path = Path(path)
    try:
        cases = json.loads(path.read_text("utf-8-sig"))
        rows = [_case(name, case, part) for name, case in cases.items()]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CourseError(
            f"{path.name} is not ReXrank's JSON.",
            f"{type(error).__name__}: {error}.",
            "It is one object: case id -> fields, `model_prediction` and "
            "`section_findings` among them.",
        ) from error
    silent = [row["id"] for row in rows if row["generated"] is None]
    if silent or not rows:
        raise CourseError(
            f"{path.name}: {len(silent)} of {len(rows)} cases have no "
            "`model_prediction`.",
            f"The first are {', '.join(silent[:3]) or 'missing as well'}; "
            "ReXrank's data files hold references only.",
            "Give the file that a model's inference script wrote.",
        )
    return pd.DataFrame(rows)


def _case(name: str, case: dict[str, Any], part: str) -> dict[str, Any]:
    findings, impression = (
        _text(case.get(f"section_{s}", case.get(s)))
        for s in ("findings", "impression")
    )
    said = case.get("model_prediction")
    reference, generated = findings, None if said is None else _text(said)
    if part == "report":
        reference = f"Findings: {findings} Impression: {impression}"
    elif generated is not None:
        cut = re.split(r"(?i)\bimpression\s*:", generated)[0]
        generated = re.sub(r"(?i)^\s*findings\s*:", "", cut).strip()
    return {
        "id": name,
        "reference": reference,
        "generated": generated,
        "findings": findings,
        "impression": impression,
        **{own: case[key] for key, own in ALONG.items() if key in case},
    }


def _text(value: Any) -> str:
    """A section; null and NaN are no text."""
    return value.strip() if isinstance(value, str) else ""


def write_rexrank(table: pd.DataFrame, path: str | Path) -> None:
    """Predictions into ReXrank's JSON.

    Parameters
    ----------
    table : DataFrame
        ``id`` or ``study_id``, ``generated``, and ``findings`` or
        ``reference``; ``impression`` and the columns of `ALONG` if there.
    path : path

    Raises
    ------
    CourseError
        A column is missing, or a case stands twice.
    """
    names = "id" if "id" in table else "study_id"
    found = "findings" if "findings" in table else "reference"
    lacking = [c for c in (names, found, "generated") if c not in table]
    if lacking or table[names].duplicated().any():
        raise CourseError(
            "This table can't become ReXrank's JSON.",
            f"Missing: {', '.join(lacking) or 'nothing'}; the ids are its "
            "keys, so each stands in it once.",
            "Give one row a case: id, generated, findings.",
        )
    cases = {}
    for row in table.to_dict("records"):
        findings, impression = _text(row[found]), _text(row.get("impression"))
        cases[str(row[names])] = {
            "report": f"Findings: {findings} Impression: {impression}",
            "section_findings": findings,
            "section_impression": impression,
            **{key: row[own] for key, own in ALONG.items() if own in row},
            "model_prediction": row["generated"],
        }
    write_json(Path(path), cases)
