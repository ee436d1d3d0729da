"""One archive for a room without a network: ``make bundle``.

It holds the repository as committed, wheels of all packages, a finished run
of profile ``cpu`` and its drawings. Setup finds the wheels by itself and asks
no package index. `PLATFORM` fetches wheels for other machines, such as
``win_amd64`` or ``macosx_14_0_arm64``, for the Python that runs this.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

from llamaxr_utils.course import run

ROOT = Path(__file__).parents[1]
NAME = "llama-xr-course"
#: Installed with --no-deps, as `make setup` does.
APART = ["unsloth", "unsloth-zoo"]
START = """\
For research and teaching, not for diagnosis.

Linux, macOS:   make lab        sets up from wheels/, asks no network
                make course     says that the run in runs/cpu is up to date
Windows:        TEACHING.md, "Windows, without make"

The wheels are for Python {python} on {system}; another version has none here:
make setup PYTHON=python{python}

runs/ holds report texts of IU X-ray (Indiana University, OpenI), CC BY-NC-ND
4.0: for teaching, not for sale, and passed on as they are. TEACHING.md says
what may be handed out.
"""


def wheels(folder: Path, platform: str) -> None:
    """All packages of ``.[course,dev]`` as wheels, in the versions of
    constraints.txt; those that have none are built here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    names = [*project["project"]["dependencies"], *extras["course"],
             *extras["dev"], "pip", "setuptools"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input"]
    pinned = ["-c", str(ROOT / "constraints.txt")]
    for which in (names, ["--no-deps", *APART]):
        subprocess.run([*pip, "wheel", "-w", folder, *pinned, *which],
                       check=True)
    if platform:
        own = folder.rename(folder.with_name("own"))
        fetch = [*pip, "download", "-d", folder, *pinned, "--find-links", own,
                 "--platform", platform, "--only-binary=:all:"]
        for which in (names, ["--no-deps", *APART]):
            subprocess.run([*fetch, *which], check=True)
        shutil.rmtree(own)


def bundle(target: Path, platform: str = "") -> Path:
    """Write the archive; returns its path."""
    run_folder = run.runs_folder() / "cpu"
    missing = [name for name in run.NOTEBOOKS[:7]
               if run.read_record(run_folder, name) is None]
    if missing:
        raise SystemExit(
            f"  What: {run_folder} is not finished.\n"
            f"  Why:  It lacks {', '.join(missing)}.\n"
            "  Do:   make course, then make bundle")
    target.mkdir(parents=True, exist_ok=True)
    stage = target / NAME
    shutil.rmtree(stage, ignore_errors=True)
    done = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True,
                          capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(stage, filter="data")
    wheels(stage / "wheels", platform)
    shutil.copytree(run_folder, stage / "runs" / "cpu",
                    ignore=shutil.ignore_patterns("checkpoints", ".*"))
    for made in ("phantoms", "meteor"):  # drawings; a cache that saves time
        if (run.data_folder() / made).is_dir():
            shutil.copytree(run.data_folder() / made, stage / "data" / made)
    (stage / "START.txt").write_text(START.format(
        python="{}.{}".format(*sys.version_info),
        system=platform or sys.platform), "utf-8")
    path = target / f"{NAME}-{platform or sys.platform}.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(stage, NAME)
    shutil.rmtree(stage)
    print(f"{path}: {path.stat().st_size / 1e9:.1f} GB. Unpack it, then read "
          "START.txt.")
    return path


if __name__ == "__main__":
    bundle(ROOT / "bundle", *sys.argv[1:])
