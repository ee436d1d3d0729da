"""What notebook 08, the audit, uses more than once; its sections stand there.

A section ends in a `Measured`: other data, another verdict. Nobody's
intentions are judged. "Notebook" is the authors' published one as saved; the
run behind the paper may have differed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..course.tables import markdown
from ..datasets.reports import DATA

MOVED = ("BLEU-4", "ROUGE-L", "METEOR")
LOGGED_ROWS = 2780  #: in the log of the published notebook
BATCH = 32  #: studies a step, in the paper and in that log
AS_SAVED = "The notebook as saved; the final run may have differed."


@dataclass(frozen=True)
class Measured:
    """One section of the audit: its letter in the ledger, the words that
    other data turn into others, a sentence with the numbers, the table, and
    the effect by metric."""

    item: str
    answer: str
    verdict: str
    table: pd.DataFrame
    effect: dict[str, float] = field(default_factory=dict)

    def _repr_markdown_(self) -> str:
        words = f"**{self.item} · {self.answer}.** {self.verdict}"
        return f"{markdown(self.table)}\n\n{words}"


def data(name: str) -> pd.DataFrame:
    """A table of quotations: ``ledger``, ``unmeasured``, ``paper_fragments``
    and ``figure_4_scores`` are the paper's; ``score_spread`` describes 198
    real score vectors (https://github.com/fdalto/torchxraydensenet)."""
    return pd.read_csv(DATA / f"{name}.csv", keep_default_na=False)


def rows(results: Mapping[Any, Mapping[str, Any]],
         keys: list[str]) -> pd.DataFrame:
    """A row a result of `metrics.score_reports`, its key in front."""
    lines = [(*key, *(r[m] for m in MOVED)) for key, r in results.items()]
    return pd.DataFrame(lines, columns=[*keys, *MOVED])


def difference(a: Any, b: Any) -> dict[str, float]:
    """Metric -> a minus b, for the metrics that both have."""
    both = [m for m in MOVED if pd.notna(a.get(m)) and pd.notna(b.get(m))]
    return {m: float(a[m] - b[m]) for m in both}
