"""`start()` and `finish()`: what every notebook does first and last.

A `Run` knows profile, knobs, folders and artifacts of one notebook's run, and
what was read and written. Knobs are declared in ``profiles.yaml`` alone.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import yaml

from . import artifacts
from .errors import problem
from .machine import peak_memory_gb, platform_line, versions

WARNING = "For research and teaching, not for diagnosis."
IMAGE_SOURCES = ("phantom", "real")
#: Set by the runner: earlier notebooks are its business then.
IN_COURSE = "LLAMAXR_IN_COURSE"


# --- profiles and knobs -----------------------------------------------------

@lru_cache(maxsize=1)
def declared() -> dict:
    """``profiles.yaml``: ``profiles``, and the knobs of ``notebooks``."""
    path = Path(__file__).parents[1] / "profiles.yaml"
    text = path.read_bytes()
    try:
        content = yaml.safe_load(text)
        return {part: dict.copy(content[part])
                for part in ("profiles", "notebooks", "stated")}
    except (LookupError, TypeError, ValueError, RecursionError,
            yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line if mark else text.count(
            b"\n", 0, getattr(error, "position", 0))
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise problem(
            "damaged profiles", file=path.name, line=line + 1, reason=reason,
            path=path) from error


NOTEBOOKS = tuple(declared()["notebooks"])


def knob_table(notebook: str) -> dict:
    """Knob -> ``about`` and its values by profile."""
    return declared()["notebooks"].get(notebook) or {}


def knob_value(notebook: str, knob: str, profile: str,
               images: str | None = None) -> Any:
    """A knob's value: for the run (``cpu-real``), else for the profile
    (``cpu``), else the one under ``else``."""
    row = knob_table(notebook)[knob]
    columns = (run_name(profile, images), profile, "else")
    return next(row[column] for column in columns if column in row)


def run_name(profile: str, images: str | None = None) -> str:
    """Folder name of a run: ``cpu``, ``t4`` ...; with a suffix, such as
    ``cpu-real``, where the images are not the profile's own."""
    known = declared()["profiles"]
    if profile not in known or images not in (None, *IMAGE_SOURCES):
        raise problem(
            "unknown run", profile=profile, images=images,
            known=", ".join(known))
    other = images not in (None, known[profile]["images"])
    return f"{profile}-{images}" if other else profile


# --- folders ----------------------------------------------------------------

def project_folder() -> Path:
    """The clone: the nearest folder above with notebooks, or the one that
    this package lies in, else here."""
    here, first = Path.cwd(), f"notebooks/{NOTEBOOKS[0]}.ipynb"
    folders = (here, *here.parents, Path(__file__).parents[2])
    return next((f for f in folders if (f / first).exists()), here)


def notebook_path(notebook: str) -> Path:
    return project_folder() / "notebooks" / f"{notebook}.ipynb"


def runs_folder() -> Path:
    """``runs/`` of the project, or ``LLAMAXR_RUNS``."""
    return _folder("LLAMAXR_RUNS", "runs")


def data_folder() -> Path:
    """``data/`` of the project, or ``LLAMAXR_DATA``; may be read-only."""
    return _folder("LLAMAXR_DATA", "data")


def _folder(variable: str, name: str) -> Path:
    """The folder that a variable names, or else `name`; where that is no
    whole path it starts in the project, wherever a kernel or command runs."""
    given = os.environ.get(variable, "").strip() or name
    return project_folder() / os.path.expanduser(given)


def cache_folder() -> Path:
    """Where caches go: the data folder, or ``runs/cache`` if it is
    read-only (a class folder, say)."""
    folder = data_folder()
    writable = os.access(nearest(folder), os.W_OK)
    return folder if writable else runs_folder() / "cache"


def kept(kind: str, facts: Any, make: Callable[[Path], Any]) -> Path:
    """What `make` writes of these facts: found in the data folder or the
    cache where it was made before, even by another who is at it now."""
    from filelock import FileLock

    name = Path(kind, artifacts.digest([repr(facts), versions()])[:16])
    path = cache_folder() / name
    if (data_folder() / name).exists():
        return data_folder() / name
    with artifacts.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            artifacts.write_whole(path, make)
    return path


def nearest(path: Path) -> Path:
    """The path or its nearest folder that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if os.path.exists(p))


def read_record(folder: Path, notebook: str) -> dict | None:
    """The record that `Run.finish` wrote, or None."""
    return artifacts.read_json(
        Path(folder) / "records" / f"{notebook}.json", knobs=dict, inputs=dict,
        outputs=dict, seconds=(int, float), peak_memory_gb=(int, float))


# --- the run ----------------------------------------------------------------

class Run:
    """One notebook's run. Made by `start`; knobs are its attributes."""

    def __init__(self, notebook: str, profile: str, images: str | None):
        self.notebook, self.profile = notebook, profile
        self.name = run_name(profile, images)
        self.images = images or declared()["profiles"][profile]["images"]
        self.folder = runs_folder() / self.name
        self.knobs: dict[str, Any] = {}
        self.inputs: list[str] = []
        self.outputs: dict[str, Path] = {}
        self.began = time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        if name.isupper() and name in self.__dict__.get("knobs", {}):
            return self.knobs[name]
        raise AttributeError(f"{name} is not a knob of this notebook")

    def load(self, name: str) -> Any:
        value = artifacts.load(self.folder, name)
        if name not in self.inputs:
            self.inputs.append(name)
        return value

    def save(self, name: str, value: pd.DataFrame | Callable[[Path], Any],
             inputs: Sequence[str] | None = None) -> None:
        """Write an artifact; its inputs are all that was loaded so far."""
        self.outputs[name] = artifacts.save(
            self.folder, name, value, writer=self.notebook,
            inputs=self.inputs if inputs is None else inputs,
            parameters={"images": self.images, **self.knobs})

    def made_with(self, name: str, knob: str) -> Any:
        """The value that a knob had when an artifact was written."""
        self.load(name)
        record = artifacts.manifest(self.folder, name) or {}
        if knob not in record["parameters"]:
            raise problem("older artifact", name=name, knob=knob,
                          writer=record["writer"])
        return record["parameters"][knob]

    def file(self, kind: str, name: str) -> Path:
        """Path for a ``tables`` or ``figures`` file; listed by `finish`."""
        path = self.folder / kind / name
        with artifacts.disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.outputs[f"{kind}/{name}"] = path
        return path

    @property
    def stamp(self) -> str:
        """Provenance in one line, for tables and figures."""
        seed = f"seed {self.knobs['SEED']} · " if "SEED" in self.knobs else ""
        return (f"LLaMA-XR course, {self.notebook[:2]} · profile "
                f"{self.profile} · {self.images} images · {seed}"
                f"{time.strftime('%Y-%m-%d')}")

    @property
    def title_note(self) -> str:
        """" (phantom images)" for runs on drawings, "" for X-rays."""
        return " (phantom images)" if self.images == "phantom" else ""

    def finish(self) -> None:
        """Record the run, print what was written and what comes next."""
        seconds, memory = time.perf_counter() - self.began, peak_memory_gb()
        outputs = {
            path.relative_to(self.folder).as_posix(): artifacts.sha256(path)
            for path in self.outputs.values() if path.exists()}
        inputs = {
            name: artifacts.sha256(artifacts.path_of(self.folder, name))
            for name in self.inputs}
        record = {
            "notebook": self.notebook, "profile": self.profile,
            "images": self.images, "knobs": self.knobs,
            "inputs": inputs, "outputs": outputs, "versions": versions(),
            "seconds": round(seconds, 1), "peak_memory_gb": memory}
        path = self.folder / "records" / f"{self.notebook}.json"
        artifacts.write_json(path, record)
        print(f"{self.notebook}: {seconds:.0f} s, peak memory {memory:.1f} GB."
              f" Written to runs/{self.name}:", *outputs, sep="\n  ")
        following = NOTEBOOKS[NOTEBOOKS.index(self.notebook) + 1 :]
        print(f"Next: {following[0]}" if following else "That was the last.")
        print(WARNING)


def start(notebook: str, profile: str, images: str | None = None,
          change: Mapping[str, Any] = MappingProxyType({}),
          reads: Sequence[str] = ()) -> Run:
    """Open a notebook's run: knobs, folders, inputs, seed.

    `images` is ``phantom``, ``real`` or None, the profile's own; `change`
    the knobs that shall not have the profile's value; `reads` the artifacts
    that the notebook needs: earlier notebooks are run where one is missing.
    """
    run, table = Run(notebook, profile, images), knob_table(notebook)
    for name in change:
        if name not in table:
            near = get_close_matches(name.upper(), table, 1, cutoff=0)[0]
            raise problem(
                "no such knob", name=name, notebook=notebook,
                known=", ".join(table), near=near)
    values = {k: knob_value(notebook, k, profile, images) for k in table}
    run.knobs = values | dict(change)
    _print_knobs(run)
    _check_inputs(run, reads)
    seed = int(run.knobs.get("SEED") or 0)
    random.seed(seed)
    np.random.seed(seed)
    return run


def _print_knobs(run: Run) -> None:
    """Each knob: here, in the paper, and what it is."""
    print(f"{run.notebook} · profile {run.profile} · {run.images} images")
    rows = [("knob", "here", "", "paper", "what it is")]
    for knob, row in knob_table(run.notebook).items():
        value, paper = run.knobs[knob], knob_value(run.notebook, knob, "paper")
        mark = "" if value == paper else "≠"
        rows.append((knob, _plain(value), mark, _plain(paper), row["about"]))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for words in rows:
        print("  ".join(map(str.ljust, words, widths)).rstrip())
    print(f"Run folder: runs/{run.name} · {platform_line()}")


def settings_table(run: Run, here: Mapping[str, Any]) -> pd.DataFrame:
    """``setting``, ``paper``, ``published notebook``, ``this run``: what each
    says of training. `here`: this run's values of settings that are no knobs.
    """
    rows, sources = [], ("paper", "author")
    for knob, row in knob_table(run.notebook).items():
        says = {p: knob_value(run.notebook, knob, p) for p in sources}
        says |= row.get("says", {})
        rows.append((knob, *map(says.get, sources), run.knobs[knob]))
    for name, row in declared()["stated"].items():
        ours = here.get(name, row.get("here"))
        rows.append((name, *map(row.get, sources), ours))
    columns = ["setting", "paper", "published notebook", "this run"]
    return pd.DataFrame(rows, columns=columns).map(_plain)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_inputs(run: Run, reads: Sequence[str]) -> None:
    """Run the earlier notebooks where an input is missing or stale."""
    lacking = [n for n in reads if artifacts.stale_because(run.folder, n)]
    if lacking and IN_COURSE not in os.environ:
        last = NOTEBOOKS[NOTEBOOKS.index(run.notebook) - 1][:2]
        print(f"{lacking[0]} is not ready: running 01 to {last} first ...")
        command = [sys.executable, "-m", "llamaxr_utils", "course", "--to",
                   last, "--profile", run.profile, "--images", run.images]
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as child:
            for line in child.stdout or ():
                print(line, end="", flush=True)
    for name in lacking:
        artifacts.load(run.folder, name)  # raises, saying what to do
    if reads:
        print(f"Inputs: {', '.join(reads)} [OK]")
