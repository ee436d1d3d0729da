"""What leaves a notebook: stamped, titled, described."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course import plots, run, tables
from llamaxr_utils.course.errors import CourseError

ALT = "A line that rises from left to right, from zero to one."
TABLE = pd.DataFrame(
    {
        "system": ["a|b", "two\nlines"],
        "value": [0.123456789, np.nan],
        "n": pd.array([590, None], dtype="Int64"),
    }
)


@pytest.fixture
def phantom(folders):
    return run.start("06_evaluate_reports", "smoke", None)


@pytest.fixture
def real(folders):
    return run.start("06_evaluate_reports", "smoke", "real")


@pytest.fixture
def shown(monkeypatch):
    """What would be shown in the notebook."""
    seen = []
    monkeypatch.setattr("IPython.display.display", seen.append)
    return seen


@pytest.fixture
def figure():
    plots.set_style()
    fig, axis = plots.canvas()
    axis.plot([0, 1])
    axis.set_title("Loss")
    yield fig
    plt.close("all")


def test_a_table_is_csv_and_markdown_and_says_where_it_comes_from(
    phantom, capsys
):
    back = tables.save_table(phantom, TABLE, "scores", title="Scores")
    assert back["value"][0] == 0.123
    assert "runs/smoke/tables/scores.csv" in capsys.readouterr().out
    folder = phantom.folder / "tables"
    csv = pd.read_csv(folder / "scores.csv")
    assert csv["value"][0] == 0.123456789  # all digits
    text = (folder / "scores.md").read_text()
    assert text.startswith("**Scores (phantom images)**")
    assert "| a\\|b | 0.123 | 590 |" in text
    assert "| two lines | – | – |" in text
    for words in ("profile smoke", "phantom images", "not for diagnosis"):
        assert words in text
    phantom.finish()
    file = phantom.folder / "records" / "06_evaluate_reports.json"
    outputs = json.loads(file.read_text())["outputs"]
    assert {"tables/scores.csv", "tables/scores.md"} <= set(outputs)


def test_a_header_of_two_levels_has_both_names():
    table = pd.DataFrame([["a", 0.1234]])
    table.columns = pd.MultiIndex.from_tuples([("system", ""), ("B", "all")])
    lines = tables.markdown(table).splitlines()
    assert lines[0] == "| system | B, all |"
    assert lines[2] == "| a | 0.123 |"


def test_phantoms_never_stand_in_a_column_ours_and_xrays_may(phantom, real):
    table = pd.DataFrame({"paper": [0.3], " OURS ": [0.9]})
    with pytest.raises(ValueError, match='no column "ours"'):
        tables.save_table(phantom, table, "table-3", title="Table 3")
    assert not (phantom.folder / "tables").exists()
    tables.save_table(real, table, item="table-3", title="Table 3")
    text = (real.folder / "tables" / "table-3.md").read_text()
    assert text.startswith("**Table 3**")
    assert "phantom" not in text


@pytest.mark.parametrize("alt", ["", "A plot.", " " * 30])
def test_a_figure_needs_alt_text(phantom, figure, shown, alt):
    with pytest.raises(ValueError, match="needs alt text"):
        plots.save_figure(phantom, figure, "loss", alt=alt)
    assert shown == []


def test_a_figure_is_png_and_svg_with_its_alt_text_and_is_shown(
    phantom, figure, shown
):
    alt = ALT + ' <"quoted">'
    plots.save_figure(phantom, figure, item="figure-3", alt=alt)
    png = phantom.folder / "figures" / "figure-3.png"
    with Image.open(png) as picture:
        assert min(picture.size) > 300
        assert picture.info["Description"] == alt
    assert ALT in png.with_suffix(".svg").read_text()
    assert shown[0].alt == alt
    assert not plt.fignum_exists(figure.number)
    html = plots.as_html(png)
    assert "&lt;&quot;quoted&quot;&gt;" in html
    assert 'src="data:image/png;base64,iVBOR' in html


def svg_words(nb, figure, monkeypatch):
    """The text in a figure's SVG, as text."""
    monkeypatch.setitem(plt.rcParams, "svg.fonttype", "none")
    plots.save_figure(nb, figure, "loss", alt=ALT)
    return (nb.folder / "figures" / "loss.svg").read_text()


@pytest.mark.parametrize("place", ["left", "center", "right"])
def test_a_figure_of_phantoms_says_so_in_its_title(
    phantom, shown, monkeypatch, place
):
    with plt.rc_context({"axes.titlelocation": "center"}):
        fig, axis = plots.canvas()
        axis.set_title("Loss", loc=place)
        words = svg_words(phantom, fig, monkeypatch)
    assert "Loss (phantom images)" in words
    assert "profile smoke" in words


def test_a_figure_of_xrays_does_not_say_phantom(
    real, figure, shown, monkeypatch
):
    words = svg_words(real, figure, monkeypatch)
    assert "phantom" not in words
    assert "real images" in words


def test_views_are_shown_as_many_as_there_are(phantom, shown, monkeypatch):
    pictures = [np.zeros((8, 8), np.uint8)] * 5
    fig = plots.show_views(pictures, list("abcde"), "Five views")
    assert len(fig.axes) == 8
    assert sum(len(axis.images) for axis in fig.axes) == 5
    words = svg_words(phantom, fig, monkeypatch)
    assert "Five views (phantom images)" in words
    assert ">a<" in words


def test_small_logs_are_found_or_named_and_progress_says_the_end(capsys):
    assert plots.figures_data("collapse.csv").is_file()
    with pytest.raises(CourseError, match="figures/data/nothing"):
        plots.figures_data("nothing.csv")
    show = plots.progress(every=1000)
    show(1, 3)
    show(3, 3)
    assert capsys.readouterr().out.startswith("3 of 3")


def test_a_picture_has_no_date_and_no_program_in_it(figure):
    for suffix in ("svg", "png"):
        first = plots.picture(figure, suffix, ALT)
        assert first == plots.picture(figure, suffix, ALT)
        assert b"dc:date" not in first
        assert b"Software" not in first


def test_a_heatmap_of_any_size_covers_the_picture():
    grey = np.zeros((96, 96), np.uint8)
    row = (grey, np.eye(7), pd.Series({"a": 0.1, "b": 0.9}))
    fig = plots.show_heatmaps({"frontal": row, "lateral": row}, "title")
    assert len(fig.axes) == 6
    for axis in (fig.axes[1], fig.axes[4]):
        image, heat = axis.images
        assert tuple(image.get_extent()) == tuple(heat.get_extent())
    plt.close(fig)
