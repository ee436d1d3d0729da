"""Make `import torch` and `import torchvision` behave on a small machine.

Two facts of the platform are handled here and nowhere else. (1) OpenMP
threads that spin while they wait make two busy cores slower than one, so they
are told to sleep, which must be in the environment before torch is loaded.
(2) The torchvision of the package index is built for CUDA; beside a CPU build
of torch its C++ library does not load, and its import stops at
``operator torchvision::nms does not exist``. Defining the two operators'
schemas first cures that. Where torchvision is whole, nothing is done.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import logging
import os
import sys
from pathlib import Path


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Runs `define_missing_operators` once, when torchvision is imported."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            define_missing_operators()
        # It finds nothing itself: the ordinary finders do the import.


_library = None  # operators live as long as the Library object


def define_missing_operators() -> bool:
    """Define ``torchvision::nms`` and ``qnms`` if the library can't load.

    Returns
    -------
    bool
        True when the schemas were defined, False when nothing was needed.
    """
    global _library
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _library is not None:
        return False
    import torch

    for binary in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(binary))
            return False
        except OSError:
            pass  # built for CUDA, beside a CPU build of torch
    _library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _library.define(
            f"{operator}(Tensor dets, Tensor scores, float iou_threshold)"
            " -> Tensor"
        )
    return True


def prepare() -> None:
    """Called by ``import llamaxr_utils``; light, does not import torch."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # It asks for compiled kernels from a hub, which the course never needs.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())
