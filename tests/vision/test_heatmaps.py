"""Heatmaps: where they lie, and what they are worth on phantoms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.datasets import phantoms
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER
from llamaxr_utils.vision import backbones, heatmaps

SMALL = "densenet-small@phantom"

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_heatmap_lies_on_what_the_network_looks_at(model):
    size = model.resolution
    grey = np.full((size, size), 40, np.uint8)
    grey[size // 2 :] += 150
    heat = heatmaps.heatmap(model, grey, "Effusion")
    assert heat.shape == (size, size)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1.0)
    assert np.isfinite(heat).all()


def test_a_heatmap_knows_torchxrayvisions_spelling(model, monkeypatch):
    spelled = [n.replace(" Th", "_Th") for n in NATIVE_ORDER]
    grey = np.zeros((model.resolution,) * 2, np.uint8)
    plain = heatmaps.heatmap(model, grey, "Pleural Thickening")
    monkeypatch.setattr(model, "pathologies", spelled)
    same = heatmaps.heatmap(model, grey, "Pleural Thickening")
    assert np.array_equal(plain, same)


def test_a_heatmap_leaves_the_network_as_it_was(model):
    grey = np.zeros((2, model.resolution, model.resolution), np.uint8)
    before = backbones.predict(model, grey)
    heatmaps.heatmap(model, grey[0], "Edema")
    assert np.array_equal(backbones.predict(model, grey), before)


@pytest.mark.parametrize(
    "name", ["densenet121@random", "resnet50-imagenet@random",
             "efficientnet-b0-imagenet@random"]
)  # fmt: skip
def test_every_architecture_has_a_layer_for_it(name):
    model = backbones.build(name)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (model.resolution,) * 2).astype(np.uint8)
    heat = heatmaps.heatmap(model, grey, "Edema")
    assert heat.shape == grey.shape
    assert np.isfinite(heat).all()


def test_an_output_that_a_network_lacks():
    model = backbones.build(SMALL)
    model.pathologies = ["Edema"] + [""] * 17
    grey = np.zeros((64, 64), np.uint8)
    with pytest.raises(ValueError, match="no output 'Mass'"):
        heatmaps.heatmap(model, grey, "Mass")


def test_maps_for_the_case_page(model, folders, tmp_path):
    from PIL import Image

    data = folders.parent / "data"
    data.mkdir()
    grey = np.full((64, 64), 40, np.uint8)
    grey[32:] += 150
    Image.fromarray(grey).save(data / "a.png")
    (data / "b.png").write_bytes(b"no image")
    views = pd.DataFrame(
        [("CXR1", "frontal", "a.png"), ("CXR1", "lateral", "b.png"),
         ("CXR2", "frontal", "a.png")],
        columns=["study_id", "view", "path"],
    )  # fmt: skip
    scores = pd.DataFrame(0.1, index=[0, 1, 2], columns=list(CONDITIONS))
    scores.loc[0, "Effusion"] = 0.9
    scores.loc[2] = np.nan  # CXR2 has no scores
    scores = pd.concat([views[["study_id", "view"]], scores], axis=1)
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "CXR9_frontal.png").write_bytes(b"of an earlier run")
    n = heatmaps.write_maps(model, views, scores, folder)
    assert [file.name for file in folder.iterdir()] == ["CXR1_frontal.png"]
    assert n == 1
    with Image.open(folder / "CXR1_frontal.png") as picture:
        assert picture.size == (128, 128)
        assert picture.info["Description"] == "Effusion"
        assert np.ptp(np.asarray(picture), axis=2).max() > 30  # in colour


def test_a_batch_is_what_its_images_are(model):
    rng = np.random.default_rng(2)
    grey = rng.integers(0, 256, (3, 64, 64)).astype(np.uint8)
    named = ["Effusion", "Edema", "Effusion"]
    together = heatmaps.heatmap_batch(model, grey, named)
    for one, name, heat in zip(grey, named, together):
        assert np.allclose(heatmaps.heatmap(model, one, name), heat,
                           atol=1e-4)  # fmt: skip


# --- the pointing game ------------------------------------------------------


STUDIES = pd.DataFrame(
    {
        "study_id": ["CXR1", "CXR2", "CXR3"],
        "mesh": [
            ["Cardiomegaly/severe"],
            ["Pleural Effusion/left/large"],
            ["normal"],
        ],
    }
)


def play(monkeypatch, own):
    """The game with maps that are known; the random control's are 0."""
    model = backbones.build(SMALL)

    def known(network, grey, condition):
        if network is not model:
            return np.zeros(grey.shape, np.float32)
        study = STUDIES.iloc[0 if condition == "Cardiomegaly" else 1]
        mask = phantoms.lesions(
            study["study_id"], study["mesh"], "frontal", len(grey)
        )[condition]
        return own(mask.astype(np.float32))

    monkeypatch.setattr(heatmaps, "heatmap", known)
    return heatmaps.pointing_game(model, STUDIES)


def test_a_map_of_the_lesion_wins(monkeypatch):
    game = play(monkeypatch, lambda mask: mask)
    assert list(game.index) == ["Cardiomegaly", "Effusion"]
    assert game["n"].tolist() == [1, 1]
    assert game["hit"].eq(1).all()
    assert game["inside"].eq(1).all()
    assert game["hit random"].eq(0).all()
    assert game["area"].between(0.001, 0.5).all()


def test_a_map_of_everything_else_loses(monkeypatch):
    game = play(monkeypatch, lambda mask: 1 - mask)
    assert game["hit"].eq(0).all()
    assert game["inside"].eq(0).all()


def test_a_map_without_preference_has_the_lesions_share(monkeypatch):
    game = play(monkeypatch, np.ones_like)
    assert np.allclose(game["inside"], game["area"])
