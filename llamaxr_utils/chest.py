"""A drawn patient: solids and points, and the rays that pass through them.

A chest of ellipsoids (body, lungs, heart, diaphragm) and clouds of points
(bones, vessels), with room for what `phantoms` adds. What the findings of a
study do to a chest is decided there, not here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from types import SimpleNamespace as Chest
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from .conditions import VIEWS
from .errors import CourseError

# Space: x to the patient's left, y to the back, z down; a picture shows
# -1 to 1. A side is the sign of x: -1 the right lung, 1 the left.
#: Place in the lung: 0 the apex, 1 the diaphragm.
HEIGHT = {"apex": 0.1, "upper": 0.3, "hilum": 0.5, "middle": 0.55}
HEIGHT |= {"lower": 0.78, "base": 0.9}


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
        zoom, self.twist = (
            rng.normal(1 + 0.12 * self.i, 0.04),
            rng.normal(0, 0.04),
        )
        shift = rng.normal(0, 0.035, 2)
        edges = (np.linspace(-1, 1, size + 1)[:, None] - shift) / zoom
        self.edges = edges.T  # of the pixels: rows, columns
        grid = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
        self.z, self.a = grid[:, :1], grid[:, 1][None]

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
        part.z = self.z[rows]
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


def anatomy(study_id: str) -> Chest:
    """A healthy patient: numbers of the shape, and room for findings."""
    rng = random_stream(study_id, "anatomy")
    names = "wide deep heart aorta media vessels".split()
    shape = rng.normal(1, (0.05, 0.08, 0.06, 0.1, 0.08, 0.12))
    chest = Chest(**dict(zip(names, shape)), flat=1.0)
    chest.breast = rng.uniform(0.4, 1.2) if rng.random() < 0.5 else 0.1
    chest.fat, chest.hunch = rng.gamma(4, 0.013), rng.uniform(0.1, 0.3)
    chest.curve, chest.tilt = rng.normal(0, 0.015), rng.normal(0.06, 0.03)
    top, chest.air = rng.normal(0.4, 0.06), rng.normal(0.76, 0.02)
    chest.dome = {-1: top, 1: top + rng.normal(0.05, 0.02)}
    chest.left = {-1: [], 1: []}  # bounds of the lung that is left
    chest.free = {-1: [], 1: []}  # the same, with air around it
    chest.bulky, chest.solids, chest.patches, chest.lines = [], [], [], []
    return chest


def lung_of(chest: Chest, side: int) -> Solid:
    center = (side * 0.35 * chest.wide, 0.02, 0.28)
    radii = (0.325 * chest.wide, 0.47 * chest.deep, 1.02)
    return Solid(center, radii, (side * 0.13, chest.tilt))


def dome_of(chest: Chest, side: int) -> Solid:
    """The diaphragm and all below it, on one side."""
    high = 0.42 * chest.flat
    center = (side * 0.35 * chest.wide, -0.08, chest.dome[side] + high)
    radii = (0.47 * chest.wide, 0.62 * chest.deep, high)
    return Solid(center, radii, column=True)


def level(chest: Chest, side: int, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half-widths (x, y) of a lung at a height."""
    lung = lung_of(chest, side)
    center = np.add(lung.center[:2], np.multiply(lung.lean, z - 0.28))
    part = np.sqrt(max(1 - ((z - 0.28) / 1.02) ** 2, 0.02))
    return center, part * np.array(lung.radii[:2])


def place(chest: Chest, side: int, zone: str, rng) -> np.ndarray:
    """A point in a zone of a lung: x, y, z."""
    t = HEIGHT.get(zone, rng.uniform(0.2, 0.9)) + rng.normal(0, 0.04)
    z = -0.72 + min(t, 1) * (chest.dome[side] + 0.72)
    u = rng.uniform((-0.1, -0.5), 0.6) * (side, 1)
    u[0] = -0.4 * side if zone == "hilum" else u[0]
    center, half = level(chest, side, z)
    return np.array([*(center + u * half), z])


def bones(chest: Chest) -> list:
    """Ribs and clavicles: clouds of points, each with its mass."""
    clouds, t = [], np.linspace(0, 1, 160)[:, None]
    band = np.linspace(-0.022, 0.022, 7)[:, None] * [0, 0, 1]
    for side in (-1, 1):
        for z in np.linspace(-0.78, 0.56, 12):
            center, half = level(chest, side, z + 0.1)
            turn = 0.12 + t * (2.2 if z < 0.3 else 1.3)
            x = (center[0] + side * (half[0] + 0.03)) * np.sin(turn)
            y = center[1] + (half[1] + 0.06) * np.cos(turn)
            low = z + 0.21 * (1 - np.cos(turn)) - 0.05 * np.sin(turn)
            clouds.append((np.concatenate([x, y, low], 1), 0.0042))
        x, y = side * (0.07 + 0.62 * t), -0.33 + 0.35 * t
        low = -0.5 - 0.16 * t + 0.03 * np.sin(6.3 * t)
        clouds.append((np.concatenate([x, y, low], 1), 0.006))
    return [((p[:, None] + band).reshape(-1, 3), m) for p, m in clouds]


def vessels(study_id: str, chest: Chest) -> list:
    """Branches from each hilum into its lung: clouds of points."""
    rng = random_stream(study_id, "vessels")
    clouds, t = [], np.linspace(0, 1, 40)
    for side in (-1, 1) * 11:
        root = np.array([side * 0.13, 0.05, -0.03 - 0.03 * side])
        end = place(chest, side, "", rng)
        bend = rng.normal(0, 0.05, 3) * (4 * t * (1 - t))[:, None]
        way = root + np.outer(t, end - root) + bend
        clouds.append((way, 0.0009 * chest.vessels))
        for fork in rng.integers(12, 32, 3):
            tip = (end - root) * 0.5 + rng.normal(0, 0.13, 3)
            clouds.append(
                (way[fork] + np.outer(t, tip), 0.0004 * chest.vessels)
            )
    return clouds


def organs_of(chest: Chest) -> list[Solid]:
    """What pushes lung away: heart, vessels, mediastinum."""
    h, m, k = chest.heart, chest.media, chest.aorta
    return [
        Solid((0.1, -0.15, 0.22), (0.26 * h, 0.36 * h, 0.26 * h), (0.45, 0.1)),
        Solid((-0.06, -0.12, 0.17), (0.17 * h, 0.28, 0.25)),
        Solid((0, 0.05, -1), (0.125 * m, 0.5, 1), column=True),
        Solid((-0.05, -0.05, -0.3), (0.13 * m, 0.2, 0.33)),
        Solid((0.11 * k, 0.04, -0.3), (0.12 * k, 0.25, 0.12 * k)),
        Solid((0.11, -0.05, -0.08), (0.12, 0.2, 0.13)),
        Solid((0.11 * k, 0.3, -0.2), (0.06 * k, 0.06, 0.12), column=True),
        *chest.bulky,
    ]


def attenuation(study_id: str, chest: Chest, camera: Camera) -> np.ndarray:
    """What the rays lose on their way: (size, size), 0 in air."""
    size = camera.length
    fat, b = chest.fat, chest.breast**0.5
    torso = (0.8 * chest.wide + fat, 0.56 * chest.deep + fat, 1.6)
    trunk = Solid((0, 0.03, 0.9), torso, (0, chest.tilt), power=4)
    neck = Solid((0, 0.1, -0.7), (0.26, 0.24, 1), column=True)
    # Arms hang in the frontal view and are raised in the lateral one.
    arms = (
        Solid((0, 0, -0.75), (0.62, 0.36, 0.42))
        if camera.i
        else Solid((0, 0.05, -0.53), (1.25, 0.3, 0.36))
    )
    path = np.maximum(np.maximum(size(trunk), size(arms)), size(neck))
    whole, full, haze = np.zeros((3, *path.shape), np.float32)
    organs = [camera.interval(solid) for solid in organs_of(chest)]
    for side in (-1, 1):
        center = (0.4 * side, -0.42 * chest.deep - fat, 0.26)
        breast = Solid(center, (0.27 * b, 0.32 * b**1.4, 0.24 * b))
        path += 0.45 * size(breast)
        lung = camera.interval(lung_of(chest, side))
        pushers = [*organs, camera.interval(dome_of(chest, side))]
        left = [camera.interval(solid) for solid in chest.left[side]]
        free = [camera.interval(solid) for solid in chest.free[side]]

        def air(
            *bounds, lung=lung, left=left, pushers=pushers
        ) -> np.ndarray:
            lost = [size(lung, *left, *bounds, other) for other in pushers]
            return np.maximum(size(lung, *left, *bounds) - sum(lost), 0)

        aerated = tissue = air()
        if free:
            # Around a collapsed lung: air without vessels, then its edge.
            tissue = air(*free)
            edge = tissue - air(*(s.moved(0.98) for s in chest.free[side]))
            path += 1.6 * edge - 0.3 * (aerated - tissue)
        path -= chest.air * aerated
        whole, full = whole + size(lung), full + tissue
        for solid, mu, where in chest.patches:
            if where == side:
                haze += mu * size(solid, lung, *left)
    for solid, mu, side in chest.solids:
        path += mu * size(solid, *([lung_of(chest, side)] if side else []))
    noise = random_stream(study_id, "cloud").normal(size=haze.shape)
    cloud = gaussian_filter(noise, 0.03 * camera.size)
    haze = gaussian_filter(haze, 0.015 * camera.size)
    path += haze * np.maximum(1 + 0.35 * cloud / cloud.std(), 0)
    # Vessels show only against air.
    lines = camera.splat(vessels(study_id, chest) + chest.lines, 0.008)
    path += lines * np.clip(1.3 * full / np.maximum(whole, 0.05), 0, 1)
    path += camera.splat(bones(chest), 0.009)
    for z in np.arange(-1, 1, 0.125):
        x = chest.curve * np.sin(3.2 * z + 0.4)
        y = 0.44 * chest.deep - chest.hunch * (z + 0.05) ** 2
        rows, near = camera.strip(z, 0.06)  # the rest would be zeros
        bone = Solid((x, y, z), (0.075, 0.085, 0.052), power=4)
        spine = Solid((x, y + 0.12, z), (0.03, 0.06, 0.04))
        path[rows] += 1.1 * near.length(bone) + 0.5 * near.length(spine)
    path -= 1.2 * size(Solid((0, 0.08, -0.75), (0.04, 0.045, 0.55)))
    return np.maximum(path, 0)
