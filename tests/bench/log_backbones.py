"""Writes figures/data/backbone-auc.csv: how good our own network is on real
X-rays, five folds by study over all indexed studies.

    LLAMAXR_DATA=<folder with the X-rays> \
        .venv/bin/python tests/bench/log_backbones.py

At most a quarter of an hour on two cores. Only numbers are written.
"""

import logs
import numpy as np
import pandas as pd

from llamaxr_utils.datasets import images, mesh, reports
from llamaxr_utils.datasets.conditions import NATIVE_ORDER
from llamaxr_utils.vision import backbones, features

FOLDS, LEAST, SEED = 5, 50, 3407
NAME = "densenet-small@iu-train"


if __name__ == "__main__":
    studies = reports.load_studies()
    indexed = studies[studies["status"].ne("not indexed")]
    image_ids = reports.load_image_ids()
    views = images.xray_views(
        image_ids[image_ids["study_id"].isin(indexed["study_id"])])
    labels = mesh.label_table(indexed)
    ids = views["study_id"].unique()
    place = np.random.default_rng(SEED).permutation(len(ids)) % FOLDS
    fold = views["study_id"].map(dict(zip(ids, place))).to_numpy()
    size = backbones.architecture(NAME).resolution
    grey, views = images.read_views(views, size)
    truth = labels.loc[views["study_id"], list(NATIVE_ORDER)].to_numpy()
    scores = np.zeros(truth.shape)
    for k in range(FOLDS):
        model = backbones.build(NAME, SEED)
        backbones.train(model, grey[fold != k], truth[fold != k])
        model.op_threshs = None  # each fold has points of its own
        scores[fold == k] = backbones.predict(model, grey[fold == k])
    table = pd.DataFrame(scores, columns=list(NATIVE_ORDER))
    table = pd.concat([views[["study_id", "view"]], table], axis=1)
    auc = features.auc_table(table, labels, least=LEAST)
    auc.insert(0, "backbone", NAME)
    logs.write(logs.DATA / "backbone-auc.csv", auc, "%.4f")
