"""What speaks against believing a draft report, computed.

The text of a report is held against the scores that led to it: findings
without support, conditions left out or denied, scores on the edge. It
doubts; that a report has no caveat does not make it right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from ..datasets.conditions import CONDITIONS, FINDING_OF
from ..evaluation.findings import label_report, sentences

#: Opacity, infiltrate, consolidation and pneumonia are words for the same
#: shadow: one for another is no mistake here.
_SAME = {
    "Consolidation": ("Lung Opacity",),
    "Infiltration": ("Consolidation", "Pneumonia"),
    "Lung Lesion": ("Granuloma",),
    "Lung Opacity": ("Consolidation", "Pneumonia"),
    "Nodule": ("Granuloma",),
    "Pneumonia": ("Consolidation", "Lung Opacity"),
}
#: Condition -> the findings in words that state it. Findings that no
#: condition leads to (devices, spine) can't come from the scores.
STATED_BY: dict[str, tuple[str, ...]] = {
    name: (finding, *_SAME.get(name, ()))
    for name, finding in FINDING_OF.items()
}
REPORTED = ("present", "uncertain")


class Caveat(NamedTuple):
    """A reason for doubt."""

    kind: str  #: a word or two
    text: str  #: a sentence or two


def about_text(
    report: str, table: pd.DataFrame, finished: bool = True
) -> list[Caveat]:
    """Caveats from comparing a report with the scores that led to it.

    Parameters
    ----------
    report : str
    table : DataFrame
        Of `draft.score_table`.
    finished : bool
        False where decoding ran into its limit.

    Returns
    -------
    list of Caveat
        Kinds, in this order: "cut off", "empty", "placeholder", "denied",
        "not stated", "unsupported", "beyond the scores", "near".
    """
    found = []
    if not finished:
        found.append(Caveat("cut off", "The report did not come to an end."))
    if not report.strip():
        found.append(Caveat("empty", "The model wrote no report at all."))
    if "XXXX" in report:
        found.append(
            Caveat(
                "placeholder",
                "XXXX stands where the training reports had a word removed; "
                "the model has learned to write it.",
            )
        )
    said = label_report(report)
    named = [c for c in CONDITIONS if table.loc[c, "named"]]
    for kind, verb in (
        ("denied", "the text denies it"),
        ("not stated", "the text does not state it"),
    ):
        for condition in named:
            states = {said.get(f) for f in STATED_BY[condition]}
            # To deny consolidation is not to deny every opacity.
            denied = said.get(STATED_BY[condition][0]) == "absent"
            if not states & set(REPORTED) and denied == (kind == "denied"):
                line = f"{_score(condition, table)}: named, but {verb}."
                found.append(Caveat(kind, line))
    found += [
        _without_support(finding, sentence, table)
        for finding, sentence in unsupported(report, named).items()
    ]
    found.sort(key=lambda caveat: caveat.kind == "beyond the scores")
    point = table["point"]
    near = table[(table["low"] < point) & (table["high"] >= point)]
    for condition, row in near.iterrows():
        found.append(
            Caveat(
                "near",
                f"{_score(str(condition), table)}: a distance of "
                f"{abs(row['mean'] - row['point']):.3f}, less than a shift "
                "of the image by a 32nd of its side moves it "
                f"({row['low']:.3f} to {row['high']:.3f}). Whether it is "
                "named is a matter of cropping.",
            )
        )
    return found


def unsupported(report: str, named: Sequence[str]) -> dict[str, str]:
    """Finding -> the sentence that states it, for every finding of a report
    that none of the named conditions leads to."""
    backed = {finding for name in named for finding in STATED_BY[name]}
    found: dict[str, str] = {}
    for sentence in sentences(report):
        for finding, state in label_report(sentence).items():
            if state in REPORTED and finding not in {"No Finding", *backed}:
                found.setdefault(finding, sentence)
    return found


def _without_support(
    finding: str, sentence: str, table: pd.DataFrame
) -> Caveat:
    sources = [c for c in CONDITIONS if finding in STATED_BY[c]]
    nearest = (table["mean"] - table["point"]).reindex(sources).dropna()
    if nearest.empty:
        return Caveat(
            "beyond the scores",
            f"“{sentence}” states {finding}, of which none of the 18 scores "
            "speaks: it comes from the training reports, not from the image.",
        )
    return Caveat(
        "unsupported",
        f"“{sentence}” states {finding}, but no score supports it; the "
        f"nearest is {_score(str(nearest.idxmax()), table)}.",
    )


def _score(condition: str, table: pd.DataFrame) -> str:
    row = table.loc[condition]
    return (
        f"{condition} {row['mean']:.2f} (operating point {row['point']:.2f})"
    )
