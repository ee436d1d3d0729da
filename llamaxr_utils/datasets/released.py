"""Weights that others have published: fetched, checked, read safely.

torchxrayvision's networks and the ImageNet networks of torchvision. They are
not part of the kit: a reader fetches them (``fetch <name>``) or puts the
file into ``data/weights/``. What is read once is kept as safetensors; what a
network looks like is not known here (`backbones`).
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..course import files
from ..course.errors import CourseError
from ..course.run import cache_folder, data_folder
from . import downloads

#: The network of the paper (section 3.4).
PAPER = "densenet121-res224-all"


class Weights(NamedTuple):
    """One published file."""

    url: str
    size: int  #: bytes, about; exact where `sha256` is whole
    sha256: str = ""  #: whole, its first digits, or "" where none is known


#: torchvision puts the first digits of the SHA-256 into its file names.
IMAGENET = {
    "resnet50-imagenet": Weights(
        "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        102_540_417,
        "11ad3fa6",
    ),
    "efficientnet-b0-imagenet": Weights(
        "https://download.pytorch.org/models/"
        "efficientnet_b0_rwightman-7f5810bc.pth",
        21_444_401,
        "7f5810bc",
    ),
}
#: What is known of torchxrayvision's files beyond its own list.
PINNED = {
    PAPER: (
        28_382_008,
        "56524913dd16a906422e8d8b66a7a5c46be1d82eb7ac012d8103776f1aa68899",
    ),
    "resnet50-res512-all": (94_000_000, ""),
}


@cache
def table() -> dict[str, Weights]:
    """Name -> published file, for every network that can be fetched."""
    from torchxrayvision.models import model_urls

    found = {}
    for name, facts in model_urls.items():
        if "-res" in name:  # the others are short names for the same files
            found[name] = Weights(
                facts["weights_url"], *PINNED.get(name, (28_400_000, ""))
            )
    return found | IMAGENET


def facts(name: str) -> tuple[list[str], list[float]]:
    """Names of the outputs and operating points, as torchxrayvision lists
    them; an output without a name belongs to no condition."""
    from torchxrayvision.models import model_urls

    known = model_urls[name]
    return list(known["labels"]), [float(p) for p in known["op_threshs"]]


def file_name(name: str) -> str:
    """Name of the published file."""
    return PurePosixPath(urlsplit(table()[name].url).path).name


def fetch(name: str, origin: str = "") -> Path:
    """Get a weight file into the cache, whole and checked.

    Parameters
    ----------
    name : str
        A key of `table`.
    origin : str
        Empty: where it is published. ``http(s)://``: a mirror, the folder
        that holds the file. Else the file on this machine.

    Raises
    ------
    CourseError
        Unknown name, no connection, no space, another file than expected.
    """
    known = table()
    if name not in known:
        raise CourseError(
            f"{name!r} cannot be fetched.",
            "The kit knows openi, smollm2-135m, "
            f"{', '.join([*downloads.SOURCES, *known])}.",
            "Choose one of these.",
        )
    url, size, sha256 = known[name]
    home = cache_folder() / "weights"
    if origin and not origin.startswith(("http://", "https://")):
        source, saved = _find(name, Path(origin)), home / file_name(name)
        _check(name, source)
        home.mkdir(parents=True, exist_ok=True)
        files.write_whole(saved, lambda part: shutil.copyfile(source, part))
        return saved
    if origin:
        url = f"{origin.rstrip('/')}/{file_name(name)}"
    whole = sha256 if len(sha256) == 64 else ""
    path = downloads.download(url, whole, size, home)
    _check(name, path)
    return path


def state_dict(name: str, file: Path | None = None) -> dict[str, Any]:
    """The tensors of a published network.

    Parameters
    ----------
    name : str
        A key of `table`.
    file : path, optional
        The published file; by default it is looked for in ``data/weights/``
        and the cache. It is read once, and kept as safetensors.

    Raises
    ------
    CourseError
        If the file is missing, or is not the published one.
    """
    from safetensors.torch import load_file, save_file

    kept = cache_folder() / "weights" / f"{name}.safetensors"
    if file is None and kept.is_file():
        return load_file(kept)
    path = _find(name, file)
    _check(name, path)
    state = {
        key: value.contiguous()
        for key, value in _read(name, path).items()
        if key != "op_threshs"
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(kept, lambda part: save_file(state, part))
    return state


def _find(name: str, file: Path | None) -> Path:
    homes = (data_folder() / "weights", cache_folder() / "weights")
    places = [file] if file else [home / file_name(name) for home in homes]
    for place in places:
        if place.is_file():
            return place
    raise CourseError(
        f"The weights of {name} are not on this machine.",
        "They are published by others and are not part of the kit.",
        f"Fetch them (python -m llamaxr_utils fetch {name}), put "
        f"{table()[name].url} into data/weights/, or set "
        'BACKBONE = "densenet-small@iu-train".',
    )


def _check(name: str, path: Path) -> None:
    known, found = table()[name], files.sha256(path)
    if found.startswith(known.sha256):  # "" where no checksum was published
        return
    raise CourseError(
        f"{path.name} is not the released weight file of {name}.",
        f"Its SHA-256 is {found[:16]}..., not {known.sha256[:16]}..., its "
        f"length {path.stat().st_size:,} bytes, not {known.size:,}. A weight "
        "file can hold code, so it was not opened.",
        f"Remove it and get it again from {table()[name].url}.",
    )


def _read(name: str, path: Path) -> dict[str, Any]:
    """Tensors of a checked file: a state dict or a pickled module."""
    import torch

    whole = len(table()[name].sha256) == 64
    try:
        # A pickled module is code. One whose whole hash is pinned may run
        # it; of the others only the classes below are let in.
        with torch.serialization.safe_globals(_classes()):
            content = torch.load(
                path, map_location="cpu", weights_only=not whole
            )
    except Exception as error:
        raise CourseError(
            f"{path.name} could not be read as weights.",
            f"{str(error).splitlines()[0]}",
            f"Remove it and get it again from {table()[name].url}.",
        ) from error
    if isinstance(content, dict):
        return content
    for module in content.modules():  # pickled by an old torch
        module.__dict__.setdefault("_non_persistent_buffers_set", set())
    return content.state_dict()


def _classes() -> list[Any]:
    """What a pickled DenseNet of torchxrayvision is made of."""
    from torch import nn
    from torchxrayvision import models

    parts = (nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear)
    own = (models._DenseBlock, models._DenseLayer, models._Transition)
    pools = (nn.MaxPool2d, nn.AvgPool2d)
    return [models.DenseNet, *own, *parts, *pools, set]
