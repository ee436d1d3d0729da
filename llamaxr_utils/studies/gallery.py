"""What lies in ``figures/``, drawn again: ``make figures``.

From small files of numbers and from drawn phantoms alone, so no X-ray and no
report text is in it, and the same input gives the same bytes. Pictures of a
run are the business of `plots.save_figure`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ..course import plots
from ..course.files import write_whole
from ..course.run import project_folder, runs_folder
from ..datasets import phantoms, reports
from ..datasets.conditions import VIEWS, by_name
from ..vision import backbones, heatmaps
from . import framework

#: Patients of the previews, invented: id -> headings.
PATIENTS = {
    "preview-1": ["normal"],
    "preview-2": ["Cardiomegaly/severe"],
    "preview-3": ["Pleural Effusion/right/large"],
    "preview-4": ["Consolidation/lung/upper lobe/left"],
}
EXAMPLE, EXAMPLE_CONDITION = "preview-2", "Cardiomegaly"
ALT = framework.ALT | {
    "collapse": "Bars for two bases before the same LoRA: the one pre-trained "
    "on headings and names writes more distinct reports, and more of them "
    "change when scores are swapped, than the one that read bare reports.",
    "preview/phantoms": "Drawn chest X-rays of four invented patients, "
    "frontal above lateral: normal, large heart, effusion at the patient's "
    "right, consolidation in the left upper lobe.",
    "preview/figure-3": "A drawn frontal chest with a large heart, the same "
    "with a heatmap for Cardiomegaly, and the 18 scores as bars; its title "
    "says that it is a phantom.",
}


def draw_phantoms(size: int = 224) -> Any:
    """The patients of `PATIENTS`, frontal above lateral."""
    pairs = [(p, v) for v in VIEWS for p in PATIENTS]
    names = [PATIENTS[p][0] if v == VIEWS[0] else "lateral" for p, v in pairs]
    return plots.show_views(
        [phantoms.draw(p, PATIENTS[p], v, size) for p, v in pairs],
        names, "Phantoms: drawings, not X-rays",
    )


def draw_phantom_heatmap(backbone: Path, size: int = 224) -> Any:
    """Figure 3 on a drawing, by the network in a run's ``backbone``."""
    model = backbones.load(backbone)
    small, grey = (
        phantoms.draw(EXAMPLE, PATIENTS[EXAMPLE], VIEWS[0], pixels)
        for pixels in (model.resolution, size)
    )
    heat = heatmaps.heatmap(model, small, EXAMPLE_CONDITION)
    output = backbones.predict(model, small[None])[0]
    scores = pd.Series(by_name(output, model.pathologies))
    return plots.show_heatmaps(
        {VIEWS[0]: (grey, heat, scores)},
        f"PHANTOM, not an X-ray: {EXAMPLE_CONDITION}, {model.full_name}",
    )


def keep(figure: Any, path: Path, alt: str, source: str) -> None:
    """Stamp a figure (without a date), write it as `path`, close it."""
    import matplotlib.pyplot as plt

    # Relative to the folder, the same wherever it lies.
    figure.text(0.995, -0.01, f"LLaMA-XR course · figures/ · {source}",
                ha="right", va="top", size=6, color="0.35")
    for suffix in ("svg", "png"):
        if suffix == "svg" and path.parent.name == "preview":
            continue
        dpi = 80 if path.parent.name == "preview" else 110
        content = plots.picture(figure, suffix, alt, dpi)
        file = path.with_name(f"{path.name}.{suffix}")
        write_whole(file, partial(Path.write_bytes, data=content))
    plt.close(figure)


def redraw(folder: Path | None = None, count: bool = False) -> list[str]:
    """Draw every picture of ``figures/`` again (``make figures``).

    Parameters
    ----------
    folder : Path, optional
        Where to; ``figures/`` of the project. Its ``data/`` is read there
        in any case.
    count : bool
        Count ``data/prevalence.csv`` again from the reports first.

    Returns
    -------
    list of str
        A line a picture: drawn, or what it needs.
    """
    folder = folder or project_folder() / "figures"
    plots.set_style()
    if count:
        file = project_folder() / "figures" / "data" / "prevalence.csv"
        table = framework.prevalence(reports.load_studies())
        write_whole(file, lambda part: table.to_csv(part, index=False))
    backbone = runs_folder() / "cpu" / "backbone"
    classes, collapse = (
        pd.read_csv(plots.figures_data(f"{name}.csv"))
        for name in ("prevalence", "collapse")
    )
    jobs: dict[str, tuple[Callable[[], Any], str]] = {
        "figure-1": (framework.draw_framework, "drawn phantoms"),
        "figure-2": (
            partial(framework.draw_classes, classes), "data/prevalence.csv",
        ),
        "collapse": (
            partial(plots.collapse_bars, collapse), "data/collapse.csv",
        ),
        "preview/phantoms": (draw_phantoms, "invented patients, drawn"),
        "preview/figure-3": (
            partial(draw_phantom_heatmap, backbone), "drawn, network of cpu",
        ),
    }
    lines = []
    for name, (draw, source) in jobs.items():
        if name == "preview/figure-3" and not backbone.is_dir():
            lines.append(f"{name}: left as it is; it needs the network of "
                         "runs/cpu (`make course TO=02`)")
            continue
        keep(draw(), folder / name, ALT[name], source)
        lines.append(f"{name}: drawn")
    return lines


if __name__ == "__main__":
    print("\n".join(redraw(count="--count" in sys.argv)))
