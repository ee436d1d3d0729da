"""The paper's qualitative Tables 4, 5 and 6 for a study of your choice.

Texts beside their findings, as data or as an HTML table; which findings
agree is decided in `cases`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

import pandas as pd

from .cases import MARKS, METRICS, compare, decisive, judge, marked, remark
from .findings import FINDINGS, label_report
from .metrics import plain, score_reports

#: Those of `texts_table`; the case page's are in its style sheet.
TINTS = {"only": "#dff0e2", "added": "#fbe2de", "contradicts": "#efe2f4"}
NOT_SAID = "not mentioned"


def quote(text: str, finding: str) -> str:
    """What a report says about a finding, in its own sentences, and the
    state; `NOT_SAID` if it says nothing."""
    state = label_report(text).get(finding)
    said = [part for part, mentions in decisive(text) if finding in mentions]
    return f"{' '.join(said)} [{state}]".strip() if state else NOT_SAID


def table_4(
    reference: str,
    texts: Mapping[str, str],
    named: Collection[str] | None = None,
) -> pd.DataFrame:
    """Table 4 of the paper for one study: performance, then each finding.

    Columns ``category``, ``reference``, one for each system of `texts`,
    ``remark`` (one for all systems where they agree). The first row holds
    BLEU-4, ROUGE-L and METEOR of each pair (protocol `llamaxr`).
    """
    scored = pair_scores([reference] * len(texts), texts.values())
    numbers = [
        " / ".join(f"{value:.2f}" for value in row) for row in scored.values
    ]
    rows = [[" / ".join(METRICS), "", *numbers, ""]]
    remarks = [
        {row[0]: row[-1] for row in compare(reference, text, named)}
        for text in texts.values()
    ]
    for finding in FINDINGS[1:]:
        told = [quote(text, finding) for text in (reference, *texts.values())]
        words = [found.get(finding, "") or "–" for found in remarks]
        notes = [f"{name}: {w}" for name, w in zip(texts, words)]
        if set(told) != {NOT_SAID}:
            note = "; ".join(notes) if len(set(words)) > 1 else words[0]
            rows.append([finding, *told, note])
    columns = ["category", "reference", *texts, "remark"]
    return pd.DataFrame(rows, columns=columns)


def table_5(
    reference: str,
    texts: Mapping[str, str],
    named: Collection[str] | None = None,
) -> dict[str, str]:
    """A row of the paper's Tables 5 and 6 for one study and two systems.

    The texts in plain characters, then names of findings: ``both found``
    (black in the paper), ``only NAME found`` (green), ``NAME added`` (red;
    with `remark`'s support), ``NAME contradicts``, ``NAME missed``.
    """
    judged = judge(reference, texts)

    def having(name: str, word: str) -> list[str]:
        return [f for f, w in judged[name].items() if w == word]

    row = {"reference": plain(reference)}
    row |= {name: plain(text) for name, text in texts.items()}
    row["both found"] = ", ".join(having(next(iter(texts)), "agree"))
    for name in texts:
        row[f"only {name} found"] = ", ".join(having(name, "only"))
    for name in texts:
        row[f"{name} added"] = ", ".join(
            f"{f} ({remark('added', f, named)[5:].strip(', ')})"
            for f in having(name, "added")
        )
        for word in ("contradicts", "missed"):
            row[f"{name} {word}"] = ", ".join(having(name, word))
    return row


def pair_scores(
    references: Iterable[str], generated: Iterable[str]
) -> pd.DataFrame:
    """BLEU-4, ROUGE-L and METEOR of each pair, as in the paper's Table 4
    (protocol `llamaxr`); NaN where the reference is empty."""
    pairs = list(references), list(generated)
    scored = score_reports(*pairs, protocol="llamaxr")["per_report"]
    return scored[list(METRICS)].reindex(range(len(pairs[0])))


def texts_table(
    rows: Sequence[
        tuple[str, str, Mapping[str, str], Collection[str] | None]
    ],
    caption: str,
) -> str:
    """Reference and systems side by side, coloured and marked, as HTML.

    Parameters
    ----------
    rows : sequence of (str, str, mapping, collection or None)
        Study, reference, system -> report (the same systems in each), the
        conditions at or above their operating point.
    caption : str
        Above the table.
    """
    names = list(rows[0][2]) if rows else []
    said = {"only": "correct, in this text only", "agree": ""}
    marks = [f"{mark} {said.get(word, word)}"
             for word, mark in MARKS.items() if said.get(word, word)]
    cells = [["study", "reference", *names]]
    cells[0] = [f"<b>{escape(plain(name))}</b>" for name in cells[0]]
    for study, reference, systems, named in rows:
        judged = judge(reference, systems)
        cells.append([escape(plain(study)), escape(plain(reference))])
        for name, text in systems.items():
            shown = [_marked(*part) for part in
                     marked(text, judged[name])]
            lines = [
                f"{MARKS[word]} {finding}"
                + remark(word, finding, named)[len(word) :]
                for finding, word in judged[name].items()
                if word != "agree"
            ]
            note = f"<br><small>{escape(' · '.join(lines))}</small>"
            cells[-1].append(" ".join(shown) + (note if lines else ""))
    style = "text-align:left;vertical-align:top;max-width:26em"
    body = "".join(
        "<tr>" + "".join(f"<td style='{style}'>{c}</td>" for c in row)
        + "</tr>" for row in cells
    )
    title = f"{escape(plain(caption))} ({' · '.join(marks)})"
    return (
        f"<table><caption style='{style};max-width:none'>{title}</caption>"
        f"{body}</table>"
    )


def _marked(sentence: str, verdict: str, findings: list[str]) -> str:
    if verdict not in TINTS:
        return escape(sentence)
    return (
        f"<mark title='{verdict}: {escape(', '.join(findings))}' "
        f"style='color:#20262e;background:{TINTS[verdict]}'>"
        f"<b>{MARKS[verdict]}</b> {escape(sentence)}</mark>"
    )
