"""torch beside a torchvision that does not load; threads that sleep."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def test_torchvision_imports_after_the_kit():
    code = (
        "import llamaxr_utils, sys\n"
        "assert 'torch' not in sys.modules\n"
        "import torchvision\n"
        "from torchvision.ops import nms\n"
        "import torch\n"
        "print(torch.ops.torchvision.nms.default.name())"
    )
    assert python(code) == "torchvision::nms"


def test_the_finder_is_gone_after_its_work():
    code = (
        "import llamaxr_utils, sys\n"
        "name = '_BeforeTorchvision'\n"
        "def waits():\n"
        "    return any(type(f).__name__ == name for f in sys.meta_path)\n"
        "before = waits()\n"
        "import torchvision\n"
        "print(before, waits())"
    )
    assert python(code) == "True False"


@pytest.mark.parametrize("n_calls", [1, 2])
def test_operators_are_defined_once(n_calls):
    """True at most once, and never where torchvision is whole."""
    code = (
        "from llamaxr_utils.course import machine\n"
        "d = machine.define_missing_operators\n"
        f"print(sum(d() for _ in range({n_calls})))\n"
    )
    assert python(code) in ("0", "1")


def test_nothing_is_defined_where_torchvision_is_whole(monkeypatch):
    import torch

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])  # it leaves it
    monkeypatch.setattr(machine, "_library", None)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert machine.define_missing_operators() is False
    assert machine._library is None


def test_nothing_is_defined_without_torchvision(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(machine, "_library", None)
    assert machine.define_missing_operators() is False


def test_threads_sleep_unless_the_reader_says_otherwise():
    code = "import llamaxr_utils, os; print(os.environ['OMP_WAIT_POLICY'])"
    assert python(code) == "PASSIVE"
    assert python(code, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


def test_importing_the_kit_is_light():
    code = (
        "import llamaxr_utils, sys\n"
        "heavy = {'torch', 'torchvision', 'transformers', 'trl', 'peft',\n"
        "    'pandas', 'matplotlib', 'datasets', 'papermill'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python(code) == "[]"
