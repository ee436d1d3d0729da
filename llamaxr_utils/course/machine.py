"""The machine a run is on: versions, cores, memory, device, seed.

Facts for records, choices that are made by name and with a reason, and what
must be set before torch is imported (`prepare`).
"""

import contextlib
import importlib.abc
import importlib.metadata
import importlib.util
import logging
import os
import platform
import sys
import tempfile
from pathlib import Path

from .errors import problem


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    result = {"python": platform.python_version()}
    for package in ("torch", "transformers", "trl", "peft", "bitsandbytes"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            result[package] = importlib.metadata.version(package)
    return result


def cores() -> int:
    """Cores that this process may use."""
    linux = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1


def platform_line() -> str:
    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    python = platform.python_version()
    return f"Python {python}, {cores()} cores, OMP_WAIT_POLICY={policy}"


def peak_memory_gb() -> float:
    """Peak resident memory of this process, in GB."""
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        import psutil

        memory = psutil.Process().memory_info()
        return round(getattr(memory, "peak_wset", memory.rss) / 1e9, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)


# --- device and precision ---------------------------------------------------

def pick_device() -> tuple[str, str, str]:
    """Device (``cuda``, ``mps``, ``cpu``), its best dtype (``bfloat16``,
    ``float16``, ``float32``), and the reason for both."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "cuda", "bfloat16", f"{name} computes in bfloat16"
        return "cuda", "float16", f"{name} has no bfloat16"
    if torch.backends.mps.is_available():
        return "mps", "float32", "Apple GPU; float32 is the safe choice"
    return "cpu", "float32", "no accelerator found; float32 is exact"


def compute_dtype(precision: str) -> tuple[str, str]:
    """Device, and the dtype that a frozen base computes in there.

    On a GPU the base follows the training's `precision` (auto, fp32, bf16,
    fp16): unsloth refuses a model in another half precision; elsewhere it is
    float32. CourseError for a half precision that the device does not have.
    """
    device, best, _ = pick_device()
    lacking = {"cpu": "fp16", "cuda": "bf16" if best != "bfloat16" else ""}
    if precision == lacking.get(device):
        other = "fp32" if device == "cpu" else "fp16"
        raise problem("precision", precision=precision, other=other)
    if device != "cuda":
        return device, "float32"
    dtypes = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    return device, dtypes.get(precision, best)


def has_fast_bfloat16() -> bool:
    """On a CPU it pays only in hardware (AVX512-BF16 or AMX)."""
    import torch

    device, dtype, _ = pick_device()
    in_cpu = (torch.cpu._is_avx512_bf16_supported()
              or torch.cpu._is_amx_tile_supported())
    return dtype == "bfloat16" if device == "cuda" else in_cpu


# --- before torch is imported -----------------------------------------------

class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Defines ``torchvision::nms`` and ``qnms``, once, when torchvision is
    imported and its library can't load, as one built for CUDA beside a CPU
    build of torch; finds nothing itself."""

    library = None  #: operators live as long as this object

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchvision":
            return
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torchvision")
        if spec is None:
            return
        import torch

        folder = Path(str(spec.origin)).parent
        for binary in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
            with contextlib.suppress(OSError):
                torch.ops.load_library(str(binary))
                return
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, "
                           "float iou_threshold) -> Tensor")
        _BeforeTorchvision.library = library


_HOME: list[tempfile.TemporaryDirectory] = []  # removed at the end


def prepare() -> None:
    """Called by ``import llamaxr_utils``; does not import torch. OpenMP
    threads that spin while they wait make two busy cores slower than one:
    they are told to sleep, before torch is loaded."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # nltk and others want a home of a user whom the system does not know, too.
    if os.path.expanduser("~") == "~":
        _HOME.append(tempfile.TemporaryDirectory(prefix="llamaxr-home-"))
        os.environ["HOME"] = _HOME[0].name
    # It asks for compiled kernels from a hub, which the course never needs.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())
