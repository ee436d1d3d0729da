"""torch beside a torchvision that does not load; threads that sleep."""

import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("policy", ["PASSIVE", "ACTIVE"])
def test_importing_the_kit_is_light_and_torchvision_loads_after_it(
    monkeypatch, policy
):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy == "ACTIVE":  # the reader's own choice stays
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    done = subprocess.run([sys.executable, "-c", CODE], text=True,
                          capture_output=True, check=False)
    assert done.stdout.strip() == f"torchvision::nms {policy}", done.stderr
