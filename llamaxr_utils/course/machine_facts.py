"""What a machine has, as far as a run depends on it.

`look` gathers the facts; whether they are enough is judged in `check`.
Nothing is installed, fetched or kept.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..datasets import downloads, images
from ..evaluation.meteor import java_version
from ..llm import models
from . import machine, run
from .needs import Plan

HUB, TIMEOUT = "https://huggingface.co", 5


@dataclass(frozen=True)
class Facts:
    """What was found on a machine."""

    python: tuple[int, int, int]
    packages: Mapping[str, str]  #: installed name -> version
    pinned: Mapping[str, str]  #: of constraints.txt; empty without a clone
    needed: tuple[str, ...]  #: names in pyproject.toml
    gpu: tuple[str, float] | None  #: name, free GB
    device: str  #: cuda, mps or cpu
    best_dtype: str  #: the device's, by `machine.pick_device`
    disk_gb: float  #: the smallest free space of the folders below
    closed: tuple[str, ...]  #: of runs/, data/: those that take no file
    java: str | None
    base: str  #: "local", "hub", or why it is not to be had
    xrays: str  #: "found", "archive" or ""
    weights: bool


def look(wanted: Plan) -> Facts:
    """Gather the `Facts` that a plan is judged by. May ask the hub for a
    header (once, `TIMEOUT` seconds)."""
    pinned, needed = _names()
    runs, data = run.runs_folder(), run.data_folder()
    places = [_there(runs), _there(data), _there(Path.home())]
    device, best, gpu = "cpu", "float32", None
    try:
        import torch

        device, best, _ = machine.pick_device()
        if device == "cuda":
            free, _ = torch.cuda.mem_get_info()
            gpu = (torch.cuda.get_device_name(), free / 1e9)
    except ImportError:
        pass  # a line of its own: torch is not installed
    return Facts(
        python=sys.version_info[:3],
        packages={
            _plain(found.metadata["Name"]): found.version
            for found in importlib.metadata.distributions()
            if found.metadata["Name"]
        },
        pinned=pinned,
        needed=needed,
        gpu=gpu,
        device=device,
        best_dtype=best,
        disk_gb=min(shutil.disk_usage(p).free for p in places) / 1e9,
        closed=tuple(
            name
            for name, place in (("runs/", runs), ("data/", data))
            if not _takes_a_file(_there(place))
        ),
        java=java_version(),
        base=_ask_for(wanted.base),
        xrays=_xrays() if wanted.images == "real" else "",
        weights=_weights(wanted.backbone),
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _names() -> tuple[dict[str, str], tuple[str, ...]]:
    top = run.project_folder()
    try:
        lines = (top / "constraints.txt").read_text("utf-8").splitlines()
        project = tomllib.loads((top / "pyproject.toml").read_text("utf-8"))
    except OSError:
        return {}, ()
    pins = [li.split("==") for li in lines if li and not li.startswith("#")]
    asked = project["project"]
    needed = asked["dependencies"] + asked["optional-dependencies"]["course"]
    return {_plain(n): v for n, v in pins}, tuple(map(_plain, needed))


def _there(path: Path) -> Path:
    """The path or its nearest folder that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())


def _takes_a_file(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _ask_for(name: str) -> str:
    """Where a base comes from: ``local``, ``hub``, or what is wrong."""
    if models.made_here(name):
        return "local"
    source = models.locate(name)
    if Path(source).is_dir() or _cached(source):
        return "local"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return "HF_HUB_OFFLINE is set."
    import requests

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


def _cached(source: str) -> bool:
    """True if the hub's cache holds the model's weights."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, "config.json")
    return isinstance(found, str) and any(
        Path(found).parent.glob("*.safetensors")
    )


def _xrays() -> str:
    """Looks at names only; an archive is not unpacked."""
    archive = ""
    for top in {run.data_folder(), downloads.home()}:
        for file in top.rglob("*"):
            image = file.suffix.lower() in images.IMAGE_SUFFIXES
            drawn = "phantoms" in file.parts
            if image and not drawn and images.openi_id(file.stem):
                return "found"
            archive = "archive" if downloads.is_archive(file.name) else archive
    return archive


def _weights(backbone: str) -> bool:
    """True when no published weight file is missing."""
    if "@" in backbone:  # trained here
        return True
    try:
        names = [downloads.file_name(backbone), f"{backbone}.safetensors"]
    except ImportError:
        names = [f"{backbone}.safetensors"]
    homes = (run.data_folder(), run.cache_folder())
    return any((h / "weights" / n).is_file() for h in homes for n in names)
