"""The paper's own example as a check of the whole image path.

Figure 4 prints 36 scores; its study is CXR24. With the released weights and
its two images, one table settles order, views, range and resize. It needs
both and says so; it replaces no other test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..datasets import downloads
from ..datasets.conditions import CONDITIONS, VIEWS
from ..datasets.images import locate, read_grey
from . import backbones

STUDY = "CXR24"
FIGURE_4 = Path(__file__).parents[1] / "data" / "figure_4_scores.csv"


def printed_scores() -> np.ndarray:
    """The numbers of Figure 4, shape (2, 18): first half, second half."""
    return pd.read_csv(FIGURE_4)[["first", "second"]].to_numpy().T


def missing(model: Any, views: pd.DataFrame) -> str:
    """What the check lacks, as a sentence; "" when it can be made."""
    lacks = []
    if model.full_name != downloads.PAPER:
        lacks.append(
            f"the weights of {downloads.PAPER} "
            f"(python -m llamaxr_utils fetch {downloads.PAPER})"
        )
    own = views[views["study_id"].eq(STUDY)]
    if set(own.loc[own["image_source"].ne("phantom"), "view"]) != set(VIEWS):
        lacks.append(
            f"the X-rays of {STUDY} (python -m llamaxr_utils fetch openi, "
            'IMAGES = "real")'
        )
    return f"Figure 4 waits for {' and for '.join(lacks)}." if lacks else ""


def settle(model: Any, views: pd.DataFrame) -> pd.DataFrame:
    """Every way of making the 36 numbers, the nearest to the paper's first.

    Parameters
    ----------
    model
        The released network.
    views : DataFrame
        Schema ``views``, with both X-rays of CXR24.

    Returns
    -------
    DataFrame
        ``order`` of the scores (the network's, alphabetical), ``first`` view,
        ``range`` of the pixels, ``resize``, ``largest difference`` to the 36
        printed numbers (0.000001 would be the paper's run).
    """
    paths = views[views["study_id"].eq(STUDY)].set_index("view")["path"]
    printed, rows = printed_scores(), []
    for resize in ("squash", "crop"):
        grey = np.stack(
            [
                read_grey(locate(paths[v]), model.resolution, resize)
                for v in VIEWS
            ]
        )
        batch = backbones.to_batch(grey)
        for name, factor in (("[-1024, 1024]", 1.0), ("[-1, 1]", 1 / 1024)):
            scores = backbones.score_batch(model, batch * factor)
            for order, first, made in _readings(scores, model.pathologies):
                off = float(np.abs(made - printed).max())
                rows.append((order, first, name, resize, off))
    names = ["order", "first", "range", "resize", "largest difference"]
    table = pd.DataFrame(rows, columns=names)
    return table.sort_values(names[-1], ignore_index=True)


def _readings(
    scores: np.ndarray, names: list[str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    alphabetical = scores[:, [names.index(c) for c in CONDITIONS]]
    for order, values in (
        ("the network's", scores),
        ("alphabetical", alphabetical),
    ):
        yield order, VIEWS[0], values
        yield order, VIEWS[1], values[::-1]
