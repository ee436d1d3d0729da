"""The knobs of every notebook, by profile and run name.

Reads ``profiles.yaml``, and says which folder a run has. It holds no values
of its own and starts nothing (`run`).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from .errors import CourseError

IMAGE_SOURCES = ("phantom", "real")


@lru_cache(maxsize=1)
def read() -> dict:
    """``profiles.yaml`` as a dict."""
    path = Path(__file__).parents[1] / "profiles.yaml"
    return yaml.safe_load(path.read_text("utf-8"))


def knob_table(notebook: str) -> dict:
    """Knob -> its values by profile; empty for a notebook without knobs."""
    return read()["notebooks"].get(notebook) or {}


def knob_value(
    notebook: str, knob: str, profile: str, images: str | None = None
) -> Any:
    """A knob's value: for the run (``cpu-real``), else for the profile
    (``cpu``), else the one under ``else``."""
    row = knob_table(notebook)[knob]
    for column in (run_name(profile, images), profile):
        if column in row:
            return row[column]
    return row["else"]


def run_name(profile: str, images: str | None = None) -> str:
    """Folder name of a run: ``cpu``, ``cpu-real``, ``t4`` ...

    The suffix stands where the images are not the profile's own.
    """
    known = read()["profiles"]
    if profile not in known:
        raise CourseError(
            f"There is no profile {profile!r}.",
            f"The kit knows {', '.join(known)}.",
            'Set PROFILE to one of them; "cpu" runs everywhere.',
        )
    if images not in (None, *IMAGE_SOURCES):
        raise CourseError(
            f"IMAGES = {images!r} is not known.",
            "Images are drawn (phantom) or X-rays on your disk (real).",
            'Set IMAGES to "phantom", "real" or None.',
        )
    default = known[profile]["images"]
    if images in (None, default):
        return profile
    return f"{profile}-{images}"
