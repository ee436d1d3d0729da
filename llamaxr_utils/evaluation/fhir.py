"""A generated report in a structure: template sections, FHIR R5.

Sentences are sorted into the sections of a chest radiograph template, and a
report becomes a preliminary ``DiagnosticReport`` that the library
``fhir.resources`` has validated. Nothing is added to the text, and there is
no patient: it is a form for exchange, not a record of care.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from ..course.errors import CourseError
from ..course.files import write_json
from ..course.run import WARNING
from .findings import label_report

#: Section -> the findings that belong to it, the words that do.
SECTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "lungs": (
        ("Lung Lesion", "Lung Opacity", "Edema", "Consolidation", "Pneumonia")
        + ("Atelectasis", "Granuloma", "Emphysema", "Fibrosis"),
        "lung|pulmonary|vascula|air ?space|bronch|lobe|basilar|inspirat",
    ),
    "pleura": (
        ("Pneumothorax", "Pleural Effusion", "Pleural Other"),
        r"pleura|effusion|pneumothora|costophrenic|fissure",
    ),
    "heart and mediastinum": (
        ("Enlarged Cardiomediastinum", "Cardiomegaly", "Tortuous Aorta"),
        r"heart|cardi|mediastin|aort|hil(?:a|ar|um)\b|trachea",
    ),
    "bones": (
        ("Fracture", "Degenerative Spine", "Scoliosis"),
        r"\bbon[ey]|osse|\bribs?\b|spin[ea]|verteb|clavic|skelet|humer",
    ),
    "devices": (
        ("Support Devices", "Surgical Clips", "Pacemaker", "Central Line"),
        r"tube|catheter|line tip|lead|clip|device|wire|port\b|sternotomy",
    ),
    "other": ((), ""),
}
#: LOINC codes of the examination, by the number of views.
LOINC = {
    1: ("36554-4", "XR Chest Single view"),
    2: ("36643-5", "XR Chest 2 Views"),
}
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
#: Names of `findings.FINDINGS`: no licensed terminology is shipped.
FINDING_SYSTEM = "urn:llamaxr-utils:findings"


def sentences(text: str) -> list[str]:
    """A report's sentences as they were written, in any case; neither
    "1.2 cm" nor the "2." of a list is an end."""
    parts = re.split(r"(?<=[^\s\d][.!?])\s+|(?<=\w\w\.)\s+", text.strip())
    return [" ".join(part.split()) for part in parts if part]


def section_of(sentence: str) -> str:
    """The one section of `SECTIONS` that a sentence belongs to.

    What it reports decides, then what it denies, then its words; the most
    frequent section wins, and of equal ones the first of the template.
    """
    states = label_report(sentence)
    home = {f: name for name, (all_, _) in SECTIONS.items() for f in all_}
    for wanted in (("present", "uncertain"), ("absent",)):
        named = [home[f] for f in home if states.get(f) in wanted]
        if named:
            count = Counter(named)
            return max(SECTIONS, key=lambda name: count[name])
    words = {
        name: len(re.findall(pattern, sentence.lower())) if pattern else 0
        for name, (_, pattern) in SECTIONS.items()
    }
    best = max(words, key=lambda name: words[name])
    return best if words[best] else "other"


def sections(text: str) -> dict[str, list[str]]:
    """A report as the sections of a chest radiograph template.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict of str to list of str
        Every name of `SECTIONS`, in their order, with its sentences; each
        sentence of the report stands in exactly one.
    """
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    for sentence in sentences(text):
        found[section_of(sentence)].append(sentence)
    return found


def sectioned_text(text: str) -> str:
    """`sections` as plain text, a line a section; empty ones are left out."""
    return "\n".join(
        f"{name.capitalize()}: {' '.join(said)}"
        for name, said in sections(text).items()
        if said
    )


def _concept(system: str, code: str, display: str, text: str = "") -> dict:
    coding = {"system": system, "code": code, "display": display}
    return {"coding": [coding], "text": text or display}


def diagnostic_report(
    text: str,
    views: Sequence[str] = ("frontal", "lateral"),
    source: Mapping[str, str] | None = None,
    issued: datetime | None = None,
) -> dict[str, Any]:
    """A generated report as a FHIR R5 ``DiagnosticReport``.

    Status ``preliminary``, marked as asserted by an artificial intelligence
    (``AIAST``) and as test data (``HTEST``); without subject and performer,
    because nobody has read the images.

    Parameters
    ----------
    text : str
        The report; it becomes ``conclusion`` word for word.
    views : sequence of str
        One or two, for the LOINC code of the examination.
    source : mapping, optional
        Provenance, name -> value; becomes a ``note``.
    issued : datetime, optional
        With a time zone; now when None.

    Returns
    -------
    dict
        JSON-ready, as validated by ``fhir.resources``. Findings that the
        text reports are ``conclusionCode`` under `FINDING_SYSTEM`, doubt in
        their text; the sections are ``presentedForm`` (text/plain).

    Raises
    ------
    CourseError
        ``fhir.resources`` is missing; an empty report; no or many views.
    """
    try:
        from fhir.resources.diagnosticreport import DiagnosticReport
    except ImportError as error:
        raise CourseError(
            "The FHIR library is not installed.",
            "fhir.resources is an optional part of the course.",
            "Run `pip install -c constraints.txt -e '.[fhir]'`.",
        ) from error
    if not text.strip() or len(views) not in LOINC:
        raise CourseError(
            "There is no report to put into a DiagnosticReport.",
            f"It has {len(text.split())} words and {len(views)} views.",
            "Pass a report with a word in it, of one or two views.",
        )
    when = (issued or datetime.now(UTC)).isoformat("T", "seconds")
    codes = [
        _concept(
            FINDING_SYSTEM,
            name.lower().replace(" ", "-"),
            name,
            name if state == "present" else f"{name} (uncertain)",
        )
        for name, state in label_report(text).items()
        if state in ("present", "uncertain")
    ]
    form = sectioned_text(text)
    lines = "".join(f"<p>{escape(line)}</p>" for line in form.split("\n"))
    facts = "; ".join(f"{k}: {v}" for k, v in (source or {}).items())
    notes = [WARNING, f"Generated by {facts}." if facts else ""]
    content = {
        "meta": {
            "security": [
                {"system": TERMINOLOGY + "v3-ObservationValue",
                 "code": "AIAST",
                 "display": "Artificial Intelligence asserted"},
                {"system": TERMINOLOGY + "v3-ActReason",
                 "code": "HTEST", "display": "test health data"},
            ]
        },
        "text": {
            "status": "generated",
            "div": '<div xmlns="http://www.w3.org/1999/xhtml">'
            f"<p>{WARNING}</p>{lines}</div>",
        },
        "status": "preliminary",
        "category": [_concept(TERMINOLOGY + "v2-0074", "RAD", "Radiology")],
        "code": _concept("http://loinc.org", *LOINC[len(views)]),
        "issued": when,
        "note": [{"text": note} for note in notes if note],
        "conclusion": text,
        "conclusionCode": codes or None,
        "presentedForm": [
            {
                "contentType": "text/plain; charset=utf-8",
                "language": "en",
                "title": "Generated draft report, by section",
                "data": base64.b64encode(form.encode()).decode(),
            }
        ],
    }
    valid = DiagnosticReport.model_validate(content)
    return {
        "resourceType": "DiagnosticReport",
        **valid.model_dump(mode="json", exclude_none=True),
    }


def write_fhir(path: str | Path, text: str, **options: Any) -> None:
    """`diagnostic_report` into a JSON file."""
    write_json(Path(path), diagnostic_report(text, **options))
