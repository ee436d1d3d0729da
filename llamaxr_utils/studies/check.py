"""Before a run: does this machine have what a profile asks for?

``python -m llamaxr_utils check --profile a100`` prints a line a fact:
``[ OK ]``, ``[NOTE]``, or ``[FAIL]`` with what, why and do this. Nothing is
installed or changed.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ..course import machine, run
from ..datasets import downloads, images
from ..evaluation.meteor import java_version
from ..llm import models

#: GB of a base's published files, and the peak of GPU memory that notebook 04
#: was measured to take (figures/data/gpu.csv; None: not measured).
BASES_GB = {"smollm2-135m": (0.3, None), "llama-3.2-1b": (1.1, None),
            "llama-3.1-8b": (5.7, 17.4)}
RESULTS_GB = 2.0  # a run's results and checkpoints, about
HUB = "https://huggingface.co"

OK, NOTE, FAIL = "[ OK ]", "[NOTE]", "[FAIL]"


def run_check(profile: str = "cpu", images: str | None = None) -> bool:
    """Print a line a fact; True if nothing failed."""

    def knob(number: int, name: str):
        return run.knob_value(run.NOTEBOOKS[number - 1], name, profile, images)

    run.run_name(profile, images)  # an unknown profile is a `CourseError`
    images = images or run.declared()["profiles"][profile]["images"]
    print(f"profile {profile} · {images} images\n{machine.platform_line()}")
    base, backend = knob(3, "BASE"), knob(4, "BACKEND")
    lines = [
        *packages(installed(), backend == "unsloth"),
        *gpu(base, knob(4, "PRECISION")),
        *disk(base, images),
        *java(),
        *base_model(base),
        *xrays(images),
        *weights(knob(2, "BACKBONE")),
    ]
    print("\n".join(lines))
    failed = sum(line.startswith(FAIL) for line in lines)
    print(f"{failed} to do." if failed else "Ready to run.")
    return not failed


def installed() -> dict[str, str]:
    """Package -> version, names as pip writes them."""
    return {
        canonicalize_name(package.metadata["Name"]): package.version
        for package in importlib.metadata.distributions()
        if package.metadata["Name"]
    }


def packages(here: dict[str, str], unsloth: bool) -> Iterator[str]:
    """Against pyproject.toml and constraints.txt, and the known traps."""
    top = run.project_folder()
    try:
        lines = (top / "constraints.txt").read_text("utf-8").splitlines()
        project = tomllib.loads((top / "pyproject.toml").read_text("utf-8"))
    except OSError:
        yield f"{NOTE} No clone here: versions are not compared."
        return
    pinned = dict(line.split("==") for line in lines if "==" in line)
    pinned = {canonicalize_name(n): version for n, version in pinned.items()}
    project = project["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["course"]]
    needed += ["unsloth", "unsloth-zoo"] if unsloth else []
    names = [canonicalize_name(Requirement(name).name) for name in needed]
    missing = [name for name in names if name not in here]
    other = [
        f"{name} {here[name]}, not {pinned.get(name)}"
        for name in names
        if name in here and here[name].split("+")[0] != pinned.get(name)
    ]
    if missing:
        yield (f"{FAIL} Not installed: {', '.join(missing)}. Do: make setup "
               "(Colab: the setup cell; or BACKEND = \"peft\")")  # fmt: skip
    if other:
        yield (f"{NOTE} Other versions than in constraints.txt: "
               f"{'; '.join(other)}. Not run together by us.")  # fmt: skip
    if not (missing or other):
        yield f"{OK} {len(names)} packages as in constraints.txt"
    on_cpu = machine.pick_device()[0] == "cpu" and "triton" not in here
    traps = (("torchao", "<0.16", True), ("datasets", "==4.0.*", unsloth),
             ("trl", ">=1.15", on_cpu))
    for name, bad, applies in traps:
        if applies and here.get(name, "") in SpecifierSet(bad):
            yield (f"{FAIL} {name} {here[name]}: it breaks training here. "
                   f"Do: pip install --no-deps -c constraints.txt {name}")


def gpu(base: str, precision: str) -> Iterator[str]:
    """Bases that are published in 4 bit are for a GPU."""
    device, best, reason = machine.pick_device()
    if "4bit" in models.base(base).source and device != "cuda":
        yield (f"{FAIL} No NVIDIA GPU was found ({device}); {base} in 4 bit "
               "is trained on one. Do: on Colab, Runtime > Change runtime "
               "type; or PROFILE=cpu")  # fmt: skip
        return
    if problem := machine.cannot_start(precision, device, best):
        yield " ".join((FAIL, *problem))
    if device != "cuda":
        yield f"{OK} {base} needs no GPU; here: {device}"
        return
    free, measured = free_gpu_gb(), BASES_GB.get(base, (0, None))[1]
    text = f"{reason}; {free:.1f} GB free"
    if measured and free < measured:
        yield (f"{FAIL} {text}. Notebook 04 took {measured} GB with {base}. "
               "Do: halve BATCH_SIZE and double ACCUMULATION, or PROFILE=t4")
    else:
        more = f"took {measured} GB" if measured else "was not measured"
        yield f"{OK} {text}; notebook 04 with {base} {more}"


def free_gpu_gb() -> float:
    import torch

    return torch.cuda.mem_get_info()[0] / 1e9


def disk(base: str, images: str) -> Iterator[str]:
    """Room for results and for what is still to be fetched; may it be
    written?"""
    needed = RESULTS_GB
    if origin(base) != "local":
        needed += BASES_GB[base][0]
    if images == "real" and not xrays_here():
        needed += 2 * downloads.ARCHIVE_BYTES / 1e9  # packed and unpacked
    runs, data = _nearest(run.runs_folder()), _nearest(run.data_folder())
    places = (runs, data, Path.home())
    free = min(shutil.disk_usage(p).free for p in places) / 1e9
    text = f"disk: {free:.1f} GB free, about {needed:.1f} GB needed"
    if free >= needed:
        yield f"{OK} {text}"
    else:
        yield (f"{FAIL} {text}. Do: free some, or move the folders with "
               "LLAMAXR_RUNS, LLAMAXR_DATA and HF_HOME")  # fmt: skip
    if not os.access(runs, os.W_OK):
        yield f"{FAIL} runs/ takes no file. Do: set LLAMAXR_RUNS to a folder"
    elif not os.access(data, os.W_OK):
        yield f"{NOTE} data/ is read-only: caches go to runs/cache."


def _nearest(path: Path) -> Path:
    """The path or its nearest folder that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())


def java() -> Iterator[str]:
    version = java_version()
    missing = f"{NOTE} No Java: METEOR 1.5 is left out, nothing else."
    yield f"{OK} Java {version}" if version else missing


def base_model(base: str) -> Iterator[str]:
    place = origin(base)
    if place == "local":
        yield f"{OK} {base} is here, or made by the run"
    elif place == "hub":
        yield f"{OK} {base} can be fetched, no login asked"
    else:
        yield (f"{FAIL} {models.base(base).source} is not to be had. {place} "
               "Do: connect, or put a copy into a folder and set "
               "LLAMAXR_MODELS to its parent; PROFILE=cpu needs none")


def origin(base: str) -> str:
    """Where a base comes from: ``local``, ``hub``, or what is wrong. May ask
    the hub for a header."""
    import requests
    from huggingface_hub import try_to_load_from_cache

    if models.made_here(base):
        return "local"
    source = models.locate(base)
    if Path(source).is_dir():
        return "local"
    if isinstance(try_to_load_from_cache(source, "config.json"), str):
        return "local"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return "HF_HUB_OFFLINE is set."
    place = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    address = f"{place}/{source}/resolve/main/config.json"
    try:
        answer = requests.head(address, timeout=5, allow_redirects=True)
    except requests.RequestException as error:
        return f"{place} was not reached ({type(error).__name__})."
    if answer.status_code in (401, 403):
        return f"{place} asks for a login: the repository is gated."
    if answer.status_code != 200:
        return f"{place} answered {answer.status_code}."
    return "hub"


def xrays(source: str) -> Iterator[str]:
    if source == "phantom":
        yield f"{OK} images are drawn; no X-ray is needed"
    elif xrays_here():
        yield f"{OK} X-rays, or an archive of them, are in data/"
    else:
        yield (f"{FAIL} No X-rays in data/. Do: python -m llamaxr_utils "
               "fetch openi --all (1.4 GB), or IMAGES=phantom")  # fmt: skip


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
    if backbone in downloads.table():
        names.append(downloads.file_name(backbone))
    homes = (run.data_folder() / "weights", run.cache_folder() / "weights")
    here = any((home / n).is_file() for home in homes for n in names)
    if "@" in backbone or here:
        yield f"{OK} backbone {backbone}"
    else:
        yield (f"{FAIL} The weights of {backbone} are not here. Do: python "
               f"-m llamaxr_utils fetch {backbone}")  # fmt: skip
