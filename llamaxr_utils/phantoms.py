"""Drawn chest X-rays: frontal and lateral, from a study's MeSH headings.

A chest of ellipsoids and points (bones, vessels) is changed by the findings
and looked through by Beer-Lambert's law, so both views show one patient and
every lesion's place is known. Teaching pictures: no evidence about X-rays.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace as Chest
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from . import mesh
from .conditions import VIEWS
from .errors import CourseError

# Space: x to the patient's left, y to the back, z down; a picture shows
# -1 to 1. A side is the sign of x: -1 the right lung, 1 the left.
SIDES = {"right": (-1,), "left": (1,), "bilateral": (-1, 1)}
SEVERITY = {"mild": 0.7, "": 0.95, "moderate": 1.15, "severe": 1.6}
#: Place in the lung: 0 the apex, 1 the diaphragm.
HEIGHT = {"apex": 0.1, "upper": 0.3, "hilum": 0.5, "middle": 0.55}
HEIGHT |= {"lower": 0.78, "base": 0.9}
#: Condition -> hazy patches: number, radius, attenuation.
PATCHES = {
    "Consolidation": (1, 0.24, 1.0),
    "Edema": (2, 0.27, 0.35),
    "Fibrosis": (1, 0.14, 0.20),
    "Infiltration": (3, 0.14, 0.8),
    "Lung Opacity": (1, 0.19, 0.85),
    "Pneumonia": (2, 0.18, 1.1),
}
#: Condition -> thin lines: number, length, attenuation, slope, spread.
LINES = {
    "Atelectasis": (3, 0.34, 0.009, 0.2, 0.07),
    "Edema": (30, 0.10, 0.003, 0.5, 0.22),
    "Fibrosis": (10, 0.18, 0.006, 1.2, 0.09),
    "Infiltration": (6, 0.14, 0.004, 1.0, 0.12),
}


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
        rng = _rng(study_id, "pose", view)
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


def _rng(*words: str) -> np.random.Generator:
    """A stream for each purpose, so that labels cannot shift anatomy."""
    digest = hashlib.sha256("/".join(words).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _anatomy(study_id: str) -> Chest:
    """A healthy patient: numbers of the shape, and room for findings."""
    rng = _rng(study_id, "anatomy")
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


def _lung(chest: Chest, side: int) -> Solid:
    center = (side * 0.35 * chest.wide, 0.02, 0.28)
    radii = (0.325 * chest.wide, 0.47 * chest.deep, 1.02)
    return Solid(center, radii, (side * 0.13, chest.tilt))


def _dome(chest: Chest, side: int) -> Solid:
    """The diaphragm and all below it, on one side."""
    high = 0.42 * chest.flat
    center = (side * 0.35 * chest.wide, -0.08, chest.dome[side] + high)
    radii = (0.47 * chest.wide, 0.62 * chest.deep, high)
    return Solid(center, radii, column=True)


def _level(chest: Chest, side: int, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half-widths (x, y) of a lung at a height."""
    lung = _lung(chest, side)
    center = np.add(lung.center[:2], np.multiply(lung.lean, z - 0.28))
    part = np.sqrt(max(1 - ((z - 0.28) / 1.02) ** 2, 0.02))
    return center, part * np.array(lung.radii[:2])


def _place(chest: Chest, side: int, zone: str, rng) -> np.ndarray:
    """A point in a zone of a lung: x, y, z."""
    t = HEIGHT.get(zone, rng.uniform(0.2, 0.9)) + rng.normal(0, 0.04)
    z = -0.72 + min(t, 1) * (chest.dome[side] + 0.72)
    u = rng.uniform((-0.1, -0.5), 0.6) * (side, 1)
    u[0] = -0.4 * side if zone == "hilum" else u[0]
    center, half = _level(chest, side, z)
    return np.array([*(center + u * half), z])


def _reshape(chest: Chest, word: str, name: str, sides, s: float) -> None:
    """Findings that change the chest itself, before things are placed."""
    chest.heart *= 1 + 0.22 * s * (name == "Cardiomegaly")
    chest.media *= 1 + 0.4 * s * (name == "Enlarged Cardiomediastinum")
    chest.aorta *= 1 + 0.4 * s * word.startswith("aorta/tortuous")
    chest.curve += 0.07 * s * word.startswith("scoliosis")
    ill = s * (name == "Emphysema")
    large = ill + 0.5 * s * word.startswith("lung/hyperdist")
    chest.air, chest.vessels = (
        chest.air + 0.04 * ill,
        chest.vessels - 0.3 * ill,
    )
    chest.deep, chest.heart = (
        chest.deep + 0.1 * large,
        chest.heart - 0.06 * large,
    )
    chest.flat *= 1 - 0.35 * min(large, 1.6)
    small = s * (
        "hypoinflation" in word or "diaphragm" in word and "elev" in word
    )
    for side in sides:
        chest.dome[side] += 0.08 * large - 0.13 * small


def _add(chest: Chest, word: str, finding, side: int, s: float, rng) -> None:
    """Findings that lie in one lung, or beside it."""
    name, zone, lung = finding.condition, finding.zone, _lung(chest, side)
    at = _place(chest, side, zone, rng)
    if name == "Effusion" or word.startswith(("costophrenic", "sulcus")):
        low = chest.dome[side] - 0.3 - 0.5 * (s if name else 0.3)
        radii = (lung.radii[0] * 1.35, lung.radii[1] * 1.3, 0.9)
        center = (lung.center[0] - side * 0.05, -0.05, low)
        chest.left[side].append(Solid(center, radii))
    elif name == "Pleural Thickening":
        away = np.array(
            [0, 0, 0.08] if zone == "apex" else [-0.06 * side, 0, 0]
        )
        chest.left[side].append(lung.moved(1, away * s))
    if name == "Pneumothorax" or word.startswith("hydropneumo"):
        away = np.array([-0.06 * side, 0, 0.14])
        chest.free[side].append(lung.moved(1 - 0.15 * s, away * s))
    elif name in ("Nodule", "Mass", "Lung Lesion"):
        old = "calc" in word or "granuloma" in word
        radius = 0.14 if name == "Mass" else 0.042 if old else 0.07
        for _ in range(4 if "multiple" in word or "scatt" in word else 1):
            ball = Solid(at, radius * s**0.7 * rng.normal(1, 0.1, 3))
            chest.solids.append((ball, 7.0 if old else 3.2, side))
            if word.startswith(("cavit", "cyst")):
                chest.solids.append((ball.moved(0.75), -4.5, side))
            at = _place(chest, side, zone, rng)
    elif name == "Hernia":
        ball = Solid((0.05, 0.2, 0.32), np.array([0.2, 0.17, 0.17]) * s)
        chest.bulky.append(ball)
        chest.solids.append((ball.moved((0.7, 0.7, 0.45)), -1.6, 0))
    elif name == "Fracture":
        middle, half = _level(chest, side, at[2])
        at[0] = middle[0] + side * half[0]
        chest.solids.append((Solid(at, (0.07, 0.07, 0.05)), 5.0, 0))
    number, radius, mu = PATCHES.get(name, (0, 0.0, 0.0))
    for _ in range(number):
        spot = at + rng.normal(0, 0.09, 3) * (number > 1)
        haze = Solid(spot, radius * s**0.5 * rng.normal(1, 0.15, 3))
        chest.patches.append((haze, mu * s**0.5, side))
    number, long, mu, slope, spread = LINES.get(name, (0, 0, 0, 0, 0))
    for _ in range(round(number * s**0.5)):
        way = np.array([1, rng.normal(0, 0.5), rng.normal(0, slope)])
        way *= long * rng.uniform(0.6, 1.2) / np.linalg.norm(way)
        start = at + rng.normal(0, spread, 3)
        line = start + np.linspace(-0.5, 0.5, 40)[:, None] * way
        chest.lines.append((line, mu * long * s**0.5))


def _patient(
    study_id: str, headings: Sequence[str], without: str = ""
) -> Chest:
    """The patient with all findings, but for one condition's headings."""
    chest, todo = _anatomy(study_id), {}
    for finding in reversed(mesh.parse_headings(headings)):
        rng = _rng(study_id, finding.heading)
        s = SEVERITY[finding.severity] * float(np.exp(rng.normal(0, 0.15)))
        word, name = finding.heading.lower(), finding.condition
        one = (int(rng.choice([-1, 1])),) if name != "Hernia" else (1,)
        both = name in ("", "Edema", "Effusion", "Emphysema", "Fibrosis")
        sides = SIDES["bilateral"] if both or "scatt" in word else one
        todo[word, name] = (finding, SIDES.get(finding.side, sides), s, rng)
    hidden = {word for word, name in todo if name == without != ""}
    todo = {key: todo[key] for key in todo if key[0] not in hidden}
    for (word, name), (_, sides, s, _) in todo.items():
        _reshape(chest, word, name, sides, s)
    for (word, name), (finding, sides, s, rng) in todo.items():
        # One thing seen under two names (nodule, lesion): drawn once.
        if name != "Lung Lesion" or word.startswith(("cavit", "cyst")):
            for side in sides:
                _add(chest, word, finding, side, s, rng)
    return chest


def _bones(chest: Chest) -> list:
    """Ribs and clavicles: clouds of points, each with its mass."""
    clouds, t = [], np.linspace(0, 1, 160)[:, None]
    band = np.linspace(-0.022, 0.022, 7)[:, None] * [0, 0, 1]
    for side in (-1, 1):
        for z in np.linspace(-0.78, 0.56, 12):
            center, half = _level(chest, side, z + 0.1)
            turn = 0.12 + t * (2.2 if z < 0.3 else 1.3)
            x = (center[0] + side * (half[0] + 0.03)) * np.sin(turn)
            y = center[1] + (half[1] + 0.06) * np.cos(turn)
            low = z + 0.21 * (1 - np.cos(turn)) - 0.05 * np.sin(turn)
            clouds.append((np.concatenate([x, y, low], 1), 0.0042))
        x, y = side * (0.07 + 0.62 * t), -0.33 + 0.35 * t
        low = -0.5 - 0.16 * t + 0.03 * np.sin(6.3 * t)
        clouds.append((np.concatenate([x, y, low], 1), 0.006))
    return [((p[:, None] + band).reshape(-1, 3), m) for p, m in clouds]


def _vessels(study_id: str, chest: Chest) -> list:
    """Branches from each hilum into its lung: clouds of points."""
    rng, clouds, t = _rng(study_id, "vessels"), [], np.linspace(0, 1, 40)
    for side in (-1, 1) * 11:
        root = np.array([side * 0.13, 0.05, -0.03 - 0.03 * side])
        end = _place(chest, side, "", rng)
        bend = rng.normal(0, 0.05, 3) * (4 * t * (1 - t))[:, None]
        way = root + np.outer(t, end - root) + bend
        clouds.append((way, 0.0009 * chest.vessels))
        for fork in rng.integers(12, 32, 3):
            tip = (end - root) * 0.5 + rng.normal(0, 0.13, 3)
            clouds.append(
                (way[fork] + np.outer(t, tip), 0.0004 * chest.vessels)
            )
    return clouds


def _organs(chest: Chest) -> list[Solid]:
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


def _attenuation(study_id: str, chest: Chest, camera: Camera) -> np.ndarray:
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
    organs = [camera.interval(solid) for solid in _organs(chest)]
    for side in (-1, 1):
        center = (0.4 * side, -0.42 * chest.deep - fat, 0.26)
        breast = Solid(center, (0.27 * b, 0.32 * b**1.4, 0.24 * b))
        path += 0.45 * size(breast)
        lung = camera.interval(_lung(chest, side))
        pushers = [*organs, camera.interval(_dome(chest, side))]
        left = [camera.interval(solid) for solid in chest.left[side]]
        free = [camera.interval(solid) for solid in chest.free[side]]

        def air(*bounds) -> np.ndarray:
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
        path += mu * size(solid, *([_lung(chest, side)] if side else []))
    noise = _rng(study_id, "cloud").normal(size=haze.shape)
    cloud = gaussian_filter(noise, 0.03 * camera.size)
    haze = gaussian_filter(haze, 0.015 * camera.size)
    path += haze * np.maximum(1 + 0.35 * cloud / cloud.std(), 0)
    # Vessels show only against air.
    lines = camera.splat(_vessels(study_id, chest) + chest.lines, 0.008)
    path += lines * np.clip(1.3 * full / np.maximum(whole, 0.05), 0, 1)
    path += camera.splat(_bones(chest), 0.009)
    for z in np.arange(-1, 1, 0.125):
        x = chest.curve * np.sin(3.2 * z + 0.4)
        y = 0.44 * chest.deep - chest.hunch * (z + 0.05) ** 2
        path += 1.1 * size(Solid((x, y, z), (0.075, 0.085, 0.052), power=4))
        path += 0.5 * size(Solid((x, y + 0.12, z), (0.03, 0.06, 0.04)))
    path -= 1.2 * size(Solid((0, 0.08, -0.75), (0.04, 0.045, 0.55)))
    return np.maximum(path, 0)


def draw(
    study_id: str, headings: Sequence[str], view: str, size: int = 96
) -> np.ndarray:
    """Draw one view of a study.

    Parameters
    ----------
    study_id : str
        Seed of anatomy, pose, exposure and noise; both views of a study show
        the same patient. The headings have no part in these.
    headings : sequence of str
        The study's MeSH headings (column ``mesh``).
    view : {"frontal", "lateral"}
        Frontal: the patient's right is on the left. Lateral: front is left.
    size : int
        Height and width in pixels, 16 or more.

    Returns
    -------
    ndarray of uint8, shape (size, size)
        0 to 255; bones white, lungs dark.

    Raises
    ------
    CourseError
        For an unknown view or a size below 16.
    """
    camera = Camera(study_id, view, size)
    path = _attenuation(study_id, _patient(study_id, headings), camera)
    rng = _rng(study_id, "exposure", view)
    # Beer-Lambert, then scattered light, then the noise of few photons.
    light = np.exp(-(1.7 if camera.i else 2.4) * rng.normal(1, 0.05) * path)
    light = light + 0.035 + 0.05 * gaussian_filter(light, size / 12)
    light += 0.012 * np.sqrt(light) * rng.normal(size=light.shape)
    film = -np.log(np.maximum(light, 1e-3)) / (3.0 * rng.normal(1, 0.04))
    film = np.clip(film, 0, 1) ** rng.normal(1.35, 0.08)
    return (255 * film).astype(np.uint8)


def lesions(
    study_id: str, headings: Sequence[str], view: str, size: int = 96
) -> dict[str, np.ndarray]:
    """Where each condition of a study was drawn.

    Returns
    -------
    dict of str to ndarray of bool, shape (size, size)
        Condition -> where the attenuation differs from that of the same
        patient without the headings of this condition.
    """
    camera = Camera(study_id, view, size)
    path = _attenuation(study_id, _patient(study_id, headings), camera)
    masks = {}
    for name, present in mesh.labels(headings).items():
        if present:
            chest = _patient(study_id, headings, without=name)
            without = _attenuation(study_id, chest, camera)
            change = np.abs(path - without)
            masks[name] = change > max(0.2 * change.max(), 0.004)
    return masks


def folder_name(size: int) -> str:
    """Name of the cache folder: drawing code and size, ``1a2b3c4d-96``."""
    files = (Path(__file__), Path(mesh.__file__))
    code = b"".join(file.read_bytes() for file in files)
    return f"{hashlib.sha256(code).hexdigest()[:8]}-{size}"


def _draw_file(job: tuple[str, list[str], str, str, int]) -> None:
    study_id, headings, view, name, size = job
    part = f"{name}.{os.getpid()}.part"
    image = Image.fromarray(draw(study_id, headings, view, size))
    image.save(part, format="PNG", compress_level=1)
    os.replace(part, name)


def draw_studies(
    studies: pd.DataFrame,
    folder: str | Path,
    size: int = 96,
    workers: int = 2,
    progress: Callable[[int, int], object] | None = None,
) -> pd.DataFrame:
    """Draw both views of many studies as PNG files; existing files are kept.

    Parameters
    ----------
    studies : DataFrame
        Columns ``study_id`` and ``mesh``: only the studies to be drawn.
    folder : path
        Files are ``<folder>/<folder_name(size)>/<study_id>_<view>.png``, so
        that pictures of older drawing code are never taken.
    size, workers : int
        Pixels; processes (1: this one alone).
    progress : callable, optional
        Called with the number of pictures done and the total.

    Returns
    -------
    DataFrame
        ``study_id``, ``view``, ``path`` (str): two rows a study, in order.

    Raises
    ------
    CourseError
        If a file cannot be written.
    """
    home = Path(folder) / folder_name(size)
    pairs = zip(studies["study_id"], studies["mesh"])
    jobs = [
        (study_id, list(headings), view, f"{home}/{study_id}_{view}.png", size)
        for study_id, headings in pairs
        for view in VIEWS
    ]
    todo = [job for job in jobs if not Path(job[3]).exists()]
    done = len(jobs) - len(todo)
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Spawned, not forked: the notebook's process may hold threads.
        with ExitStack() as stack:
            results: Iterable = map(_draw_file, todo)
            if workers > 1 and len(todo) > 64:
                pool = ProcessPoolExecutor(workers, get_context("spawn"))
                stack.enter_context(pool)
                results = pool.map(_draw_file, todo, chunksize=16)
            for done, _ in enumerate(results, done + 1):
                if progress:
                    progress(done, len(jobs))
    except OSError as error:
        raise CourseError(
            f"A phantom could not be written to {home}.",
            f"{error}.",
            "Free some space or set LLAMAXR_DATA; what is drawn is kept.",
        ) from error
    rows = [(job[0], job[2], job[3]) for job in jobs]
    return pd.DataFrame(rows, columns=["study_id", "view", "path"])
