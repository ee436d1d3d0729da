"""Figure 4's numbers as a check: a stand-in of the released network."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.datasets import images
from llamaxr_utils.datasets.conditions import CONDITIONS
from llamaxr_utils.vision import backbones, features

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def views(folders):
    data = folders.parent / "data"
    data.mkdir()
    rng, rows = np.random.default_rng(0), []
    for view, shape in (("frontal", (60, 90)), ("lateral", (90, 60))):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 3)).astype("u1"))
        coarse.resize(shape).save(data / f"{view}.png")
        rows.append(("CXR24", view, f"{view}.png", "IU X-ray"))
    return pd.DataFrame(
        rows, columns=["study_id", "view", "path", "image_source"]
    )


@pytest.fixture(scope="module")
def model():
    """The released network's shape, with a last layer that spreads its
    scores between 0 and 1."""
    import torch

    model = backbones.build(backbones.RELEASED)
    rng = np.random.default_rng(1)
    coarse = [rng.integers(0, 256, (3, 3)).astype("u1") for _ in range(4)]
    grey = [Image.fromarray(c).resize((224, 224)) for c in coarse]
    batch = backbones.to_batch(np.stack([np.asarray(g) for g in grey]))
    with torch.no_grad():
        out = backbones.logits(model, batch)
        scale = 1 / out.std(0)
        model.classifier.weight.mul_(scale[:, None])
        model.classifier.bias.copy_(-out.mean(0) * scale)
    return model


def test_the_36_numbers_of_the_paper():
    printed = features.printed_scores()
    assert printed.shape == (2, 18)
    assert printed[0, 0] == 0.01646517962217331
    assert printed[1, 17] == 0.2825494408607483


@pytest.mark.parametrize("order", ["the network's", "alphabetical"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_the_way_that_made_the_numbers_is_found(
    order, resize, model, views, monkeypatch
):
    grey = np.stack(
        [
            images.read_grey(images.locate(path), 224, resize)
            for path in views["path"][::-1]  # lateral first
        ]
    )
    scores = backbones.predict(model, grey)
    if order == "alphabetical":
        scores = scores[:, [model.pathologies.index(c) for c in CONDITIONS]]
    monkeypatch.setattr(features, "printed_scores", lambda: scores)
    table = features.figure_4_readings(model, views)
    assert len(table) == 16
    best, second = table.iloc[0], table.iloc[1]
    assert best["largest difference"] < 1e-5
    assert second["largest difference"] > 1e-3
    assert best["order"] == order
    assert best["first"] == "lateral"
    assert best["resize"] == resize
    assert best["range"] == "[-1024, 1024]"


def test_it_says_what_it_waits_for(model, views):
    assert features.figure_4_lacks(model, views) == ""
    phantoms = views.assign(image_source="phantom")
    assert "fetch openi" in features.figure_4_lacks(model, phantoms)
    assert "fetch openi" in features.figure_4_lacks(model, views[:1])
    small = backbones.build("densenet-small@random")
    said = features.figure_4_lacks(small, phantoms)
    assert "fetch densenet121-res224-all" in said
    assert "fetch openi" in said
