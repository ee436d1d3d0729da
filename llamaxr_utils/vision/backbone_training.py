"""How the course's own image networks learn the 18 conditions.

From images and MeSH labels of the training split: a small DenseNet from
random weights, or the last layer of an ImageNet network. Published networks
are left as they are.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..course.machine import pick_precision
from ..datasets import downloads
from .backbones import (
    architecture,
    device_of,
    embed,
    logits,
    predict,
    set_operating_points,
    to_batch,
)


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


def train_head(
    model: Any, grey: np.ndarray, labels: np.ndarray, steps: int = 300
) -> list[float]:
    """Train the last layer alone on embeddings that are computed once: what
    an ImageNet network with a head for 18 conditions can tell.

    Parameters and result as for `train`; a loss for every step.
    """
    import torch

    with torch.inference_mode():
        parts = [
            embed(model, to_batch(grey[i : i + 8]))
            for i in range(0, len(grey), 8)
        ]
    inputs = torch.cat(parts).clone()
    truth = torch.from_numpy(labels.astype(np.float32)).to(inputs.device)
    head = model.get_submodule(architecture(model.full_name).head)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=3e-3, weight_decay=0.1
    )
    losses, loss_of = [], _loss(truth)
    for _ in range(steps):
        loss = loss_of(head(inputs), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.inference_mode():
        probabilities = torch.sigmoid(head(inputs)).cpu().numpy()
    set_operating_points(model, probabilities, labels)
    return losses


def _loss(truth: Any) -> Any:
    import torch

    ratio = (1 - truth.mean(0)) / truth.mean(0).clamp_min(1e-3)
    return torch.nn.BCEWithLogitsLoss(pos_weight=ratio.sqrt().clamp(1, 10))


def train_if_needed(
    model: Any, grey: np.ndarray, labels: np.ndarray, **settings: Any
) -> list[float]:
    """`train` a network of ours, the head of one on an ImageNet trunk;
    leave a published or random one alone.

    A random one (``@random``) still gets operating points.
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
