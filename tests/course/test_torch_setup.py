"""torch beside a torchvision that does not load; threads that sleep."""

from __future__ import annotations

import os
import subprocess
import sys

from llamaxr_utils.course import machine


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_kit_is_light_and_torchvision_loads_after_it():
    code = (
        "import llamaxr_utils, os, sys\n"
        "heavy = {'torch', 'torchvision', 'transformers', 'trl', 'peft',\n"
        "    'pandas', 'matplotlib', 'datasets', 'papermill'}\n"
        "assert not heavy & set(sys.modules)\n"
        "from llamaxr_utils.course import machine\n"
        "waits = lambda: sum(type(f) is machine._BeforeTorchvision\n"
        "                    for f in sys.meta_path)\n"
        "assert waits() == 1\n"
        "import torchvision\n"
        "assert waits() == 0\n"
        "assert not machine.define_missing_operators()  # once is enough\n"
        "import torch\n"
        "print(torch.ops.torchvision.nms.default.name(),\n"
        "      os.environ['OMP_WAIT_POLICY'])"
    )
    assert python(code) == "torchvision::nms PASSIVE"
    code = "import llamaxr_utils, os; print(os.environ['OMP_WAIT_POLICY'])"
    assert python(code, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


def test_nothing_is_defined_where_torchvision_is_whole(monkeypatch):
    import torch

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])  # it leaves it
    monkeypatch.setattr(machine, "_library", None)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert machine.define_missing_operators() is False
    assert machine._library is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert machine.define_missing_operators() is False
