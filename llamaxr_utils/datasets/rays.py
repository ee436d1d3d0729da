"""Solids in space, a camera that looks through them, and its film.

Two views of one scene: the way of each ray through a solid is known exactly,
clouds of points are added up. What a chest is made of is no matter here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from ..course.errors import CourseError
from .conditions import VIEWS

# Space: x to the patient's left, y to the back, z down; a picture shows
# -1 to 1. A side is the sign of x: -1 the right lung, 1 the left.


class Solid(NamedTuple):
    """|x/a|^p + |y/b|^p + |z/c|^p <= 1, its centre leaning along z."""

    center: Sequence[float] | np.ndarray
    radii: Sequence[float] | np.ndarray
    lean: tuple[float, float] = (0.0, 0.0)  # shift in x, y per unit of z
    power: int = 2
    column: bool = False  # below its centre it goes on as a cylinder

    def moved(self, factor, shift=(0.0, 0.0, 0.0)) -> Solid:
        radii, center = np.array(self.radii), np.array(self.center)
        return self._replace(center=center + shift, radii=radii * factor)


Interval = tuple[np.ndarray, np.ndarray]  # where a ray enters and leaves


class Camera:
    """One view of space: which axis is across, where each pixel lies."""

    def __init__(self, study_id: str, view: str, size: int):
        if view not in VIEWS or size < 16:
            raise CourseError(
                f"No phantom can be drawn: view {view!r}, {size} pixels.",
                "There are the views frontal and lateral, from 16 pixels on.",
                "Change the view or the size.",
            )
        rng = random_stream(study_id, "pose", view)
        self.size, self.i = size, VIEWS.index(view)
        zoom = rng.normal(1.1 + 0.06 * self.i, 0.04)
        self.twist, self.roll = rng.normal(0, 0.04), rng.normal(0, 0.025)
        shift = rng.normal(0, 0.035, 2)
        edges = (np.linspace(-1, 1, size + 1)[:, None] - shift) / zoom
        self.edges = edges.T  # of the pixels: rows, columns
        grid = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
        self.z, self.a = grid[:, :1], grid[:, 1][None]
        self.a = self.a - np.float32(self.roll) * self.z

    def interval(self, solid: Solid) -> Interval:
        """Depths at which the rays enter and leave a solid."""
        i, j, p = self.i, 1 - self.i, solid.power
        dz = self.z - np.float32(solid.center[2])
        center = solid.center[i] + self.twist * solid.center[j]
        da = self.a - np.float32(center + solid.lean[i] * dz)
        middle = np.float32(solid.center[j] + solid.lean[j] * dz)
        dz = np.minimum(dz, 0) if solid.column else dz
        rest = 1 - np.abs(da / np.float32(solid.radii[i])) ** p
        rest = rest - np.abs(dz / np.float32(solid.radii[2])) ** p
        half = np.maximum(rest, 0) ** (1 / p) * np.float32(solid.radii[j])
        return middle - half, middle + half

    def strip(self, z: float, reach: float) -> tuple[slice, Camera]:
        """The picture's rows around a height, and a camera for them."""
        part = copy(self)
        rows = slice(*np.searchsorted(self.z[:, 0], (z - reach, z + reach)))
        part.z, part.a = self.z[rows], self.a[rows]
        return rows, part

    def length(self, *parts: Solid | Interval) -> np.ndarray:
        """Way of each ray through what the parts have in common."""
        ways = [self.interval(p) if isinstance(p, Solid) else p for p in parts]
        low, high = ways[0]
        for start, end in ways[1:]:
            low, high = np.maximum(low, start), np.minimum(high, end)
        return np.maximum(high - low, 0)

    def splat(self, clouds: list, blur: float) -> np.ndarray:
        """Clouds of points, each with its mass -> attenuation, blurred."""
        n = self.size
        points = np.concatenate([points for points, _ in clouds])
        mass = np.repeat(
            [mass / len(points) for points, mass in clouds],
            [len(points) for points, _ in clouds],
        )
        across = points[:, self.i] + self.twist * points[:, 1 - self.i]
        across = across + self.roll * points[:, 2]
        low, step = self.edges[:, 0], self.edges[:, 1] - self.edges[:, 0]
        row, col = (np.stack([points[:, 2], across], 1) - low).T / step[
            :, None
        ]
        keep = (row >= 0) & (row < n) & (col >= 0) & (col < n)
        where = row[keep].astype(int) * n + col[keep].astype(int)
        image = np.bincount(where, mass[keep], n * n).reshape(n, n)
        return gaussian_filter(np.float32(image * n**2 / 4), blur * n / 2)


def random_stream(*words: str) -> np.random.Generator:
    """A stream for each purpose, so that labels cannot shift anatomy."""
    digest = hashlib.sha256("/".join(words).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _shutters(film: np.ndarray, rng) -> None:
    """Shutters at the rim, and a lead L: at the patient's left, or in front.

    Both are the radiographer's: some pictures have them, whatever is found.
    """
    n = len(film)
    low = np.round(n * rng.uniform(-0.05, 0.03, (2, 2))).clip(0).astype(int)
    high = n - low[1]
    film[: low[0, 0]] = film[high[0] :] = 0
    film[:, : low[0, 1]] = film[:, high[1] :] = 0
    row, col = (n * rng.uniform((0.05, 0.87), (0.2, 0.94))).astype(int)
    if rng.random() < 0.6:
        thin, tall = max(n // 80, 1), max(n // 20, 3)
        film[row : row + tall, col : col + thin] = 1
        film[row + tall - thin : row + tall, col : col + tall * 2 // 3] = 1


def expose(path: np.ndarray, thick: float, view: str, rng) -> np.ndarray:
    """Attenuation -> film, (size, size), 0 black to 1 white.

    Beer-Lambert, then scattered light, then the noise of few photons. The
    exposure is set by the patient's thickness, never by a finding.
    """
    light = np.exp(-rng.normal(1.4, 0.07) * path / thick)
    light = light + 0.035 + 0.05 * gaussian_filter(light, len(path) / 12)
    light += 0.012 * np.sqrt(light) * rng.normal(size=light.shape)
    # A film's curve: flat where it is black, flat where it is white.
    dark = -np.log(np.maximum(light, 1e-3)) / rng.normal(1, 0.04)
    middle = 1.3 if view == "frontal" else 1.65
    film = 1.06 / (1 + np.exp((middle - dark) / 0.5)) - 0.06
    film = np.clip(film, 0, 1) ** rng.normal(1, 0.06)
    _shutters(film, rng)
    return film
