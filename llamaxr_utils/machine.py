"""The machine a run is on: versions, cores, memory, device, seed.

Facts for records and for choices that are made by name and with a reason.
It changes nothing but the seed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import random
import resource
import sys
from pathlib import Path

import numpy as np

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(
        os, "sched_getaffinity"
    ) else os.cpu_count() or 1


def platform_line() -> str:
    return (
        f"Python {platform.python_version()}, {cores()} cores, "
        f"OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')}"
    )


_earlier = 0.0  # the peak before it was last forgotten


def peak_memory_gb(of_all: bool = True) -> float:
    """Peak resident memory of this process, in GB.

    With ``of_all=False`` since `forget_peak`, and of a GPU where there is
    one.
    """
    if not of_all and pick_device()[0] == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1 if sys.platform == "darwin" else 1024
    return round(max(peak * scale / 1e9, _earlier if of_all else 0), 2)


def forget_peak() -> None:
    """From now on `peak_memory_gb(of_all=False)` begins again (Linux, CUDA;
    elsewhere it stays the peak of the whole process)."""
    global _earlier
    _earlier = peak_memory_gb()
    if pick_device()[0] == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # man 5 proc


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def pick_device() -> tuple[str, str, str]:
    """Device, dtype and the reason for both.

    Returns
    -------
    (str, str, str)
        ``"cuda"``, ``"mps"`` or ``"cpu"``; ``"bfloat16"``, ``"float16"`` or
        ``"float32"``; a sentence.
    """
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "cuda", "bfloat16", f"{name} computes in bfloat16"
        return "cuda", "float16", f"{name} has no bfloat16"
    if torch.backends.mps.is_available():
        return "mps", "float32", "Apple GPU; float32 is the safe choice"
    return "cpu", "float32", "no accelerator found; float32 is exact"


def pick_precision(wanted: str) -> str:
    """``fp32``, ``bf16`` or ``fp16``; ``auto`` is settled by the machine.

    On a CPU bfloat16 pays only where it is in hardware (AVX512-BF16 or AMX);
    elsewhere it is emulated and many times slower.
    """
    import torch

    if wanted != "auto":
        return wanted
    device, dtype, _ = pick_device()
    if device == "cuda":
        return "bf16" if dtype == "bfloat16" else "fp16"
    hardware = (
        torch.cpu._is_avx512_bf16_supported()
        or torch.cpu._is_amx_tile_supported()
    )
    return "bf16" if hardware else "fp32"
