"""What differs on Windows, as far as that can be tried elsewhere."""

import os
import re
import sys
from pathlib import Path

import psutil  # noqa: F401 (it imports resource)
import pytest

from llamaxr_utils.__main__ import main
from llamaxr_utils.course import machine, runner

PACKAGE = Path(machine.__file__).parents[1]


def test_memory_without_the_module_resource(monkeypatch):
    unix = machine.peak_memory_gb()
    monkeypatch.setitem(sys.modules, "resource", None)
    assert 0 < machine.peak_memory_gb() <= unix * 1.01


def test_kernels_talk_over_tcp(monkeypatch):
    monkeypatch.setattr(runner.sys, "platform", "win32")
    with runner.kernel_surroundings() as config:
        assert not config
        folder = os.environ["JUPYTER_RUNTIME_DIR"]
    assert not os.path.exists(folder)


def test_nothing_is_imported_that_only_unix_has():
    """At the top of a module; below, an import has its other branch."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        tops = re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)
        assert not {"resource", "fcntl", "pwd", "grp", "pty"} & {*tops}, path
        assert "os.fork" not in text and "os.kill" not in text, path


def test_a_console_that_lacks_a_letter(monkeypatch):
    with open(os.devnull, "w", encoding="ascii") as console:
        monkeypatch.setattr(sys, "stdout", console)
        with pytest.raises(SystemExit):
            main(["--help"])
        print("2 × 18 → report")
