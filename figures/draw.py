"""Draws the pictures of this folder again (``make figures``): Figures 1 and
2 of the paper from facts, the previews from phantoms. No X-ray and no report
of the data set is in them, and the same input gives the same bytes (of the
case page: in the same browser).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import FancyBboxPatch
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from llamaxr_utils.course import plots
from llamaxr_utils.course.artifacts import write_whole
from llamaxr_utils.course.run import runs_folder
from llamaxr_utils.datasets import mesh, phantoms, reports
from llamaxr_utils.datasets.conditions import (
    CONDITIONS,
    NATIVE_ORDER,
    VIEWS,
)
from llamaxr_utils.evaluation import baselines, cases
from llamaxr_utils.evaluation.findings import FINDINGS, label_report
from llamaxr_utils.llm import prompts
from llamaxr_utils.studies import audit
from llamaxr_utils.studies.rebuild import LAYERS, TRAINABLE, VOCABULARY, WIDTH
from llamaxr_utils.vision import backbones, features, heatmaps

FOLDER = Path(__file__).parent
#: What the readers of a text label call a condition of the 18.
IN_REPORTS = {"Effusion": "Pleural Effusion"}
#: Patients of the previews, invented: id -> headings.
PATIENTS = {
    "preview-1": ["normal"],
    "preview-2": ["Cardiomegaly/severe"],
    "preview-3": ["Pleural Effusion/right/large"],
    "preview-4": ["Consolidation/lung/upper lobe/left"],
}
EXAMPLE, EXAMPLE_CONDITION = "preview-2", "Cardiomegaly"
#: The study of the case page. Its reference is ours, of no data set.
CASE = {
    "study_id": "Invented patient 2",
    "status": "drawn",
    "mesh": ["Cardiomegaly/severe", "Pleural Effusion/right/large",
             "Nodule/lung/upper lobe/left"],
    "reference": "The heart is enlarged. There is a large right pleural "
    "effusion. A nodule lies in the left upper lobe.",
}
#: What its picture leaves of that page: one study and the head.
ALONE = """aside, footer, .keys, .turn, .metrics, .legend { display: none }
#desk { display: block } main { padding: .9rem 1.25rem }
.see { grid-template-columns: 27.5rem 1fr; margin: .9rem 0; gap: 1.5rem }
.bars { line-height: 1.72 } .texts { margin-bottom: .8rem }
"""
ALT = {
    "figure-1": "Flow chart. Two drawn X-rays, frontal and lateral, pass "
    "through the same frozen DenseNet-121: 1 x 224 x 224 pixels, feature map "
    "1024 x 7 x 7, vector of 1024, 18 scores a view. The 2 x 18 scores "
    "become text in the Alpaca prompt; a 4-bit Llama 3.1 8B with trainable "
    "LoRA matrices (41,943,040 parameters) writes the report from it.",
    "figure-2": "The 18 classes in two orders, that of the network's outputs "
    "and that of the prompt, joined by lines: only two keep their place. "
    "Beside them bars: the percentage of IU X-ray studies that name the "
    "class in MeSH headings and in the report. Lung Opacity, Nodule and "
    "Cardiomegaly lead; Mass, Pneumothorax and Consolidation are rarest.",
    "collapse": "Bars for two bases, each alone and after the same LoRA, and "
    "a dot for each seed: over the base that read headings, findings F1 and "
    "grounding gap rise; over the one that read bare reports both stay low.",
    "frontier": "Three scatter plots, BLEU-4, METEOR and CIDEr against the "
    "grounding gap on real X-rays: constants at gap 0 are as high as any, "
    "consensus goes from there to the right and down, scores and names and "
    "this run lie a little further right, the template low below them, and "
    "writers with true labels are far to the right.",
    "growth": "Two plots on logarithmic axes, for 4,000, 40,000 and 400,000 "
    "studies: the seconds of six stages rise in straight lines, as the "
    "number of studies does; the peak memory stays below 2 GB.",
    "preview/phantoms": "Drawn chest X-rays of four invented patients, "
    "frontal above lateral: normal, large heart, effusion at the patient's "
    "right, consolidation in the left upper lobe.",
    "preview/figure-3": "A drawn frontal chest with a large heart, the same "
    "with a heatmap for Cardiomegaly, and the 18 scores as bars; its title "
    "says that it is a phantom.",
    "preview/case": "The case page for one invented patient: a drawn frontal "
    "and lateral chest, the same with heatmaps for Cardiomegaly, and the 18 "
    "scores as bars with operating points, four of them reached. Below, "
    "reference and generated report, with marks: enlarged heart and pleural "
    "effusion agree, the nodule is missed, atelectasis and airspace opacity "
    "are added. It says: phantom images, for research and teaching, not for "
    "diagnosis.",
}
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser"),
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
    "--force-device-scale-factor=1.5", "--window-size=936,1400",
)  # fmt: skip
#: The boxes of Figure 1: left, bottom, width, height, head, words.
BOXES = (
    (3.4, 2.95, 2.1, 3.3, "DenseNet-121",
     "the same for both views,\ndensenet121-res224-all\n6,966,034 parameters"),
    (7.15, 2.95, 1.4, 3.3, "Mean", "over the 49 places"),
    (9.65, 2.95, 2.0, 3.3, "18 outputs",
     "linear, sigmoid,\n0.5 = operating point"),
    (1.05, 0.45, 2.5, 1.6, "Alpaca prompt",
     "instruction, 36 numbers\nas text, ### Response:"),
    (5.05, 0.45, 2.6, 1.6, "Llama 3.1 8B",
     f"4-bit weights, {LAYERS} blocks,\nwidth {WIDTH:,}"),
    (8.1, 0.45, 2.35, 1.6, "LoRA, rank 16",
     f"7 layers a block,\n{TRAINABLE:,} parameters"),
    (11.95, 0.45, 1.35, 1.6, "Report", "m tokens"),
)  # fmt: skip
#: Its arrows, left to right: from, to, height, the shape of what passes.
ARROWS = tuple(
    (*arrow[:2], y, arrow[2])
    for y in (5.5, 3.7)
    for arrow in ((1.65, 3.35, "1 × 224 × 224"), (5.55, 7.1, "1024 × 7 × 7"),
                  (8.6, 9.6, "1024"), (11.7, 12.55, "18"))
) + (
    (0.4, 1.0, 1.25, ""), (3.6, 5.0, 1.25, "n tokens"),
    (10.5, 11.9, 1.25, f"m × {VOCABULARY:,}"),
)  # fmt: skip


def draw_framework() -> plt.Figure:
    """Figure 1: from two X-rays to a report, with the shapes on the
    arrows. The X-rays in it are phantoms."""
    figure, axis = plots.canvas(10, 4.9)
    axis.axis("off")
    middle = {"ha": "center", "va": "center", "size": 7.5}
    for view, y in zip(VIEWS, (4.75, 2.95)):
        image = phantoms.draw("preview-1", ["normal"], view, 224)
        axis.imshow(image, cmap="gray", vmin=0, vmax=255,
                    extent=(0.1, 1.6, y, y + 1.5))
        axis.text(0.85, y - 0.15, f"{view} (drawn)", **middle)
    for x, y, w, h, head, words in BOXES:
        trained = head.startswith("LoRA")
        box = FancyBboxPatch(
            (x, y), w, h, boxstyle="round,pad=0,rounding_size=0.08",
            fc="white" if trained else "0.92", ec="black",
            lw=2 if trained else 1, hatch="///" if trained else None,
        )
        box.set_hatch_linewidth(0.4)
        axis.add_patch(box)
        ground = {"fc": box.get_facecolor(), "ec": "none", "pad": 1.5}
        x, y = x + w / 2, y + h / 2
        axis.text(x, y - 0.2, words, bbox=ground, **middle)
        axis.text(x, y + 0.25, head, bbox=ground, weight="bold",
                  **middle | {"size": 9})
    for start, end, y, shape in ARROWS:
        axis.annotate("", (end, y), (start, y), arrowprops={
            "arrowstyle": "-|>", "color": "black", "shrinkA": 0,
            "shrinkB": 0})
        axis.text((start + end) / 2, y + 0.17, shape, **middle)
    axis.plot([12.55, 12.55], [3.7, 5.5], color="black", lw=1)
    axis.plot([12.55, 13, 13, 0.4, 0.4], [4.6, 4.6, 2.3, 2.3, 1.25],
              color="black", lw=1)
    axis.text(6.7, 2.47, "2 × 18 = 36 numbers, frontal first", **middle)
    axis.text(7.87, 1.25, "+", **middle | {"size": 14})
    axis.text(0.05, 0.05, "grey: frozen or fixed · hatched, thick: trained, "
              "on the report's words", **middle | {"ha": "left"})
    axis.set(xlim=(0, 13.4), ylim=(0, 6.5), aspect="auto")
    axis.set_title("Figure 1, redrawn: two X-rays, 36 scores, one report")
    return figure


def prevalence(studies: pd.DataFrame) -> pd.DataFrame:
    """How often the 18 classes occur: studies whose MeSH headings name one
    (of those indexed), and whose text states it as present (of those with
    text; missing where the labeller has no such class)."""
    indexed = studies[studies["status"] != "not indexed"]
    named = pd.DataFrame([mesh.labels(m) for m in indexed["mesh"]]).sum()
    texts = (studies["findings"] + " " + studies["impression"]).str.strip()
    texts = texts[texts != ""]
    stated = pd.DataFrame([label_report(t) for t in texts]).eq("present")
    rows = []
    for i, name in enumerate(CONDITIONS, 1):
        label = IN_REPORTS.get(name, name)
        n = int(stated[label].sum()) if label in stated else 0
        report = n if label in FINDINGS else None
        place = NATIVE_ORDER.index(name) + 1
        rows.append((name, i, place, int(named[name]), len(indexed), report))
    columns = ["condition", "prompt_position", "network_position", "mesh"]
    table = pd.DataFrame(rows, columns=[*columns, "of_mesh", "report"])
    table["report"] = table["report"].astype("Int64")
    return table.assign(of_report=len(texts))


def draw_classes(table: pd.DataFrame) -> plt.Figure:
    """Figure 2: the 18 classes in two orders, and their prevalence."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 5.2), width_ratios=(1.25, 1), sharey=True
    )
    y, dark = table["prompt_position"], sns.color_palette(plots.PALETTE)[0]
    for row in table.itertuples():
        kept = row.network_position == row.prompt_position
        left.plot([0, 1], [row.network_position, row.prompt_position],
                  color="black" if kept else "0.6", lw=2.2 if kept else 1)
        for x, ha, place in ((-0.04, "right", row.network_position),
                             (1.04, "left", row.prompt_position)):
            words = f"{place:2d}  {row.condition}"
            words = f"{row.condition}  {place:2d}" if x < 0 else words
            left.text(x, place, words, ha=ha, va="center", size=8,
                      weight="bold" if kept else None)
    left.set(xlim=(-1.15, 2.25), ylim=(18.7, 0.3))
    left.axis("off")
    left.set_title("network's outputs          prompt", loc="center", size=9)
    share = 100 * table["mesh"] / table["of_mesh"]
    stated = (100 * table["report"] / table["of_report"]).astype(float)
    right.barh(y - 0.2, share, 0.38, color=dark, ec="black", lw=0.5,
               label=f"MeSH headings ({table['of_mesh'][0]:,} studies)")
    right.barh(y + 0.2, stated.fillna(0), 0.38, color="white", ec="black",
               lw=0.8, hatch="////",
               label=f"stated in the report ({table['of_report'][0]:,})")
    for place in y[stated.isna()]:
        right.text(0.15, place + 0.22, "not labelled in reports", size=6,
                   va="center", color="0.25")
    right.set(xlabel="% of studies")
    right.grid(axis="y", visible=False)
    right.spines["left"].set_visible(False)
    right.tick_params(axis="y", left=False, labelleft=False)
    right.legend(loc="lower right", fontsize=8)
    right.annotate("nodules, masses too", (11.8, 12.2), size=6,
                   va="center", color="0.25", annotation_clip=False)
    figure.suptitle("Figure 2, redrawn: the 18 classes in two orders, and "
                    "their prevalence in IU X-ray", x=0.01, ha="left")
    return figure


def draw_phantoms(size: int = 224) -> plt.Figure:
    """The patients of `PATIENTS`, frontal above lateral."""
    pairs = [(p, v) for v in VIEWS for p in PATIENTS]
    names = [PATIENTS[p][0] if v == VIEWS[0] else "lateral" for p, v in pairs]
    return plots.show_views(
        [phantoms.draw(p, PATIENTS[p], v, size) for p, v in pairs],
        names, "Phantoms: drawings, not X-rays",
    )


def show_heatmaps(
    rows: Mapping[str, tuple[np.ndarray, np.ndarray, pd.Series]], title: str
) -> plt.Figure:
    """X-ray, heatmap over it, and the scores as bars (paper, Figure 3).

    A row of pictures for each item of `rows`: name -> (grey uint8 of shape
    (height, width); heat in [0, 1], of any size; condition -> score). A
    colour each, as in the paper; light and dark take turns and the names
    stand beside, so that none needs a colour.
    """
    figure, grid = plt.subplots(
        len(rows), 3, figsize=(9, 3.4 * len(rows)),
        width_ratios=(1, 1, 1.3), squeeze=False,
    )  # fmt: skip
    figure.suptitle(title, x=0.01, ha="left")
    for axes, (name, (grey, heat, scores)) in zip(grid, rows.items()):
        for axis in axes[:2]:
            axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
        height, width = grey.shape
        axes[1].imshow(
            heat,
            cmap="inferno",
            alpha=0.45 * (heat > 0.15),
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )
        axes[0].set_title(name, fontsize=9)
        axes[1].set_title("where the score comes from" if heat.any() else
                          "no map: below its operating point", fontsize=9)
        hues = (sns.husl_palette(len(scores), l=v) for v in (0.42, 0.72))
        colours = [pair[i % 2] for i, pair in enumerate(zip(*hues))]
        axes[2].barh(scores.index, scores, color=colours)
        axes[2].axvline(0.5, color="0.3", lw=0.8, ls="--")
        axes[2].set(xlim=(0, 1), xlabel="score (0.5: operating point)")
        axes[2].invert_yaxis()
        axes[2].tick_params(axis="y", labelsize=7)
        axes[2].grid(axis="y", visible=False)
    return figure


def draw_phantom_heatmap(backbone: Path, size: int = 224) -> plt.Figure:
    """Figure 3 on a drawing, by the network in a run's ``backbone``."""
    model = backbones.load(backbone)
    small, grey = (
        phantoms.draw(EXAMPLE, PATIENTS[EXAMPLE], VIEWS[0], pixels)
        for pixels in (model.resolution, size)
    )
    heat = heatmaps.heatmap(model, small, EXAMPLE_CONDITION)
    output = backbones.predict(model, small[None])
    scores = features.by_condition(model, output).iloc[0]
    return show_heatmaps(
        {VIEWS[0]: (grey, heat, scores)},
        f"PHANTOM, not an X-ray: {EXAMPLE_CONDITION}, {model.full_name}",
    )


def picture_case(run: Path, path: Path) -> None:
    """The case page (notebook 07) of `CASE`, as a browser shows it: scores
    and heatmaps by the network of a run, the report by the template writer
    (notebook 09) from what reaches the run's operating points."""
    model = backbones.load(run / "backbone")
    points = pd.read_csv(run / "operating_points.csv", index_col="condition")
    points, study = points["operating_point"], CASE["study_id"]
    with TemporaryDirectory() as name:
        home = Path(name)
        views = pd.DataFrame([CASE | {"view": view} for view in VIEWS])
        seen, shown = (
            views.assign(path=phantoms.draw_files(views, home, size))
            for size in (model.resolution, 2 * cases.SIZE))
        scores = features.score_views(model, seen)
        heatmaps.write_maps(model, seen, scores, home / "heatmaps")
        scores = prompts.by_study(scores)
        named = prompts.names_above(scores.loc[study], points) or []
        page, taken = home / "cases.html", home / "taken.png"
        cases.write_page(
            page, pd.DataFrame([CASE | dict.fromkeys(cases.METRICS)]),
            {"generated (template)": [baselines.template_report(named)]},
            title="Two drawn X-ray views → 18 scores → a report, held "
            "against its reference", stamp="LLaMA-XR course · phantom images "
            f"· patient, reference: invented · network {model.full_name}",
            scores=scores, points=points, views=shown,
            heatmaps=home / "heatmaps")
        text = page.read_text("utf-8").replace("</style>", f"{ALONE}</style>")
        page.write_text(text, "utf-8")
        subprocess.run([*BROWSER, f"--user-data-dir={home / 'browser'}",
                        f"--screenshot={taken}", page.as_uri()],
                       check=True, capture_output=True)
        picture = Image.open(taken).convert("RGB")
    ground = Image.new("RGB", picture.size, picture.getpixel((0, 1399)))
    low = ImageChops.difference(picture, ground).getbbox()[3] + 24
    picture = picture.crop((0, 0, picture.width, low)).quantize(256, kmeans=5)
    note = PngInfo()
    note.add_text("Description", ALT["preview/case"])
    picture.save(path, pnginfo=note, optimize=True)


def draw_collapse(table: pd.DataFrame) -> plt.Figure:
    """What one LoRA makes of two bases (``figures/data/collapse.csv``)."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.4), sharey=True)
    for axis, column in zip(axes, ("findings F1", "grounding gap")):
        axes_of = {"data": table, "y": "base pre-trained on", "x": column,
                   "hue": "model", "ax": axis, "legend": axis is axes[1]}
        sns.barplot(**axes_of, errorbar=None, palette=["0.85", "0.5"],
                    edgecolor="black")
        sns.stripplot(**axes_of | {"legend": False}, dodge=True, size=3,
                      jitter=False, palette=["black", "black"])
        axis.set_xlim(left=min(0, 1.1 * table[column].min()))
        axis.grid(axis="y", visible=False)
    n = table["test studies"].iloc[0]
    figure.suptitle(f"The same LoRA on two bases ({n} test studies, phantom "
                    "images; a dot a seed)", x=0.01, ha="left")
    return figure


def draw_frontier(table: pd.DataFrame, where: str = "") -> plt.Figure:
    """Words against findings (notebook 09): a point a way to write reports,
    with 95 % intervals; dotted: the best that Table 3 quotes."""
    quoted = audit.quoted_rows().query("protocol == 'r2gen'")
    best = quoted[["BLEU-4", "METEOR"]].max()
    kinds = {"constant": "s", "consensus": "o", "neighbour": "^",
             "template": "D", "this run": "*", "scores and names": "v"}
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 4.4), layout="constrained")
    for axis, metric in zip(axes, ("BLEU-4", "METEOR", "CIDEr")):
        for i, (kind, shape) in enumerate(kinds.items()):
            rows = table[table["system"].str.contains(kind)]
            arms = [[rows[name] - rows[f"{name} low"],
                     rows[f"{name} high"] - rows[name]]
                    for name in (metric, "gap")]
            axis.errorbar(rows["gap"], rows[metric], *arms, fmt="none",
                          ecolor=f"C{i}", elinewidth=0.6, zorder=1)
            style = {"color": f"C{i}", "ms": 13 if kind == "this run" else 7}
            true = rows["system"].str.contains("true labels")
            for part, fill, label in ((rows[~true], f"C{i}", kind),
                                      (rows[true], "white", "_")):
                axis.plot(part["gap"], part[metric], shape, mfc=fill,
                          label=label, **style)
            if kind in ("consensus", "scores and names"):
                axis.plot(rows["gap"], rows[metric], f"C{i}", lw=1, zorder=1)
            if kind == "consensus":
                for end, place, ha in ((0, (-7, -7), "right"),
                                       (-1, (7, -7), "left")):
                    row = rows.iloc[end]
                    axis.annotate(row["system"].split(", ")[1],
                                  (row["gap"], row[metric]), place,
                                  textcoords="offset points", ha=ha, size=8)
        axis.plot([], [], "o", mfc="white", c="black", label="true labels")
        axis.axhline(best.get(metric, float("nan")), color="0.5", ls=":",
                     label="best that Table 3 quotes")
        axis.set(title=metric, xlabel="grounding gap",
                 xticks=(0, 0.2, 0.4, 0.6, 0.8))
        axis.set_xlim(table["gap low"].min() - 0.24)  # room for "tau 0.4"
    figure.suptitle(f"Words and findings{where}", x=0.01, ha="left")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=4, fontsize=8,
                  columnspacing=1, loc="outside lower left")
    return figure


def draw_growth(table: pd.DataFrame) -> plt.Figure:
    """Seconds and memory of what every study passes through, against their
    number (``figures/data/growth.csv``)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2),
                                         layout="constrained")
    sns.lineplot(table, x="studies", y="seconds", hue="stage", style="stage",
                 markers=True, dashes=False, ax=left)
    sizes = np.sort(table["studies"].unique())
    left.plot(sizes, sizes / 1000, "k:", lw=0.8, label="linear")
    left.set(xscale="log", yscale="log", title="Time")
    left.get_legend().remove()
    peak = table.groupby("studies")["peak_gb"].max()
    right.plot(peak, "ks-")
    right.axhline(4, color="0.5", ls=":")
    right.set(xscale="log", xlabel="studies", ylabel="GB, peak of all",
              ylim=(0, 4.4), title="Memory (limit: 4 GB)")
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, ncols=4,
                  loc="outside lower left")
    *_, before, last = table.groupby("studies")["seconds"].sum().items()
    figure.suptitle(f"{last[0] / before[0]:.0f} times the studies, "
                    f"{last[1] / before[1]:.0f} times the time", x=0.01,
                    ha="left")
    return figure


def keep(figure: plt.Figure, path: Path, alt: str, source: str) -> None:
    """Stamp a figure (without a date), write it as `path`, close it."""
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


def redraw(folder: Path = FOLDER, count: bool = False) -> list[str]:
    """Draw every picture again into a folder; a line each, or what it needs.
    `count` counts ``data/prevalence.csv`` again from the reports first."""
    plots.set_style()
    if count:
        table = prevalence(reports.load_studies())
        file = FOLDER / "data" / "prevalence.csv"
        write_whole(file, lambda part: table.to_csv(part, index=False))
    run = runs_folder() / "cpu"
    backbone, lines = run / "backbone", []
    classes, collapse, frontier, growth = (
        pd.read_csv(FOLDER / "data" / f"{name}.csv")
        for name in ("prevalence", "collapse", "frontier", "growth"))
    jobs = {
        "figure-1": (draw_framework, "drawn phantoms"),
        "figure-2": (partial(draw_classes, classes), "data/prevalence.csv"),
        "collapse": (partial(draw_collapse, collapse),
                     "data/collapse.csv"),
        "frontier": (partial(draw_frontier, frontier, ", real X-rays"),
                     "data/frontier.csv"),
        "growth": (partial(draw_growth, growth), "data/growth.csv"),
        "preview/phantoms": (draw_phantoms, "invented patients, drawn"),
        "preview/figure-3": (partial(draw_phantom_heatmap, backbone),
                             "drawn, network of cpu"),
    }
    for name, (draw, source) in jobs.items():
        if name == "preview/figure-3" and not backbone.is_dir():
            lines.append(f"{name}: left as it is; it needs the network of "
                         "runs/cpu (`make course TO=02`)")
            continue
        keep(draw(), folder / name, ALT[name], source)
        lines.append(f"{name}: drawn")
    if not BROWSER[0] or not (run / "operating_points.csv").is_file():
        lines.append("preview/case: left as it is; it needs Chromium and "
                     "runs/cpu (`make course TO=03`)")
        return lines
    picture_case(run, folder / "preview" / "case.png")
    return [*lines, "preview/case: drawn"]


if __name__ == "__main__":
    print("\n".join(redraw(count="--count" in sys.argv)))
