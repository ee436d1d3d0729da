"""Do the constraints resolve where nobody here can run them? A dry run.

For Linux, macOS on ARM and Windows with Python 3.11 to 3.13: pip is asked,
without installing, for every pinned package's file for that platform; then
the packages' own requirements are followed from those of `pyproject.toml`,
with its markers, and compared with the pins. "Resolved" is not "run".

    python tests/bench/log_resolution.py [win_amd64-3.13 ...]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PLATFORMS = {
    "linux_x86_64": (
        [f"manylinux_2_{minor}_x86_64" for minor in range(35, 16, -1)]
        + ["manylinux2014_x86_64", "linux_x86_64"],
        dict(sys_platform="linux", platform_system="Linux", os_name="posix",
             platform_machine="x86_64"),
    ),
    "macosx_arm64": (
        ["macosx_14_0_arm64"],
        dict(sys_platform="darwin", platform_system="Darwin",
             os_name="posix", platform_machine="arm64"),
    ),
    "win_amd64": (
        ["win_amd64"],
        dict(sys_platform="win32", platform_system="Windows", os_name="nt",
             platform_machine="AMD64"),
    ),
}
#: Whole versions: some packages ask for a late 3.11.
PYTHONS = {"3.11": "3.11.9", "3.12": "3.12.9", "3.13": "3.13.5"}


def ask(wanted: list[str], tags: list[str], python: str) -> dict[str, dict]:
    """Name -> metadata of the files that pip would take; a package without
    one is left out. One call for all, repeated without those."""
    found: dict[str, dict] = {}
    wanted = list(wanted)
    while wanted:
        with tempfile.TemporaryDirectory() as place:
            report = Path(place) / "report.json"
            command = [sys.executable, "-m", "pip", "install", "--dry-run"]
            command += ["--no-deps", "--ignore-installed", "--quiet"]
            command += ["--only-binary=:all:", "--target", place]
            command += ["--python-version", python, "--report", str(report)]
            for tag in tags:
                command += ["--platform", tag]
            done = subprocess.run(
                [*command, *wanted], capture_output=True, text=True,
                check=False,
            )
            if done.returncode == 0:
                for entry in json.loads(report.read_text())["install"]:
                    facts = entry["metadata"]
                    found[canonicalize_name(facts["name"])] = facts
                return found
        missing = re.search(r"No matching distribution found for (\S+)",
                            done.stderr)
        if missing is None:
            raise SystemExit(done.stderr[-2000:])
        gone = Requirement(missing[1]).name
        wanted = [w for w in wanted
                  if canonicalize_name(Requirement(w).name)
                  != canonicalize_name(gone)]
    return found


def resolve(platform: str, python: str) -> dict[str, list[str]]:
    """What was found: ``resolved``, ``no wheel``, ``not pinned``,
    ``conflict``."""
    tags, markers = PLATFORMS[platform]
    short, python = python, PYTHONS[python]
    markers = {**markers, "python_version": short,
               "python_full_version": python, "implementation_name": "cpython",
               "platform_python_implementation": "CPython"}
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    listed = [li.split("==") for li in lines if li and li[0] != "#"]
    pins = {canonicalize_name(name): version for name, version in listed}
    known = ask([f"{n}=={v}" for n, v in pins.items()], tags, python)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = settings["project"]
    queue = [Requirement(name) for name in project["dependencies"]]
    for extra in ("course", "dev"):
        more = project["optional-dependencies"][extra]
        queue += [Requirement(name) for name in more]
    seen: set[tuple[str, str]] = set()
    free: dict[str, list[str]] = {}  # not pinned: all that is asked of it
    out: dict[str, list[str]] = {
        "resolved": [], "no wheel": [], "not pinned": [], "conflict": [],
    }
    while queue:
        need = queue.pop()
        name = canonicalize_name(need.name)
        if name not in pins:
            asked = free.setdefault(name, [])
            asked += [str(need.specifier)] if need.specifier else []
            version = known.get(name, {}).get("version")
            if version is None or not need.specifier.contains(version):
                known |= ask([name + ",".join(asked)], tags, python)
        if name in known:
            version = known[name]["version"].split("+")[0]
            if not need.specifier.contains(version, prereleases=True):
                out["conflict"].append(f"{name} {version}, wanted {need}")
        extras = need.extras or {""}
        for extra in {"", *extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name not in known:
                out["no wheel"].append(f"{name}=={pins.get(name)}")
                continue
            out["resolved"].append(name)
            for line in known[name].get("requires_dist", []):
                child = Requirement(line)
                if child.marker is None or child.marker.evaluate(
                    {**markers, "extra": extra}
                ):
                    queue.append(child)
    out["not pinned"] = [f"{n} {known[n]['version']}" for n in free
                         if n in known]
    return {kind: sorted(set(names)) for kind, names in out.items()}


def main() -> None:
    wanted = sys.argv[1:] or [
        f"{platform}-{python}" for platform in PLATFORMS for python in PYTHONS
    ]
    for target in wanted:
        found = resolve(*target.rsplit("-", 1))
        print(f"{target}: {len(found['resolved'])} packages", flush=True)
        for kind in ("no wheel", "not pinned", "conflict"):
            if found[kind]:
                print(f"  {kind}: {', '.join(found[kind])}", flush=True)


if __name__ == "__main__":
    main()
