"""Where a network looked: Grad-CAM, and how far it can be believed.

On phantoms the lesion's place is known, so the maps can be marked: do they
peak inside it, and does a network with random weights do as well? On X-rays
nothing of the kind is known here.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..datasets import mesh, phantoms
from ..datasets.conditions import CONDITIONS
from ..datasets.images import read_views
from . import backbones

BATCH = 16  #: images a pass: one by one takes three times as long


def heatmap(model: Any, grey: np.ndarray, condition: str) -> np.ndarray:
    """`heatmap_batch` of one image, (size, size)."""
    return heatmap_batch(model, grey[None], [condition])[0]


def heatmap_batch(model: Any, grey: np.ndarray,
                  conditions: Sequence[str]) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., 2017) of one condition an image: uint8
    (n, size, size) -> float32 of that shape, in [0, 1]. The gradient is that
    of the *logit*: behind ``op_norm`` it can vanish."""
    from captum.attr import LayerAttribution, LayerGradCam

    layer = model.get_submodule(backbones.architecture(model.full_name).cam)
    cam = LayerGradCam(lambda x: backbones.logits(model, x), layer)
    heat = cam.attribute(
        backbones.to_batch(grey), relu_attributions=True,
        target=[model.pathologies.index(c) for c in conditions])
    heat = LayerAttribution.interpolate(heat, grey.shape[1:], "bilinear")
    heat = heat.detach()[:, 0].float().cpu()
    return (heat / heat.amax((1, 2), True).clamp_min(1e-12)).numpy()


def write_maps(model: Any, views: pd.DataFrame, scores: pd.DataFrame,
               folder: Path, resize: str = "squash") -> int:
    """A picture for every view: the heatmap of its highest score over it.

    Written as ``<study_id>_<view>.png``, 128 pixels, the condition in the
    PNG's ``Description``; earlier pictures are removed. Returns the number.
    """
    from PIL import Image, PngImagePlugin

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table = scores.set_index(["study_id", "view"])[list(CONDITIONS)]
    top = table.dropna(how="all").idxmax(axis=1).rename("condition")
    views = views.join(top, on=["study_id", "view"], how="inner")
    grey, rows = read_views(views, model.resolution, resize)
    heats = (heat for first in range(0, len(grey), BATCH) for heat in
             heatmap_batch(model, grey[first : first + BATCH],
                           rows["condition"][first : first + BATCH]))
    for row, image, heat in zip(rows.itertuples(), grey, heats):
        note = PngImagePlugin.PngInfo()
        note.add_text("Description", row.condition)
        picture = Image.fromarray(overlay(image, heat))
        picture = picture.resize((128, 128), Image.Resampling.BILINEAR)
        picture.save(folder / f"{row.study_id}_{row.view}.png", pnginfo=note)
    return len(rows)


def overlay(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A grey image with its warm regions in colour, uint8 (size, size, 3)."""
    from matplotlib import colormaps

    share = 0.45 * (heat > 0.15)[..., None]
    colour = 255 * colormaps["inferno"](heat)[..., :3]
    mixed = grey[..., None] * (1 - share) + colour * share
    return mixed.astype(np.uint8)


def pointing_game(model: Any, studies: pd.DataFrame, most: int = 25,
                  seed: int = 3407) -> pd.DataFrame:
    """Do the heatmaps of drawn lesions (``study_id``, ``mesh``) lie on them?

    Returns a row a ``condition``, of at most `most` frontal phantoms: ``n``;
    ``hit``, the share of maps whose highest point is inside the lesion
    (pointing game, Zhang et al., 2018); ``inside``, the mean share of the
    heat there; both of the same architecture with random weights; ``area``,
    the lesion's share of the image, which a random point would hit.
    """
    random = f"{model.full_name.partition('@')[0]}@random"
    networks = (model, backbones.build(random, seed))
    labels = pd.DataFrame(map(mesh.labels, studies["mesh"]), studies.index)
    rows = []
    for condition in CONDITIONS:
        ill = studies[labels[condition].eq(1)]
        ill = ill.sample(min(most, len(ill)), random_state=seed)
        for study in ill.itertuples():
            what = (study.study_id, study.mesh, "frontal", model.resolution)
            mask = phantoms.lesions(*what)[condition]
            if not mask.any():
                continue  # outside the picture
            grey = phantoms.draw(*what)
            heats = [heatmap(network, grey, condition) for network in networks]
            # A map that is zero everywhere hits nothing.
            hits = [heat.any() and mask.flat[heat.argmax()] for heat in heats]
            inside = [float(heat[mask].sum() / max(heat.sum(), 1e-12))
                      for heat in heats]
            rows.append((condition, hits[0], inside[0], hits[1], inside[1],
                         mask.mean()))
    names = ["hit", "inside", "hit random", "inside random", "area"]
    groups = pd.DataFrame(rows, columns=["condition", *names]).groupby(
        "condition")
    means = groups.mean()
    means.insert(0, "n", groups.size())
    return means
