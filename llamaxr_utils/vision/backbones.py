"""Image networks by full name: build, run, train, save, load.

A full name says architecture and training data, ``densenet-small@phantom``,
or is the name under which others published the network
(``densenet121-res224-all``), and stands beside every score.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..course.errors import CourseError
from ..course.machine import pick_device, pick_precision
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


def _torchvision(name: str) -> Any:
    from torchvision import models

    return models.get_model(name, weights=None, num_classes=len(NATIVE_ORDER))


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
    """The architecture of a full name; CourseError where there is none."""
    word = name.partition("@")[0]
    if "@" not in name and name in downloads.table():
        word = name.rpartition("-")[0].removesuffix("-res224")
    if word not in ARCHITECTURES:
        raise CourseError(
            f"There is no backbone {name!r}.",
            f"The kit knows {', '.join(ARCHITECTURES)} (with @ and the "
            f"training data) and torchxrayvision's own, such as {RELEASED}.",
            "Set BACKBONE to one of them.",
        )
    return ARCHITECTURES[word]


def build(name: str, seed: int = 3407) -> Any:
    """A network with random weights.

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

    `file` is the published file; without it `downloads.state_dict` looks for
    one, and refuses one that is not as published.
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
    range of torchxrayvision, [-1024, 1024], channels last."""
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


def predict(model: Any, grey: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Scores of uint8 images (n, size, size): float32 (n, 18), in [0, 1], in
    the network's own order. Where ``op_threshs`` is set, 0.5 is the operating
    point; otherwise they are probabilities."""
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
    """Set ``op_threshs`` to the probability of best F1, per condition.

    Each score is then rescaled so that 0.5 is this point (torchxrayvision's
    ``op_norm``). Without a positive example the threshold is 0.5.
    """
    import torch

    points = []
    for score, truth in zip(probabilities.T, labels.T):
        point, _ = best_f_beta(score, truth) or (0.5, 0.0)
        points.append(float(np.clip(point, 1e-6, 1 - 1e-6)))
    model.op_threshs = torch.tensor(points)


# --- training: from random weights, or the last layer of an ImageNet trunk ---


def train(
    model: Any,
    grey: np.ndarray,
    labels: np.ndarray,
    epochs: int = 10,
    learning_rate: float = 4e-3,
    batch_size: int = 32,
    seed: int = 3407,
) -> list[float]:
    """Train on images and 18 labels; binary cross-entropy, AdamW, one cycle.

    Parameters
    ----------
    grey : ndarray of uint8, shape (n, size, size)
    labels : ndarray of 0 and 1, shape (n, 18), native order

    Returns
    -------
    list of float
        Mean loss of each epoch. ``op_threshs`` are set so that 0.5 is the
        operating point of best F1 on the images trained on.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    truth = torch.from_numpy(labels.astype(np.float32)).to(device_of(model))
    loss_of = _loss(truth)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=0.05
    )
    steps = epochs * -(-len(grey) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=max(steps, 2)
    )
    # bfloat16 where the processor has it: 1.3 to 1.7 times as fast. Scores
    # are always computed in float32, whose third digit counts.
    half = torch.autocast(
        truth.device.type, torch.bfloat16, pick_precision("auto") == "bf16"
    )
    losses, began = [], time.perf_counter()
    model.op_threshs = None
    model.train()
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(grey), generator=generator)
        for chosen in order.split(batch_size):
            batch = _vary(to_batch(grey[chosen.numpy()]), generator)
            with half:
                output = logits(model, batch)
            loss = loss_of(output.float(), truth[chosen])
            _step(optimizer, loss)
            schedule.step()
            total += loss.item() * len(chosen)
        losses.append(total / len(grey))
        spent = time.perf_counter() - began
        progress = f"epoch {epoch + 1}/{epochs} · loss {losses[-1]:.4f}"
        print(f"{progress} · {spent:.0f} s", flush=True)
    model.eval()
    set_operating_points(model, predict(model, grey), labels)
    return losses


def train_head(
    model: Any, grey: np.ndarray, labels: np.ndarray, steps: int = 300
) -> list[float]:
    """Train the last layer alone, on embeddings that are computed once: what
    an ImageNet network can tell of 18 conditions. As `train`, but a loss for
    every step."""
    import torch

    head = model.get_submodule(architecture(model.full_name).head)
    seen: list = []
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    predict(model, grey, batch_size=8)
    hook.remove()
    inputs = torch.cat(seen).clone()
    truth = torch.from_numpy(labels.astype(np.float32)).to(inputs.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.1)
    losses, loss_of = [], _loss(truth)
    for _ in range(steps):
        loss = loss_of(head(inputs), truth)
        _step(optimizer, loss)
        losses.append(loss.item())
    with torch.inference_mode():
        probabilities = torch.sigmoid(head(inputs)).cpu().numpy()
    set_operating_points(model, probabilities, labels)
    return losses


def _loss(truth: Any) -> Any:
    """Rare conditions weigh more: the root of negatives to positives."""
    import torch

    ratio = (1 - truth.mean(0)) / truth.mean(0).clamp_min(1e-3)
    return torch.nn.BCEWithLogitsLoss(pos_weight=ratio.sqrt().clamp(1, 10))


def _step(optimizer: Any, loss: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train_if_needed(
    model: Any, grey: np.ndarray, labels: np.ndarray, **settings: Any
) -> list[float]:
    """`train` a network of ours, the head of one on an ImageNet trunk; leave
    a published one alone; give a random one (``@random``) operating points.
    """
    name = model.full_name
    if name in downloads.table():
        print(f"{name} is used as released.")
        return []
    if name.endswith("@random"):
        print("Random weights, on purpose: scores carry little.")
        model.op_threshs = None  # the points are set on probabilities
        set_operating_points(model, predict(model, grey), labels)
        return []
    if name.partition("@")[0] in downloads.IMAGENET:
        print("ImageNet's weights are kept; the last layer is trained.")
        return train_head(model, grey, labels)
    return train(model, grey, labels, **settings)


def _vary(batch: Any, generator: Any) -> Any:
    """Turn (up to 11 degrees), zoom (15 %), shift (a tenth) and change the
    exposure of each image: augmentation."""
    import torch

    def draw(scale: float, *shape: int) -> Any:
        uniform = torch.rand(len(batch), *shape, generator=generator)
        return (2 * uniform - 1) * scale

    angle, zoom = draw(0.2), 1 + draw(0.15)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    turn = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
    theta = torch.cat([turn, draw(0.1, 2, 1)], 2)
    grid = torch.nn.functional.affine_grid(
        theta, batch.shape, align_corners=False
    )
    # Outside is black, -1024: so the sampling is done on a range from 0.
    moved = torch.nn.functional.grid_sample(
        batch + 1024, grid, align_corners=False
    )
    contrast, light = 1 + draw(0.2, 1, 1, 1), draw(100.0, 1, 1, 1)
    varied = ((moved - 1024) * contrast + light).clamp(-1024, 1024)
    return varied.contiguous(memory_format=torch.channels_last)


# --- files ------------------------------------------------------------------


def save(model: Any, folder: Path) -> None:
    """Weights as safetensors, and a card with name, order and thresholds."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    state.pop("op_threshs", None)
    save_file(state, folder / "model.safetensors")
    points = model.op_threshs
    card = {
        "full_name": model.full_name,
        "pathologies": model.pathologies,
        "resolution": model.resolution,
        "op_threshs": None if points is None else points.tolist(),
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
