"""The case page: every study of a run in one HTML file, and nothing else.

`write_page` puts images, scores and texts into one self-contained page with
filters, order, keyboard and print (``data/cases.html``, ``data/cases.js``);
`texts_table` shows a few studies inside a notebook. What the texts say is
judged by `cases`; no model and no network is asked.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from ..course.errors import CourseError
from ..course.files import write_whole
from ..course.run import WARNING
from ..datasets.conditions import CONDITIONS, VIEWS
from ..datasets.images import locate, read_grey
from ..datasets.reports import DATA
from ..llm.prompts import Scores, names_above
from . import cases
from .findings import FINDINGS, label_report
from .metrics import plain

#: Side of an embedded image in pixels: 590 studies in a few megabytes.
SIZE = 128


def data_uri(path: str | Path, size: int = SIZE, colour: bool = False) -> str:
    """An image file as a small JPEG inside an address (``data:``).

    Parameters
    ----------
    path : path
    size : int
        Longest side in pixels; a smaller image keeps its size.
    colour : bool
        False: grey. True for a heatmap.

    Raises
    ------
    CourseError
        If the file is no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            side, picture = max(image.size), image.convert("RGB")
    except OSError as error:
        raise CourseError(
            f"{Path(path).name} could not be read.",
            f"{error}.",
            "Get the image again, or remove the file.",
        ) from error
    if not colour:
        picture = Image.fromarray(read_grey(path, min(size, side)))
    content = io.BytesIO()
    picture.thumbnail((size, size))
    picture.save(content, "JPEG", quality=72, optimize=True)
    code = base64.b64encode(content.getvalue()).decode()
    return f"data:image/jpeg;base64,{code}"


def study_data(
    row: Mapping[str, Any],
    systems: Mapping[str, str],
    scores: Scores | None = None,
    points: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What the page shows of one study, ready for JSON; no images.

    Parameters
    ----------
    row : mapping
        ``study_id``, ``status``, ``mesh``, ``reference``; metrics by name
        (`cases.METRICS`) if there are any.
    systems : mapping
        System -> its report. The first one is the run's: its verdicts are
        counted, filtered and remarked on.
    scores : mapping, optional
        View -> condition -> score in [0, 1].
    points : mapping, optional
        Condition -> operating point of the mean score.
    """
    reference, run = str(row["reference"]), next(iter(systems))
    named = None
    if scores and points is not None:
        named = names_above(scores, points)
    judged = cases.judge(reference, systems)
    unheard = {
        finding: verdict
        for finding, verdict in judged[run].items()
        if verdict in ("missed", "contradicts")
    }
    texts = [cases.marked(reference, unheard)]
    texts += [cases.marked(systems[name], judged[name]) for name in systems]
    said = [label_report(text) for text in (reference, *systems.values())]
    rows = [
        [finding, [states.get(finding, "") for states in said], word, remark]
        for finding, *_, word, remark in cases.compare(
            reference, systems[run], named
        )
    ]
    words = [row[2] for row in rows]
    mesh = [plain(heading) for heading in row["mesh"]]
    spoken = [row["study_id"], *mesh, reference, *systems.values()]
    return {
        "id": plain(row["study_id"]),
        "status": plain(row["status"]),
        "mesh": mesh,
        "metrics": {m: _number(row[m]) for m in cases.METRICS if m in row},
        "texts": texts,
        "findings": rows,
        "counts": {v: words.count(v) for v in cases.VERDICTS},
        "scores": {
            view: [_number(values[c]) for c in CONDITIONS]
            for view, values in (scores or {}).items()
            if values and not math.isnan(values[CONDITIONS[0]])
        },
        "named": [CONDITIONS.index(c) for c in named or ()],
        "words": plain(" ".join(spoken)).lower(),
        "img": {},
        "heat": {},
        "heatof": {},
    }


def _number(value: float) -> float | None:
    """Three decimals; JSON has no NaN."""
    return None if pd.isna(value) else round(float(value), 3)


def render(
    studies: Sequence[dict[str, Any]],
    systems: Sequence[str],
    *,
    title: str,
    stamp: str,
    points: Mapping[str, float] | None = None,
) -> str:
    """The page, as text.

    Parameters
    ----------
    studies : sequence of dict
        Of `study_data`, ``img`` and ``heat`` filled in (view -> `data_uri`).
    systems : sequence of str
        In the order of their texts, the run first.
    title, stamp, points
        As for `write_page`.
    """
    seen = {row[0] for study in studies for row in study["findings"]}
    at = {} if points is None else points
    content = {
        "studies": list(studies),
        "systems": [plain(name) for name in systems],
        "conditions": CONDITIONS,
        "points": [float(at.get(c, 2.0)) for c in CONDITIONS],
        "findings": [name for name in FINDINGS if name in seen],
        "marks": {
            word: mark
            for word, mark in cases.MARKS.items()
            if word != "only" or len(systems) > 1
        },
    }
    # ASCII, and no "<": neither </script>, <!-- nor U+2028 can be in it.
    data = json.dumps(content, separators=(",", ":"), allow_nan=False)
    script = (DATA / "cases.js").read_text("utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    parts = {
        # The only script that may run is this one, whatever a report holds.
        "HASH": f"sha256-{base64.b64encode(digest).decode()}",
        "TITLE": escape(plain(title)),
        "STAMP": escape(plain(stamp)),
        "WARNING": WARNING,
        "SCRIPT": script,
        "DATA": data.replace("<", "\\u003c"),
    }
    pieces = (DATA / "cases.html").read_text("utf-8").split("@@")
    return "".join(parts.get(piece, piece) for piece in pieces)


def write_page(
    path: Path,
    table: pd.DataFrame,
    systems: Mapping[str, Sequence[str]],
    *,
    title: str,
    stamp: str,
    scores: Mapping[str, Scores] | None = None,
    points: Mapping[str, float] | None = None,
    views: pd.DataFrame | None = None,
    heatmaps: Path | None = None,
    size: int = SIZE,
) -> str:
    """Write the case page of a run.

    Parameters
    ----------
    path : path
        The HTML file.
    table : DataFrame
        ``study_id``, ``status``, ``mesh``, ``reference``; metrics by name.
    systems : mapping
        System -> reports in the order of `table`; the run first.
    title, stamp : str
        Heading and provenance.
    scores : mapping, optional
        `prompts.by_study`.
    points : mapping, optional
        Condition -> operating point.
    views : DataFrame, optional
        Schema ``views``: the images.
    heatmaps : path, optional
        A folder of ``STUDY_VIEW.png``; what is not there is not shown.
    size : int
        Longest side of an embedded image, pixels.

    Returns
    -------
    str
        One line: studies, images, heatmaps, megabytes.
    """
    from PIL import Image

    columns = list(zip(*systems.values(), strict=True))
    studies = [
        study_data(row, dict(zip(systems, texts)),
                   (scores or {}).get(row["study_id"]), points)
        for row, texts in zip(table.to_dict("records"), columns, strict=True)
    ]
    by_id = {study["id"]: study for study in studies}
    for row in () if views is None else views.itertuples():
        if row.study_id in by_id and row.view in VIEWS:
            file = locate(row.path)
            with suppress(CourseError):  # not an image: view not available
                image = data_uri(file, size)
                by_id[row.study_id]["img"][row.view] = image
    for name, study in by_id.items() if heatmaps else ():
        for view in VIEWS:
            file = Path(heatmaps or "") / f"{name}_{view}.png"
            if file.is_file():
                study["heat"][view] = data_uri(file, size, colour=True)
                with Image.open(file) as picture:
                    of = picture.info.get("Description", "")
                study["heatof"][view] = of
    text = render(
        studies, list(systems), title=title, stamp=stamp, points=points
    )
    write_whole(path, lambda part: part.write_text(text, "utf-8"))
    images, heats = (sum(len(s[k]) for s in studies) for k in ("img", "heat"))
    return (
        f"{len(studies)} studies, {images} images, {heats} heatmaps, "
        f"{len(text) / 1e6:.1f} MB"
    )
