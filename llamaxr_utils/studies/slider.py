"""Move a score, watch the report: six sliders, a fixed strip, the curves.

In a live notebook `show` draws sliders and rewrites the report; where nobody
sits at the keyboard (papermill, an exported page) it draws the same reports
side by side. What changed is lit; what that is worth is for `grounding`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..course.errors import CourseError
from ..course.run import WARNING
from ..datasets.conditions import CONDITIONS
from ..evaluation.findings import sentences
from ..llm.prompts import Scores, mean_scores
from .grounding import Card
from .probes import Writer, with_scores

STYLE = """
.lit {font: 14px/1.5 system-ui, sans-serif; max-width: 52rem}
.lit table {border-collapse: collapse; width: 100%;
  table-layout: auto !important}
.lit td, .lit th {border-top: 1px solid #8886; padding: .4rem .6rem;
  text-align: left !important; vertical-align: top; white-space: normal}
.lit td:first-child {white-space: nowrap}
.lit mark {background: #ffe08a; color: #000; padding: 0 .15em}
.lit del {color: #8a8a8a}
"""


def lit(before: str, after: str) -> str:
    """The new report as HTML: what the old one did not say is marked, what
    it said and the new one does not is struck through at the end."""
    old, new = sentences(before), sentences(after)
    shown = [
        escape(s) if s in old else f"<mark>{escape(s)}</mark>" for s in new
    ]
    gone = [f"<del>{escape(s)}</del>" for s in old if s not in new]
    return " ".join([*shown, *gone]) or "(nothing)"


def rewrite(
    write: Writer, scores: Scores, changes: Mapping[str, float]
) -> str:
    """The report after the changes, lit against the one before them."""
    before, after = write([scores, with_scores(scores, changes)])
    return lit(before, after)


def strip(
    write: Writer, scores: Scores, conditions: Sequence[str], stamp: str = ""
) -> str:
    """A table as HTML: the report, and what becomes of it when a condition's
    score goes to the other end (to 1 from below one half, else to 0).

    Parameters
    ----------
    write : Writer
    scores : Scores
        Of the study to start from.
    conditions : sequence of str
    stamp : str
        Provenance, under the table.

    Returns
    -------
    str
        All text escaped, no script.
    """
    now = mean_scores(scores)
    start = escape(write([scores])[0])
    rows = [f"<tr><td>as it is</td><td></td><td>{start}</td></tr>"]
    for condition in conditions:
        end = float(now[condition] < 0.5)
        page = rewrite(write, scores, {condition: end})
        rows.append(
            f"<tr><td>{escape(condition)}</td>"
            f"<td>{now[condition]:.2f} → {end:.0f}</td><td>{page}</td></tr>"
        )
    head = "<tr><th>condition</th><th>score</th><th>report</th></tr>"
    return _block(f"<table>{head}{''.join(rows)}</table>", stamp)


def show(
    write: Writer,
    scores: Scores,
    conditions: Sequence[str],
    stamp: str = "",
    live: bool | None = None,
) -> None:
    """Sliders that rewrite the report, or the strip.

    Parameters
    ----------
    write, scores, conditions, stamp
        As for `strip`. A slider sets both views.
    live : bool, optional
        None: sliders where somebody can type into the notebook.

    Raises
    ------
    CourseError
        If the study has no view with scores.
    """
    from IPython.display import HTML, display

    if not mean_scores(scores):
        raise CourseError(
            "This study has no scores to move.",
            "Neither of its views was scored.",
            "Choose another study.",
        )
    if somebody_is_there() if live is None else live:
        display(_panel(write, scores, conditions, stamp))
    else:
        display(HTML(strip(write, scores, conditions, stamp)))


def somebody_is_there() -> bool:
    """Does this cell run where input() would find a reader?

    JupyterLab, VS Code and Colab answer yes with every cell they run;
    papermill and nbconvert answer no. Without them a slider is a blank.
    """
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


def _panel(
    write: Writer, scores: Scores, conditions: Sequence[str], stamp: str
) -> Any:
    """Sliders above the report; only the moved ones change anything."""
    import ipywidgets

    now = mean_scores(scores)
    page = ipywidgets.HTML()
    sliders = {
        condition: ipywidgets.FloatSlider(
            value=round(now[condition], 2),
            min=0,
            max=1,
            step=0.05,
            description=condition,
            continuous_update=False,
            style={"description_width": "12em"},
        )
        for condition in conditions
    }
    begun = {name: slider.value for name, slider in sliders.items()}

    def update(_: Any = None) -> None:
        moved = {n: s.value for n, s in sliders.items() if s.value != begun[n]}
        page.value = _block(f"<p>{rewrite(write, scores, moved)}</p>", stamp)

    for slider in sliders.values():
        slider.observe(update, names="value")
    update()
    return ipywidgets.VBox([*sliders.values(), page])


def dose_figure(cards: Mapping[str, Card], title: str) -> Any:
    """Mention rate against score, a panel a condition, a line a writer.

    Parameters
    ----------
    cards : mapping
        Name -> card with a dose response.
    title : str
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        3, 6, figsize=(9, 4.6), sharex=True, sharey=True
    )
    for axis, condition in zip(axes.flat, CONDITIONS, strict=True):
        for (name, card), style in zip(cards.items(), ("-", "--", ":", "-.")):
            assert card.dose is not None, name
            part = card.dose[card.dose["condition"].eq(condition)]
            rate = part.groupby("dose")["mentioned"].mean()
            axis.plot(rate.index, rate, style, label=name)
        axis.set_title(textwrap.fill(condition, 18), fontsize=7.5)
        axis.tick_params(labelsize=7)
        axis.set(ylim=(-0.05, 1.05), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    figure.suptitle(title, x=0.01, ha="left")
    figure.supxlabel("score set in both views", fontsize=9)
    figure.supylabel("mention rate", fontsize=9)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper right", ncols=len(names))
    return figure


def _block(body: str, stamp: str) -> str:
    foot = f"{stamp}. {WARNING}" if stamp else WARNING
    return (
        f"<div class=lit><style>{STYLE}</style>{body}"
        f"<p><small>{escape(foot)}</small></p></div>"
    )
