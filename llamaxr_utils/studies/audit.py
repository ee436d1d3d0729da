"""What notebook 08, the audit, uses more than once; its sections stand there.

A section ends in a `Measured`: other data, another verdict. Nobody's
intentions are judged. "Notebook" is the authors' published one as saved; the
run behind the paper may have differed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..course.tables import markdown
from ..datasets.reports import DATA
from ..evaluation.findings import label_report
from ..evaluation.metrics import clean_author, score_reports
from ..evaluation.score import statistics_of
from ..evaluation.stats import paired_interval

MOVED = ("BLEU-4", "ROUGE-L", "METEOR")
LOGGED_ROWS = 2780  #: in the log of the published notebook
BATCH = 32  #: studies a step, in the paper and in that log
AS_SAVED = "The notebook as saved; the final run may have differed."
Result = Mapping[str, Any]  #: of `metrics.score_reports`


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


def rows(results: Mapping[Any, Result], keys: list[str]) -> pd.DataFrame:
    """A row a result, its key in front."""
    lines = [(*key, *(r[m] for m in MOVED)) for key, r in results.items()]
    return pd.DataFrame(lines, columns=[*keys, *MOVED])


def difference(a: Any, b: Any) -> dict[str, float]:
    """Metric -> a minus b, for the metrics that both have."""
    both = [m for m in MOVED if pd.notna(a.get(m)) and pd.notna(b.get(m))]
    return {m: float(a[m] - b[m]) for m in both}


def part(result: Result, mask: np.ndarray) -> dict[str, float]:
    """A result's scores on the studies of a mask; {} if there are none."""
    counts, function, names = statistics_of(result)
    values = function(counts[mask].sum(axis=0)).tolist() if mask.any() else []
    return dict(zip(names, values))


def shuffled_outputs(
    references: Sequence[str], systems: Mapping[str, Sequence[str]],
    n_samples: int = 1000, seed: int = 0,
) -> Measured:
    """e2: does a system lose when its reports are dealt out anew? One that
    got the same prompt for all can't (paired bootstrap by study). The first
    system gives the effect."""
    order = np.random.default_rng(seed).permutation(len(references))
    lines, parts = [], []
    for name, generated in systems.items():
        before, after = (
            score_reports(references, texts)["per_report"][list(MOVED)]
            for texts in (generated, [generated[i] for i in order]))
        gap = paired_interval(before.to_numpy(), after.to_numpy(),
                              n_samples=n_samples, seed=seed)
        value, low, high = gap["value"], gap["low"][2], gap["high"][2]
        lines.append((name, len(set(generated)), before["METEOR"].mean(),
                      *value, low, high, "yes" if low > 0 else "no"))
        parts.append(f"{name} {value[2]:+.3f} [{low:+.3f}, {high:+.3f}]")
    names = [f"{m}, own minus shuffled" for m in MOVED]
    columns = ["system", "distinct", "METEOR", *names, "low", "high", "tied"]
    table = pd.DataFrame(lines, columns=columns)
    loose = ", ".join(table.loc[table["tied"] == "no", "system"])
    answer = (f"shuffling changes nothing for {loose}" if loose
              else "shuffling lowers every score")
    verdict = f"METEOR, own minus shuffled: {'; '.join(parts)}."
    effect = dict(zip(MOVED, table.loc[0, names].astype(float)))
    return Measured("e2", answer, verdict, table, effect)


def lost_negations(
    texts: Sequence[str], clean: Callable[[str], str] = clean_author,
    effect: dict[str, float] | None = None,
) -> Measured:
    """g: findings that a report denies and its cleaned text states; for
    contrast with every "No" in lower case."""
    lines = []
    for number, text in enumerate(texts):
        upper, lower = (label_report(clean(t))
                        for t in (text, text.replace("No ", "no ")))
        lines += [(number, finding, upper.get(finding) == "present",
                   lower.get(finding) == "present")
                  for finding, state in label_report(text).items()
                  if state == "absent" and finding != "No Finding"]
    denials = pd.DataFrame(
        lines, columns=["report", "finding", "turned", "turned in lower"])
    table = denials.groupby("finding", sort=False, as_index=False).agg(
        **{"denied": ("turned", "size"), "then present": ("turned", "sum")})
    table = table.sort_values("then present", ascending=False)[:8]
    turned = denials[denials["turned"]]
    verdict = (
        f"{len(turned):,} of {len(denials):,} denied findings, in "
        f"{turned['report'].nunique():,} of {len(texts):,} reports, read as "
        'present once the text is cleaned. Had every "No" been "no": '
        f"{denials['turned in lower'].sum():,}.")
    answer = f"the cleaner {'keeps' if turned.empty else 'loses'} negations"
    return Measured("g", answer, verdict, table.reset_index(drop=True),
                    effect or {})
