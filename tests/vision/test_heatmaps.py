"""Heatmaps: where they lie, and what they are worth on phantoms."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.datasets import phantoms
from llamaxr_utils.datasets.conditions import CONDITIONS
from llamaxr_utils.vision import backbones, heatmaps


def test_a_heatmap_lies_on_what_the_network_looks_at(model):
    size = model.resolution
    grey = np.full((size, size), 40, np.uint8)
    grey[size // 2 :] += 150
    before = backbones.predict(model, grey[None])
    heat = heatmaps.heatmap(model, grey, "Effusion")
    assert heat.shape == (size, size)
    assert heat.min() >= 0 and heat.max() == pytest.approx(1.0)
    assert heat[size // 2 :].mean() > heat[: size // 4].mean()
    assert np.array_equal(backbones.predict(model, grey[None]), before)
    large = backbones.build("densenet121@random")  # its layer, too
    assert np.isfinite(heatmaps.heatmap(large, grey, "Edema")).all()


def test_maps_for_the_case_page(model, pictures, data, tmp_path):
    Image.fromarray(pictures[0][0]).save(data / "a.png")
    (data / "b.png").write_bytes(b"no image")
    views = pd.DataFrame(
        [("CXR1", "frontal", "a.png"), ("CXR1", "lateral", "b.png"),
         ("CXR2", "frontal", "a.png")],
        columns=["study_id", "view", "path"])
    scores = pd.DataFrame(0.1, index=[0, 1, 2], columns=list(CONDITIONS))
    scores.loc[0, "Effusion"] = 0.9
    scores.loc[2] = np.nan  # CXR2 has no scores
    scores = pd.concat([views[["study_id", "view"]], scores], axis=1)
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "CXR9_frontal.png").write_bytes(b"of an earlier run")
    assert heatmaps.write_maps(model, views, scores, folder) == 1
    assert [file.name for file in folder.iterdir()] == ["CXR1_frontal.png"]
    with Image.open(folder / "CXR1_frontal.png") as picture:
        assert picture.size == (128, 128)
        assert picture.info["Description"] == "Effusion"
        assert np.ptp(np.asarray(picture), axis=2).max() > 30  # in colour


@pytest.mark.parametrize("case", ["lesion", "elsewhere", "everywhere"])
def test_the_pointing_game_marks_maps_that_are_known(monkeypatch, case):
    mesh = ["Cardiomegaly/severe"], ["Pleural Effusion/left/large"], ["normal"]
    ids = ["CXR1", "CXR2", "CXR3"]
    studies = pd.DataFrame({"study_id": ids, "mesh": mesh})
    model = backbones.build("densenet-small@phantom")

    def known(network, grey, condition):
        if network is not model:  # the random control sees nothing
            return np.zeros(grey.shape, np.float32)
        study = studies.iloc[0 if condition == "Cardiomegaly" else 1]
        what = (study["study_id"], study["mesh"], "frontal", len(grey))
        lesion = phantoms.lesions(*what)[condition].astype(np.float32)
        maps = {"lesion": lesion, "elsewhere": 1 - lesion}
        return maps.get(case, np.ones_like(lesion))

    monkeypatch.setattr(heatmaps, "heatmap", known)
    game = heatmaps.pointing_game(model, studies)
    assert list(game.index) == ["Cardiomegaly", "Effusion"]
    assert game["n"].tolist() == [1, 1]
    assert game["area"].between(0.001, 0.5).all()
    assert game["hit random"].eq(0).all()
    if case == "everywhere":
        assert np.allclose(game["inside"], game["area"])
    else:
        assert game["hit"].eq(case == "lesion").all()
        assert game["inside"].eq(case == "lesion").all()
