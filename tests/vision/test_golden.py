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


@pytest.mark.parametrize(
    ("order", "resize"),
    [("the network's", "squash"), ("alphabetical", "crop")],
)
def test_the_way_that_made_the_numbers_is_told(
    order, resize, model, data, monkeypatch
):
    printed = features.printed_scores()
    assert printed.shape == (2, 18)
    assert printed[0, 0] == 0.01646517962217331
    assert printed[1, 17] == 0.2825494408607483

    rng, rows = np.random.default_rng(0), []
    for view, shape in (("frontal", (60, 90)), ("lateral", (90, 60))):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 3)).astype("u1"))
        coarse.resize(shape).save(data / f"{view}.png")
        rows.append(("CXR24", view, f"{view}.png"))
    views = pd.DataFrame(rows, columns=["study_id", "view", "path"])
    grey = [
        images.read_grey(images.locate(path), 224, resize)
        for path in views["path"][::-1]  # lateral first
    ]
    scores = backbones.predict(model, np.stack(grey))
    if order == "alphabetical":
        scores = scores[:, [model.pathologies.index(c) for c in CONDITIONS]]
    monkeypatch.setattr(features, "printed_scores", lambda: scores)

    table = features.figure_4_readings(model, views)
    assert len(table) == 16
    best, second = table["largest difference"][:2]
    assert best < 1e-5
    assert second > 1e-3
    assert table.iloc[0, :4].tolist() == [
        order, "lateral", "[-1024, 1024]", resize
    ]  # fmt: skip
