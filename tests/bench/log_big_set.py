"""Prints how fast score_big_image_sets.md is with one worker and with two,
on drawn chests in the size of X-rays, with a DenseNet-121 of random weights:

    .venv/bin/python tests/bench/log_big_set.py

About five minutes on two cores. Reading and network are timed apart, for the
page's estimate of large sets.
"""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import ray
from PIL import Image

from llamaxr_utils.datasets import images, phantoms
from llamaxr_utils.datasets.conditions import VIEWS
from llamaxr_utils.vision import backbones

STUDIES = 80
PAGE = Path(__file__).parents[2] / "notebooks" / "score_big_image_sets.md"


def make_set(folder: Path) -> pd.DataFrame:
    """Two JPEGs of 2,544 x 3,056 pixels a study; four drawings serve all."""
    pictures = [Image.fromarray(phantoms.draw(f"CXR{i}", [], view, 512))
                .resize((2544, 3056), Image.Resampling.BILINEAR)
                for i in (1, 2) for view in VIEWS]
    rows = []
    for i in range(2 * STUDIES):
        path = folder / f"{i}.jpg"
        pictures[i % 4].save(path, quality=95)
        rows.append((f"s{i // 2}", VIEWS[i % 2], str(path)))
    return pd.DataFrame(rows, columns=["study_id", "view", "path"])


def main() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as place:
        folder = Path(place)
        os.chdir(folder)
        views = make_set(folder)
        (folder / "runs" / "t4" / "backbone").mkdir(parents=True)
        views.to_parquet(folder / "runs" / "t4" / "views.parquet")
        model = backbones.build("densenet121@random")
        backbones.save(model, folder / "runs" / "t4" / "backbone")
        began = time.perf_counter()
        grey = np.stack([images.read_grey(path, 224)
                         for path in views["path"][:32]])
        read = (time.perf_counter() - began) / 32
        began = time.perf_counter()
        backbones.predict(model, grey, 8)
        network = (time.perf_counter() - began) / 32
        print(f"one image: {1000 * read:.0f} ms to read, "
              f"{1000 * network:.0f} ms in the network")
        code = PAGE.read_text("utf-8").split("```python\n")[1].split("```")[0]
        speed = []
        for workers in (1, 2):
            text = code.replace(" 500", " 10").replace(
                '"scores"', f'"{folder}/scores-{workers}"').replace(
                '"runs/t4', f'"{folder}/runs/t4')
            ray.init("local", num_cpus=workers, include_dashboard=False,
                     log_to_driver=False)
            began = time.perf_counter()
            exec(text, space := {})  # noqa: S102 (our page)
            speed.append(len(views) / (time.perf_counter() - began))
            assert len(space["scores"]) == len(views)
            ray.shutdown()
            print(f"{workers} worker(s): {speed[-1]:.2f} images a second")
        print(f"ratio: {speed[1] / speed[0]:.2f}")


if __name__ == "__main__":
    main()
