"""Run the notebooks in order: ``make course``.

A notebook is skipped when its source, knobs and inputs are those of its last
run and its outputs are whole: that is also the resume after a stop. Each is
run by papermill in a fresh kernel of this interpreter, which no user's
configuration reaches.
"""

import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat

from . import artifacts, machine, run
from .errors import problem

#: Seconds on two calm cores, profile cpu (README): shares of what is left.
SHARES = dict(zip(run.NOTEBOOKS, (46, 85, 11, 180, 36, 50, 19, 60, 130, 90,
                                  10)))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def executed_path(folder: Path, notebook: str) -> Path:
    return folder / "notebooks" / f"{notebook}.ipynb"


def shown(path: Path) -> str:
    """A path as the reader can type it: from here, where that is shorter."""
    below = path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd()) if below else path)


# --- what is up to date -----------------------------------------------------


def state_now(source: Path, profile: str, images: str) -> dict[str, str]:
    """Hashes of what a notebook's result depends on, besides its inputs: its
    cells (outputs, counts and ids don't count) and its knobs."""
    knobs = {
        knob: run.knob_value(source.stem, knob, profile, images)
        for knob in run.knob_table(source.stem)
    }
    cells = [(c.cell_type, c.source.strip()) for c in read(source).cells]
    return {"source": artifacts.digest(cells),
            "knobs": artifacts.digest(knobs)}


def why_run(folder: Path, source: Path, now: Mapping[str, str]) -> str:
    """Why a notebook must run, in a few words; "" if it is up to date. `now`
    is its `state_now`; the record holds that of its last run."""
    record = run.read_record(folder, source.stem)
    if record is None:
        return "not run yet"
    state = record.get("state")
    if not isinstance(state, dict):
        return "it was run by hand since"
    for part in ("source", "knobs"):
        if state.get(part) != now[part]:
            return f"its {part} changed"
    if not artifacts.read_json(executed_path(folder, source.stem), cells=list):
        return "its executed copy is gone"
    for output, recorded in record["outputs"].items():
        path = folder / output
        if not path.exists() or artifacts.sha256(path) != recorded:
            return f"{output} is gone or was changed"
    for artifact, spec in artifacts.ARTIFACTS.items():
        used = spec.file in record["outputs"] or artifact in record["inputs"]
        if used and (stale := artifacts.stale_because(folder, artifact)):
            return stale[1]
    for artifact, recorded in record["inputs"].items():
        known = artifact in artifacts.ARTIFACTS
        if not known or recorded != artifacts.sha256(
                artifacts.path_of(folder, artifact)):
            return f"{artifact} changed"
    return ""


# --- the course -------------------------------------------------------------


def choose(first: str = "01", last: str = "11") -> list[str]:
    """Notebooks from `first` to `last`, by number or name, both included."""
    start, end = (text[:2].zfill(2) for text in (first, last))
    chosen = [name for name in run.NOTEBOOKS if start <= name[:2] <= end]
    if not chosen:
        raise problem(
            "no such notebooks", first=first, last=last,
            known=", ".join(run.NOTEBOOKS))
    return chosen


def run_course(profile: str = "cpu", images: str | None = None,
               first: str = "01", last: str = "11",
               force: bool = False) -> dict[str, str]:
    """Run the notebooks of a profile, skipping what is up to date: notebook
    -> ``ran`` or ``skipped``. CourseError for the first failure."""
    name, chosen = run.run_name(profile, images), choose(first, last)
    settings = run.declared()["profiles"][profile]
    images, folder = images or settings["images"], run.runs_folder() / name
    print(f"{name}: the whole course takes about {settings['minutes']} "
          "minutes; what is up to date is skipped.", flush=True)
    done, spent, began = {}, 0.0, time.perf_counter()
    share = [SHARES.get(notebook, 60) for notebook in chosen]
    with one_writer(folder):
        for number, notebook in enumerate(chosen, 1):
            source = run.notebook_path(notebook)
            now = state_now(source, profile, images)
            reason = "FORCE" if force else why_run(folder, source, now)
            head = f"[{number}/{len(chosen)}] {notebook}"
            if reason:
                print(f"{head}: {reason}", flush=True)
                knobs = {"PROFILE": profile, "IMAGES": images}
                _run_and_record(folder, source, knobs, now)
            record = run.read_record(folder, notebook) or {}
            done[notebook] = "ran" if reason else "skipped"
            spent += record["seconds"]
            left = spent / sum(share[:number]) * sum(share[number:]) / 60
            more = f"; {left:.0f} min left at most" * bool(reason and left)
            print(f"{head}: {done[notebook]} ({record['seconds']:.0f} s, "
                  f"{record['peak_memory_gb']:.1f} GB){more}", flush=True)
    print(f"Total: {time.perf_counter() - began:.0f} s, {images} images. "
          f"All of it is in {shown(folder)}.")
    return done


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """No other course runs in a run folder meanwhile; one that was killed
    holds it no longer. Who holds it is noted beside the lock, which Windows
    lets nobody read."""
    from filelock import FileLock, Timeout

    place = folder / "records"
    note = place / ".holder.json"
    try:
        with artifacts.disk_errors(place):  # or it has no locks
            place.mkdir(parents=True, exist_ok=True)
            held = FileLock(place / ".lock").acquire(timeout=0)
    except Timeout:
        holder = artifacts.read_json(note) or {"process": "Another process"}
        raise problem(
            "second writer", run=folder.name,
            holder=", ".join(map(str, holder.values()))) from None
    with held:
        artifacts.write_json(note, {
            "process": f"Process {os.getpid()}", "host": platform.node(),
            "since": f"since {time.strftime('%Y-%m-%d %H:%M:%S')}"})
        yield


def _run_and_record(folder: Path, source: Path, parameters: Mapping[str, Any],
                    state: Mapping[str, str]) -> None:
    """Execute a notebook; only a whole run leaves a state behind."""
    path = folder / "records" / f"{source.stem}.json"
    artifacts.write_json(path, {})
    began = time.perf_counter()
    execute(source, executed_path(folder, source.stem), parameters)
    record = run.read_record(folder, source.stem)
    if record is None:
        raise ValueError(f"{source.stem} does not end with nb.finish()")
    # The whole time, kernel and imports included.
    record["seconds"] = round(time.perf_counter() - began, 1)
    artifacts.write_json(path, {**record, "state": state})


# --- one notebook -----------------------------------------------------------


@contextmanager
def kernel_surroundings() -> Iterator[Any]:
    """Environment of a kernel that no user's configuration reaches, and the
    configuration of its manager: it talks over sockets in a folder, not over
    TCP, so that a machine with no network will do. Windows has only TCP."""
    from traitlets.config import Config

    threads = os.environ.get("OMP_NUM_THREADS", str(machine.cores()))
    place = "/tmp" if os.access("/tmp", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="lxr", dir=place) as folder:
        # The name of such a socket has 103 bytes at most.
        sockets = sys.platform != "win32" and len(os.fsencode(folder)) < 90
        surroundings = {
            "JUPYTER_CONFIG_DIR": folder, "JUPYTER_DATA_DIR": folder,
            "JUPYTER_RUNTIME_DIR": folder, "IPYTHONDIR": folder,
            "JUPYTER_PATH": "", "JUPYTER_CONFIG_PATH": "",
            "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONNOUSERSITE": "1",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "OMP_NUM_THREADS": threads, run.IN_COURSE: "1"}
        # Without a path, kernels that start together share sockets.
        ipc = {"transport": "ipc", "ip": f"{folder}/kernel"}
        with patch.dict(os.environ, surroundings):
            yield Config({"KernelManager": ipc} if sockets else {})


def execute(source: Path, target: Path, parameters: Mapping[str, Any]) -> None:
    """Run a notebook in a fresh kernel; `target` is its executed copy, kept
    on failure too."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    section, began = source.stem, time.perf_counter()

    def on_cell_start(cell: Any, cell_index: int) -> None:
        nonlocal section
        if heading := re.search(r"^## (.+)$", cell.source, re.MULTILINE):
            section = heading[1]
            spent = time.perf_counter() - began
            print(f"  {spent:4.0f} s  {section}", flush=True)

    with artifacts.disk_errors(target), kernel_surroundings() as config:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            papermill.execute_notebook(
                source, target, dict(parameters), kernel_name="python3",
                progress_bar=False, cwd=source.parent, config=config,
                on_cell_start=on_cell_start,
                extra_arguments=["--log-level=CRITICAL"])
        except (PapermillExecutionError, DeadKernelError) as error:
            what, why, do = _parts(error)
            raise problem(
                "notebook stopped", notebook=source.stem, section=section,
                what=what, why=why, do=do, copy=shown(target)) from None


def _parts(error: Any) -> tuple[str, ...]:
    """What, why, do: of a `CourseError` in a kernel, or of anything else."""
    if not hasattr(error, "ename"):
        why = "Most often the machine ran out of memory."
        return "The kernel died.", why, "Close other programs."
    if error.ename == "CourseError":
        return tuple(re.findall(r"\n  (?:What|Why|Do): +(.*)", error.evalue))
    return "", f"{error.ename}: {error.evalue}", "Look at the cell."
