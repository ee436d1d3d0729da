"""One notebook, run by papermill in a fresh kernel of this interpreter.

Shows which cell is running, keeps the executed copy, and turns a failure
into a `CourseError`. Which notebooks run, and when, is decided in `course`.
"""

from __future__ import annotations

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

from . import files, machine
from .errors import CourseError
from .pages import read
from .run import IN_COURSE

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
    `torch_setup` has set ``OMP_WAIT_POLICY`` in this process already.
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
        files.disk_errors(target),
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
