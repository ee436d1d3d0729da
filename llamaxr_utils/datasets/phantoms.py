"""Drawn chest X-rays: frontal and lateral, from a study's MeSH headings.

A chest of ellipsoids and points (bones, vessels) is changed by the findings
and looked through by Beer-Lambert's law, so both views show one patient and
every lesion's place is known. Teaching pictures: no evidence about X-rays.

Space: x to the patient's left, y to the back, z down; a picture shows -1 to
1. A side is the sign of x: -1 the patient's right lung, 1 the left.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace as Chest
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..course.artifacts import write_whole
from ..course.machine import cores
from . import mesh
from .conditions import VIEWS

Interval = tuple[np.ndarray, np.ndarray]  # where a ray enters and leaves
SIDES = {"right": (-1,), "left": (1,), "bilateral": (-1, 1)}
NUMBERS_FILE = mesh.DATA / "phantoms.yaml"
SEVERITY, HEIGHT, PATCHES, LINES = yaml.safe_load(
    NUMBERS_FILE.read_text("utf-8")).values()


def random_stream(*words: str) -> np.random.Generator:
    """A stream for each purpose, so that labels cannot shift anatomy."""
    digest = hashlib.sha256("/".join(words).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


# --- solids, a camera that looks through them, and its film -----------------

class Solid(NamedTuple):
    """|x/a|^p + |y/b|^p + |z/c|^p <= 1, its centre leaning along z."""

    center: np.ndarray | tuple
    radii: np.ndarray | tuple
    lean: Sequence[float] = (0.0, 0.0)  # shift in x, y per unit of z
    power: int = 2
    column: bool = False  # below its centre it goes on as a cylinder

    def moved(self, factor, shift=(0.0, 0.0, 0.0)) -> Self:
        center, radii = np.add(self.center, shift), np.array(self.radii)
        return self._replace(center=center, radii=radii * factor)


class Camera:
    """One view of space: which axis is across, where each pixel lies."""

    def __init__(self, study_id: str, view: str, size: int):
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

    def length(self, *parts: Solid | Interval) -> np.ndarray:
        """Way of each ray through what the parts have in common."""
        ways = [self.interval(p) if isinstance(p, Solid) else p for p in parts]
        low, high = ways[0]
        for start, end in ways[1:]:
            low, high = np.maximum(low, start), np.minimum(high, end)
        return np.maximum(high - low, 0)

    def air(self, pushers: list, *bounds: Solid | Interval) -> np.ndarray:
        """The same, less what others push away."""
        lost = [self.length(*bounds, other) for other in pushers]
        return np.maximum(self.length(*bounds) - sum(lost), 0)

    def splat(self, clouds: list, blur: float) -> np.ndarray:
        """Clouds of points, each with its mass -> attenuation, blurred."""
        n, points = self.size, np.concatenate([cloud for cloud, _ in clouds])
        mass = [np.full(len(cloud), m / len(cloud)) for cloud, m in clouds]
        across = points[:, self.i] + self.twist * points[:, 1 - self.i]
        across = across + self.roll * points[:, 2]
        low, step = self.edges[:, :1], np.diff(self.edges[:, :2])
        row, col = (np.stack([points[:, 2], across]) - low) / step
        keep = (row >= 0) & (row < n) & (col >= 0) & (col < n)
        where = row[keep].astype(int) * n + col[keep].astype(int)
        image = np.bincount(where, np.concatenate(mass)[keep], n * n)
        image = image.reshape(n, n)
        return gaussian_filter(np.float32(image * n**2 / 4), blur * n / 2)


def _expose(path: np.ndarray, thick: float, view: str, rng) -> np.ndarray:
    """Attenuation -> film, (size, size), 0 black to 1 white: Beer-Lambert,
    scattered light, the noise of few photons. The exposure is set by the
    patient's thickness, never by a finding."""
    light = np.exp(-rng.normal(1.4, 0.07) * path / thick)
    light = light + 0.035 + 0.05 * gaussian_filter(light, len(path) / 12)
    light += 0.012 * np.sqrt(light) * rng.normal(size=light.shape)
    # A film's curve: flat where it is black, flat where it is white.
    dark = -np.log(np.maximum(light, 1e-3)) / rng.normal(1, 0.04)
    middle = 1.3 if view == "frontal" else 1.65
    film = 1.06 / (1 + np.exp((middle - dark) / 0.5)) - 0.06
    film = np.clip(film, 0, 1) ** rng.normal(1, 0.06)
    # The radiographer's: shutters at the rim and a lead L, whatever is found.
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
    return film


# --- a patient --------------------------------------------------------------

def anatomy(study_id: str) -> Chest:
    """A healthy patient: numbers of the shape, and room for findings."""
    rng = random_stream(study_id, "anatomy")
    names = "wide deep heart aorta media vessels bone".split()
    shape = rng.normal(1, (0.05, 0.08, 0.06, 0.1, 0.08, 0.12, 0.1))
    chest = Chest(**dict(zip(names, shape)), flat=1.0, barrel=1.0)
    chest.breast = rng.uniform(0.4, 1.2) if rng.random() < 0.5 else 0.1
    chest.fat, chest.hunch = rng.gamma(4, 0.013), rng.uniform(0.1, 0.3)
    chest.curve, chest.tilt = rng.normal(0, 0.015), rng.normal(0.06, 0.03)
    chest.slope, chest.meal = rng.normal(0.21, 0.03), rng.gamma(3, 0.3)
    top, chest.air = rng.normal(0.42, 0.06), rng.normal(0.76, 0.02)
    chest.dome = {-1: top, 1: top + rng.normal(0.05, 0.02)}
    chest.left = {-1: [], 1: []}  # bounds of the lung that is left
    chest.free = {-1: [], 1: []}  # the same, with air around it
    chest.patches = {-1: [], 1: []}
    chest.broken = {}  # (side, rib) -> turn at the break, step
    chest.bulky, chest.solids = [], []
    chest.lines = []  # clouds of points in the lung
    return chest


def lung_of(chest: Chest, side: int) -> Solid:
    center = (side * 0.35 * chest.wide, 0.02, 0.28)
    radii = (0.325 * chest.wide, 0.47 * chest.deep * chest.barrel, 1.02)
    return Solid(center, radii, (side * 0.13, chest.tilt))


def dome_of(chest: Chest, side: int) -> Solid:
    """The diaphragm and all below it, on one side."""
    w, d, high = chest.wide, chest.deep, 0.5 * chest.flat
    center = (side * 0.33 * w, -0.08, chest.dome[side] + high)
    return Solid(center, (0.43 * w, 0.62 * d, high), column=True)


def level(chest: Chest, side: int, z) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half-widths (x, y) of a lung at a height, or at many."""
    lung = lung_of(chest, side)
    z = np.asarray(z)[..., None] - lung.center[2]
    part = np.sqrt(np.maximum(1 - (z / lung.radii[2]) ** 2, 0.02))
    return lung.center[:2] + z * lung.lean, part * lung.radii[:2]


def place(chest: Chest, side: int, zone: str, rng) -> np.ndarray:
    """A point in a zone of a lung: x, y, z."""
    t = HEIGHT.get(zone, rng.uniform(0.2, 0.9)) + rng.normal(0, 0.04)
    z = -0.72 + min(t, 1) * (chest.dome[side] + 0.72)
    u = rng.uniform((-0.1, -0.5), 0.6) * (side, 1)
    u[0] = -0.4 * side if zone == "hilum" else u[0]
    center, half = level(chest, side, z)
    return np.array([*(center + u * half), z])


def rib(chest: Chest, side: int, number: int, turn) -> np.ndarray:
    """Points on a rib; turn: 0 at the spine, 1.57 outermost."""
    z = -0.8 + 0.122 * number
    center, half = level(chest, side, max(z + 0.1, -0.66))
    x = (center[0] + side * (half[0] + 0.03)) * np.sin(turn)
    y = center[1] + (half[1] + 0.06) * np.cos(turn)
    low = z + chest.slope * (1 - np.cos(turn)) - 0.05 * np.sin(turn)
    broken, step = chest.broken.get((side, number), (9, 0))
    return np.stack([x, y, low + step * (turn > broken)], -1)


def spine(chest: Chest, z) -> np.ndarray:
    """Centre of the vertebral column at a height, or at many."""
    x = chest.curve * np.sin(3.2 * np.asarray(z) + 0.4)
    y = 0.44 * chest.deep - chest.hunch * (np.asarray(z) + 0.05) ** 2
    return np.stack([x, y, z], -1)


def _bands(lines: list, width: float, mass: float) -> tuple:
    """Lines of points, widened along z; dense at both rims, like bone."""
    rims = width * np.sin(np.linspace(-1.57, 1.57, 7))
    points = np.concatenate(lines)[:, None] + rims[:, None] * [0, 0, 1]
    return points.reshape(-1, 3), mass * len(lines)


def bones(chest: Chest) -> list:
    """Ribs, clavicles, scapulae, sternum: clouds of points with a mass."""
    b, t = chest.bone, np.linspace(0, 1, 120)
    lines: tuple[list, ...] = [], [], [], []
    upper, lower, plates, collar = lines
    for side in (-1, 1):
        for number in range(12):
            end = 2.1 if number < 9 else 1.2
            way = rib(chest, side, number, 0.25 + t * end)
            (upper if number < 1 else lower).append(way)
        s = np.stack([side * (0.05 + 0.66 * t), -0.33 + 0.4 * t, 0 * t], -1)
        s[:, 2] = -0.5 - 0.13 * t + 0.035 * np.sin(6.3 * t)
        collar.append(s)
        # A scapula: a plate between three corners, its outer rim, its spine.
        corners = [0.46, 0.42, -0.52], [0.82, 0.25, -0.5], [0.62, 0.48, -0.02]
        a, g, i = np.array(corners) * (side, chest.deep, 1)
        u, v = np.divmod(np.arange(900), 30)
        u, v = 0.2 + 0.8 * (u[:, None] / 29) ** 0.6, v[:, None] / 29
        plates.append(g + u * (a + v * (i - a) - g))
        bow = 0.05 * np.sin(3.14 * t[::2, None]) * (side, 0, 0)
        plates.append(i + 0.9 * t[::2, None] * (g - i) - bow)
    z = np.linspace(-0.35, 0.25, 700)
    center, half = level(chest, 1, z)
    y = center[:, 1] - half[:, 1] - 0.05
    front = np.stack([0.06 * np.sin(299 * z), y, z], -1)
    return [
        _bands(upper, 0.022, 0.0016 * b),
        _bands(lower, 0.027, 0.0036 * b),
        _bands(collar, 0.03, 0.0065 * b),
        (np.concatenate(plates), 0.026 * b),
        (front, 0.006 * b),
    ]


def vessels(study_id: str, chest: Chest) -> list:
    """Branches from each hilum into its lung: clouds of points."""
    rng = random_stream(study_id, "vessels")
    t = np.linspace(0, 1, 40) ** 1.5  # denser, so brighter, at the root
    clouds = []
    for side in (-1, 1):
        z = rng.uniform(-0.6, chest.dome[side] - 0.05, 14)
        center, half = level(chest, side, z)
        u = rng.uniform((-0.3, -0.7), (0.85, 0.7), (14, 2)) * (side, 1)
        end = np.concatenate([center + u * half, z[:, None]], 1)
        root = np.array([side * 0.16, 0.05, -0.02 - 0.03 * side])
        root = root + rng.normal(0, (0.02, 0.03, 0.04), (14, 3))
        mass = 0.00055 * chest.vessels * 14
        for forks in (3, 2, 0):
            bend = rng.normal(0, 0.05, (len(end), 1, 3))
            bend = bend * (4 * t * (1 - t))[:, None]
            way = root[:, None] + t[:, None] * (end - root)[:, None] + bend
            clouds.append((way.reshape(-1, 3), mass))
            long = np.repeat(end - root, forks, 0)
            at = rng.integers(12, 34, len(long))
            root = np.repeat(way, forks, 0)[np.arange(len(long)), at]
            turn = rng.normal(0, 0.11, (len(long), 3))
            end, mass = root + 0.42 * long + turn, 0.9 * mass
    return clouds


def organs_of(chest: Chest) -> list[Solid]:
    """What pushes lung away: heart, vessels, mediastinum."""
    h, m, k = chest.heart, chest.media, chest.aorta
    return [
        Solid((0.1, -0.15, 0.23), (0.26 * h, 0.36 * h, 0.29 * h), (0.4, 0.1)),
        Solid((-0.06, -0.12, 0.2), (0.17 * h, 0.28, 0.3)),
        Solid((0, 0.05, -1), (0.08 * m, 0.5, 1), column=True),
        Solid((-0.05, -0.05, -0.3), (0.12 * m, 0.22, 0.5), (-0.06, 0)),
        Solid((0.07, 0, -0.5), (0.08 * m, 0.22, 0.4), (-0.08, 0)),
        Solid((0.11 * k, 0.04, -0.3), (0.1 * k, 0.25, 0.12 * k)),
        Solid((0.11, -0.05, -0.08), (0.12, 0.2, 0.13)),
        Solid((0.11 * k, 0.3, -0.2), (0.06 * k, 0.06, 0.12), column=True),
        *chest.bulky,
    ]


def soft_tissue(chest: Chest, camera: Camera) -> np.ndarray:
    """The way of the rays through the body, as if there were no lungs."""
    size, fat, b = camera.length, chest.fat, chest.breast**0.5
    wide, deep = chest.wide, chest.deep
    torso = (0.8 * wide + fat, 0.56 * deep + fat, 1.6 + 0.3 * camera.i)
    trunk = Solid((0, 0.03, 0.9), torso, (0, chest.tilt), power=4)
    parts = [Solid((0, 0.1, -0.7), (0.24, 0.24, 1), column=True)]
    # Arms hang in the frontal view and are raised in the lateral one.
    if camera.i:
        lean, radii = (0, chest.tilt + 0.1), (0.92, 0.5 * deep, 0.52)
        parts.append(Solid((0, -0.12, -0.95), radii, lean, power=4))
    else:
        parts.append(Solid((0, 0.08, -0.42), (1.3, 0.46, 0.42)))
        parts.append(Solid((0, 0.1, -0.72), (0.66, 0.34, 0.42)))
        radii = (0.2, 0.22, 0.26)
        for way in (-1, 1):
            arm = np.array([0.93 * way, 0.1, -0.4])
            parts.append(Solid(arm, radii, (0.12 * way, 0), column=True))
    path = np.max([size(part) for part in (trunk, *parts)], 0)
    for side in (-1, 1):
        center = (0.4 * side, -0.38 * deep - fat, 0.3)
        breast = Solid(center, (0.28 * b, 0.32 * b**1.4, 0.27 * b), (0, -0.2))
        path += size(breast) - size(breast, trunk)
    return path


def attenuation(study_id: str, chest: Chest, camera: Camera) -> np.ndarray:
    """What the rays lose on their way: (size, size), 0 in air."""
    size = camera.length
    path = soft_tissue(chest, camera)
    whole, full, haze = np.zeros((3, *path.shape), np.float32)
    organs = [camera.interval(solid) for solid in organs_of(chest)]
    for side in (-1, 1):
        lung = camera.interval(lung_of(chest, side))
        pushers = [*organs, camera.interval(dome_of(chest, side))]
        left = [camera.interval(solid) for solid in chest.left[side]]
        aerated = tissue = camera.air(pushers, lung, *left)
        if free := chest.free[side]:
            # Around a collapsed lung: air without vessels, then its edge.
            tissue = camera.air(pushers, lung, *left, *free)
            inside = [solid.moved(0.98) for solid in free]
            edge = tissue - camera.air(pushers, lung, *left, *inside)
            path += 1.6 * edge - 0.3 * (aerated - tissue)
        path -= chest.air * aerated
        whole, full = whole + size(lung), full + tissue
        for solid, mu in chest.patches[side]:
            haze += mu * size(solid, lung, *left)
        at = (0.17 * side, 0.03, -0.01 - 0.03 * side)
        root = size(Solid(at, (0.06, 0.08, 0.1)), lung)
        path += 0.45 * chest.vessels * root
    for solid, mu, *within in chest.solids:
        path += mu * size(solid, *within)
    m, top = chest.meal, chest.dome[1] + 0.14
    path -= 0.8 * size(Solid((0.3, -0.05, top), (0.1 * m, 0.12, 0.05 * m)))
    noise = random_stream(study_id, "cloud").normal(size=haze.shape)
    cloud = gaussian_filter(noise, 0.03 * camera.size)
    haze = gaussian_filter(haze, 0.015 * camera.size)
    haze *= np.maximum(1 + 0.35 * cloud / cloud.std(), 0)
    # Filled lung is no denser than an organ.
    path += 1.2 * full * np.tanh(haze / np.maximum(1.2 * full, 0.1))
    # Vessels show only against air.
    lines = camera.splat(vessels(study_id, chest) + chest.lines, 0.008)
    path += lines * np.clip(1.3 * full / np.maximum(whole, 0.05), 0, 1)
    path += camera.splat(bones(chest), 0.009)
    for z in np.arange(-1, 1, 0.125):
        bone = Solid(spine(chest, z), (0.075, 0.085, 0.056), power=4)
        thorn = Solid(spine(chest, z) + (0, 0.12, 0), (0.03, 0.06, 0.04))
        path += 0.6 * chest.bone * size(bone)
        path += 0.3 * chest.bone * size(thorn)
    path -= 1.2 * size(Solid((0, 0.08, -0.75), (0.04, 0.045, 0.55)))
    return np.maximum(path, 0)


# --- findings of the 18 conditions ------------------------------------------

def _reshape(chest: Chest, word: str, name: str, sides, s: float) -> None:
    """Findings that change the chest itself, before things are placed."""
    chest.heart *= 1 + 0.22 * s * (name == "Cardiomegaly")
    chest.media *= 1 + 0.6 * s * (name == "Enlarged Cardiomediastinum")
    if word.startswith("aort") and ("tortuous" in word or name):
        chest.aorta *= 1 + 0.4 * s
    chest.curve += 0.07 * s * word.startswith("scoliosis")
    chest.hunch += 0.45 * s * word.startswith("kyphosis")
    chest.tilt += 0.06 * s * word.startswith("kyphosis")
    chest.bone *= 1 - 0.3 * word.startswith(("bone diseases", "osteopor"))
    chest.vessels *= 1 + 0.3 * s * word.startswith("markings/bronchov")
    chest.vessels *= 1 + 0.25 * s * (name == "Edema")
    ill = s * (name == "Emphysema")
    large = ill + 0.5 * s * word.startswith(("lung/hyper", "lung, hyper"))
    large += 0.5 * s * word.startswith("lung/bilateral/hyperdist")
    chest.air += 0.04 * ill
    chest.vessels -= 0.3 * ill
    chest.barrel = min(chest.barrel + 0.06 * large, 1.1)
    chest.heart -= 0.06 * large
    level = "diaphragm" in word and "flattened" in word
    chest.flat *= 1 - 0.35 * min(large + 0.7 * s * level, 1.6)
    high = "elev" in word or "eventration" in word
    small = s * ("hypoinflation" in word or "diaphragm" in word and high)
    small += 0.3 * s * (name == "Atelectasis" or "volume loss" in word)
    for side in sides:
        chest.dome[side] += 0.08 * large - 0.13 * small


def _add(chest: Chest, word: str, finding, side: int, s: float, rng) -> None:
    """Findings that lie in one lung, or beside it."""
    name, zone, lung = finding.condition, finding.zone, lung_of(chest, side)
    zone = "hilum" if name == "Edema" and not zone else zone
    at, many = place(chest, side, zone, rng), "multiple" in word
    if name == "Effusion" or word.startswith(("costophrenic", "sulcus")):
        low = chest.dome[side] - 0.3 - 0.5 * (s if name else 0.75)
        wide, deep = lung.radii[0] * 1.35, lung.radii[1] * 1.3
        center = (lung.center[0] - side * 0.05, -0.05, low)
        chest.left[side].append(Solid(center, (wide, deep, 0.9)))
    elif name == "Pleural Thickening":
        top = zone == "apex"
        away = np.array([0, 0, 0.08] if top else [-0.06 * side, 0, 0])
        chest.left[side].append(lung.moved(1, away * s))
    if name == "Pneumothorax" or word.startswith("hydropneumo"):
        away = np.array([-0.06 * side, 0, 0.14])
        chest.free[side].append(lung.moved(1 - 0.15 * s, away * s))
    elif name in ("Nodule", "Mass", "Lung Lesion"):
        old = "calc" in word or "granuloma" in word
        radius = 0.16 if name == "Mass" else 0.056 if old else 0.09
        for _ in range(4 if many or "scatt" in word else 1):
            ball = Solid(at, radius * s**0.7 * rng.normal(1, 0.1, 3))
            mu = 8.0 if old else 3.0 if name == "Mass" else 3.6
            chest.solids.append((ball, mu, lung))
            if word.startswith(("cavit", "cyst")):
                chest.solids.append((ball.moved(0.75), -4.5, lung))
            at = place(chest, side, zone, rng)
    elif name == "Hernia":
        # The stomach behind the heart: a wall, a bubble of air in its top.
        radii = np.array([0.2, 0.17, 0.17]) * min(s, 1.5)
        sac = Solid((0.05, 0.2, 0.34), radii)
        bubble = sac.moved((0.7, 0.7, 0.45), (0, 0, -0.2 * radii[2]))
        chest.bulky.append(sac)
        chest.solids.append((bubble, -1.6))
    elif name == "Fracture":
        for number in rng.permutation(np.arange(3, 9))[: 3 if many else 1]:
            turn = rng.uniform(0.9, 1.7)
            at = rib(chest, side, number, turn)
            if "vertebra" in word:
                at = spine(chest, 0.15 * number - 0.6)
            elif "clavicle" in word:
                at = np.array([0.42 * side, -0.1, -0.58])
            else:
                chest.broken[side, number] = turn, 0.04 * s
            radii = np.array([0.07, 0.07, 0.05]) * s**0.3
            chest.solids.append((Solid(at, radii), 5.0))
    elif "hilum" in word and ("enlarged" in word or "prominent" in word):
        ball = Solid((0.2 * side, 0.03, -0.02), np.full(3, 0.1 * s**0.5))
        chest.solids.append((ball, 1.5, lung))
    fine = "interstitial" in word or "reticular" in word
    kind = "Interstitial" if fine and name == "Lung Opacity" else name
    number, radius, mu = PATCHES.get(kind, (0, 0.0, 0.0))
    for _ in range(number):
        spot = at + rng.normal(0, 0.09, 3) * (number > 1)
        haze = Solid(spot, radius * s**0.5 * rng.normal(1, 0.15, 3))
        chest.patches[side].append((haze, mu * s**0.5))
    number, long, mu, slope, spread = LINES.get(kind, (0, 0, 0, 0, 0))
    plate = name == "Atelectasis"
    t = np.linspace(-0.5, 0.5, 600 if plate else 80)[:, None]
    for _ in range(round(number * s**0.5)):
        way = np.array([1, rng.normal(0, 0.5), rng.normal(0, slope)])
        way *= long * rng.uniform(0.6, 1.2) / np.linalg.norm(way)
        bow = long * rng.normal(0, 0.3, 3) * (t * t)
        line = at + rng.normal(0, spread, 3) + t * way + bow
        line = line + rng.normal(0, (0.005, 0.012)[plate], line.shape)
        chest.lines.append((line, mu * long * s**0.5))


# --- pictures ---------------------------------------------------------------

def _patient(study_id: str, headings: Sequence[str],
             without: str = "") -> Chest:
    """The patient with all findings, but for one condition's headings."""
    chest, todo = anatomy(study_id), {}
    for finding in mesh.parse_headings(headings):
        rng = random_stream(study_id, finding.heading)
        s = SEVERITY[finding.severity] * float(np.exp(rng.normal(0, 0.15)))
        word, name = finding.heading.lower(), finding.condition
        one = (int(rng.choice([-1, 1])),) if name != "Hernia" else (1,)
        both = name in ("", "Edema", "Effusion", "Emphysema", "Fibrosis")
        both = both or "interstitial" in word
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


def draw(study_id: str, headings: Sequence[str], view: str,
         size: int = 96) -> np.ndarray:
    """One view of a study: uint8, (size, size), bones white, lungs dark.

    `study_id` is the seed of anatomy, pose, exposure and noise; `headings`
    (column ``mesh``) give only the findings. Frontal: the patient's right is
    on the left. Lateral: front is left.
    """
    camera, chest = Camera(study_id, view, size), _patient(study_id, headings)
    path = attenuation(study_id, chest, camera)
    rng = random_stream(study_id, "exposure", view)
    thick = (0.56 * chest.deep, 0.7 * chest.wide)[camera.i] + chest.fat
    return (255 * _expose(path, thick, view, rng)).astype(np.uint8)


def lesions(study_id: str, headings: Sequence[str], view: str,
            size: int = 96) -> dict[str, np.ndarray]:
    """Where each condition was drawn: bool, (size, size), True where the
    attenuation differs visibly from that of the same patient without the
    headings of this condition."""
    camera = Camera(study_id, view, size)
    path = attenuation(study_id, _patient(study_id, headings), camera)
    masks = {}
    for name in [name for name, yes in mesh.labels(headings).items() if yes]:
        chest = _patient(study_id, headings, without=name)
        change = np.abs(path - attenuation(study_id, chest, camera))
        # Faint beside the rest, but plain to see: part of the lesion.
        masks[name] = change > max(min(0.2 * change.max(), 0.05), 0.004)
    return masks


def draw_files(views: pd.DataFrame, folder: Path, size: int,
               progress: Callable[[int, int], object] | None = None
               ) -> list[str]:
    """Draw views (``study_id``, ``view``, ``mesh``) as PNG files
    ``<folder>/1a2b3c4d-96/<study_id>_<view>.png``; returns their paths.

    Existing ones are kept; the folder is named by the drawing's code and
    rules and by `size`, so that older pictures are never taken.
    """
    from sklearn.utils.parallel import Parallel, delayed

    files = (__file__, mesh.__file__, *mesh.FILES, NUMBERS_FILE)
    code = b"".join(Path(file).read_bytes() for file in files)
    home = folder / f"{hashlib.sha256(code).hexdigest()[:8]}-{size}"
    names = views["study_id"] + "_" + views["view"] + ".png"
    jobs = views[["study_id", "mesh", "view"]].assign(size=size)
    jobs["path"] = [home / name for name in names]
    todo = [job for job in jobs.to_numpy() if not job[-1].exists()]
    # A few are drawn before other processes have started.
    pool = Parallel(cores() if len(todo) > 64 else 1, return_as="generator")
    drawn = pool(delayed(_draw_file)(*job) for job in todo)
    for done, _ in enumerate(drawn, 1 + len(jobs) - len(todo)):
        if progress:
            progress(done, len(jobs))
    return jobs["path"].map(str).tolist()


def _draw_file(*job: Any) -> None:
    image = Image.fromarray(draw(*job[:-1]))
    write_whole(job[-1], partial(image.save, format="PNG", compress_level=1))
