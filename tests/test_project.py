"""Rules of the project as a whole: imports, sizes, versions, no leaks."""

import ast
import importlib.metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "llamaxr_utils"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
#: A wing imports only from wings before it; `vision` and `llm` stand side by
#: side.
WINGS = ("course", "datasets", "vision", "llm", "evaluation", "exercises",
         "studies")
#: Lines, and modules of the package: upper bounds.
BUDGET = {"package": 8000, "modules": 45, "tests": 8000}


def shell(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                          check=False)


def project_files() -> list[Path]:
    """Tracked files and those that would be added; all files without git."""
    listed = shell("git", "ls-files", "-z", "-co", "--exclude-standard")
    names = [name for name in listed.stdout.split("\0") if name]
    if listed.returncode or not names:
        pytest.skip("not a git clone")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def wing(path: Path) -> str:
    return path.parent.name if path.parent != PACKAGE else ""


def test_a_wing_imports_only_from_those_above_it():
    wrong = set()
    for path in (p for p in modules() if wing(p)):
        allowed = set(WINGS[: WINGS.index(wing(path)) + 1])
        allowed -= {"vision"} if wing(path) == "llm" else set()
        text = path.read_text("utf-8")
        pattern = r"(?:\.\. ?|llamaxr_utils[. ])(?:import )?(\w+)"
        other = re.findall(f"(?:from|import) {pattern}", text)
        wrong |= {f"{path.stem} -> {o}" for o in set(other) - allowed}
    assert not wrong


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.stem)
def test_a_module_says_what_it_is_for_and_loads_light(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    heavy = {"torch", "torchvision", "torchxrayvision", "transformers", "trl",
             "peft", "datasets", "bitsandbytes", "unsloth"}
    for node in tree.body:
        names = [alias.name for alias in getattr(node, "names", [])]
        if isinstance(node, ast.ImportFrom):
            names = [] if node.level else [node.module or ""]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert not heavy & {name.split(".")[0] for name in names}


def lines_of(files) -> int:
    return sum(len(p.read_text("utf-8").splitlines()) for p in files)


def test_the_size_budget():
    """On the whole: what is spent in one place is missing in another."""
    package, tests = modules(), (ROOT / "tests").rglob("*.py")
    size = {"package": lines_of(package), "modules": len(package),
            "tests": lines_of(tests)}
    assert all(size[name] <= most for name, most in BUDGET.items()), size


def test_package_data_is_packaged():
    patterns = SETTINGS["tool"]["setuptools"]["package-data"]["llamaxr_utils"]
    packaged = {p for pattern in patterns for p in PACKAGE.glob(pattern)}
    assert {path for path in project_files() if PACKAGE in path.parents
            and path.suffix != ".py"} <= packaged
    assert PACKAGE / "profiles.yaml" in packaged


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins)
    assert len({pin.split("==")[0] for pin in pins}) == len(pins)
    return dict(pin.split("==") for pin in pins)


def test_what_is_installed_is_what_the_constraints_say():
    """In CI, where nobody has added anything, all of it is pinned too."""
    wrong, pins = [], constraints()
    for package in importlib.metadata.distributions():
        name, version = canonicalize_name(package.name), package.version
        pinned = pins.get(name, "not pinned" if os.environ.get("CI") else None)
        if re.match(r"llamaxr|pip$|setuptools$|wheel$|nvidia|cuda", name):
            continue
        if pinned and version.split("+")[0] != pinned:
            wrong.append(f"{name} {version}, not {pinned}")
    assert not wrong, "; ".join(wrong)


def test_what_is_asked_for_is_in_the_constraints():
    ours = constraints()
    names = list(SETTINGS["project"]["dependencies"])
    for extra in SETTINGS["project"]["optional-dependencies"].values():
        names += extra
    assert set(names) <= set(ours)
    content = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    pip = {"pip": ["-c constraints.txt", "-e .[course,dev]"]}
    assert content["dependencies"][-1] == pip


def test_no_results_and_no_large_file_are_tracked():
    files = project_files()
    assert not [p.name for p in files if p.stat().st_size > 1_000_000]
    parts = {path.relative_to(ROOT).parts[0] for path in files}
    assert not parts & {"runs", "data", ".venv"}


def test_no_paths_of_one_machine():
    # Put together here, so that this file does not find itself.
    starts = "|".join(["home", "Users", "root", "work", "opt"])
    pattern = re.compile(rf"(?<![\w.:/}}])/(?:{starts})/\w")
    for path in project_files():
        text = path.read_text("utf-8", errors="ignore")
        assert not pattern.search(text), path


def test_the_variables_reach_the_command():
    plain = ["make", "-n", "-o", ".venv/.ready", "course"]
    options = "PROFILE=smoke IMAGES=real FROM=04 TO=06 FORCE=1".split()
    for command, arguments in (
        (plain, "--profile cpu --from 01 --to 07"),
        ([*plain, *options],
         "--profile smoke --images real --force --from 04 --to 06"),
    ):
        line = " ".join(shell(*command).stdout.split())
        assert f"llamaxr_utils course {arguments}" in line
