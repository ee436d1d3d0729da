"""Notebook 04 on several GPUs, one process each (DDP), after 01 to 03.

    accelerate launch --multi_gpu --num_processes 2 \\
        -m llamaxr_utils.llm.launch --profile a100

Every process runs the notebook; torch's variables (``RANK`` ...) reach its
kernel. The first writes the run folder, the others a copy that is thrown away.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ..course import run
from . import models


def main(arguments: list[str] | None = None) -> int:
    """One process of the launch; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m llamaxr_utils.llm.launch")
    parser.add_argument("--profile", default="a100")
    parser.add_argument("--images", help="phantom or real")
    known = parser.parse_args(arguments)
    base = run.knob_value("03_build_prompts", "BASE", known.profile)
    if models.made_here(base):
        parser.error(f"{base} is made on the spot, by one process")
    command = [sys.executable, "-m", "llamaxr_utils", "course", "--force"]
    command += ["--profile", known.profile, "--from", "04", "--to", "04"]
    command += ["--images", known.images] if known.images else []
    first = os.environ.get("RANK", "0") == "0"
    whole = run.runs_folder() / run.run_name(known.profile, known.images)
    with tempfile.TemporaryDirectory(prefix="llamaxr-rank-") as runs:
        copy = Path(runs, whole.name)
        if not first:
            # What a training writes nobody may read half-written.
            shutil.copytree(whole, copy, ignore=shutil.ignore_patterns(
                "tables", "figures", "notebooks", "records", "adapter*",
                "training_log*", "check*", ".*"))
            checkpoints = whole / "checkpoints"  # but these all read
            (copy / "checkpoints").symlink_to(checkpoints.resolve())
        with run.hearing_ctrl_c():
            own = {"LLAMAXR_RUNS": str(whole.parent if first else runs)}
            child = subprocess.Popen(
                command, stdout=None if first else subprocess.DEVNULL,
                env=os.environ | own)
        for number in (signal.SIGINT, signal.SIGTERM):
            # The course then ends its kernel, and the copy is removed.
            signal.signal(number, lambda *_: child.send_signal(signal.SIGINT))
        return child.wait()


if __name__ == "__main__":
    sys.exit(main())
