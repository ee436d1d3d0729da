"""Benchmarks, run by `make bench`: they print, and hold wide limits only."""

from __future__ import annotations

import subprocess
import sys
import time

from llamaxr_utils.course import machine, profiles
from llamaxr_utils.datasets import phantoms, reports


def test_import_of_the_kit():
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import llamaxr_utils"], check=True)
    seconds = time.perf_counter() - began
    print(f"\nimport llamaxr_utils: {seconds:.2f} s, interpreter included")
    assert seconds < 5


def test_reading_all_reports():
    began = time.perf_counter()
    studies = reports.load_studies()
    seconds = time.perf_counter() - began
    print(f"\nload_studies: {len(studies)} studies in {seconds:.1f} s")
    assert seconds < 60


def test_drawing_phantoms(tmp_path):
    """Issue: 30 studies a second on two cores, at the model's resolution."""
    studies = reports.load_studies().head(90)
    size = profiles.knob_value("01_explore_data", "IMAGE_SIZE", "cpu")
    began = time.perf_counter()
    phantoms.draw_studies(studies, tmp_path, size, workers=machine.cores())
    rate = len(studies) / (time.perf_counter() - began)
    print(f"\nphantoms at {size} pixels: {rate:.0f} studies a second")
    assert rate > 3
