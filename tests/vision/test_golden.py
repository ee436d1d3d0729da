"""Notebook 02 and Figure 4's numbers: a stand-in of the released network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.datasets import images
from llamaxr_utils.datasets.conditions import CONDITIONS, VIEWS
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


def notebook_function(name, **known):
    """A function as it stands in a cell of the notebook."""
    file = "notebooks/02_extract_features.ipynb"
    text = (Path(__file__).parents[2] / file).read_text("utf-8")
    cells = ("".join(cell["source"]) for cell in json.loads(text)["cells"])
    (code,) = (cell for cell in cells if cell.startswith(f"def {name}("))
    exec(code, known)  # noqa: S102 (our page)
    return known[name]


@pytest.mark.parametrize(
    ("order", "resize"),
    [("the network's", "squash"), ("alphabetical", "crop")],
)
def test_the_way_that_made_the_numbers_is_told(
    order, resize, model, tmp_path, monkeypatch
):
    printed = features.printed_scores()
    assert printed.shape == (2, 18)
    assert printed[0, 0] == 0.01646517962217331
    assert printed[1, 17] == 0.2825494408607483

    rng, files = np.random.default_rng(0), []
    for view, shape in (("frontal", (60, 90)), ("lateral", (90, 60))):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 3)).astype("u1"))
        files.append(tmp_path / f"{view}.png")
        coarse.resize(shape).save(files[-1])
    # Lateral first:
    grey = [images.read_grey(file, 224, resize) for file in files[::-1]]
    scores = backbones.predict(model, np.stack(grey))
    if order == "alphabetical":
        scores = scores[:, [model.pathologies.index(c) for c in CONDITIONS]]
    monkeypatch.setattr(features, "printed_scores", lambda: scores)

    read = notebook_function(
        "figure_4_readings", model=model, images=images, features=features,
        backbones=backbones, np=np, pd=pd, CONDITIONS=CONDITIONS, VIEWS=VIEWS,
    )  # fmt: skip
    table = read(files)
    assert len(table) == 16
    best, second = table["largest difference"][:2]
    assert best < 1e-5
    assert second > 1e-3
    assert table.iloc[0, :4].tolist() == [
        order, "lateral", "[-1024, 1024]", resize
    ]  # fmt: skip
