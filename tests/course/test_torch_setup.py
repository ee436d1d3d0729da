"""torch beside a torchvision that does not load; threads that sleep."""

from __future__ import annotations

import os
import subprocess
import sys

from llamaxr_utils.course import machine

CODE = """
import llamaxr_utils, os, sys
heavy = {'torch', 'torchvision', 'transformers', 'trl', 'peft',
         'pandas', 'matplotlib', 'datasets', 'papermill'}
assert not heavy & set(sys.modules)
from llamaxr_utils.course import machine
waits = lambda: sum(type(f) is machine._BeforeTorchvision
                    for f in sys.meta_path)
assert waits() == 1
import torchvision
assert waits() == 0
import torch
print(torch.ops.torchvision.nms.default.name(), os.environ['OMP_WAIT_POLICY'])
"""


def test_importing_the_kit_is_light_and_torchvision_loads_after_it():
    for policy, result in (({}, "PASSIVE"),
                           ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=kept | policy, text=True,
            capture_output=True, check=False)
        assert done.stdout.strip() == f"torchvision::nms {result}", done.stderr


def test_nothing_is_defined_where_torchvision_is_whole(monkeypatch):
    import torch

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])  # it leaves it
    monkeypatch.setattr(machine, "_library", None)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    machine.define_missing_operators()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    machine.define_missing_operators()
    assert machine._library is None
