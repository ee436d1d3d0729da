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

import numpy as np
import pandas as pd
from PIL import Image

from ..course.errors import CourseError
from . import chest as body
from . import devices, mesh, rays
from .chest import Chest, anatomy, attenuation, lung_of, place, rib, spine
from .conditions import VIEWS
from .rays import Camera, Solid, expose, random_stream

# A side is the sign of x: -1 the patient's right lung, 1 the left.
SIDES = {"right": (-1,), "left": (1,), "bilateral": (-1, 1)}
# Larger than life: a network that reads 64 pixels has to see them.
SEVERITY = {"mild": 0.9, "": 1.2, "moderate": 1.4, "severe": 1.8}
#: Condition -> hazy patches: number, radius, attenuation.
PATCHES = {
    "Consolidation": (1, 0.24, 1.0),
    "Edema": (2, 0.27, 0.45),
    "Fibrosis": (1, 0.16, 0.25),
    "Infiltration": (3, 0.14, 0.8),
    "Interstitial": (2, 0.3, 0.3),
    "Lung Opacity": (1, 0.19, 0.9),
    "Pneumonia": (2, 0.18, 1.1),
}
#: Condition -> thin lines: number, length, attenuation, slope, spread.
LINES = {
    "Atelectasis": (3, 0.34, 0.011, 0.2, 0.07),
    "Edema": (34, 0.10, 0.003, 0.3, 0.24),
    "Fibrosis": (16, 0.16, 0.005, 1.2, 0.1),
    "Infiltration": (6, 0.14, 0.004, 1.0, 0.12),
    "Interstitial": (40, 0.12, 0.004, 1.2, 0.2),
}


def _reshape(chest: Chest, word: str, name: str, sides, s: float) -> None:
    """Findings that change the chest itself, before things are placed."""
    long = word.startswith("aort") and not word.startswith("aortic valve")
    chest.heart *= 1 + 0.22 * s * (name == "Cardiomegaly")
    chest.media *= 1 + 0.6 * s * (name == "Enlarged Cardiomediastinum")
    chest.aorta *= 1 + 0.4 * s * (long and ("tortuous" in word or name != ""))
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
            chest.solids.append((ball, mu, side))
            if word.startswith(("cavit", "cyst")):
                chest.solids.append((ball.moved(0.75), -4.5, side))
            at = place(chest, side, zone, rng)
    elif name == "Hernia":
        # The stomach behind the heart: a wall, a bubble of air in its top.
        radii = np.array([0.2, 0.17, 0.17]) * min(s, 1.5)
        sac = Solid((0.05, 0.2, 0.34), radii)
        chest.bulky.append(sac)
        bubble = sac.moved((0.7, 0.7, 0.45), (0, 0, -0.2 * radii[2]))
        chest.solids.append((bubble, -1.6, 0))
    elif name == "Fracture":
        for number in rng.permutation(np.arange(3, 9))[: 3 if many else 1]:
            turn = rng.uniform(0.9, 1.7)
            at = rib(chest, side, number, turn)
            if "vertebra" in word or "spine" in word:
                at = spine(chest, 0.15 * number - 0.6)
            elif "clavicle" in word:
                at = np.array([0.42 * side, -0.1, -0.58])
            else:
                chest.broken[side, number] = turn, 0.04 * s
            radii = np.array([0.07, 0.07, 0.05]) * s**0.3
            chest.solids.append((Solid(at, radii), 5.0, 0))
    elif "hilum" in word and ("enlarged" in word or "prominent" in word):
        ball = Solid((0.2 * side, 0.03, -0.02), np.full(3, 0.1 * s**0.5))
        chest.solids.append((ball, 1.5, side))
    fine = "interstitial" in word or "reticular" in word
    kind = "Interstitial" if fine and name == "Lung Opacity" else name
    number, radius, mu = PATCHES.get(kind, (0, 0.0, 0.0))
    for _ in range(number):
        spot = at + rng.normal(0, 0.09, 3) * (number > 1)
        haze = Solid(spot, radius * s**0.5 * rng.normal(1, 0.15, 3))
        chest.patches.append((haze, mu * s**0.5, side))
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


def _patient(
    study_id: str, headings: Sequence[str], without: str = ""
) -> Chest:
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
        if not name:
            devices.add(chest, word, SIDES.get(finding.side, ()), s, rng)
        # One thing seen under two names (nodule, lesion): drawn once.
        if name != "Lung Lesion" or word.startswith(("cavit", "cyst")):
            for side in sides:
                _add(chest, word, finding, side, s, rng)
    return chest


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
    path = attenuation(study_id, _patient(study_id, headings), camera)
    rng = random_stream(study_id, "exposure", view)
    # Beer-Lambert, then scattered light, then the noise of few photons.
    well = anatomy(study_id)
    thick = (0.56 * well.deep, 0.7 * well.wide)[camera.i] + well.fat
    film = expose(path, thick, view, rng)
    return (255 * film).astype(np.uint8)


def lesions(
    study_id: str, headings: Sequence[str], view: str, size: int = 96
) -> dict[str, np.ndarray]:
    """Where each condition of a study was drawn.

    Returns
    -------
    dict of str to ndarray of bool, shape (size, size)
        Condition -> where the attenuation differs visibly from that of the
        same patient without the headings of this condition.
    """
    camera = Camera(study_id, view, size)
    path = attenuation(study_id, _patient(study_id, headings), camera)
    masks = {}
    for name, present in mesh.labels(headings).items():
        if present:
            chest = _patient(study_id, headings, without=name)
            without = attenuation(study_id, chest, camera)
            change = np.abs(path - without)
            # Faint beside the rest, but plain to see: part of the lesion.
            least = min(0.2 * change.max(), 0.05)
            masks[name] = change > max(least, 0.004)
    return masks


def folder_name(size: int) -> str:
    """Name of the cache folder: drawing code and size, ``1a2b3c4d-96``."""
    names = [__file__, *(str(m.__file__) for m in (body, devices, mesh, rays))]
    code = b"".join(Path(name).read_bytes() for name in names)
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
            for _ in results:
                done += 1
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
