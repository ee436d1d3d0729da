"""Run the notebooks in order: ``make course``.

A notebook is skipped when its source, knobs and inputs are those of its last
run and its outputs are whole: that is also the resume after a stop. Each is
run by papermill in a fresh kernel of this interpreter, which no user's
configuration reaches.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import nbformat
import pandas as pd

from . import artifacts, machine, run
from .errors import CourseError
from .run import IN_COURSE


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook, or a clear error where the file is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, AttributeError, nbformat.ValidationError) as error:
        raise CourseError(
            f"{Path(path).name} could not be read.",
            f"It is not a Jupyter notebook ({type(error).__name__}).",
            "Restore it (`git checkout -- notebooks`).",
        ) from error


# --- what is up to date -----------------------------------------------------


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_of_kit() -> str:
    code = sorted(Path(__file__).parents[1].rglob("*.py"))
    return _digest([artifacts.sha256(file) for file in code])


def state_now(source: Path, profile: str, images: str) -> dict[str, str]:
    """What a notebook's result depends on, besides its inputs: hashes.

    ``source`` is the text of the cells: outputs, counts and ids don't count.
    ``kit`` is the code of this package; when only that changed the notebook
    is not run again, but the reader is told.
    """
    cells = [(c.cell_type, c.source.strip()) for c in read(source).cells]
    knobs = {
        knob: run.knob_value(source.stem, knob, profile, images)
        for knob in run.knob_table(source.stem)
    }
    return {
        "source": _digest(cells),
        "knobs": _digest(knobs),
        "kit": _digest_of_kit(),
    }


def _state_path(folder: Path, notebook: str) -> Path:
    return folder / "records" / f"{notebook}.state.json"


def state_then(folder: Path, notebook: str) -> dict[str, str]:
    """`state_now` as it was at the last whole run, and a hash of the record
    that `Run.finish` wrote then; empty if there was none."""
    path = _state_path(folder, notebook)
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def why_run(folder: Path, source: Path, now: Mapping[str, str]) -> str:
    """Why a notebook must run, in a few words; "" if it is up to date.

    `now` is its `state_now`.
    """
    name = source.stem
    record, then = run.read_record(folder, name), state_then(folder, name)
    if record is None or not then:
        return "not run yet"
    if then["record"] != _digest(record):
        return "it was run by hand since"
    for part in ("source", "knobs"):
        if then[part] != now[part]:
            return f"its {part} changed"
    executed = executed_path(folder, name).relative_to(folder).as_posix()
    for output, recorded in {executed: None, **record["outputs"]}.items():
        if not (folder / output).exists():
            return f"{output} is gone"
        if recorded and artifacts.sha256(folder / output) != recorded:
            return f"{output} was changed"
    for artifact, spec in artifacts.ARTIFACTS.items():
        if spec.file in record["outputs"] or artifact in record["inputs"]:
            problem = artifacts.stale_because(folder, artifact)
            if problem:
                return problem.reason
    for artifact, recorded in record["inputs"].items():
        if artifacts.sha256(artifacts.path_of(folder, artifact)) != recorded:
            return f"{artifact} changed"
    return ""


def executed_path(folder: Path, notebook: str) -> Path:
    """Where the executed copy of a notebook lies in a run folder."""
    return folder / "notebooks" / f"{notebook}.ipynb"


# --- the course -------------------------------------------------------------


def choose(first: str | None = None, last: str | None = None) -> list[str]:
    """Notebooks from `first` to `last`, by number or name, both included."""
    ends = []
    for asked in (first or run.NOTEBOOKS[0], last or run.NOTEBOOKS[-1]):
        number = asked[:2].rjust(2, "0") if asked.isdigit() else asked
        named = [n for n in run.NOTEBOOKS if number in (n[:2], n)]
        if not named:
            raise CourseError(
                f"There is no notebook {asked!r}.",
                f"The course has {', '.join(run.NOTEBOOKS)}.",
                "Give FROM and TO as numbers, such as FROM=04 TO=06.",
            )
        ends.append(run.NOTEBOOKS.index(named[0]))
    if ends[0] > ends[1]:
        raise CourseError(
            f"FROM={first} comes after TO={last}.",
            "Notebooks run in the order of their numbers.",
            "Exchange the two.",
        )
    return list(run.NOTEBOOKS[ends[0] : ends[1] + 1])


def run_course(
    profile: str = "cpu",
    images: str | None = None,
    first: str | None = None,
    last: str | None = None,
    force: bool = False,
) -> pd.DataFrame:
    """Run the notebooks of a profile, skipping what is up to date.

    Parameters
    ----------
    profile, images : str
        As for `run.start`.
    first, last : str, optional
        Number or name; the whole course by default.
    force : bool
        Skip nothing.

    Returns
    -------
    DataFrame
        One row a notebook: ``notebook``, ``done`` (ran, skipped),
        ``seconds``, ``peak_gb`` (of the last run, where skipped).

    Raises
    ------
    CourseError
        Unknown profile, images or notebook; the first failure of a notebook.
    """
    name = run.run_name(profile, images)
    images = images or run.declared()["profiles"][profile]["images"]
    folder = run.runs_folder() / name
    parameters = {"PROFILE": profile, "IMAGES": images}
    chosen = choose(first, last)
    rows, older = [], []
    for number, notebook in enumerate(chosen, 1):
        source = run.project_folder() / "notebooks" / f"{notebook}.ipynb"
        if not source.is_file():
            raise CourseError(
                f"{source.name} is not in {shown(source.parent)}.",
                "The course runs the notebooks of the clone.",
                "Restore it (`git checkout -- notebooks`), or go to the "
                "clone's folder.",
            )
        now = state_now(source, profile, images)
        reason = "FORCE" if force else why_run(folder, source, now)
        head = f"[{number}/{len(chosen)}] {notebook}"
        if reason:
            print(f"{head}: {reason}", flush=True)
            _run_and_record(folder, source, parameters, now)
        record = run.read_record(folder, notebook) or {}
        done = "ran" if reason else "skipped"
        seconds, memory = record["seconds"], record["peak_memory_gb"]
        rows.append((notebook, done, seconds, memory))
        print(f"{head}: {done}", f"({seconds:.0f} s)", flush=True)
        then = state_then(folder, notebook)
        older += [notebook[:2]] if then["kit"] != now["kit"] else []
    table = pd.DataFrame(
        rows, columns=["notebook", "done", "seconds", "peak_gb"]
    )
    print(f"\n{table.to_string(index=False)}")
    total = table.loc[table["done"] == "ran", "seconds"].sum()
    print(f"Total: {total:.0f} s in what ran, {name}, {images} images.\n")
    for kind in ("notebooks", "tables", "figures"):
        files = len(list((folder / kind).glob("*")))
        print(f"{kind.capitalize():10} {shown(folder / kind)} ({files} files)")
    if older:
        print(
            f"llamaxr_utils has changed since {', '.join(older)} ran; "
            "FORCE=1 runs all."
        )
    return table


def _run_and_record(
    folder: Path,
    source: Path,
    parameters: Mapping[str, Any],
    state: Mapping[str, str],
) -> None:
    """Execute a notebook; only a whole run leaves a state behind."""
    notebook = source.stem
    _state_path(folder, notebook).unlink(missing_ok=True)
    (folder / "records" / f"{notebook}.json").unlink(missing_ok=True)
    began = time.perf_counter()
    execute(source, executed_path(folder, notebook), parameters)
    record = run.read_record(folder, notebook)
    if record is None:
        raise ValueError(f"{notebook} left no record")
    # The whole time, kernel and imports included.
    record["seconds"] = round(time.perf_counter() - began, 1)
    path = folder / "records" / f"{notebook}.json"
    artifacts.write_json(path, record)
    artifacts.write_json(
        _state_path(folder, notebook), {**state, "record": _digest(record)}
    )


#: Without a terminal: seconds until the same cell is named once more.
QUIET = 30


# --- progress ---------------------------------------------------------------


class Progress:
    """One updating line on a terminal; elsewhere a line a section."""

    def __init__(self, notebook: str, n_cells: int):
        self.notebook, self.n_cells = notebook, n_cells
        self.heading, self.index = "", 0
        self.live = sys.stdout.isatty()
        self.began = self.cell_began = time.perf_counter()
        self.done = threading.Event()
        self.ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self.ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.ticker.join()
        if self.live:
            print("\r\033[K", end="", flush=True)

    def on_cell_start(self, cell: Any, cell_index: int) -> None:
        """Called before each cell, markdown included."""
        self.index, self.cell_began = cell_index, time.perf_counter()
        headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            self.heading = headings[0]
            self._show()
        elif self.live:
            self._show()

    def where(self) -> str:
        return f"cell {self.index + 1} of {self.n_cells}, {self.heading!r}"

    def _show(self) -> None:
        now = time.perf_counter()
        text = f"  {self.notebook[:2]} {now - self.began:4.0f} s  "
        text += self.where()
        if now - self.cell_began > 1:
            text += f", {now - self.cell_began:.0f} s so far"
        start, end = ("\r\033[K", "") if self.live else ("", "\n")
        print(f"{start}{text[:79]}", end=end, flush=True)

    def _tick(self) -> None:
        while not self.done.wait(1 if self.live else QUIET):
            self._show()


# --- one notebook -----------------------------------------------------------


@contextmanager
def kernel_surroundings() -> Iterator[Any]:
    """Environment of a kernel that no user's configuration reaches.

    Yields the configuration of the kernel manager: kernels talk over sockets
    in a folder, not over TCP, so that a machine with no network will do.
    `machine.prepare` has set ``OMP_WAIT_POLICY`` in this process already.
    """
    from traitlets.config import Config

    threads = os.environ.get("OMP_NUM_THREADS")
    # A short path: the name of such a socket has 103 bytes at most.
    with tempfile.TemporaryDirectory(prefix="lxr", dir="/tmp") as folder:
        own = {
            "JUPYTER_CONFIG_DIR": folder,
            "JUPYTER_DATA_DIR": folder,
            "JUPYTER_RUNTIME_DIR": folder,
            "JUPYTER_PATH": "",
            "JUPYTER_CONFIG_PATH": "",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "IPYTHONDIR": folder,
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "OMP_NUM_THREADS": str(threads or machine.cores()),
            "PYTHONNOUSERSITE": "1",
            IN_COURSE: "1",
        }
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            # Without a path, kernels that start together share sockets.
            ipc = {"transport": "ipc", "ip": f"{folder}/kernel"}
            yield Config({"KernelManager": ipc})
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def execute(
    source: Path, target: Path, parameters: Mapping[str, Any]
) -> None:
    """Run one notebook in a fresh kernel and keep the executed copy.

    Parameters
    ----------
    source, target : Path
        The notebook; where its executed copy goes, on failure too.
    parameters : mapping
        PROFILE, IMAGES, CHANGE.

    Raises
    ------
    CourseError
        A cell that raised; a kernel that died; a full disk.
    """
    nb = read(source)
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        artifacts.disk_errors(target),
        kernel_surroundings() as config,
        # One more: papermill puts the parameters in a cell of their own.
        Progress(source.stem, len(nb.cells) + 1) as progress,
    ):
        try:
            papermill.execute_notebook(
                source,
                target,
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                cwd=source.parent,
                config=config,
                on_cell_start=progress.on_cell_start,
                extra_arguments=["--log-level=CRITICAL"],
            )
        except (PapermillExecutionError, DeadKernelError) as error:
            what, why, do = _parts(error)
            raise CourseError(
                f"{source.stem} stopped in {progress.where()}. {what}".strip(),
                why,
                f"{do} The executed copy, with the full traceback, is "
                f"{shown(target)}. The same command continues.",
            ) from None


def _parts(error: Exception) -> tuple[str, str, str]:
    """What, why, do: of a `CourseError` in a kernel, or of anything else."""
    name = getattr(error, "ename", "")
    value = getattr(error, "evalue", "")
    found = re.findall(r"^  (?:What|Why|Do): +(.*)$", value, re.MULTILINE)
    if name == "CourseError" and len(found) == 3:
        return found[0], found[1], found[2]
    if not name:
        return (
            "The kernel died.",
            "Most often the machine ran out of memory.",
            "Close other programs.",
        )
    return "", f"{name}: {value}", "Look at the cell."


def shown(path: Path) -> str:
    """A path as the reader can type it: from here, where that is shorter."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)
