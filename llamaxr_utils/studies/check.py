"""Before a run: does this machine have what a profile asks for?

``python -m llamaxr_utils check --profile a100`` prints a line a fact:
``[ OK ]``, ``[NOTE]``, or ``[FAIL]`` with what to do. It changes nothing.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import yaml

from ..course import machine, run
from ..course.errors import CourseError
from ..datasets import downloads, images
from ..datasets.reports import DATA
from ..evaluation.meteor import java_version
from ..llm import models

RESULTS_GB = 2.0  # a run's results and checkpoints, about
TEXTS = yaml.safe_load((DATA / "check.yaml").read_text("utf-8"))
OK, NOTE, FAIL = "[ OK ]", "[NOTE]", "[FAIL]"


def run_check(profile: str = "cpu", image_source: str | None = None) -> bool:
    """Print a line a fact; True if nothing failed."""

    def knob(number: int, name: str):
        notebook = run.NOTEBOOKS[number - 1]
        return run.knob_value(notebook, name, profile, image_source)

    base, backbone = knob(3, "BASE"), knob(2, "BACKBONE")
    source = image_source or run.declared()["profiles"][profile]["images"]
    java, xrays = java_version(), source == "phantom" or xrays_here()
    print(f"profile {profile} · {source} images\n{machine.platform_line()}")
    lines = [
        packages(knob(4, "BACKEND") == "unsloth"),
        gpu(base, knob(4, "PRECISION")),
        disk(base, xrays),
        _line(os.access(run.nearest(run.runs_folder()), os.W_OK), "runs"),
        f"{OK} Java {java}" if java
        else f"{NOTE} No Java: METEOR 1.5 is left out, nothing else.",
        base_model(base),
        _line(xrays, "drawn" if source == "phantom" else "X-rays"),
        _line("@" in backbone or weights_here(backbone), "weights",
              backbone=backbone)]
    print("\n".join(lines))
    failed = sum(line.startswith(FAIL) for line in lines)
    print(f"{failed} to do." if failed else "Ready to run.")
    return not failed


def _line(good: bool, name: str, **facts: object) -> str:
    """What is needed: it is there, or what to do."""
    fact, do = (text.format_map(facts) for text in TEXTS[name])
    return f"{OK} {fact}" if good else f"{FAIL} {fact}. Do: {do}"


def packages(unsloth: bool) -> str:
    """What the notebooks import; versions are `make setup`'s business."""
    names = TEXTS["imports"] + ["unsloth", "unsloth_zoo"] * unsloth
    missing = [name for name in names if not find_spec(name)]
    lacking = f" (not here: {', '.join(missing)})" if missing else ""
    return _line(not missing, "packages", n=len(names), lacking=lacking)


def gpu(base: str, precision: str) -> str:
    """Bases that are published in 4 bit are for a GPU."""
    import torch

    device, _, reason = machine.pick_device()
    if "4bit" in models.base(base).source and device != "cuda":
        return _line(False, "4 bit", base=base)
    try:
        machine.compute_dtype(precision)
    except CourseError as error:
        return _line(False, "precision", **vars(error))
    if device != "cuda":
        return f"{OK} {base} needs no GPU; here: {device}"
    free = torch.cuda.mem_get_info()[0] / 1e9
    measured = models.base(base).gpu_gb
    more = f"took {measured} GB" if measured else "was not measured"
    return _line(free >= measured, "gpu", reason=reason, free=free, base=base,
                 more=more)


def disk(base: str, xrays: bool) -> str:
    """Room for results and for what may have to be fetched."""
    needed = RESULTS_GB + models.base(base).disk_gb
    needed += 0 if xrays else 2 * downloads.ARCHIVE_BYTES / 1e9  # unpacked too
    folders = (run.runs_folder(), run.data_folder(), Path.home())
    free = min(shutil.disk_usage(run.nearest(p)).free for p in folders) / 1e9
    return _line(free >= needed, "disk", free=free, needed=needed)


def base_model(base: str) -> str:
    """Whether a base is here or its hub would give it: asks for a header."""
    import requests
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    source = "" if models.made_here(base) else models.locate(base)
    if not source or Path(source).is_dir() or isinstance(
            try_to_load_from_cache(source, "config.json"), str):
        return f"{OK} {base} is here, or made by the run"
    address = hf_hub_url(source, "config.json")
    try:
        answer = str(requests.head(
            address, timeout=5, allow_redirects=True).status_code)
    except requests.RequestException as error:
        answer = type(error).__name__
    return _line(answer == "200", "hub", source=source, answer=answer)


def xrays_here() -> bool:
    """By names alone; an archive is not unpacked."""
    top = run.data_folder()
    names = [file.stem for folder in {top, downloads.home()}
             for file in images.image_files(folder)]
    return any(map(images.openi_id, names)) or any(
        downloads.is_archive(file.name) for file in top.glob("*"))


def weights_here(backbone: str) -> bool:
    names = (f"{backbone}.safetensors", downloads.file_name(backbone))
    homes = (run.data_folder(), run.cache_folder())
    return any((h / "weights" / n).is_file() for h in homes for n in names)
