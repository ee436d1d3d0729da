"""DenseNets by full name: build, train, save, load.

A full name says architecture and training data, ``densenet-small@phantom``
or ``densenet121-res224-all`` (torchxrayvision's own name), and stands beside
every score. All are torchxrayvision's `DenseNet` class with 18 outputs in
its native order; names are put to the outputs here, and only here.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .conditions import NATIVE_ORDER
from .errors import CourseError
from .images import to_model_range
from .run import data_folder
from .thresholds import best_f_beta

RELEASED = "densenet121-res224-all"
#: The released weights of torchxrayvision; a pickled module, so its hash is
#: checked before it is opened.
RELEASED_FILE = (
    "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-"
    "rot45-tr15-sc15-seed0-best.pt"
)
RELEASED_URL = (
    "https://github.com/mlmed/torchxrayvision/releases/download/v1/"
    + RELEASED_FILE
)
RELEASED_SHA256 = (
    "56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899"
)


class Architecture(NamedTuple):
    """Arguments of ``torchxrayvision.models.DenseNet`` and the input size."""

    growth_rate: int
    block_config: tuple[int, ...]
    num_init_features: int
    resolution: int


ARCHITECTURES = {
    "densenet-small": Architecture(24, (2, 3, 4, 2), 32, 64),
    "densenet121": Architecture(32, (6, 12, 24, 16), 64, 224),
}


def build(name: str, seed: int = 3407) -> Any:
    """A network with random weights.

    Parameters
    ----------
    name : str
        ``<architecture>@<training data>``.

    Returns
    -------
    torchxrayvision.models.DenseNet
        With ``pathologies`` (the 18 names, native order), ``resolution``,
        ``full_name``; ``op_threshs`` is None until it is trained.
    """
    import torch
    import torchxrayvision as xrv

    architecture = name.partition("@")[0]
    if name == RELEASED:
        architecture = "densenet121"
    if architecture not in ARCHITECTURES:
        raise CourseError(
            f"There is no backbone {name!r}.",
            f"The kit knows {', '.join(ARCHITECTURES)} (with @ and the "
            f"training data) and {RELEASED}.",
            "Set BACKBONE to one of them.",
        )
    shape = ARCHITECTURES[architecture]
    torch.manual_seed(seed)
    model = xrv.models.DenseNet(
        weights=None,
        num_classes=len(NATIVE_ORDER),
        growth_rate=shape.growth_rate,
        block_config=shape.block_config,
        num_init_features=shape.num_init_features,
    )
    model.pathologies = list(NATIVE_ORDER)
    model.resolution, model.full_name = shape.resolution, name
    return model.to(memory_format=torch.channels_last).eval()


def make(name: str, seed: int = 3407) -> Any:
    """The network that a notebook starts from: the released one with its
    weights (``data/weights/``), or one of ours with random weights."""
    if name == RELEASED:
        return load_released(data_folder() / "weights" / RELEASED_FILE)
    return build(name, seed)


def to_batch(grey: np.ndarray) -> Any:
    """uint8 (n, size, size) -> float32 tensor (n, 1, size, size) in the
    range of torchxrayvision, channels last."""
    import torch

    batch = torch.from_numpy(to_model_range(grey))[:, None]
    return batch.contiguous(memory_format=torch.channels_last)


def logits(model: Any, batch: Any) -> Any:
    """Outputs before the sigmoid, shape (n, 18), in the native order."""
    return model.classifier(model.features2(batch))


def train(
    model: Any,
    grey: np.ndarray,
    labels: np.ndarray,
    epochs: int = 4,
    learning_rate: float = 4e-3,
    batch_size: int = 32,
    seed: int = 3407,
) -> list[float]:
    """Train on images and 18 labels; binary cross-entropy, AdamW, one cycle.

    Parameters
    ----------
    grey : ndarray of uint8, shape (n, size, size)
    labels : ndarray of 0 and 1, shape (n, 18)
        In the native order. Rare conditions weigh more (square root of the
        ratio of negatives to positives, at most 10).
    epochs, learning_rate, batch_size, seed

    Returns
    -------
    list of float
        Mean loss of each epoch. The model is trained in place, and its
        ``op_threshs`` are set so that 0.5 is the operating point of best F1
        on the images it was trained on.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    truth = torch.from_numpy(labels.astype(np.float32))
    ratio = (1 - truth.mean(0)) / truth.mean(0).clamp_min(1e-3)
    loss_of = torch.nn.BCEWithLogitsLoss(
        pos_weight=ratio.sqrt().clamp(1, 10)
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=0.01
    )
    steps = epochs * -(-len(grey) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=max(steps, 2)
    )
    losses, began = [], time.perf_counter()
    model.op_threshs = None
    model.train()
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(grey), generator=generator)
        for chosen in order.split(batch_size):
            batch = _vary(to_batch(grey[chosen.numpy()]), generator)
            loss = loss_of(logits(model, batch), truth[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        losses.append(total / len(grey))
        spent = time.perf_counter() - began
        print(
            f"epoch {epoch + 1}/{epochs} · loss {losses[-1]:.4f} · "
            f"{spent:.0f} s",
            flush=True,
        )
    model.eval()
    set_operating_points(model, predict(model, grey), labels)
    return losses


def train_if_needed(
    model: Any, grey: np.ndarray, labels: np.ndarray, **settings: Any
) -> list[float]:
    """`train` a network of ours; leave a released or random one alone.

    A random one (``@random``) still gets operating points.
    """
    if model.full_name == RELEASED:
        print(f"{RELEASED} is used as released.")
        return []
    if model.full_name.endswith("@random"):
        print("Random weights, on purpose: scores carry little.")
        model.op_threshs = None  # the points are set on probabilities
        set_operating_points(model, predict(model, grey), labels)
        return []
    return train(model, grey, labels, **settings)


def _vary(batch: Any, generator: Any) -> Any:
    """Shift by up to 4 pixels and change the contrast: augmentation."""
    import torch

    down, right = torch.randint(-4, 5, (2,), generator=generator).tolist()
    contrast = 0.9 + 0.2 * torch.rand(
        (len(batch), 1, 1, 1), generator=generator
    )
    return torch.roll(batch, (down, right), (2, 3)) * contrast


def predict(model: Any, grey: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """What the network returns, float32 (n, 18), native order.

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

    model.apply_sigmoid = True
    with torch.inference_mode():
        return model(batch).numpy()


def set_operating_points(
    model: Any, probabilities: np.ndarray, labels: np.ndarray
) -> None:
    """Set ``op_threshs`` to the probabilities of best F1, per condition.

    torchxrayvision then rescales each score so that 0.5 is this point
    (``op_norm``). Without a positive example the threshold is 0.5.
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
    if card["op_threshs"] is not None:
        model.op_threshs = torch.tensor(card["op_threshs"])
    return model


def load_released(file: Path) -> Any:
    """torchxrayvision's released DenseNet-121 from its weight file.

    Parameters
    ----------
    file : path
        `RELEASED_FILE`, fetched from `RELEASED_URL` by the reader.

    Raises
    ------
    CourseError
        If the file is missing, or its SHA-256 is not the pinned one.
    """
    import torch
    import torchxrayvision as xrv

    if not Path(file).is_file():
        raise CourseError(
            f"The weights of {RELEASED} are not on this machine.",
            "They are published by torchxrayvision and are not part of the "
            "kit.",
            f"Download {RELEASED_URL} into data/weights/, or set "
            'BACKBONE = "densenet-small@iu-train".',
        )
    with open(file, "rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != RELEASED_SHA256:
        raise CourseError(
            f"{Path(file).name} is not the released weight file.",
            f"Its SHA-256 is {found[:16]}..., not {RELEASED_SHA256[:16]}... "
            "It is a pickled module, so it was not opened.",
            f"Download it again from {RELEASED_URL}.",
        )
    # Safe only because the hash was checked a line above.
    pickled = torch.load(file, map_location="cpu", weights_only=False)
    state = pickled.state_dict()
    state.pop("op_threshs", None)
    model = build(RELEASED)
    model.load_state_dict(state)
    facts = xrv.models.model_urls[RELEASED]
    model.pathologies = list(facts["labels"])
    model.op_threshs = torch.tensor(facts["op_threshs"])
    return model
