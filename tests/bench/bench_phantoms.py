"""Can a small network find what was drawn, and only where it was drawn?

Patients with one finding each, and healthy ones: their frontal views train
one small network, anew for each kind of picture. "masked": the lesion's
pixels and a rim show the same patient without it; what a network still finds
there has leaked into anatomy, pose, exposure or noise. Minutes on one core:

    .venv/bin/python tests/bench/bench_phantoms.py [patients a finding]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score

from llamaxr_utils.datasets import phantoms
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER
from llamaxr_utils.vision import backbone_training, backbones

sys.path.append(str(Path(__file__).parents[1] / "datasets"))
from test_phantoms import HEADINGS

SIZE, RIM = 64, 4


def patients(start: int, n: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """n patients a condition and 5 n healthy ones: pictures, 18 labels."""
    names = [name for name in CONDITIONS for _ in range(n)] + [""] * (5 * n)
    pictures: dict[str, list] = {"whole": [], "masked": []}
    for number, name in enumerate(names, start):
        study, headings = f"CXR{number}", [HEADINGS[name]] if name else []
        image = phantoms.draw(study, headings, "frontal", SIZE)
        pictures["whole"].append(image)
        if name:
            mask = phantoms.lesions(study, headings, "frontal", SIZE)[name]
            mask = binary_dilation(mask, iterations=RIM)
            well = phantoms.draw(study, [], "frontal", SIZE)
            image = np.where(mask, well, image)
        pictures["masked"].append(image)
    labels = np.array(names)[:, None] == np.array(NATIVE_ORDER)
    return {k: np.stack(v) for k, v in pictures.items()}, labels.astype(int)


def measure(n_train: int = 100, n_test: int = 50) -> pd.DataFrame:
    """AUC of each condition against healthy patients: whole and masked."""
    pictures, labels = patients(1, n_train)
    unseen, truth = patients(10**6, n_test)
    table = pd.DataFrame(index=list(NATIVE_ORDER))
    for kind in pictures:
        model = backbones.build("densenet-small@phantom")
        backbone_training.train(model, pictures[kind], labels, 6)
        scores = backbones.predict(model, unseen[kind])
        for k, name in enumerate(NATIVE_ORDER):
            rows = (truth[:, k] == 1) | ~truth.any(axis=1)
            auc = roc_auc_score(truth[rows, k], scores[rows, k])
            table.loc[name, kind] = auc
    return table


def test_findings_are_found_where_they_are_drawn():
    mean = measure(20, 40).mean()
    print(mean.round(3).to_dict())
    assert mean["whole"] > 0.8 and abs(mean["masked"] - 0.5) < 0.1


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    table = measure(n, max(40, n // 2))
    print(table.round(3).to_string(), table.mean().round(3).to_dict())
