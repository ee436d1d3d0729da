"""Writes figures/data/designs.csv: the grid of designs, a row a design, kind
of images and seed.

Needs a finished `make course` (for real X-rays with IMAGES=real). A row is
written when it is whole and never made twice; a run that was killed goes on
from its last checkpoint. Bases are kept in runs/designs and shared, also by
phantoms and real X-rays where they read the same.

    .venv/bin/python tests/bench/log_designs.py --images phantom \
        --designs stated,weighted --seeds 1,2

Without --designs all of llamaxr_utils/data/designs.yaml, and the baselines.
Two runs at a time: give each its own seeds, or both would make one base.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd

from llamaxr_utils.course import files, profiles, run
from llamaxr_utils.studies import designs

TARGET = Path(__file__).parents[2] / "figures" / "data" / "designs.csv"
KEY = ["design", "images", "seed"]
BASELINES = "baselines"


def read(target: Path) -> pd.DataFrame:
    """The rows so far."""
    return pd.read_csv(target) if target.is_file() else pd.DataFrame(
        columns=KEY
    )  # fmt: skip


def append(target: Path, rows: pd.DataFrame) -> None:
    """Whole rows, or nothing; read anew, for another run may have added."""
    table = pd.concat([part for part in (read(target), rows) if len(part)])
    table = table.drop_duplicates(KEY, keep="last")
    files.write_whole(
        target,
        lambda part: table.to_csv(part, index=False, float_format="%.5g"),
    )


def done(target: Path, design: str, images: str, seed: int) -> bool:
    table = read(target)
    same = table["design"].eq(design) & table["images"].eq(images)
    return bool((same & table["seed"].eq(seed)).any())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = designs.designs()
    parser.add_argument("--images", default="phantom")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--designs", default=",".join([BASELINES, *known]))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--target", type=Path, default=TARGET)
    given = parser.parse_args(argv)
    names = given.designs.split(",")
    unknown = set(names) - {BASELINES, *known}
    if unknown:
        parser.error(f"no design {', '.join(unknown)}; there are "
                     f"{BASELINES}, {', '.join(known)}")  # fmt: skip
    name = profiles.run_name(given.profile, given.images)
    data = designs.load_data(
        run.runs_folder() / name, run.runs_folder() / "designs"
    )
    images = data.images
    if BASELINES in names and not done(
        given.target, "nearest neighbour", images, 0
    ):
        append(given.target, designs.baseline_rows(data))
    for seed in map(int, given.seeds.split(",")):
        for design in (known[n] for n in names if n != BASELINES):
            if done(given.target, design.name, images, seed):
                print(f"{design.name}, {images}, seed {seed}: there already")
                continue
            began = time.perf_counter()
            row = designs.run_design(design, data, seed)
            append(given.target, pd.DataFrame([row]))
            print(f"{design.name}, {images}, seed {seed}: gap "
                  f"{row['gap']:.3f}, BLEU-4 {row['bleu4']:.3f}, "
                  f"{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
