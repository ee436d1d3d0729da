"""What the setup cell would do on Google Colab, from a recorded package list.

Nothing here runs on Colab: the record is data, the pins are compared with it.
"""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llamaxr_utils.course import runner


def versions(text: str) -> dict[str, str]:
    pins = [li.split("==") for li in text.splitlines()
            if li and not li.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


ROOT = Path(__file__).parents[1]
CONSTRAINTS = (ROOT / "constraints.txt").read_text("utf-8")
PINS = versions((ROOT / "constraints-colab.txt").read_text("utf-8"))
RECORD = versions(
    (ROOT / "tests/fixtures/colab_packages.txt").read_text("utf-8"))
COLAB = dict(
    python_version="3.13", python_full_version="3.13.5", os_name="posix",
    sys_platform="linux", platform_system="Linux", platform_machine="x86_64",
    extra="")
#: The same in every notebook (test_notebooks).
SETUP = runner.read(ROOT / "notebooks/01_explore_data.ipynb").cells[1].source
#: The others are installed with --no-deps.
FOLLOWED = sorted(PINS.keys() - {"torchao", "unsloth", "unsloth-zoo"})


def test_the_pins_are_ours_and_colabs_torch_stays():
    assert PINS.items() <= versions(CONSTRAINTS).items()
    assert not {"torch", "torchvision", "triton", "numpy"} & PINS.keys()
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda"))]
    # The model stack is one set, whatever Colab has of it.
    stack = versions(CONSTRAINTS.partition("# 2.")[0])
    assert stack.keys() - {"torch", "torchvision"} <= PINS.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
        "project"]
    for name in (*project["dependencies"],
                 *project["optional-dependencies"]["course"]):
        assert name in PINS or name in RECORD


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_a_pin_asks_for_is_there(name):
    """Pinned, or Colab's in a version that will do; torch 2.11 included."""
    for line in importlib.metadata.requires(name) or []:
        need = Requirement(line)
        if need.marker and not need.marker.evaluate(COLAB):
            continue
        child = canonicalize_name(need.name)
        version = PINS.get(child) or RECORD.get(child)
        assert version, f"{name} asks for {line}"
        assert need.specifier.contains(version, prereleases=True), line


def test_unsloth_takes_the_pins_and_colabs_torch():
    """datasets 4.0, which Colab has, is excluded by unsloth."""
    needs = map(Requirement, importlib.metadata.requires("unsloth") or [])
    asked = {n.name: n.specifier for n in needs if n.marker is None}
    for name in ("datasets", "trl", "transformers", "peft"):
        assert asked[name].contains(PINS[name])
    assert not asked["datasets"].contains(RECORD["datasets"])
    assert asked["torch"].contains(RECORD["torch"].split("+")[0])


def test_the_setup_cell_installs_with_these_pins(tmp_path, monkeypatch):
    calls: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda call, **_: calls.append(call))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.path", [])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="publish your copy"):
        exec(SETUP, {})  # noqa: S102
    exec(SETUP.replace('""', '"https://github.com/a/b"'), {})  # noqa: S102
    clone, course, unsloth = calls
    assert clone[:2] == ["git", "clone"]
    for call in (course, unsloth):
        assert call[1:4] == ["-m", "pip", "install"]
        assert call[call.index("-c") + 1] == "course/constraints-colab.txt"
        assert not {"torch", "torchvision"} & set(call)
    assert course[-1] == "./course[course]"
    assert unsloth[-4:] == ["--no-deps", "torchao", "unsloth", "unsloth_zoo"]
    assert "torchao" in PINS  # upgraded by name: nothing else asks for it
    assert list(tmp_path.iterdir()) == []
