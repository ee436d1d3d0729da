"""Writes figures/data/backbone-auc.csv: how good our own networks are on
real X-rays, five folds by study over all indexed studies.

    LLAMAXR_DATA=<folder with the X-rays> \
        .venv/bin/python tests/bench/log_backbones.py

A quarter of an hour on two cores. Only numbers are written; rows that are
there are not made again.
"""

from functools import partial

import logs
import numpy as np
import pandas as pd
import torch

from llamaxr_utils.datasets import images, mesh, reports
from llamaxr_utils.datasets.conditions import NATIVE_ORDER
from llamaxr_utils.vision import backbones, features

FOLDS, LEAST, SEED = 5, 50, 3407
TARGET = logs.DATA / "backbone-auc.csv"


def train_head(model, grey, labels, steps=300):
    """Train the last layer alone, on embeddings that are computed once."""
    head, seen = model.classifier, []
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    backbones.predict(model, grey, batch_size=8)
    hook.remove()
    inputs = torch.cat(seen).clone()
    truth = torch.from_numpy(labels.astype(np.float32)).to(inputs.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.1)
    loss_of = backbones.weighted_loss(truth)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(head(inputs), truth).backward()
        optimizer.step()


def main() -> None:
    studies = reports.load_studies()
    indexed = studies[studies["status"].ne("not indexed")]
    image_ids = reports.load_image_ids()
    views = images.xray_views(
        image_ids[image_ids["study_id"].isin(indexed["study_id"])])
    labels = pd.DataFrame(
        [mesh.labels(m) for m in indexed["mesh"]], index=indexed["study_id"])
    ids = views["study_id"].unique()
    place = np.random.default_rng(SEED).permutation(len(ids)) % FOLDS
    fold = views["study_id"].map(dict(zip(ids, place))).to_numpy()
    size = backbones.architecture("densenet-small@random").resolution
    grey, views = images.read_views(views, size)
    assert not views.attrs["unreadable"]
    truth = labels.loc[views["study_id"], list(NATIVE_ORDER)].to_numpy()

    # The same number of steps on half of the studies: does their number
    # limit the network?
    portion = np.random.default_rng(SEED + 1).random(len(ids))
    portion = views["study_id"].map(dict(zip(ids, portion))).to_numpy()
    train = backbones.train
    for name, note, share, learn in (
        ("densenet-small@iu-train", "", 1, train),
        ("densenet-small@random", "", 1, train_head),
        ("densenet-small@iu-train", ", half", 0.5, partial(train, epochs=20)),
    ):
        before = logs.read(TARGET)
        if name + note in set(before.get("backbone", ())):
            continue
        scores = np.zeros(truth.shape)
        for k in range(FOLDS):
            mine = (fold != k) & (portion < share)
            model = backbones.build(name, SEED)
            learn(model, grey[mine], truth[mine])
            model.op_threshs = None  # each fold has points of its own
            scores[fold == k] = backbones.predict(model, grey[fold == k])
        table = pd.DataFrame(scores, columns=list(NATIVE_ORDER))
        table = pd.concat([views[["study_id", "view"]], table], axis=1)
        auc = features.auc_table(table, labels, least=LEAST)
        auc.insert(0, "backbone", name + note)
        logs.write(TARGET, pd.concat([before, auc]), "%.4f")


if __name__ == "__main__":
    main()
