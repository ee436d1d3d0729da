"""Where a network looked: Grad-CAM, and how far it can be believed.

On phantoms the lesion's place is known, so the maps can be marked: do they
peak inside it, and does a network with random weights do as well? On X-rays
nothing of the kind is known here.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..datasets import phantoms
from ..datasets.conditions import CONDITIONS, plain_name
from ..datasets.images import read_views
from . import backbones


def heatmap(model: Any, grey: np.ndarray, condition: str) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., 2017) of one condition on one image.

    The gradient is that of the *logit*: behind ``op_norm`` it can vanish.

    Parameters
    ----------
    grey : ndarray of uint8, shape (size, size)
    condition : str

    Returns
    -------
    ndarray of float32, shape (size, size), in [0, 1]

    Raises
    ------
    ValueError
        If the network has no output of this name.
    """
    return heatmap_batch(model, grey[None], [condition])[0]


def heatmap_batch(
    model: Any, grey: np.ndarray, conditions: Sequence[str]
) -> np.ndarray:
    """`heatmap` for several images (n, size, size), a condition each."""
    from captum.attr import LayerAttribution, LayerGradCam

    names = [plain_name(name) for name in model.pathologies]
    for condition in conditions:
        if condition not in names:
            raise ValueError(f"{model.full_name} has no output {condition!r}")
    layer = model.get_submodule(backbones.architecture(model.full_name).cam)
    cam = LayerGradCam(lambda x: backbones.logits(model, x), layer)
    heat = cam.attribute(
        backbones.to_batch(grey),
        target=[names.index(condition) for condition in conditions],
        relu_attributions=True,
    )
    heat = LayerAttribution.interpolate(heat, grey.shape[1:], "bilinear")
    heat = heat.detach()[:, 0].float().cpu()
    top = heat.amax((1, 2), keepdim=True).clamp_min(1e-12)
    return (heat / top).numpy()


def write_maps(
    model: Any,
    views: pd.DataFrame,
    scores: pd.DataFrame,
    folder: Path,
    resize: str = "squash",
    size: int = 128,
) -> int:
    """A picture for every view: the heatmap of its highest score over it.

    Parameters
    ----------
    views, scores : DataFrame
        Schemas ``views`` and ``image_scores``.
    folder : path
        ``<study_id>_<view>.png``; which condition it is, stands in the PNG's
        ``Description``. Pictures of an earlier call are removed.
    size : int
        Pixels of the pictures.

    Returns
    -------
    int
        How many were written.
    """
    from matplotlib import colormaps
    from PIL import Image, PngImagePlugin

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table = scores.set_index(["study_id", "view"])[list(CONDITIONS)]
    top = table.dropna(how="all").idxmax(axis=1)
    keys = pd.MultiIndex.from_frame(views[["study_id", "view"]])
    views, step = views[keys.isin(top.index)], 16
    for first in range(0, len(views), step):
        rows = views.iloc[first : first + step]
        grey, rows = read_views(rows, model.resolution, resize)
        named = [top[key] for key in zip(rows["study_id"], rows["view"])]
        maps = heatmap_batch(model, grey, named) if len(grey) else ()
        for row, name, one, heat in zip(rows.itertuples(), named, grey, maps):
            share = 0.45 * (heat > 0.15)[..., None]
            colour = 255 * colormaps["inferno"](heat)[..., :3]
            mixed = one[..., None] * (1 - share) + colour * share
            note = PngImagePlugin.PngInfo()
            note.add_text("Description", name)
            picture = Image.fromarray(mixed.astype(np.uint8))
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            file = folder / f"{row.study_id}_{row.view}.png"
            picture.save(file, pnginfo=note)
    return len(list(folder.glob("*.png")))


def pointing_game(
    model: Any,
    studies: pd.DataFrame,
    view: str = "frontal",
    most: int = 25,
    seed: int = 3407,
) -> pd.DataFrame:
    """Do the heatmaps of drawn lesions lie on the lesions?

    Parameters
    ----------
    model
        A backbone; its control is the same architecture, random weights.
    studies : DataFrame
        ``study_id``, ``mesh``; the phantoms are drawn from them.
    most : int
        Studies a condition.

    Returns
    -------
    DataFrame
        Index ``condition``: ``n``; ``hit``, the share of maps whose highest
        point is inside the lesion (the pointing game of Zhang et al.,
        2018); ``inside``, the mean share of the heat there; the same of the
        random control; ``area``, the lesion's share of the image, which a
        random point would hit.
    """
    control = backbones.build(f"{model.full_name.partition('@')[0]}@random",
                              seed)
    size, rows = model.resolution, []
    found = pd.DataFrame(
        [phantoms.mesh.labels(m) for m in studies["mesh"]],
        index=studies.index,
    )
    for condition in CONDITIONS:
        ill = studies[found[condition].eq(1)]
        ill = ill.sample(min(most, len(ill)), random_state=seed)
        for study in ill.itertuples():
            picture = (study.study_id, study.mesh, view, size)
            mask = phantoms.lesions(*picture)[condition]
            if not mask.any():
                continue  # outside the picture
            grey = phantoms.draw(*picture)
            own, other = (
                _on_target(heatmap(m, grey, condition), mask)
                for m in (model, control)
            )
            rows.append((condition, *own, *other, mask.mean()))
    names = ["hit", "inside", "hit random", "inside random", "area"]
    table = pd.DataFrame(rows, columns=["condition", *names])
    groups = table.groupby("condition")
    means = groups[names].mean()
    means.insert(0, "n", groups.size())
    return means


def _on_target(heat: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Is the highest point inside the mask; share of the heat inside. A map
    that is zero everywhere hits nothing."""
    if not heat.any():
        return 0.0, 0.0
    peak = float(mask.flat[int(heat.argmax())])
    return peak, float(heat[mask].sum() / heat.sum())
