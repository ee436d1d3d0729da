"""Before a run: does this machine have what a profile asks for?

``python -m llamaxr_utils check --profile a100`` prints a line a fact:
``[ OK ]``, ``[NOTE]``, or ``[FAIL]`` with what, why and do this. Nothing is
installed or changed.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from ..course import machine, run
from ..datasets import downloads, images
from ..evaluation.meteor import java_version
from ..llm import models

#: soupsieve, which Jupyter brings, asks for 3.11.5.
PYTHONS = (3, 11, 5), (3, 14)
#: GB of a base's published files, and the peak of GPU memory that notebook 04
#: was measured to take (figures/data/gpu.csv; None: not measured).
BASES_GB = {"smollm2-135m": (0.3, None), "llama-3.2-1b": (1.1, None),
            "llama-3.1-8b": (5.7, 17.4)}
RESULTS_GB = 2.0  # a run's results and checkpoints, about
HUB, TIMEOUT = "https://huggingface.co", 5


def ok(text: str) -> str:
    return f"[ OK ] {text}"


def note(text: str) -> str:
    return f"[NOTE] {text}"


def fail(what: str, why: str, do: str) -> str:
    return f"[FAIL] {what} {why} Do: {do}"


def run_check(profile: str = "cpu", images: str | None = None) -> bool:
    """Print a line a fact; True if nothing failed."""

    def knob(number: int, name: str):
        return run.knob_value(run.NOTEBOOKS[number - 1], name, profile, images)

    run.run_name(profile, images)  # an unknown profile is a `CourseError`
    images = images or run.declared()["profiles"][profile]["images"]
    print(f"profile {profile} · {images} images\n{machine.platform_line()}")
    base, backend = knob(3, "BASE"), knob(4, "BACKEND")
    lines = [
        *python(sys.version_info[:3]),
        *packages(installed(), backend == "unsloth"),
        *gpu(base, knob(4, "PRECISION")),
        *disk(base, images),
        *folders(),
        *java(),
        *base_model(base),
        *xrays(images),
        *weights(knob(2, "BACKBONE")),
    ]
    print("\n".join(lines))
    failed = sum(line.startswith("[FAIL]") for line in lines)
    print(f"{failed} to do." if failed else "Ready to run.")
    return not failed


def python(version: tuple[int, int, int]) -> Iterator[str]:
    text = ".".join(map(str, version))
    if PYTHONS[0] <= version < PYTHONS[1]:
        yield ok(f"Python {text}")
    else:
        yield fail(f"Python {text}.", "Versions are pinned for 3.11.5 to "
                   "3.13.", "make setup PYTHON=python3.11")


def installed() -> dict[str, str]:
    """Package -> version, names as pip writes them."""
    return {
        _plain(package.metadata["Name"]): package.version
        for package in importlib.metadata.distributions()
        if package.metadata["Name"]
    }


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(there: dict[str, str], unsloth: bool) -> Iterator[str]:
    """Against pyproject.toml and constraints.txt, and the known traps."""
    from packaging.specifiers import SpecifierSet

    top = run.project_folder()
    try:
        lines = (top / "constraints.txt").read_text("utf-8").splitlines()
        asked = tomllib.loads((top / "pyproject.toml").read_text("utf-8"))
    except OSError:
        yield note("No clone here: versions are not compared.")
        return
    pinned = {
        _plain(name): version
        for name, _, version in (line.partition("==") for line in lines)
    }
    asked = asked["project"]
    needed = asked["dependencies"] + asked["optional-dependencies"]["course"]
    needed += ["unsloth", "unsloth-zoo"] if unsloth else []
    names = [_plain(name) for name in needed]
    missing = [name for name in names if name not in there]
    if missing:
        yield fail(f"Not installed: {', '.join(missing)}.", "The notebooks of "
                   "this profile import them.", "make setup (on Colab: run "
                   'the setup cell; without unsloth: BACKEND = "peft")')
    other = [
        f"{name} {there[name]}, not {pinned.get(name)}"
        for name in names
        if name in there and there[name].split("+")[0] != pinned.get(name)
    ]
    if other:
        yield note(f"Other versions than in constraints.txt: "
                   f"{'; '.join(other)}. Not run together by us.")
    elif not missing:
        yield ok(f"{len(names)} packages as in constraints.txt")
    on_cpu = machine.pick_device()[0] == "cpu" and "triton" not in there
    traps = (("torchao", "<0.16", True), ("datasets", "==4.0.*", unsloth),
             ("trl", ">=1.15", on_cpu))
    for name, bad, applies in traps:
        if applies and there.get(name, "") in SpecifierSet(bad):
            yield fail(f"{name} {there[name]}:", "it breaks training here.",
                       f"pip install --no-deps -c constraints.txt {name}")


def gpu(base: str, precision: str) -> Iterator[str]:
    """Bases that are published in 4 bit are for a GPU."""
    device, best, reason = machine.pick_device()
    if "4bit" in models.base(base).source and device != "cuda":
        yield fail(f"No NVIDIA GPU was found ({device}).", f"{base} in 4 bit "
                   "is trained on one.", "on Colab, Runtime > Change runtime "
                   "type; or PROFILE=cpu")
        return
    problem = machine.cannot_start(precision, device, best)
    if problem:
        yield fail(*problem)
    if device != "cuda":
        yield ok(f"{base} needs no GPU; here: {device}")
        return
    free, measured = free_gpu_gb(), BASES_GB.get(base, (0, None))[1]
    text = f"{reason}; {free:.1f} GB free"
    if measured and free < measured:
        yield fail(f"{text}.", f"Notebook 04 took {measured} GB with {base}.",
                   "halve BATCH_SIZE and double ACCUMULATION, or PROFILE=t4")
    else:
        more = f"took {measured} GB" if measured else "was not measured"
        yield ok(f"{text}; notebook 04 with {base} {more}")


def free_gpu_gb() -> float:
    import torch

    return torch.cuda.mem_get_info()[0] / 1e9


def disk(base: str, images: str) -> Iterator[str]:
    """Results, and what is still to be fetched."""
    needed = RESULTS_GB
    if origin(base) != "local":
        needed += BASES_GB[base][0]
    if images == "real" and not xrays_here():
        needed += 2 * downloads.ARCHIVE_BYTES / 1e9  # packed and unpacked
    places = (run.runs_folder(), run.data_folder(), Path.home())
    free = min(shutil.disk_usage(_there(p)).free for p in places) / 1e9
    text = f"disk: {free:.1f} GB free, about {needed:.1f} GB needed"
    if free >= needed:
        yield ok(text)
    else:
        yield fail(f"{text}.", "", "free some, or move the folders with "
                   "LLAMAXR_RUNS, LLAMAXR_DATA and HF_HOME")


def _there(path: Path) -> Path:
    """The path or its nearest folder that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())


def folders() -> Iterator[str]:
    if not takes_a_file(_there(run.runs_folder())):
        yield fail("runs/ takes no file.", "Every notebook writes its results "
                   "there.", "set LLAMAXR_RUNS to a folder of yours")
    elif not takes_a_file(_there(run.data_folder())):
        yield note("data/ is read-only: caches go to runs/cache.")
    else:
        yield ok("runs/ and data/ can be written")


def takes_a_file(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def java() -> Iterator[str]:
    version = java_version()
    yield ok(f"Java {version}") if version else note(
        "No Java: METEOR 1.5 is left out, nothing else.")


def base_model(base: str) -> Iterator[str]:
    place = origin(base)
    if place in ("local", "hub"):
        where = {"local": "is here, or made by the run", "hub": "can be "
                 "fetched, no login asked"}[place]
        yield ok(f"{base} {where}")
    else:
        yield fail(f"{models.base(base).source} is not to be had.", place,
                   "connect, or put a copy into a folder and set "
                   "LLAMAXR_MODELS to its parent; PROFILE=cpu needs none")


def origin(base: str) -> str:
    """Where a base comes from: ``local``, ``hub``, or what is wrong. May ask
    the hub for a header."""
    import requests
    from huggingface_hub import try_to_load_from_cache

    if models.made_here(base):
        return "local"
    source = models.locate(base)
    if Path(source).is_dir() or isinstance(
        try_to_load_from_cache(source, "config.json"), str
    ):
        return "local"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return "HF_HUB_OFFLINE is set."
    place = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    address = f"{place}/{source}/resolve/main/config.json"
    try:
        answer = requests.head(address, timeout=TIMEOUT, allow_redirects=True)
    except requests.RequestException as error:
        return f"{place} was not reached ({type(error).__name__})."
    if answer.status_code in (401, 403):
        return f"{place} asks for a login: the repository is gated."
    if answer.status_code != 200:
        return f"{place} answered {answer.status_code}."
    return "hub"


def xrays(source: str) -> Iterator[str]:
    if source == "phantom":
        yield ok("images are drawn; no X-ray is needed")
    elif xrays_here():
        yield ok("X-rays, or an archive of them, are in data/")
    else:
        yield fail("No X-rays in data/.", "This run reads IU X-ray images.",
                   "python -m llamaxr_utils fetch openi --all (1.4 GB), or "
                   "IMAGES=phantom")


def xrays_here() -> bool:
    """By names alone; an archive is not unpacked."""
    return any(
        downloads.is_archive(file.name)
        or file.suffix.lower() in images.IMAGE_SUFFIXES
        and "phantoms" not in file.parts
        and images.openi_id(file.stem) is not None
        for top in {run.data_folder(), downloads.home()}
        for file in top.rglob("*")
    )


def weights(backbone: str) -> Iterator[str]:
    names = [f"{backbone}.safetensors"]
    if "@" not in backbone and "torchxrayvision" in installed():
        names.append(downloads.file_name(backbone))
    homes = (run.data_folder(), run.cache_folder())
    if "@" in backbone or any(
        (home / "weights" / name).is_file()
        for home in homes for name in names
    ):
        yield ok(f"backbone {backbone}")
    else:
        yield fail(f"The weights of {backbone} are not here.", "They are "
                   "published by others and not part of the kit.",
                   f"python -m llamaxr_utils fetch {backbone}")
