"""phantoms: same study, same picture; every condition leaves its trace."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from llamaxr_utils.datasets import phantoms
from llamaxr_utils.datasets.conditions import CONDITIONS, VIEWS

#: One heading for each of the 18 conditions.
HEADINGS = [
    "Pulmonary Atelectasis/base/left", "Cardiomegaly/moderate",
    "Consolidation/lung/lower lobe/right", "Pulmonary Edema",
    "Pleural Effusion/left/moderate", "Pulmonary Emphysema",
    "Mediastinum/prominent", "Pulmonary Fibrosis/upper lobe/right",
    "Fractures, Bone/ribs/left", "Hernia, Hiatal",
    "Infiltrate/lung/base/left", "Cavitation/lung/upper lobe/right",
    "Opacity/lung/middle lobe/right", "Mass/lung/upper lobe/left",
    "Nodule/lung/upper lobe/right", "Thickening/pleura/right",
    "Pneumonia/lower lobe/right", "Pneumothorax/right/large",
]
#: Mean grey of a left-sided effusion's picture in 3 x 3 blocks: measured.
BLOCKS = [[98.5, 133.2, 109.3], [127.2, 178.9, 142.8], [142.3, 207.6, 190.8]]


def draw(study, headings, view="frontal", size=64):
    return phantoms.draw(study, headings, view, size).astype(float)


def change(study, headings, view):
    return np.abs(draw(study, headings, view) - draw(study, [], view))


def masks(i, heading, view="frontal"):
    return phantoms.lesions(f"CXR{i}", [heading], view)


def center(mask):
    """Mean row and column of a mask, 0 to 1."""
    return np.argwhere(mask).mean(axis=0) / mask.shape[0]


def test_pictures_of_this_version_stay_the_same():
    """Seeded by hashlib, so also in another process and on another day."""
    image = phantoms.draw("CXR1", ["Pleural Effusion/left"], "frontal", 96)
    blocks = image.reshape(3, 32, 3, 32).mean(axis=(1, 3))
    assert np.allclose(blocks, BLOCKS, atol=1.0), blocks.round(1).tolist()


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_condition_leaves_a_trace_and_no_other(name, view):
    """Scattered light reaches further than a lesion, and nothing else."""
    headings = [HEADINGS[CONDITIONS.index(name)]]
    changed = change("CXR3", headings, view)
    mask = phantoms.lesions("CXR3", headings, view, 64)[name]
    assert 4 <= mask.sum() < 0.7 * mask.size
    assert changed[mask].mean() > 5
    outside = ~binary_dilation(mask, iterations=4)
    assert outside.mean() > 0.1
    assert changed[outside].max() <= 20
    assert changed[outside].mean() < 1


@pytest.mark.parametrize("name", ["Pleural Effusion", "Pneumothorax"])
def test_the_patients_right_is_on_the_pictures_left(name):
    for i in range(4):
        for side, left_half in (("right", True), ("left", False)):
            (mask,) = masks(i, f"{name}/{side}/large").values()
            assert bool(center(mask)[1] < 0.5) == left_half


@pytest.mark.parametrize("view", VIEWS)
def test_zones_lie_above_each_other(view):
    rows = []
    for place in ("apex", "upper lobe", "lingula", "base"):
        heading = f"Nodule/lung/{place}/left"
        nodules = [masks(i, heading, view)["Nodule"] for i in range(8)]
        rows.append(np.mean([center(nodule)[0] for nodule in nodules]))
    assert rows == sorted(rows)


def test_severity_shows_and_nothing_else_depends_on_labels():
    """Far from a small nodule two pictures are equal, noise included."""
    areas = [sum(masks(i, f"Pleural Effusion/right/{word}")["Effusion"].sum()
                 for i in range(6)) for word in ("small", "moderate", "large")]
    assert areas[0] < areas[1] < areas[2]
    changed = change("CXR5", ["Nodule/lung/apex/right"], "frontal")
    assert changed[40:].max() <= 2


def test_views_are_drawn_once_and_by_two_processes_alike(tmp_path):
    """More than 64 pictures, so that the pool is used."""
    views = pd.DataFrame({"study_id": [f"CXR{i}" for i in range(66)],
                          "view": 33 * list(VIEWS),
                          "mesh": [["Cardiomegaly"]] * 66})
    calls = []
    paths = phantoms.draw_files(
        views, tmp_path, 16, progress=lambda *n: calls.append(n))
    assert calls == [(n, 66) for n in range(1, 67)]
    picture = draw("CXR65", ["Cardiomegaly"], "lateral", 16)
    assert np.array_equal(np.asarray(Image.open(paths[-1])), picture)
    # A file that is there is kept: only the one taken away is drawn again.
    kept, gone = map(Path, paths[:2])
    kept.write_bytes(b"kept")
    gone.unlink()
    assert phantoms.draw_files(views, tmp_path, 16) == paths
    assert kept.read_bytes() == b"kept" and gone.exists()


def test_findings_are_found_where_they_were_drawn_and_nowhere_else():
    """A linear readout of 16 x 16 blocks."""
    n = 48

    def auc(sick, well):
        x = np.array([*sick, *well]).reshape(-1, 16, 4, 16, 4).mean((2, 4))
        x, y = x.reshape(2 * n, -1), np.repeat([1, 0], n)
        model = make_pipeline(StandardScaler(), RidgeClassifier(300.0))
        folds = StratifiedKFold(6, shuffle=True, random_state=0)
        return roc_auc_score(y, cross_val_predict(
            model, x, y, cv=folds, method="decision_function"))

    well = [draw(f"CXR{i}", []) for i in range(n)]
    for heading in ("Cardiomegaly", "Pleural Effusion/right", "Pneumothorax"):
        headings, whole, masked = [f"{heading}/moderate"], [], []
        for study in (f"CXR{i}" for i in range(n, 2 * n)):
            sick = draw(study, headings)
            (mask,) = phantoms.lesions(study, headings, "frontal", 64).values()
            mask = binary_dilation(mask, iterations=4)
            whole.append(sick)
            masked.append(np.where(mask, draw(study, []), sick))
        assert auc(whole, well) > 0.8, heading
        # Three standard errors of an AUC of a half: 3 * sqrt((2n+1)/12) / n.
        limit = 0.5 + 3 * np.sqrt((2 * n + 1) / 12) / n
        assert auc(masked, well) < limit, heading
