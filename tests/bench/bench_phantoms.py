"""Can a small network find what was drawn, and only where it was drawn?

Patients with one finding of moderate severity each, and healthy ones; their
frontal views at 64 pixels train one small network, anew for each kind of
picture. "masked": the lesion's pixels, and a rim around them, show the same
patient without it; what a network still finds there has leaked into anatomy,
pose, exposure or noise. Two minutes on a calm core; it prints a table:

    .venv/bin/python tests/bench/bench_phantoms.py [patients a finding]
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score

from llamaxr_utils.course import machine
from llamaxr_utils.datasets import phantoms
from llamaxr_utils.datasets.conditions import CONDITIONS

SIZE, RIM = 64, 4
#: Condition -> heading; {} becomes a side, moderate severity is added.
HEADINGS = {
    "Atelectasis": "Pulmonary Atelectasis/base/{}",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation/lung/{}",
    "Edema": "Pulmonary Edema",
    "Effusion": "Pleural Effusion/{}",
    "Emphysema": "Pulmonary Emphysema",
    "Enlarged Cardiomediastinum": "Mediastinum/enlarged",
    "Fibrosis": "Pulmonary Fibrosis/{}",
    "Fracture": "Fractures, Bone/ribs/{}",
    "Hernia": "Hernia, Hiatal",
    "Infiltration": "Infiltrate/lung/{}",
    "Lung Lesion": "Cavitation/lung/{}",
    "Lung Opacity": "Opacity/lung/{}",
    "Mass": "Mass/lung/{}",
    "Nodule": "Calcified Granuloma/lung/{}",
    "Pleural Thickening": "Thickening/pleura/{}",
    "Pneumonia": "Pneumonia/lung/{}",
    "Pneumothorax": "Pneumothorax/{}",
}


def patients(job: tuple[str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Frontal views (n, SIZE, SIZE) of a condition: whole, and masked."""
    name, start, n = job
    whole, masked = np.zeros((2, n, SIZE, SIZE), np.uint8)
    for k in range(n):
        study, side = f"CXR{start + k}", ("left", "right")[k % 2]
        found = [f"{HEADINGS[name].format(side)}/moderate"] if name else []
        image = phantoms.draw(study, found, "frontal", SIZE)
        whole[k] = masked[k] = image
        if name:
            mask = phantoms.lesions(study, found, "frontal", SIZE)[name]
            mask = binary_dilation(mask, iterations=RIM)
            healthy = phantoms.draw(study, [], "frontal", SIZE)
            masked[k] = np.where(mask, healthy, image)
    return whole, masked


def scores(train, labels, test, epochs: int = 14, seed: int = 0) -> np.ndarray:
    """A small convolutional network's logits for the pictures of `test`."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.BatchNorm2d(1)]
    for a, b in ((1, 16), (16, 32), (32, 64), (64, 96)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    # Four by four places are kept: where a shadow lies says what it is.
    layers += [nn.Flatten(), nn.Dropout(0.4), nn.LazyLinear(labels.shape[1])]
    net = nn.Sequential(*layers)
    x = torch.from_numpy(train[:, None]).float() / 128 - 1
    y = torch.from_numpy(labels).float()
    net(x[:2])
    steps = epochs * -(-len(x) // 64)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    weight = (1 - y).sum(0) / y.sum(0)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(64):
            shift = torch.randint(-2, 3, (2,)).tolist()
            out = net(x[part].roll(shift, (2, 3)))
            loss = nn.functional.binary_cross_entropy_with_logits(
                out, y[part], pos_weight=weight
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
    net.eval()
    with torch.inference_mode():
        return net(torch.from_numpy(test[:, None]).float() / 128 - 1).numpy()


def standard_error(auc: float, positive: int, negative: int) -> float:
    """Hanley and McNeil, Radiology 143 (1982) 29-36, equation 1."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positive - 1) * (q1 - auc**2)
    spread += (negative - 1) * (q2 - auc**2)
    return float(np.sqrt(spread / (positive * negative)))


def measure(n_train: int = 100, n_test: int = 50) -> pd.DataFrame:
    """AUC of each condition on held-out patients: whole and masked."""
    sets: dict[str, tuple] = {}
    jobs, start = [], 1
    for n in (n_train, n_test):
        for name in (*CONDITIONS, ""):
            jobs.append((name, start, n if name else 5 * n))
            start += jobs[-1][2]
    with ProcessPoolExecutor(machine.cores()) as pool:
        pictures = list(pool.map(patients, jobs))
    half = len(jobs) // 2
    for kind, part in (("train", slice(half)), ("test", slice(half, None))):
        who = np.repeat([j[0] for j in jobs[part]], [j[2] for j in jobs[part]])
        whole, masked = map(np.concatenate, zip(*pictures[part], strict=True))
        labels = who[:, None] == np.array(CONDITIONS)
        sets[kind] = {"whole": whole, "masked": masked}, labels
    rows: dict[str, dict] = {name: {} for name in CONDITIONS}
    labels = sets["test"][1]
    healthy = ~labels.any(1)
    for which in ("whole", "masked"):
        images, known = sets["train"]
        out = scores(images[which], known, sets["test"][0][which])
        for k, name in enumerate(CONDITIONS):
            rest = labels[:, k] | healthy
            auc = roc_auc_score(labels[rest, k], out[rest, k])
            rows[name][which] = auc
            if which == "whole":
                every = roc_auc_score(labels[:, k], out[:, k])
                rows[name]["among all"] = every
    error = standard_error(0.5, n_test, int(healthy.sum()))
    table = pd.DataFrame(rows).T[["whole", "masked", "among all"]]
    return table.assign(se_at_half=error)


def test_findings_are_found_where_they_are_drawn():
    began = time.perf_counter()
    table = measure(60, 40)
    print(f"\n{table.round(3).to_string()}")
    print(f"mean {table.mean().round(3).to_dict()}")
    print(f"{time.perf_counter() - began:.0f} s")
    assert table["whole"].mean() > 0.8
    assert abs(table["masked"].mean() - 0.5) < 0.1


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(measure(n, max(40, n // 2)).round(3).to_string())
