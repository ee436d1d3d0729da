"""Reading single reports: what two texts say about each finding.

Two reports are compared by the *state* of a finding (present, absent,
uncertain, not mentioned), not by their words, and the remarks of the paper's
Tables 4 to 6 are computed from that. Nothing here looks at an image, and the
page that shows the cases is `casepage`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from ..course.errors import CourseError
from ..datasets.conditions import NAMED_BY
from ..datasets.downloads import SOURCES
from .findings import FINDINGS, label_report, sentences
from .predictions import read_table

#: verdict -> the mark that stands beside its colour.
VERDICTS = {"agree": "=", "missed": "−", "added": "+", "contradicts": "≠"}
#: "only": a correct statement that the other system does not make, green in
#: the paper's Tables 5 and 6; red is added there.
MARKS = VERDICTS | {"only": "✓"}
#: What an added finding is called, with and without a score that speaks for
#: it.
SUPPORTED = "added, supported by the scores"
UNSUPPORTED = "added without support"
#: Studies whose text stands once in the collection and in the paper, and
#: where there. The references of its Tables 4 and 5 stand word for word in
#: 6, 15 and 47 studies: nobody can tell which were meant.
PAPER_STUDIES = {
    "CXR4": "Table 2",
    "CXR5": "Table 2",
    "CXR24": "Figure 4",
    "CXR3282": "Table 6",
    "CXR3660": "Table 6",
}
METRICS = ("BLEU-4", "ROUGE-L", "METEOR")


# --- which studies, which other system --------------------------------------


def choose(table: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """A seeded sample of `n` rows: half abnormal, the rest not, as far as
    there are enough of each."""
    is_abnormal = table["status"].eq("abnormal")
    abnormal, other = table[is_abnormal], table[~is_abnormal]
    first = abnormal.sample(min(-(-n // 2), len(abnormal)), random_state=seed)
    rest = other.sample(min(n - len(first), len(other)), random_state=seed)
    return pd.concat([first, rest]).reset_index(drop=True)


def look_up(
    wanted: str, studies: pd.DataFrame, there: Collection[str]
) -> pd.DataFrame:
    """Where the studies are that somebody asks for (``"CXR24, CXR3282"``).

    Returns
    -------
    DataFrame
        ``study_id``, ``in the paper``, ``split_r2gen``, ``split`` (this
        run's), ``status``, ``here``: is it one of `there`?

    Raises
    ------
    CourseError
        For an id that `studies` does not have.
    """
    ids = re.findall(r"[^\s,]+", wanted)
    unknown = sorted(set(ids) - set(studies["study_id"]))
    if unknown:
        raise CourseError(
            f"There is no study {', '.join(unknown)}.",
            "Studies have the ids of the collection, CXR1 to CXR3999.",
            'Write ids with commas between them: STUDIES = "CXR24, CXR3282".',
        )
    found = studies.set_index("study_id").loc[ids].reset_index()
    found["in the paper"] = found["study_id"].map(PAPER_STUDIES).fillna("")
    found["here"] = found["study_id"].isin(list(there))
    columns = ["study_id", "in the paper", "split_r2gen", "split", "status"]
    return found[[*columns, "here"]]


def second_system(
    study_ids: Collection[str], folders: Iterable[Path]
) -> tuple[str, list[str]] | None:
    """Another system and its reports for these studies, from a CSV on disk.

    Published predictions (`downloads.fetch`) come first, then any other
    file that `predictions.read_table` takes and that has all the studies.
    """
    published = {SOURCES["cvt2distilgpt2"].saves: "CvT2DistilGPT2"}
    paths = {path.name: path for f in folders for path in f.glob("*.csv")}
    for name in sorted(paths, key=lambda n: (n not in published, n)):
        try:
            table = read_table(paths[name]).set_index("study_id")
        except CourseError:
            continue  # a CSV of something else
        if set(study_ids) <= set(table.index):
            reports = table["generated"].loc[list(study_ids)]
            return published.get(name, Path(name).stem), list(reports)
    return None


# --- two texts --------------------------------------------------------------


def verdict(reference: str | None, generated: str | None) -> str:
    """Compare two states (present, absent, uncertain, None: not mentioned).

    Denials that only one side spells out are no disagreement: "".
    """
    reported = ("present", "uncertain")
    if reference and generated:
        same = (reference in reported) == (generated in reported)
        return "agree" if same else "contradicts"
    if reference in reported:
        return "missed"
    return "added" if generated in reported else ""


def remark(verdict: str, finding: str, named: Collection[str] | None) -> str:
    """A verdict; for an added finding also whether a score speaks for it.

    `named` are the conditions at or above their operating point
    (`prompts.names_above`), None without scores.
    """
    if verdict != "added":
        return verdict
    support = set(NAMED_BY.get(finding, ())) & set(named or ())
    return SUPPORTED if support else UNSUPPORTED


def compare(
    reference: str, generated: str, named: Collection[str] | None = None
) -> list[tuple[str, str, str, str, str]]:
    """(finding, state in the reference, in the generated text, verdict,
    remark) for every finding that either mentions (`No Finding` left out)."""
    truth, said = label_report(reference), label_report(generated)
    rows = []
    for f in FINDINGS[1:]:
        if f in truth or f in said:
            word = verdict(truth.get(f), said.get(f))
            states = truth.get(f, ""), said.get(f, "")
            rows.append((f, *states, word, remark(word, f, named)))
    return rows


def findings_table(
    reference: str, generated: str, named: Collection[str] | None = None
) -> pd.DataFrame:
    """`compare` as a table: ``finding``, ``reference``, ``generated``,
    ``verdict``, ``remark``."""
    columns = ["finding", "reference", "generated", "verdict", "remark"]
    rows = compare(reference, generated, named)
    return pd.DataFrame(rows, columns=columns)


def counts(chosen: pd.DataFrame) -> pd.DataFrame:
    """How many findings agree, are missed, added or contradicted: one row a
    study (index ``study_id``)."""
    rows = {}
    for row in chosen.itertuples():
        words = [w for *_, w, _ in compare(row.reference, row.generated)]
        rows[row.study_id] = {v: words.count(v) for v in VERDICTS}
    return pd.DataFrame(rows).T.rename_axis("study_id")


# --- a reference and several systems ----------------------------------------


def judge(
    reference: str, texts: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """System -> finding -> verdict; "only" is a correct statement that no
    other of several systems makes (green in the paper's Tables 5 and 6).

    Findings on which there is nothing to say are left out.
    """
    truth = label_report(reference)
    said = {name: label_report(text) for name, text in texts.items()}
    judged: dict[str, dict[str, str]] = {name: {} for name in texts}
    for finding in FINDINGS[1:]:
        words = {
            name: verdict(truth.get(finding), said[name].get(finding))
            for name in texts
        }
        right = [name for name in texts if words[name] == "agree"]
        for name in texts:
            alone = right == [name] and len(texts) > 1
            if words[name]:
                judged[name][finding] = "only" if alone else words[name]
    return judged


def decisive(text: str) -> list[tuple[str, list[str]]]:
    """The sentences of a report as written, each with the findings whose
    state in the report it decides."""
    whole = label_report(text) | {"No Finding": ""}
    return [
        (part, [f for f, s in label_report(part).items() if s == whole.get(f)])
        for part in sentences(text)
    ]


def marked(
    text: str, verdicts: Mapping[str, str]
) -> list[tuple[str, str, list[str]]]:
    """(sentence, verdict, findings) for each sentence of a report.

    The strongest verdict among its findings stands for the sentence:
    contradicts, added, missed, only, else "". The findings are those with
    that verdict.
    """
    strongest = ("contradicts", "added", "missed", "only")
    found = []
    for part, mentions in decisive(text):
        words = [verdicts.get(finding, "") for finding in mentions]
        word = next((w for w in strongest if w in words), "")
        these = [f for f, w in zip(mentions, words) if w == word and word]
        found.append((part, word, these))
    return found
