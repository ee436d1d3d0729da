"""Reading single reports: sentences side by side, findings compared.

First version of the case page: one self-contained HTML file, colours and
marks, no script and no network. Everything that comes from a report is
escaped.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import pandas as pd

from .files import write_whole
from .findings import FINDINGS, label_report, split_sentences
from .reports import normalise
from .run import WARNING

#: verdict -> (mark, colour); red means added in the paper's Table 5 as well.
VERDICTS = {
    "agree": ("=", "#333333"),
    "missed": ("−", "#1b7837"),
    "added": ("+", "#b2182b"),
    "contradicts": ("≠", "#762a83"),
}
STYLE = """
.cases {font: 14px/1.45 system-ui, sans-serif; max-width: 60rem}
.cases article {border-top: 1px solid #8886; padding: .6rem 0}
.cases .texts {display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr))}
.cases h4 {margin: .3rem 0} .cases p {margin: .2rem 0}
.cases .finding {display: inline-block; margin: .1rem .4rem .1rem 0;
  padding: 0 .4rem; border: 1.5px solid; border-radius: .5rem;
  background: #fff}
.cases .contradicts {text-decoration: underline}
"""


def choose(table: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """A seeded sample of `n` rows: half abnormal, the rest not, as far as
    there are enough of each."""
    is_abnormal = table["status"].eq("abnormal")
    abnormal, other = table[is_abnormal], table[~is_abnormal]
    first = abnormal.sample(min(-(-n // 2), len(abnormal)), random_state=seed)
    rest = other.sample(min(n - len(first), len(other)), random_state=seed)
    return pd.concat([first, rest]).reset_index(drop=True)


def align(reference: str, generated: str) -> pd.DataFrame:
    """Each reference sentence beside the closest generated one.

    Closeness is the share of common words (Jaccard); pairs are taken from
    the closest down, each sentence once, at least a fifth in common.

    Returns
    -------
    DataFrame
        ``reference``, ``generated``: sentences, "" without a partner.
    """
    left, right = split_sentences(reference), split_sentences(generated)
    words = [[set(normalise(s).split()) for s in side]
             for side in (left, right)]
    close = sorted(
        (
            (len(a & b) / max(len(a | b), 1), -i, -j)
            for i, a in enumerate(words[0])
            for j, b in enumerate(words[1])
        ),
        reverse=True,
    )
    partner: dict[int, int] = {}
    for share, i, j in close:
        if share >= 0.2 and -i not in partner and -j not in partner.values():
            partner[-i] = -j
    rows = [
        (text, right[partner[i]] if i in partner else "")
        for i, text in enumerate(left)
    ]
    rows += [
        ("", text)
        for j, text in enumerate(right)
        if j not in partner.values()
    ]
    return pd.DataFrame(rows, columns=["reference", "generated"])


def verdict(reference: str | None, generated: str | None) -> str:
    """Compare two states (present, absent, uncertain, None: not mentioned).

    Denials that only one side spells out are no disagreement: "".
    """
    reported = ("present", "uncertain")
    if reference == generated:
        return "agree" if reference else ""
    if reference in reported and generated in reported:
        return "agree"
    if {reference, generated} & {"absent"} and reference and generated:
        return "contradicts"
    if reference in reported:
        return "missed"
    return "added" if generated in reported else ""


def findings_table(reference: str, generated: str) -> pd.DataFrame:
    """``finding``, ``reference``, ``generated``, ``verdict`` for every
    finding that either text mentions (`No Finding` left out)."""
    truth, said = label_report(reference), label_report(generated)
    rows = [
        (f, truth.get(f, ""), said.get(f, ""),
         verdict(truth.get(f), said.get(f)))
        for f in FINDINGS[1:]
        if f in truth or f in said
    ]
    return pd.DataFrame(
        rows, columns=["finding", "reference", "generated", "verdict"]
    )


def counts(chosen: pd.DataFrame) -> pd.DataFrame:
    """How many findings agree, are missed, added or contradicted: one row a
    study (index ``study_id``)."""
    rows = {}
    for row in chosen.itertuples():
        found = findings_table(row.reference, row.generated)["verdict"]
        rows[row.study_id] = {v: int((found == v).sum()) for v in VERDICTS}
    return pd.DataFrame(rows).T.rename_axis("study_id")


def _finding_marks(reference: str, generated: str) -> str:
    marks = []
    for row in findings_table(reference, generated).itertuples():
        if row.verdict:
            mark, colour = VERDICTS[str(row.verdict)]
            marks.append(
                f'<span class="finding {row.verdict}" '
                f'style="color:{colour};border-color:{colour}">'
                f"{mark} {escape(str(row.finding))}</span>"
            )
    return "".join(marks) or "nothing to compare"


def render(chosen: pd.DataFrame, title: str, stamp: str) -> str:
    """The cases as HTML, a section a study.

    Parameters
    ----------
    chosen : DataFrame
        ``study_id``, ``status``, ``mesh``, ``reference``, ``generated``.
    title, stamp : str
        Heading and provenance.
    """
    legend = ", ".join(
        f'<b style="color:{colour}">{mark} {name}</b>'
        for name, (mark, colour) in VERDICTS.items()
    )
    parts = [f"<h3>{escape(title)}</h3><p>{legend}</p>"]
    for row in chosen.itertuples():
        mesh = "; ".join(row.mesh)
        parts.append(
            f"<article><h4>{escape(row.study_id)} · {escape(row.status)}"
            f"</h4><p>MeSH: {escape(mesh)}</p><div class=texts>"
            f"<div><b>Reference</b><p>{escape(row.reference)}</p></div>"
            f"<div><b>Generated</b><p>{escape(row.generated)}</p></div>"
            f"</div><p>{_finding_marks(row.reference, row.generated)}</p>"
            "</article>"
        )
    parts.append(f"<p><small>{escape(stamp)}. {WARNING}</small></p>")
    return f"<div class=cases><style>{STYLE}</style>{''.join(parts)}</div>"


def write_page(path: Path, body: str, title: str = "Cases") -> None:
    """Write a whole HTML page around a rendered body."""
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><body>{body}</body></html>\n"
    )
    write_whole(path, lambda part: part.write_text(page, "utf-8"))

