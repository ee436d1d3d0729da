"""MeSH headings of a study -> 18 labels, place, severity, status.

The curators of the IU X-ray collection (Demner-Fushman et al., JAMIA 2016,
https://doi.org/10.1093/jamia/ocv080) described each study by headings such as
``Pleural Effusion/left/small``. This module reads them by the rules and words
of two `FILES`. It does not look at the report's text: that is `findings`.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from .conditions import CONDITIONS

DATA = Path(__file__).parents[1] / "data"
#: A large heart, fluid, an opacity; in R2Gen's test list, with two views.
FOLLOWED = "CXR379"


class Finding(NamedTuple):
    """One heading, read for one condition."""

    heading: str  #: the heading as it stands in the file
    condition: str  #: one of `CONDITIONS`, or "" if the 18 do not cover it
    side: str  #: "left", "right", "bilateral" or ""
    zone: str  #: a value of `ZONES`, or ""
    severity: str  #: "mild", "moderate", "severe" or ""


#: The decisions. A heading of one of the ``terms`` has the ``conditions`` if
#: it has one of the qualifiers in ``need`` (where there are any) and none of
#: those in ``bar``. No condition is given for a sign of several causes
#: (blunted costophrenic angle, tortuous aorta, volume loss ...), nor to a
#: parent of another. Where IU's term is not one of the 18 names, the mentions
#: of https://github.com/stanfordmlgroup/chexpert-labeler are followed.
FILES = DATA / "mesh_rules.csv", DATA / "mesh_places.yaml"
#: Qualifier -> side, zone, severity; the first that a heading has wins.
OUTSIDE, SIDES, ZONES, SEVERITIES = yaml.safe_load(
    FILES[1].read_text("utf-8")).values()


_TABLE = pd.read_csv(FILES[0], keep_default_na=False).drop(columns="why")
_TABLE = _TABLE.replace("OUTSIDE", OUTSIDE, regex=True)
#: Rows of the table, every cell a set of words.
RULES: list[Any] = list(_TABLE.map(
    lambda cell: frozenset(cell.split("; ")) - {""}).itertuples(index=False))


def _words(heading: str) -> list[str]:
    """The term and its qualifiers, in lower case, white space folded."""
    return [" ".join(word.split()) for word in heading.lower().split("/")]


def _first(words: list[str], meaning: dict[str, str]) -> str:
    """What the first entry of a table that a heading has means, or ""."""
    return next((meaning[word] for word in meaning if word in words), "")


@cache
def _read(heading: str) -> list[Finding]:
    term, *words = _words(heading)
    conditions = {
        name for rule in RULES if term in rule.terms
        and (not rule.need or rule.need.intersection(words))
        and not rule.bar.intersection(words) for name in rule.conditions}
    sides = {word for word in words if SIDES.get(word) == word}
    side = "bilateral" if len(sides) > 1 else _first(words, SIDES)
    place = side, _first(words, ZONES), _first(words, SEVERITIES)
    return [Finding(heading, name, *place)
            for name in [c for c in CONDITIONS if c in conditions] or [""]]


def parse_headings(headings: Iterable[str]) -> list[Finding]:
    """Read each heading. One that stands for several conditions gives several
    findings; one for none of the 18 (``normal`` included) one with "".

    >>> parse_headings(["Pleural Effusion/left/small"])[0][1:]
    ('Effusion', 'left', '', 'mild')
    """
    return [finding for heading in headings for finding in _read(heading)]


def labels(headings: Iterable[str]) -> dict[str, int]:
    """The 18 labels of a study: condition -> 1 if a heading names it, else 0.
    All zero also for a study that was not indexed: ask `status`."""
    present = {finding.condition for finding in parse_headings(headings)}
    return {name: int(name in present) for name in CONDITIONS}


def label_table(studies: pd.DataFrame) -> pd.DataFrame:
    """`labels` of a table of studies, a row a ``study_id``."""
    return pd.DataFrame(map(labels, studies["mesh"]), studies["study_id"])


def status(headings: Iterable[str]) -> str:
    """"normal" (that heading alone), "not indexed" (``No Indexing`` alone, or
    no heading), else "abnormal", also where none of the 18 is named."""
    terms = {_words(heading)[0] for heading in headings}
    if terms <= {"no indexing"}:
        return "not indexed"
    return "normal" if terms == {"normal"} else "abnormal"


def followed_study(studies: pd.DataFrame) -> str:
    """The test study that goes through the notebooks: `FOLLOWED`, or where a
    run leaves it out the one of two images with most conditions."""
    test = studies[studies["split"].eq("test") & studies["n_images"].ge(2)]
    if test["study_id"].eq(FOLLOWED).any():
        return FOLLOWED
    return str(label_table(test).sum(axis=1).idxmax())
