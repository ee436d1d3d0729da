"""Notebook 04 on several GPUs or machines, one process each (DDP).

    accelerate launch --multi_gpu --num_processes 2 \\
        -m llamaxr_utils.llm.launch --profile paper

Every process runs the notebook itself, so its settings stand nowhere else;
torch's variables (``RANK`` ...) reach its kernel, and the Trainer shares the
gradients. The first process writes the run folder as ``make course FROM=04
TO=04`` does; the others work on a copy that is thrown away. Notebooks 01 to
03 come first, and the pre-training of a base that is made on the spot.
Several machines need one runs folder that all of them see.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..course import artifacts, profiles
from ..course.errors import CourseError
from ..course.run import runs_folder
from . import models

#: What a training writes, and no other process may read half-written.
WRITTEN = "tables figures notebooks records adapter* training_log* .* check*"


def share_batch(args: Any, processes: int) -> None:
    """Divide the studies of an update among processes, in place.

    Parameters
    ----------
    args : trl.SFTConfig
        Accumulation is divided first, then the batch, so that an update
        sees the same studies and no process needs more memory.
    processes : int

    Raises
    ------
    CourseError
        They cannot be divided evenly.
    """
    batch = args.per_device_train_batch_size
    steps = args.gradient_accumulation_steps
    common = math.gcd(steps, processes)
    if batch % (processes // common):
        raise CourseError(
            f"{processes} processes cannot share an update evenly.",
            f"It sees {batch} x {steps} studies (BATCH_SIZE x ACCUMULATION).",
            f"Take a number of processes that divides {batch * steps}.",
        )
    args.gradient_accumulation_steps = steps // common
    args.per_device_train_batch_size = batch // (processes // common)


@contextmanager
def own_runs(name: str, rank: int):
    """The runs folder of a process: for the first one the real one.

    The others get a copy of the run's inputs, and a link to the checkpoints,
    which every process reads when a run is resumed.
    """
    if rank == 0:
        yield runs_folder()
        return
    real = runs_folder() / name
    with tempfile.TemporaryDirectory(prefix="llamaxr-rank-") as place:
        copy = Path(place) / name
        ignore = shutil.ignore_patterns(*WRITTEN.split())
        shutil.copytree(real, copy, ignore=ignore)
        (copy / "checkpoints").symlink_to((real / "checkpoints").resolve())
        yield Path(place)


def check_inputs(profile: str, images: str | None) -> str:
    """The run's name, once all that the processes read is there."""
    name = profiles.run_name(profile, images)
    base = profiles.knob_value("03_build_prompts", "BASE", profile, images)
    needed, last = ["prompts"], 3
    if models.made_here(base):  # by one process: only one may save a model
        needed, last = ["prompts", "base_model"], 4
    for artifact in needed:
        problem = artifacts.stale_because(runs_folder() / name, artifact)
        if problem:
            raise CourseError(
                f"{artifact} is not ready in runs/{name}.",
                f"{problem.reason}; several processes only fine-tune.",
                f"Run `make course TO=0{last}"
                f"{artifacts.run_options(runs_folder() / name)}` first.",
            )
    return name


def main(arguments: list[str] | None = None) -> int:
    """One process of the launch; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m llamaxr_utils.llm.launch")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--images", help="phantom or real")
    options = parser.parse_args(arguments)
    rank = int(os.environ.get("RANK", "0"))
    try:
        name = check_inputs(options.profile, options.images)
    except CourseError as error:
        print(error if rank == 0 else "", file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "llamaxr_utils", "course", "--force"]
    command += ["--profile", options.profile, "--from", "04", "--to", "04"]
    command += ["--images", options.images] if options.images else []
    with (
        own_runs(name, rank) as runs,
        subprocess.Popen(
            command,
            env={**os.environ, "LLAMAXR_RUNS": str(runs)},
            stdout=None if rank == 0 else subprocess.DEVNULL,
        ) as child,
    ):
        for number in (signal.SIGINT, signal.SIGTERM):
            # The course then ends its kernel, and the copy is removed.
            signal.signal(
                number, lambda *_: child.send_signal(signal.SIGINT)
            )
        return child.wait()


if __name__ == "__main__":
    sys.exit(main())
