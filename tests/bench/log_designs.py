"""Writes figures/data/designs.csv: the grid of designs, a row a design, kind
of images and seed.

Needs a finished `make course` (for real X-rays with IMAGES=real). A row is
written when it is whole and never made twice; a run that was killed goes on
from its last checkpoint. Bases are kept in runs/designs and shared, also by
phantoms and real X-rays where they read the same.

    .venv/bin/python tests/bench/log_designs.py --images phantom \
        --designs stated,beam --seeds 1,2

Without --designs all of llamaxr_utils/data/designs.yaml, and the baselines.
Two runs at a time: give each its own seeds, or both would make one base.
"""

import argparse
from pathlib import Path

import logs
import pandas as pd

from llamaxr_utils.course import artifacts, run
from llamaxr_utils.llm import finetune, models
from llamaxr_utils.studies import designs

TARGET = logs.DATA / "designs.csv"
KEY = ["design", "images", "seed"]
BASELINES = "baselines"


def append(rows: pd.DataFrame) -> None:
    """Read anew, for another run may have added rows."""
    table = pd.concat([logs.read(TARGET), rows])
    logs.write(TARGET, table.drop_duplicates(KEY, keep="last"), "%.5g")


def done(*key: object) -> bool:
    table = logs.read(TARGET)
    return len(table) > 0 and bool(table[KEY].eq(key).all(axis=1).any())


def base_of(
    design: designs.Design, data: designs.Data, seed: int
) -> tuple[Path, float]:
    """Folder of the base that a design reads over, and the seconds that it
    took to pre-train. Designs that read the same share one."""
    points = designs.points_of(data, design.beta)
    kinds = design.pretrain.replace(" ", "").split(",")
    own = {kind: designs.prompts_of(data, design, points, source)
           for kind, source in (("prompts", "scores"), ("stated", "stated"))
           if kind in kinds}
    train = data.studies.query("split == 'train'")
    corpus = models.pretraining_pairs(train, kinds, own=own)
    tokens = artifacts.load(data.folder, "tokenizer")
    key = designs.key_of(data.base_name, design.pretrain_epochs, seed,
                         artifacts.sha256(tokens), corpus.to_csv())
    folder = data.scratch / "bases" / key
    note = folder / "seconds.txt"
    if not note.is_file():
        tokenizer = models.load_tokenizer(str(tokens))
        model = models.new_llama(data.base_name, tokenizer, seed)
        settings = designs.TRAINER | dict(
            num_train_epochs=design.pretrain_epochs, learning_rate=1e-3,
            per_device_train_batch_size=8, lr_scheduler_type="cosine",
            warmup_steps=20, save_strategy="steps", save_steps=200,
            seed=seed)
        result = finetune.train(model, tokenizer, corpus.assign(split="train"),
                                data.scratch / "work" / key, settings)

        def write(part: Path) -> None:
            models.save_model(model, tokenizer, part)
            minutes = result.facts["minutes"]
            (part / note.name).write_text(f"{60 * minutes:.1f}")

        artifacts.write_whole(folder, write)
    return folder, float(note.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = designs.designs()
    parser.add_argument("--images", default="phantom")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--designs", default=",".join([BASELINES, *known]))
    parser.add_argument("--seeds", default="1,2,3")
    options = parser.parse_args()
    names = options.designs.split(",")
    folder = run.runs_folder() / run.run_name(options.profile, options.images)
    data = designs.load_data(folder, run.runs_folder() / "designs")
    images = data.images
    if BASELINES in names and not done("nearest neighbour", images, 0):
        append(designs.baseline_rows(data))
    for seed in map(int, options.seeds.split(",")):
        for design in (known[n] for n in names if n != BASELINES):
            if done(design.name, images, seed):
                print(f"{design.name}, {images}, seed {seed}: there already")
                continue
            base, seconds = base_of(design, data, seed)
            row = designs.run_design(design, data._replace(base=base), seed)
            row["base_seconds"] = seconds
            append(pd.DataFrame([row]))


if __name__ == "__main__":
    main()
