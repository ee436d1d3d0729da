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
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import pandas as pd

from . import artifacts, machine, run
from .errors import CourseError
from .run import IN_COURSE


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook, or a clear error where the file is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError,
            nbformat.ValidationError) as error:  # fmt: skip
        raise CourseError(
            f"{shown(path)} could not be read.",
            f"It is missing, or no Jupyter notebook ({type(error).__name__}).",
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
    """Hashes of what a notebook's result depends on, besides its inputs.

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


def state_then(folder: Path, notebook: str) -> dict[str, str]:
    """`state_now` as it was at the last whole run, and a hash of the record
    that `Run.finish` wrote then; empty if there was none."""
    return run.read_record(folder, f"{notebook}.state") or {}


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
    if not executed_path(folder, name).exists():
        return f"notebooks/{name}.ipynb is gone"
    for output, recorded in record["outputs"].items():
        if not (folder / output).exists():
            return f"{output} is gone"
        if artifacts.sha256(folder / output) != recorded:
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


def choose(first: str = "01", last: str = "11") -> list[str]:
    """Notebooks from `first` to `last`, by number or name, both included."""
    ends = []
    for end in (first, last):
        number = end.rjust(2, "0") if end.isdigit() else end
        ends += [
            place
            for place, name in enumerate(run.NOTEBOOKS)
            if number in (name[:2], name)
        ]
    if len(ends) < 2 or ends[0] > ends[1]:
        raise CourseError(
            f"There is nothing to run from {first} to {last}.",
            f"The course has, in this order, {', '.join(run.NOTEBOOKS)}.",
            "Give FROM and TO as numbers, such as FROM=04 TO=06.",
        )
    return list(run.NOTEBOOKS[ends[0] : ends[1] + 1])


def run_course(
    profile: str = "cpu",
    images: str | None = None,
    first: str = "01",
    last: str = "11",
    force: bool = False,
) -> pd.DataFrame:
    """Run the notebooks of a profile, skipping what is up to date.

    Parameters
    ----------
    profile, images : str
        As for `run.start`.
    first, last : str
        Number or name.
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
    chosen = choose(first, last)
    minutes = run.declared()["profiles"][profile]["minutes"]
    print(f"{name}: the whole course takes about {minutes} minutes; what is "
          "up to date is skipped.", flush=True)  # fmt: skip
    rows, older = [], []
    for number, notebook in enumerate(chosen, 1):
        source = run.project_folder() / "notebooks" / f"{notebook}.ipynb"
        now = state_now(source, profile, images)
        reason = "FORCE" if force else why_run(folder, source, now)
        head = f"[{number}/{len(chosen)}] {notebook}"
        if reason:
            print(f"{head}: {reason}", flush=True)
            knobs = {"PROFILE": profile, "IMAGES": images}
            _run_and_record(folder, source, knobs, now)
        record = run.read_record(folder, notebook) or {}
        done, seconds = "ran" if reason else "skipped", record["seconds"]
        rows.append((notebook, done, seconds, record["peak_memory_gb"]))
        print(f"{head}: {done} ({seconds:.0f} s)", flush=True)
        if state_then(folder, notebook)["kit"] != now["kit"]:
            older.append(notebook[:2])
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
        print(f"llamaxr_utils has changed since {', '.join(older)} ran; "
              "FORCE=1 runs all.")  # fmt: skip
    return table


def _run_and_record(
    folder: Path,
    source: Path,
    parameters: Mapping[str, Any],
    state: Mapping[str, str],
) -> None:
    """Execute a notebook; only a whole run leaves a state behind."""
    records, notebook = folder / "records", source.stem
    for stale in (f"{notebook}.state.json", f"{notebook}.json"):
        (records / stale).unlink(missing_ok=True)
    began = time.perf_counter()
    execute(source, executed_path(folder, notebook), parameters)
    record = run.read_record(folder, notebook)
    if record is None:
        raise ValueError(f"{notebook} left no record: finish() was not called")
    # The whole time, kernel and imports included.
    record["seconds"] = round(time.perf_counter() - began, 1)
    artifacts.write_json(records / f"{notebook}.json", record)
    state = {**state, "record": _digest(record)}
    artifacts.write_json(records / f"{notebook}.state.json", state)


# --- one notebook -----------------------------------------------------------


@contextmanager
def kernel_surroundings() -> Iterator[Any]:
    """Environment of a kernel that no user's configuration reaches.

    Yields the configuration of the kernel manager: kernels talk over sockets
    in a folder, not over TCP, so that a machine with no network will do.
    """
    from traitlets.config import Config

    # A short path: the name of such a socket has 103 bytes at most.
    with tempfile.TemporaryDirectory(prefix="lxr", dir="/tmp") as folder:
        surroundings = {
            "JUPYTER_CONFIG_DIR": folder,
            "JUPYTER_DATA_DIR": folder,
            "JUPYTER_RUNTIME_DIR": folder,
            "JUPYTER_PATH": "",
            "JUPYTER_CONFIG_PATH": "",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "IPYTHONDIR": folder,
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "OMP_NUM_THREADS": os.environ.get(
                "OMP_NUM_THREADS", str(machine.cores())
            ),
            "PYTHONNOUSERSITE": "1",
            IN_COURSE: "1",
        }
        # Without a path, kernels that start together share sockets.
        ipc = {"transport": "ipc", "ip": f"{folder}/kernel"}
        with patch.dict(os.environ, surroundings):
            yield Config({"KernelManager": ipc})


def execute(
    source: Path, target: Path, parameters: Mapping[str, Any]
) -> None:
    """Run a notebook in a fresh kernel; `target` is its executed copy, kept
    on failure too. CourseError for a cell that raised, a kernel that died, a
    full disk."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    seen: list[Any] = []  # the cells, up to the one at work
    began = time.perf_counter()

    def on_cell_start(cell: Any, cell_index: int) -> None:
        seen.append(cell)
        heading = re.search(r"^## (.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and heading:
            spent = time.perf_counter() - began
            print(f"  {spent:4.0f} s  {heading[1]}", flush=True)

    target.parent.mkdir(parents=True, exist_ok=True)
    with artifacts.disk_errors(target), kernel_surroundings() as config:
        try:
            papermill.execute_notebook(
                source,
                target,
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                cwd=source.parent,
                config=config,
                on_cell_start=on_cell_start,
                extra_arguments=["--log-level=CRITICAL"],
            )
        except (PapermillExecutionError, DeadKernelError) as error:
            what, why, do = _parts(error)
            text = "\n".join(c.source for c in seen if c.cell_type != "code")
            section = re.findall(r"^#+ (.+)$", text, re.MULTILINE)[-1]
            raise CourseError(
                f"{source.stem} stopped in cell {len(seen)}, {section!r}. "
                f"{what}".strip(),
                why,
                f"{do} The executed copy, with the full traceback, is "
                f"{shown(target)}. The same command continues.",
            ) from None


def _parts(error: Exception) -> tuple[str, str, str]:
    """What, why, do: of a `CourseError` in a kernel, or of anything else."""
    name = getattr(error, "ename", "")
    value = getattr(error, "evalue", "")
    parts = re.findall(r"^  (?:What|Why|Do): +(.*)$", value, re.MULTILINE)
    if name == "CourseError" and len(parts) == 3:
        return parts[0], parts[1], parts[2]
    if name:
        return "", f"{name}: {value}", "Look at the cell."
    why = "Most often the machine ran out of memory."
    return "The kernel died.", why, "Close other programs."


def shown(path: Path) -> str:
    """A path as the reader can type it: from here, where that is shorter."""
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return str(path)
