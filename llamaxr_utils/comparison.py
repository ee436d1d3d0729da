"""The rows of a comparison of designs: measured, averaged, judged.

Takes reports and gives numbers; it trains and decodes nothing. The limits
are the project's own goals, no standard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from . import generate, mesh, metrics, stats
from .findings import label_report
from .grounding import GAP, swap_test


def measure(
    test: pd.DataFrame,
    texts: Sequence[str],
    neighbours: Sequence[str],
    n_samples: int = 1000,
) -> dict[str, float]:
    """One row about the reports of some test studies.

    Parameters
    ----------
    test : DataFrame
        Rows of ``studies``: ``findings``, ``status``, ``mesh``.
    texts, neighbours : sequences of str, in the order of `test`
        The reports; those of the nearest neighbours on the same scores.
    n_samples : int
        Of the bootstraps.

    Returns
    -------
    dict
        ``n``; ``f1``, ``f1_shuffled``, ``gap`` with ``gap_low`` and
        ``gap_high`` (findings of the 18 conditions; a study's report against
        another's, `grounding.swap_test`); ``bleu4``, ``rouge_l``, ``cider``
        (r2gen); ``bleu4_over_nn``, ``cider_over_nn``, each with ``_low`` and
        ``_high``: minus the nearest neighbour on the same scores, paired by
        study; ``distinct`` reports, also among abnormal studies;
        ``normal_called``, ``sick_called``: share of the normal studies, and
        of the abnormal ones with one of the 18 conditions, whose report is
        abnormal.
    """
    truth, texts = list(test["findings"]), list(texts)
    donors = generate.swap(len(test), 3407)
    found = {
        row["measure"]: row
        for row in swap_test(truth, texts, [texts[i] for i in donors],
                             n_samples=n_samples)
    }  # fmt: skip
    kind = test["status"].to_numpy()
    has = np.array([any(mesh.labels(m).values()) for m in test["mesh"]])
    called = np.array(
        [label_report(t).get("No Finding") == "absent" for t in texts]
    )
    sick, written = kind == "abnormal", np.array(texts, dtype=object)
    ours, theirs = (metrics.score_reports(truth, t, "r2gen")
                    for t in (texts, neighbours))
    row: dict[str, float] = {
        "n": len(test),
        "f1": found["findings F1, own"]["value"],
        "f1_shuffled": found["findings F1, shuffled"]["value"],
        "gap": found[GAP]["value"],
        "gap_low": found[GAP]["low"],
        "gap_high": found[GAP]["high"],
        "bleu4": ours["BLEU-4"],
        "rouge_l": ours["ROUGE-L"],
        "cider": ours["CIDEr"],
    }
    a, function, names = stats.metric_statistics(ours)
    b, _, _ = stats.metric_statistics(theirs)
    for key, name in (("bleu4", "BLEU-4"), ("cider", "CIDEr")):
        place = names.index(name)
        over = stats.paired_interval(
            a, b, lambda sums, i=place: function(sums)[..., i],
            n_samples=n_samples,
        )  # fmt: skip
        row[f"{key}_over_nn"] = over["value"]
        row |= {f"{key}_over_nn_{end}": over[end] for end in ("low", "high")}
    return row | {
        "distinct": len(set(texts)),
        "distinct_sick": len(set(written[sick])),
        "normal_called": _share(called[kind == "normal"]),
        "sick_called": _share(called[sick & has]),
    }


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else float("nan")
