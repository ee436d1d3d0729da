"""Writes constraints-colab.txt: what the setup cell pins on Google Colab.

Colab's own packages stay wherever they satisfy all that the course's
packages ask for; the rest is pinned as in constraints.txt. Never torch and
torchvision, which fit Colab's GPU driver. From constraints.txt, Colab's
recorded packages and the metadata of what is installed here, no network:

    .venv/bin/python tests/bench/colab_constraints.py
"""

import importlib.metadata
import re
import textwrap
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests" / "fixtures" / "colab_packages.txt"
TARGET = ROOT / "constraints-colab.txt"
#: Colab's, always: they belong to its driver.
STACK = ("torch", "torchvision")
#: Not asked for by name, but peft from 0.19 on refuses Colab's torchao.
TRAPS = ("torchao",)
MARKERS = dict(
    python_version="3.13", python_full_version="3.13.5", os_name="posix",
    sys_platform="linux", platform_system="Linux", platform_machine="x86_64",
)
HEAD = """\
# Google Colab: written by tests/bench/colab_constraints.py, not by hand.
# Colab's torch, torchvision and all else that satisfies the course's packages
# stay; these are added or replaced. Resolved from a record of Colab's
# packages, not run there. Kept as Colab has them:
{kept}
"""


def versions(path: Path) -> dict[str, str]:
    """Name -> version of a file of pins, in the order of the file."""
    lines = path.read_text("utf-8").splitlines()
    pins = [li.split("==") for li in lines if li and not li.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def first_part() -> list[str]:
    """Names of part 1 of constraints.txt, the model stack."""
    text = (ROOT / "constraints.txt").read_text("utf-8")
    part = text.split("# 1.")[1].split("# 2.")[0]
    names = re.findall(r"^([\w.-]+)==", part, re.MULTILINE)
    return [canonicalize_name(name) for name in names]


def asked_for(pinned: set[str]) -> dict[str, list[SpecifierSet]]:
    """What ``-e ./course[course]`` leads to -> what is asked of it.

    Only what is pinned is followed: of what Colab keeps, Colab has the rest.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = settings["project"]
    queue = [*project["dependencies"], *TRAPS,
             *project["optional-dependencies"]["course"]]
    asked: dict[str, list[SpecifierSet]] = {}
    done = set()
    while queue:
        need = Requirement(queue.pop())
        name = canonicalize_name(need.name)
        asked.setdefault(name, []).append(need.specifier)
        for extra in {"", *need.extras}:
            # What is not installed here (torchao) has nothing to follow.
            if (name, extra) in done or name not in pinned - set(TRAPS):
                continue
            done.add((name, extra))
            here = {**MARKERS, "extra": extra}
            for line in importlib.metadata.requires(name) or []:
                marker = Requirement(line).marker
                if not marker or marker.evaluate(here):
                    queue.append(line)
    return asked


def choose() -> tuple[dict[str, str], list[str]]:
    """Pins, and the names that are kept from Colab."""
    ours, colab = versions(ROOT / "constraints.txt"), versions(RECORD)
    more = pinned = {*first_part(), *TRAPS} - set(STACK)
    while more:  # a pin may ask for more than Colab has
        asked = asked_for(pinned)
        more = {
            name for name in asked.keys() - pinned - set(STACK)
            if name not in colab
            or not all(r.contains(colab[name], True) for r in asked[name])}
        pinned = pinned | more
    kept = sorted(asked.keys() - pinned)
    return {name: ours[name] for name in sorted(pinned)}, kept


def text() -> str:
    """The file."""
    pins, kept = choose()
    listed = textwrap.fill(", ".join(kept), 77, break_on_hyphens=False)
    listed = textwrap.indent(listed, "# ")
    lines = [f"{name}=={version}" for name, version in pins.items()]
    return HEAD.format(kept=listed) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
    print(f"{TARGET.name}: {len(choose()[0])} pins")
