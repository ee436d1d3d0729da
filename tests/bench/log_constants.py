"""Writes llamaxr_utils/data/constants.csv: the training report of R2Gen's
list that, written for every training study, has the highest figure of each
metric under each protocol (corpus figures where the metric is one):

    .venv/bin/python tests/bench/log_constants.py

A shortlist by cheap utilities is scored on every fifth study, the best of
each metric then on all 2,069. Needs Java. No test study is read.
"""

import logs
import numpy as np
import pandas as pd

from llamaxr_utils.datasets import reports
from llamaxr_utils.evaluation import baselines, metrics

FILE = reports.DATA / "constants.csv"
SHORT, LAST = 40, 4  # candidates: by utility, of each metric at the end
PROTOCOLS = {"r2gen": (*metrics.METRICS[3:], "CIDEr"),
             "llamaxr": metrics.METRICS[3:]}


def figures(train: pd.DataFrame, rows_used: pd.Index,
            places: list[int]) -> pd.DataFrame:
    """Candidates (places in `train`) against some rows of it."""
    truth, rows = list(train.loc[rows_used, "findings"]), []
    for place in places:
        text = [train.loc[place, "findings"]] * len(truth)
        for protocol, names in PROTOCOLS.items():
            scores = metrics.score_reports(truth, text, protocol)
            rows += [(protocol, name, place, scores[name]) for name in names]
        print(rows[-1], flush=True)
    return pd.DataFrame(rows, columns=["protocol", "metric", "place", "train"])


if __name__ == "__main__":
    train = reports.load_studies().query("split_r2gen == 'train'")
    train = train.reset_index(drop=True)
    texts, short = list(train["findings"]), {}
    words = np.array([len(text.split()) for text in texts])
    for utility in ("BLEU-4", "ROUGE-L"):
        mean = baselines.utilities(texts, utility).mean(axis=1)
        # METEOR counts recall most: so the best of the long ones, too.
        for worth in (mean, np.where(words > np.median(words), mean, 0)):
            short |= {texts[i]: int(i) for i in worth.argsort()[-SHORT:]}
    some = figures(train, train.index[::5], list(short.values()))
    best = some.groupby(["protocol", "metric"])["train"].nlargest(LAST)
    last = some.loc[best.index.get_level_values(-1), "place"].unique()
    table = figures(train, train.index, list(last))
    best = table.groupby(["protocol", "metric"], sort=False)["train"].idxmax()
    table = table.loc[best]
    table["study_id"] = train["study_id"].loc[table.pop("place")].to_list()
    logs.write(FILE, table.round(4))
