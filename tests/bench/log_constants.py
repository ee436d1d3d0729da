"""Writes llamaxr_utils/data/constants.csv: the training report of R2Gen's
list that, written for all training studies, has the highest corpus figure:

    .venv/bin/python tests/bench/log_constants.py

A shortlist (long ones, too) is scored on a fifth, its best on all; by Java.
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


def figures(train: pd.DataFrame, places: list[int], step: int = 1):
    """Candidates (places in `train`) against every `step`-th study."""
    truth, rows = list(train["findings"][::step]), []
    for place in places:
        text = [train.loc[place, "findings"]] * len(truth)
        for protocol, names in PROTOCOLS.items():
            scores = metrics.score_reports(truth, text, protocol)
            rows += [(protocol, name, place, scores[name]) for name in names]
    table = pd.DataFrame(rows, columns=["protocol", "metric", "row", "train"])
    return table, table.groupby(["protocol", "metric"], sort=False)["train"]


if __name__ == "__main__":
    train = reports.load_studies().query("split_r2gen == 'train'")
    train, short = train.reset_index(drop=True), {}
    texts = list(train["findings"])
    words = np.array([len(text.split()) for text in texts])
    for utility in ("BLEU-4", "ROUGE-L"):
        mean = baselines.utilities(texts, utility).mean(axis=1)
        for worth in (mean, np.where(words > np.median(words), mean, 0)):
            short |= {texts[i]: int(i) for i in worth.argsort()[-SHORT:]}
    some, groups = figures(train, list(short.values()), step=5)
    last = some["row"][groups.nlargest(LAST).index.get_level_values(-1)]
    table, groups = figures(train, list(last.unique()))
    table = table.loc[groups.idxmax()]
    table["study_id"] = train["study_id"].loc[table.pop("row")].to_list()
    table = table.drop_duplicates("study_id")  # r2gen's come first
    table.loc[table.pop("protocol").eq("llamaxr"), "metric"] += ", llamaxr"
    logs.write(FILE, table.round(4))
