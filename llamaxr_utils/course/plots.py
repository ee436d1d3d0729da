"""Plots in one style: colour-blind palette, alt text, provenance stamp.

`save_figure` is a notebook's only way out: PNG for the page, SVG for print,
and the alt text travels with both. Data is prepared by the notebooks.
"""

import base64
import io
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from .artifacts import write_whole
from .run import Run, project_folder

WIDTH, HEIGHT = 7.2, 3.6  # inches
PALETTE = "colorblind"
ALT = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "alt.yaml").read_text("utf-8"))


def figures_data(name: str) -> Path:
    """A small log kept in ``figures/data``; its README says which command
    wrote it."""
    return project_folder() / "figures" / "data" / name


def set_style() -> None:
    """One look for all figures and tables; call once, after start()."""
    import seaborn as sns

    pd.set_option("display.max_colwidth", 160, "display.precision", 3)
    sns.set_theme(style="whitegrid", palette=PALETTE, font_scale=0.9, rc={
        "figure.figsize": (WIDTH, HEIGHT),
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "svg.hashsalt": "llamaxr"})


def canvas(width=WIDTH, height=HEIGHT, *grid: int, **shared: Any) -> Any:
    """An empty figure and its axes: one, or a `grid` of rows and columns."""
    import matplotlib.pyplot as plt

    return plt.subplots(*grid, figsize=(width, height), **shared)


def picture(figure: Any, suffix: str, alt: str, dpi: int = 150) -> bytes:
    """A figure as the bytes of an ``svg`` or ``png`` file, its alt text
    inside; the same figure gives the same bytes (no date, no version)."""
    if len(alt.strip()) < 20:
        raise ValueError("A figure needs alt text")
    varying = {"svg": "Date", "png": "Software"}[suffix]
    content = io.BytesIO()
    figure.savefig(content, format=suffix, bbox_inches="tight", dpi=dpi,
                   metadata={"Description": alt, varying: None})
    return content.getvalue()


def as_html(path: Path) -> Any:
    """A PNG of `picture` as an HTML figure (Markup): embedded, with its alt
    text."""
    from markupsafe import Markup
    from PIL import Image

    with Image.open(path) as opened:
        alt = opened.info["Description"]
    figure = Markup('<figure><img alt="{}" src="{}"></figure>')
    return figure.format(alt, _uri(path.read_bytes()))


def data_uri(pixels: np.ndarray, side: int) -> str:
    """uint8 pixels (n, n) or (n, n, 3) as the address (``data:``) of a JPEG
    of `side` pixels, for a page that is one file."""
    from PIL import Image

    content = io.BytesIO()
    image = Image.fromarray(pixels).resize((side, side))
    image.save(content, "JPEG", quality=80, optimize=True)
    return _uri(content.getvalue(), "jpeg")


def _uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def save_figure(nb: Run, figure: Any, name: str = "", *, alt: str = "",
                item: str = "", of_images: bool = True, **facts: str) -> None:
    """Stamp, save (PNG and SVG), show with alt text, and close.

    `item` is the paper item that it rebuilds, and its file name where `name`
    is empty. The alt text stands in ``data/alt.yaml``, with `facts` filled
    in, if not given. Where no image of the run is behind a plot (`of_images`
    false), neither its title nor its stamp names the run's images.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    alt = alt or ALT[name or item].format_map(facts)
    if of_images and figure.get_suptitle():
        text = figure.get_suptitle() + nb.title_note
        figure.suptitle(text, x=0.01, ha="left")
    elif of_images:
        first = figure.axes[0]
        first.set_title(first.get_title("left") + nb.title_note, loc="left")
    of_run = "" if of_images else f"{nb.images} images · "
    stamp = nb.stamp.replace(of_run, "")
    figure.text(0.995, 0, stamp, ha="right", va="top", size=6, color="0.45")
    for suffix in ("svg", "png"):
        content = picture(figure, suffix, alt)
        path = nb.file("figures", f"{name or item}.{suffix}")
        write_whole(path, partial(Path.write_bytes, data=content))
    plt.close(figure)
    width = int(figure.get_size_inches()[0] * 100)
    # Not Image(alt=...), which Colab's IPython does not know.
    display({"image/png": base64.b64encode(content).decode(),
             "text/plain": alt}, raw=True,
            metadata={"image/png": {"width": width, "alt": alt}})


def show_views(pictures: Sequence[np.ndarray], titles: Sequence[str],
               title: str, columns: int = 4) -> Any:
    """Grey images in a grid, a title on each and one on all; the figure."""
    import matplotlib.pyplot as plt

    rows = -(-len(pictures) // columns)
    figure = plt.figure(figsize=(1.9 * columns, 2.15 * rows))
    for number, (pixels, label) in enumerate(zip(pictures, titles), 1):
        axis = figure.add_subplot(rows, columns, number)
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axis.set_title(label, loc="center", fontsize=8)
        axis.axis("off")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def progress(every: float = 5.0) -> Any:
    """A callback (done, all) that prints a line every few seconds."""
    last = time.perf_counter()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.perf_counter() - last > every or done == total:
            last = time.perf_counter()
            print(f"{done:,} of {total:,}", flush=True)

    return show
