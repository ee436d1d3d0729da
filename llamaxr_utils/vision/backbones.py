"""Image networks by full name: build, run, save, load.

A full name says architecture and training data, ``densenet-small@phantom``,
or is the name under which others published the network
(``densenet121-res224-all``), and stands beside every score. Names are put to
the 18 outputs here, and only here; how they learn is in
`backbone_training`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..course.errors import CourseError
from ..course.machine import pick_device
from ..datasets import downloads
from ..datasets.conditions import NATIVE_ORDER, best_f_beta, plain_name
from ..datasets.images import check_range, to_model_range

#: The paper's network.
RELEASED = downloads.PAPER


class Architecture(NamedTuple):
    """How a network is built, what it reads and where Grad-CAM looks."""

    build: Callable[[], Any]  #: random weights, 18 outputs
    resolution: int  #: pixels
    head: str  #: the last linear layer
    cam: str  #: the layer of the heatmap
    channels: int = 1  #: 3: an ImageNet network, in ImageNet's range


def _densenet(growth_rate: int, block_config: tuple, first: int) -> Any:
    import torchxrayvision as xrv

    return xrv.models.DenseNet(
        weights=None,
        num_classes=len(NATIVE_ORDER),
        growth_rate=growth_rate,
        block_config=block_config,
        num_init_features=first,
    )


def _torchvision(name: str, outputs: int = len(NATIVE_ORDER)) -> Any:
    from torchvision import models

    return models.get_model(name, weights=None, num_classes=outputs)


def _one_channel_resnet() -> Any:
    import torch

    model = _torchvision("resnet50")
    model.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return model


#: To substitute another network (paper, section 3.1), add three lines here.
ARCHITECTURES = {
    "densenet-small": Architecture(
        partial(_densenet, 24, (2, 3, 4, 2), 32),
        64, "classifier", "features.denseblock2",
    ),
    "densenet121": Architecture(
        partial(_densenet, 32, (6, 12, 24, 16), 64),
        224, "classifier", "features.norm5",
    ),
    "resnet50-res512": Architecture(
        _one_channel_resnet, 512, "fc", "layer4"
    ),
    "resnet50-imagenet": Architecture(
        partial(_torchvision, "resnet50"), 224, "fc", "layer4", 3
    ),
    "efficientnet-b0-imagenet": Architecture(
        partial(_torchvision, "efficientnet_b0"),
        224, "classifier.1", "features", 3,
    ),
}  # fmt: skip


def architecture(name: str) -> Architecture:
    """The architecture of a full name.

    Raises
    ------
    CourseError
        For a name without one.
    """
    word = name.partition("@")[0]
    if "@" not in name and name in downloads.table():
        word = name.rpartition("-")[0].removesuffix("-res224")
    if word not in ARCHITECTURES:
        raise CourseError(
            f"There is no backbone {name!r}.",
            f"The kit knows {', '.join(ARCHITECTURES)} (with @ and the "
            "training data) and torchxrayvision's own, such as "
            f"{RELEASED}.",
            "Set BACKBONE to one of them.",
        )
    return ARCHITECTURES[word]


def build(name: str, seed: int = 3407) -> Any:
    """A network with random weights.

    Parameters
    ----------
    name : str
        ``<architecture>@<training data>``, or a published network's name.

    Returns
    -------
    torch.nn.Module
        With ``pathologies`` (the 18 names, native order), ``resolution``,
        ``full_name``; ``op_threshs`` is None until it is trained.
    """
    import torch

    shape = architecture(name)
    torch.manual_seed(seed)
    model = shape.build()
    model.op_threshs = None
    model.pathologies = list(NATIVE_ORDER)
    model.resolution, model.full_name = shape.resolution, name
    model.to(pick_device()[0], memory_format=torch.channels_last)
    return model.eval()


def make(name: str, seed: int = 3407) -> Any:
    """The network that a notebook starts from: a published one with its
    weights, or one of ours with random weights. One on an ImageNet trunk
    (``resnet50-imagenet@iu-train``) has the trunk's weights."""
    if name in downloads.table():
        return load_released(name)
    model, trunk = build(name, seed), name.partition("@")[0]
    if trunk in downloads.IMAGENET and not name.endswith("@random"):
        head = architecture(name).head
        state = downloads.state_dict(trunk)  # of 1,000 classes: not the head
        kept = {k: v for k, v in state.items() if not k.startswith(head)}
        model.load_state_dict(kept, strict=False)
    return model


def load_released(name: str = RELEASED, file: Path | None = None) -> Any:
    """A published network of torchxrayvision, with its operating points.

    Parameters
    ----------
    name : str
        A name of torchxrayvision's list.
    file : path, optional
        The published file; else `downloads.state_dict` looks for it.

    Raises
    ------
    CourseError
        If the file is missing, or is not the published one.
    """
    import torch

    state, model = downloads.state_dict(name, file), build(name)
    model.load_state_dict(state)
    names, points = downloads.facts(name)
    model.pathologies = [plain_name(n) for n in names]
    model.op_threshs = torch.tensor(points).to(device_of(model))
    return model


def to_batch(grey: np.ndarray) -> Any:
    """uint8 (n, size, size) -> float32 tensor (n, 1, size, size) in the
    range of torchxrayvision, channels last.

    Raises
    ------
    CourseError
        If the values cannot be in [-1024, 1024] (`images.check_range`).
    """
    import torch

    values = to_model_range(grey)
    check_range(values)
    batch = torch.from_numpy(values)[:, None]
    return batch.contiguous(memory_format=torch.channels_last)


def logits(model: Any, batch: Any) -> Any:
    """Outputs before the sigmoid, shape (n, 18), in the network's order."""
    batch = batch.to(device_of(model))
    if hasattr(model, "features2"):  # torchxrayvision's DenseNet
        return model.classifier(model.features2(batch))
    if architecture(model.full_name).channels == 3:
        batch = _as_imagenet(batch)
    return model(batch)


def _as_imagenet(batch: Any) -> Any:
    """[-1024, 1024], one channel -> what ImageNet networks were trained on
    (torchvision.models, "Using the pre-trained models")."""
    mean = batch.new_tensor([0.485, 0.456, 0.406])[None, :, None, None]
    std = batch.new_tensor([0.229, 0.224, 0.225])[None, :, None, None]
    return ((batch + 1024) / 2048 - mean) / std


def device_of(model: Any) -> Any:
    return next(model.parameters()).device


def embed(model: Any, batch: Any) -> Any:
    """What the last layer reads, shape (n, features): the image embedding
    (1,024 numbers for a DenseNet-121)."""
    seen = []
    head = model.get_submodule(architecture(model.full_name).head)
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given))
    try:
        logits(model, batch)
    finally:
        hook.remove()
    return seen[0][0]


def predict(model: Any, grey: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """What the network says, float32 (n, 18), in its own order.

    Scores in [0, 1] when ``op_threshs`` is set (0.5 is then the operating
    point), probabilities otherwise.
    """
    parts = [np.zeros((0, len(NATIVE_ORDER)), np.float32)]
    for first in range(0, len(grey), batch_size):
        batch = to_batch(grey[first : first + batch_size])
        parts.append(score_batch(model, batch))
    return np.concatenate(parts)


def score_batch(model: Any, batch: Any) -> np.ndarray:
    """`predict` for a batch that is already a tensor (`to_batch`)."""
    import torch
    from torchxrayvision.models import op_norm

    with torch.inference_mode():
        scores = torch.sigmoid(logits(model, batch))
        if model.op_threshs is not None:
            scores = op_norm(scores, model.op_threshs.to(scores.device))
    return scores.cpu().numpy()


def set_operating_points(
    model: Any, probabilities: np.ndarray, labels: np.ndarray
) -> None:
    """Set ``op_threshs`` to the probabilities of best F1, per condition.

    Each score is then rescaled so that 0.5 is this point (torchxrayvision's
    ``op_norm``). Without a positive example the threshold is 0.5.
    """
    import torch

    points = []
    for score, truth in zip(probabilities.T, labels.T):
        point, _ = best_f_beta(score, truth) or (0.5, 0.0)
        points.append(float(np.clip(point, 1e-6, 1 - 1e-6)))
    model.op_threshs = torch.tensor(points)


# --- files ------------------------------------------------------------------


def save(model: Any, folder: Path) -> None:
    """Weights as safetensors, and a card with name, order and thresholds."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: value.contiguous()
        for key, value in model.state_dict().items()
        if key != "op_threshs"
    }
    save_file(state, folder / "model.safetensors")
    card = {
        "full_name": model.full_name,
        "pathologies": model.pathologies,
        "resolution": model.resolution,
        "op_threshs": None
        if model.op_threshs is None
        else [float(v) for v in model.op_threshs],
    }
    (folder / "backbone.json").write_text(json.dumps(card, indent=1))


def load(folder: Path) -> Any:
    """The network that `save` wrote."""
    import torch
    from safetensors.torch import load_file

    card = json.loads((Path(folder) / "backbone.json").read_text())
    model = build(card["full_name"])
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    model.pathologies = card["pathologies"]
    if card["op_threshs"] is not None:
        model.op_threshs = torch.tensor(card["op_threshs"])
    return model
