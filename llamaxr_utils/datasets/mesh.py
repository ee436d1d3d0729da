"""MeSH headings of a study -> 18 labels, place, severity, status.

The curators of the IU X-ray collection (Demner-Fushman et al., JAMIA 2016,
https://doi.org/10.1093/jamia/ocv080) described each study by headings such as
``Pleural Effusion/left/small``. This module reads them by one table of rules,
`RULES`. It does not look at the report's text: that is `findings`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .conditions import CONDITIONS


class Finding(NamedTuple):
    """One heading, read for one condition."""

    heading: str  #: the heading as it stands in the file
    term: str  #: what stands before the first slash
    condition: str  #: one of `CONDITIONS`, or "" if the 18 do not cover it
    side: str  #: "left", "right", "bilateral" or ""
    zone: str  #: a value of `ZONES`, or ""
    severity: str  #: "mild", "moderate", "severe" or ""


class Rule(NamedTuple):
    """Term -> conditions, if the heading's qualifiers allow it."""

    terms: str  #: lower case, separated by ";"
    conditions: tuple[str, ...]
    need: frozenset[str] = frozenset()  #: at least one of these qualifiers
    bar: frozenset[str] = frozenset()  #: none of these


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split(";"))


#: A "density" on a rib is not in the lung: such places bar a lung condition.
_OUTSIDE = _set(
    "ribs;clavicle;sternum;spine;thoracic vertebrae;humerus;shoulder;breast;"
    "abdomen;adipose tissue;heart;mitral valve;mediastinum;paratracheal;"
    "supracardiac;pleura;pleural sinus;bronchovascular;trachea;neck"
)
_CENTRAL = _set("mediastinum;paratracheal")
_HILUM = _set("hilum;lymph nodes")
_LARGE = _set("enlarged;prominent;large")

#: The decisions, one condition after the other. Counts: `tests/test_mesh.py`.
#: A condition is *not* given for a sign that has several causes (blunted
#: costophrenic angle, hyperdistention, tortuous aorta, volume loss, lucency,
#: "Granulomatous Disease" without a thing seen), nor to a parent of another
#: condition: consolidation is not also counted as lung opacity. Where IU's
#: term is not one of the 18 names, the mentions list of the CheXpert labeler
#: (https://github.com/stanfordmlgroup/chexpert-labeler) is followed, which
#: taught the extractor most of the 18 names.
RULES: tuple[Rule, ...] = (
    Rule("pulmonary atelectasis", ("Atelectasis",)),
    # Borderline counts, as a mild one: the report names it.
    Rule("cardiomegaly", ("Cardiomegaly",)),
    # The outline is what is seen large, heart or not: both conditions.
    Rule(
        "cardiac shadow",
        ("Cardiomegaly", "Enlarged Cardiomediastinum"),
        need=_LARGE | {"borderline"},
    ),
    # Fluid around a heart of normal size widens the outline, not the heart.
    Rule("pericardial effusion", ("Enlarged Cardiomediastinum",)),
    Rule("mediastinum", ("Enlarged Cardiomediastinum",), need=_LARGE),
    Rule("aortic aneurysm", ("Enlarged Cardiomediastinum",)),
    Rule(
        "aorta;aorta, thoracic",
        ("Enlarged Cardiomediastinum",),
        need=_set("enlarged;prominent"),  # tortuous is long, not wide
    ),
    Rule(
        "mass;density;opacity;lymph nodes",
        ("Enlarged Cardiomediastinum",),
        need=_CENTRAL,
    ),
    Rule("consolidation", ("Consolidation",)),
    # Congestion and heart failure are edema's mentions in CheXpert.
    Rule(
        "pulmonary edema;pulmonary congestion;heart failure",
        ("Edema",),
    ),
    Rule("pleural effusion;hemothorax", ("Effusion",)),
    Rule("hydropneumothorax;hemopneumothorax", ("Effusion", "Pneumothorax")),
    Rule("pneumothorax", ("Pneumothorax",)),
    # Air under the skin or in the mediastinum has other terms; a "blister"
    # of the lung is a bulla. COPD on an X-ray is read from emphysema's signs.
    Rule(
        "emphysema;pulmonary emphysema;bullous emphysema;"
        "pulmonary disease, chronic obstructive",
        ("Emphysema",),
    ),
    Rule("blister", ("Emphysema",), need=_set("lung")),
    # A scar of the lung is focal fibrosis, a scar of the pleura thickens it.
    Rule("pulmonary fibrosis;fibrosis", ("Fibrosis",)),
    Rule("cicatrix", ("Fibrosis",), bar=_OUTSIDE),
    Rule("thickening;cicatrix", ("Pleural Thickening",), need=_set("pleura")),
    # Plaques: the pleura's calcium lies in thickened pleura.
    Rule("calcinosis", ("Pleural Thickening",), need=_set("pleura")),
    # Any bone in the picture. "Deformity" only where it is a healed fracture.
    Rule("fractures, bone", ("Fracture",)),
    Rule("deformity", ("Fracture",), need=_set("healed")),
    Rule("hernia, hiatal;hernia, diaphragmatic", ("Hernia",)),
    Rule("infiltrate", ("Infiltration",)),
    Rule("pneumonia", ("Pneumonia",)),
    # Air-space disease, interstitial markings and interstitial lung disease
    # are lung opacity's mentions in CheXpert; crowded vessels are not.
    Rule("opacity;density", ("Lung Opacity",), bar=_OUTSIDE - {"pleura"}),
    Rule("airspace disease;lung diseases, interstitial", ("Lung Opacity",)),
    Rule("markings", ("Lung Opacity",), need=_set("interstitial;reticular")),
    Rule("mass", ("Mass", "Lung Lesion"), bar=_set("breast") | _CENTRAL),
    Rule("mass", ("Mass",), need=_CENTRAL),
    # A nodule is a lesion until proven old; a granuloma is a nodule that is
    # proven old: a small round shadow, but no lesion that needs a follow-up.
    Rule("nodule", ("Nodule", "Lung Lesion")),
    Rule("opacity;density", ("Nodule",), need=_set("round"), bar=_OUTSIDE),
    Rule("calcified granuloma;granuloma", ("Nodule",), bar=_OUTSIDE),
    Rule("calcinosis", ("Nodule",), need=_set("lung"), bar=_HILUM),
    Rule("cavitation;cysts", ("Lung Lesion",), need=_set("lung")),
)

#: Qualifier -> zone. The first that a heading has wins: narrow before wide.
ZONES: dict[str, str] = {
    "apex": "apex",
    "hilum": "hilum",
    "base": "base",
    "costophrenic angle": "base",
    "sulcus": "base",
    "upper lobe": "upper",
    "middle lobe": "middle",
    "lingula": "middle",
    "lower lobe": "lower",
    "retrocardiac": "lower",
    "mediastinum": "mediastinum",
    "paratracheal": "mediastinum",
}

SEVERITIES: dict[str, str] = {
    "severe": "severe",
    "large": "severe",
    "moderate": "moderate",
    "mild": "mild",
    "small": "mild",
    "borderline": "mild",
}

#: The right lung has a middle lobe, the left a lingula.
_LOBE_SIDE = {"middle lobe": "right", "lingula": "left"}


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def _conditions(term: str, qualifiers: set[str]) -> list[str]:
    found: set[str] = set()
    for rule in RULES:
        if (
            term in rule.terms.split(";")
            and (not rule.need or rule.need & qualifiers)
            and not rule.bar & qualifiers
        ):
            found.update(rule.conditions)
    return [name for name in CONDITIONS if name in found]


def _side(qualifiers: list[str]) -> str:
    named = {q for q in qualifiers if q in ("left", "right", "bilateral")}
    if "bilateral" in named or len(named) == 2:
        return "bilateral"
    if named:
        return named.pop()
    return next((_LOBE_SIDE[q] for q in qualifiers if q in _LOBE_SIDE), "")


def _first(table: dict[str, str], qualifiers: list[str]) -> str:
    return next((table[word] for word in table if word in qualifiers), "")


def parse_headings(headings: Iterable[str]) -> list[Finding]:
    """Read each heading.

    Parameters
    ----------
    headings : iterable of str
        A study's headings, as ``Nodule/lung/upper lobe/right/small``.

    Returns
    -------
    list of Finding
        In the order of the headings. A heading that stands for several
        conditions gives several findings; one that stands for none of the 18
        (``normal`` included) gives one with the condition "".

    Raises
    ------
    TypeError
        If `headings` is one string instead of a list of strings.

    Examples
    --------
    >>> parse_headings(["Pleural Effusion/left/small"])[0][2:]
    ('Effusion', 'left', '', 'mild')
    """
    if isinstance(headings, str):
        raise TypeError(
            "One string was given where a list of headings belongs"
        )
    findings = []
    for heading in headings:
        term, *rest = str(heading).split("/")
        qualifiers = [_plain(word) for word in rest]
        place = (
            _side(qualifiers),
            _first(ZONES, qualifiers),
            _first(SEVERITIES, qualifiers),
        )
        names = _conditions(_plain(term), set(qualifiers)) or [""]
        findings += [
            Finding(heading, " ".join(term.split()), name, *place)
            for name in names
        ]
    return findings


def labels(headings: Iterable[str]) -> dict[str, int]:
    """The 18 labels of a study: condition -> 1 if a heading names it, else 0.

    Returns
    -------
    dict of str to int
        In the order of `CONDITIONS`. All zero for a normal study, and for one
        that was not indexed: ask `status` before counting that as negative.
    """
    present = {finding.condition for finding in parse_headings(headings)}
    return {name: int(name in present) for name in CONDITIONS}


def status(headings: Iterable[str]) -> str:
    """Is a study "normal", "abnormal" or "not indexed"?

    ``normal`` alone is normal; ``No Indexing`` alone, or no heading at all,
    is not indexed: neither normal nor abnormal. All else is abnormal, also
    where none of the 18 conditions is named.
    """
    terms = {_plain(f.term) for f in parse_headings(headings)}
    if terms <= {"no indexing"}:
        return "not indexed"
    return "normal" if terms == {"normal"} else "abnormal"
