"""What a picture shows beside the organs: tubes, wires, clips, calcium.

Each is a cloud of points in the chest of `chest`, chosen by the words of a
heading that none of the 18 conditions covers. Found by every reader, named
in many reports, and no finding of the lung: `phantoms` draws those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.interpolate import make_interp_spline

from .chest import Chest, spine
from .rays import Solid

Point = Sequence[float] | np.ndarray
#: A wire's attenuation per unit of length, and that of a wider tube.
WIRE, TUBE = 0.011, 0.009


def _wire(chest: Chest, *way: Point, mass: float = WIRE) -> None:
    """A smooth line through a few points."""
    points = np.array(way, float)
    u = np.linspace(0, 1, len(points))
    line = make_interp_spline(u, points, k=min(3, len(points) - 1))
    line = line(np.linspace(0, 1, 400))
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    chest.bits.append((line, mass * steps.sum()))


def _ring(chest: Chest, at: Point, radii: Point, mass: float = WIRE) -> None:
    """An ellipse; a radius of 0 lays it into a plane."""
    turn = np.linspace(0, 6.28, 200)[:, None]
    u = np.concatenate([np.cos(turn), 0.7 * np.sin(turn), np.sin(turn)], 1)
    size = 4.5 * float(np.max(radii))
    chest.bits.append((np.array(at) + u * radii, mass * size))


def _specks(chest: Chest, at: Point, spread: Point, n: int, rng) -> None:
    """Dense small bits: clips, or calcium; each a short dash."""
    for spot in np.array(at) + rng.normal(0, 1, (n, 3)) * spread:
        half = rng.normal(0, 0.012, 3)
        _wire(chest, spot - half, spot + half, mass=0.03)


def catheter(chest: Chest, word: str, sides, s: float, rng) -> None:
    """From below the clavicle into the superior vena cava."""
    for side in sides or (-1,):
        start = (0.48 * side, -0.42 * chest.deep, -0.22)
        vein = (0.33 * side, -0.3, -0.52), (0.1 * side, -0.2, -0.5)
        end = (-0.09, -0.1, -0.3), (-0.1, -0.1, rng.uniform(-0.05, 0.15))
        _wire(chest, start, *vein, *end)
        if rng.random() < 0.5:  # with a port under the skin
            ball = Solid(start, (0.06, 0.04, 0.06))
            chest.solids.append((ball, 9.0, 0))


def tube(chest: Chest, word: str, sides, s: float, rng) -> None:
    """Into the windpipe, the stomach or the pleural space."""
    if "abdomen" in word or "stomach" in word:
        way = [(0, 0.1, -1.1), (0.01, 0.14, -0.2), (0.05, 0.14, 0.35)]
        _wire(chest, *way, (0.25, 0, chest.dome[1] + 0.25), mass=TUBE)
        return
    for side in () if "trachea" in word else sides:
        way = [(0.85 * side, 0.1, 0.35), (0.5 * side, 0.25, 0.1)]
        _wire(chest, *way, (0.33 * side, 0.2, -0.45), mass=TUBE)
    if "trachea" in word or not sides:
        for rim in (-0.016, 0.016):
            way = [(rim, 0, -1.1), (rim, 0.06, -0.7), (rim, 0.09, -0.28)]
            _wire(chest, *way, mass=0.6 * TUBE)


def implant(chest: Chest, word: str, sides, s: float, rng) -> None:
    """A heart valve, a metal joint, or else a pacemaker with two leads."""
    side = sides[0] if sides else 1
    if "valve" in word:
        _ring(chest, (0.06, -0.1, 0.12), (0.05, 0.07, 0.05), 0.04)
    elif "humerus" in word or "shoulder" in word:
        rod = Solid((0.93 * side, 0.1, -0.45), (0.06, 0.06, 0.12))
        chest.solids.append((rod._replace(column=True), 6.0, 0))
    elif "vertebra" in word or "spine" in word:
        fusion(chest, word, sides, s, rng)
    else:
        front = -0.45 * chest.deep
        box = Solid((0.52 * side, front, -0.32), (0.12, 0.05, 0.1), power=4)
        chest.solids.append((box, 9.0, 0))
        vein = (0.4 * side, -0.35, -0.47), (0.05 * side, -0.15, -0.42)
        for end in ((-0.08, -0.15, 0.2), (0.22, -0.25, 0.42)):
            way = (-0.09, -0.1, -0.15), (-0.07, -0.12, 0.12)
            _wire(chest, box.center, *vein, *way, end, mass=0.014)


def leads(chest: Chest, word: str, sides, s: float, rng) -> None:
    """Electrodes on the skin and their cables."""
    front = -0.55 * chest.deep - chest.fat
    for x, z in ((-0.5, -0.35), (0.5, -0.35), (0.45, 0.45)):
        at = np.array([x, front, z]) + rng.normal(0, 0.05, 3) * (1, 0, 1)
        _ring(chest, at, (0.035, 0, 0.035), 0.03)
        _wire(chest, at, (0.5 * x, front, z + 0.15), (0.15, front, 1.1))


def clips(chest: Chest, word: str, sides, s: float, rng) -> None:
    """Clips where someone was operated on; wires round a sternum."""
    if any(w in word for w in ("mediastinum", "heart", "sternum", "coron")):
        for z in np.linspace(-0.32, 0.22, 6):
            at = (rng.normal(0, 0.01), -0.42 * chest.deep, z)
            _ring(chest, at, (0.045, 0.03, 0.018), 0.022)
        _specks(chest, (0.14, -0.2, 0), (0.04, 0.05, 0.1), 5, rng)
        return
    for side in sides or (int(rng.choice([-1, 1])),):
        at = (0.45 * side, -0.1, rng.uniform(-0.4, 0.3))
        if "abdomen" in word:
            at = (-0.28, -0.1, chest.dome[-1] + 0.3)
        elif "breast" in word or "axilla" in word:
            at = (0.62 * side, -0.35, 0)
        elif "neck" in word or "cervical" in word:
            at = (0.05 * side, 0, -0.85)
        elif "hilum" in word:
            at = (0.18 * side, 0, 0)
        _specks(chest, at, (0.05, 0.04, 0.04), 6, rng)


def stent(chest: Chest, word: str, sides, s: float, rng) -> None:
    """A short mesh tube in a coronary vessel, the aorta or the belly."""
    at = np.array([0.12, -0.3, 0.1])
    if "aorta" in word:
        at = np.array([0.13, 0.28, 0.1])
    elif "abdomen" in word:
        at = np.array([-0.2, 0, chest.dome[-1] + 0.35])
    wide = 0.05 if "aorta" in word else 0.015
    for z in np.linspace(0, 5 * wide, 6):
        _ring(chest, at + (0, 0, z), (wide, wide, wide / 3), 0.02)


def fusion(chest: Chest, word: str, sides, s: float, rng) -> None:
    """Rods beside the spine, held by screws."""
    low, high = (-0.1, 0.7) if "cervical" not in word else (-1.0, -0.72)
    z = np.linspace(low, high, 6)
    for x in (-0.045, 0.045):
        rod = spine(chest, z) + (x, 0.05, 0)
        _wire(chest, *rod, mass=0.03)
        for at in rod:
            _wire(chest, at, at + (0, -0.13, 0), mass=0.03)


def spurs(chest: Chest, word: str, sides, s: float, rng) -> None:
    """Worn discs: bony spurs at the rims of the vertebrae."""
    for z in np.arange(-0.44, 0.7, 0.125):
        for rim in ((-0.08, 0, 0), (0.08, 0, 0), (0, -0.09, 0)):
            if rng.random() < 0.6:
                spread = rng.normal(0, 1, (300, 3)) * (0.022, 0.022, 0.01)
                at = spine(chest, z) + rim
                chest.bits.append((at + spread, 0.0008 * s))


def wedge(chest: Chest, word: str, sides, s: float, rng) -> None:
    """A vertebra that has lost height: denser, and wider."""
    at = spine(chest, rng.uniform(0, 0.5))
    chest.solids.append((Solid(at, (0.09, 0.1, 0.03)), 1.6 * s, 0))


def calcium(chest: Chest, word: str, sides, s: float, rng) -> None:
    """In the wall of the aorta, or in old lymph nodes at the hilum."""
    k = chest.aorta
    if "aorta" in word or word.startswith("atheroscl"):
        turn = np.linspace(-0.3, 2.0, 6)
        x, z = k * (0.11 + 0.1 * np.sin(turn)), -0.3 - 0.12 * k * np.cos(turn)
        y = 0.04 + 0.12 * np.cos(2 * turn)
        _wire(chest, *np.stack([x, y, z], 1), mass=0.02 * s)
    elif any(w in word for w in ("node", "hilum", "mediast", "granulom")):
        for side in sides or (int(rng.choice([-1, 1])),):
            middle = "mediast" in word or "carina" in word
            at = (0.05 if middle else 0.19 * side, 0.02, -0.04)
            _specks(chest, at, (0.025, 0.03, 0.04), 5, rng)


def metal(chest: Chest, word: str, sides, s: float, rng) -> None:
    """Something that does not belong there: a pellet, a button."""
    side = sides[0] if sides else int(rng.choice([-1, 1]))
    low = chest.dome[side] + 0.35 if "abdomen" in word else 0.2
    at = np.array([rng.uniform(0.2, 0.6) * side, -0.5, low])
    chest.solids.append((Solid(at, (0.035, 0.02, 0.035)), 14.0, 0))


#: First words of a heading -> what is drawn; the first that fits.
KINDS: dict[tuple[str, ...], Callable] = {
    ("catheters",): catheter,
    ("tube, inserted",): tube,
    ("implanted medical device",): implant,
    ("medical device",): leads,
    ("surgical instruments", "sutures", "mastectomy"): clips,
    ("stents",): stent,
    ("spinal fusion",): fusion,
    ("foreign bodies", "contrast media"): metal,
    ("calcinosis", "atherosclerosis", "granulomatous"): calcium,
    ("deformity/thoracic v", "deformity/spine", "deformity/lumbar"): wedge,
    ("osteophyte", "spondylosis", "hyperostosis", "sclerosis"): spurs,
}


def add(chest: Chest, word: str, sides, s: float, rng) -> None:
    """Draw what a heading names, if it is one of `KINDS`.

    Parameters
    ----------
    chest : Chest
        Gets the clouds and solids.
    word : str
        The heading, in lower case.
    sides : tuple of int
        -1 right, 1 left, as far as the heading says; else empty.
    s : float
        Severity, about 1.
    rng : Generator
        The stream of this study and heading.
    """
    for starts, draw in KINDS.items():
        if word.startswith(starts):
            draw(chest, word, sides, s, rng)
            return
    if word.startswith(("spine", "thoracic v")) and "degenerative" in word:
        spurs(chest, word, sides, s, rng)
