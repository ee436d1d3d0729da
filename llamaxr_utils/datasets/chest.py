"""A drawn patient: the organs, bones and vessels that rays pass through.

A chest of ellipsoids (body, lungs, heart, diaphragm) and clouds of points
(bones, vessels), with room for what `phantoms` adds. What the findings of a
study do to a chest is decided there, not here.
"""

from __future__ import annotations

from types import SimpleNamespace as Chest

import numpy as np
from scipy.ndimage import gaussian_filter

from .rays import Camera, Solid, random_stream

#: Place in the lung: 0 the apex, 1 the diaphragm.
HEIGHT = {"apex": 0.1, "upper": 0.3, "hilum": 0.5, "middle": 0.55}
HEIGHT |= {"lower": 0.78, "base": 0.9}


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
    chest.broken = {}  # (side, rib) -> turn at the break, step
    chest.bulky, chest.solids, chest.patches = [], [], []
    chest.lines, chest.bits = [], []  # clouds in the lung, and anywhere
    return chest


def lung_of(chest: Chest, side: int) -> Solid:
    center = (side * 0.35 * chest.wide, 0.02, 0.28)
    radii = (0.325 * chest.wide, 0.47 * chest.deep * chest.barrel, 1.02)
    return Solid(center, radii, (side * 0.13, chest.tilt))


def dome_of(chest: Chest, side: int) -> Solid:
    """The diaphragm and all below it, on one side."""
    high = 0.5 * chest.flat
    center = (side * 0.33 * chest.wide, -0.08, chest.dome[side] + high)
    radii = (0.43 * chest.wide, 0.62 * chest.deep, high)
    return Solid(center, radii, column=True)


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
        a, g, i = np.array(
            [[0.46, 0.42, -0.52], [0.82, 0.25, -0.5], [0.62, 0.48, -0.02]]
        ) * (side, chest.deep, 1)
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
        arm, radii = (0.93, 0.1, -0.4), (0.2, 0.22, 0.26)
        for way in (-1, 1):
            at = np.multiply(arm, (way, 1, 1))
            parts.append(Solid(at, radii, (0.12 * way, 0), column=True))
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
        at = (0.17 * side, 0.03, -0.01 - 0.03 * side)
        root = size(Solid(at, (0.06, 0.08, 0.1)), lung)
        path += 0.45 * chest.vessels * root
    for solid, mu, side in chest.solids:
        path += mu * size(solid, *([lung_of(chest, side)] if side else []))
    m = chest.meal
    gas = Solid((0.3, -0.05, chest.dome[1] + 0.14), (0.1 * m, 0.12, 0.05 * m))
    path -= 0.8 * size(gas)
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
    if chest.bits:
        path += camera.splat(chest.bits, 0.004)
    for z in np.arange(-1, 1, 0.125):
        rows, near = camera.strip(z, 0.065)  # the rest would be zeros
        bone = Solid(spine(chest, z), (0.075, 0.085, 0.056), power=4)
        thorn = Solid(spine(chest, z) + (0, 0.12, 0), (0.03, 0.06, 0.04))
        path[rows] += 0.6 * chest.bone * near.length(bone)
        path[rows] += 0.3 * chest.bone * near.length(thorn)
    path -= 1.2 * size(Solid((0, 0.08, -0.75), (0.04, 0.045, 0.55)))
    return np.maximum(path, 0)
