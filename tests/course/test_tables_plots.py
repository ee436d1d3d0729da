"""What leaves a notebook: stamped, titled, described."""

from __future__ import annotations

import draw
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course import plots, run, tables

ALT = 'A line that rises from left to right, from <"zero"> to one.'
TABLE = pd.DataFrame({
    "system": ["a|b", "two\nlines"],
    "value": [0.123456789, np.nan],
    "n": pd.array([590, None], dtype="Int64"),
})


@pytest.fixture
def phantom(folders):
    return run.Run("06_evaluate_reports", "smoke", None)


@pytest.fixture
def real(folders):
    return run.Run("06_evaluate_reports", "smoke", "real")


@pytest.fixture
def shown(monkeypatch):
    """What would be shown in the notebook; texts in an SVG stay texts."""
    seen = []
    monkeypatch.setattr("IPython.display.display", seen.append)
    monkeypatch.setitem(plt.rcParams, "svg.fonttype", "none")
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
    assert set(phantom.outputs) == {"tables/scores.csv", "tables/scores.md"}
    table = pd.DataFrame([["a", 0.1234]])
    table.columns = pd.MultiIndex.from_tuples([("system", ""), ("B", "all")])
    lines = tables.markdown(table).splitlines()
    assert lines[0] == "| system | B, all |" and lines[2] == "| a | 0.123 |"


def test_phantoms_never_stand_in_a_column_ours_and_xrays_may(phantom, real):
    table = pd.DataFrame({"paper": [0.3], " OURS ": [0.9]})
    with pytest.raises(ValueError, match='no column "ours"'):
        tables.save_table(phantom, table, "table-3", title="Table 3")
    assert not (phantom.folder / "tables").exists()
    tables.save_table(real, table, item="table-3", title="Table 3")
    text = (real.folder / "tables" / "table-3.md").read_text()
    assert text.startswith("**Table 3**")
    assert "phantom" not in text


def test_a_figure_is_png_and_svg_with_its_alt_text_and_is_shown(
    phantom, figure, shown
):
    for alt in ("", "A plot.", " " * 30):
        with pytest.raises(ValueError, match="needs alt text"):
            plots.save_figure(phantom, figure, "loss", alt=alt)
    assert shown == []
    first = plots.picture(figure, "svg", ALT)
    assert first == plots.picture(figure, "svg", ALT)
    assert b"dc:date" not in first
    assert b"Software" not in plots.picture(figure, "png", ALT)
    plots.save_figure(phantom, figure, item="figure-3", alt=ALT)
    png = phantom.folder / "figures" / "figure-3.png"
    with Image.open(png) as picture:
        assert min(picture.size) > 300
        assert picture.info["Description"] == ALT
    assert "rises from left" in png.with_suffix(".svg").read_text()
    assert shown[0].alt == ALT
    assert not plt.fignum_exists(figure.number)
    html = plots.as_html(png)
    assert "&lt;&quot;zero&quot;&gt;" in html
    assert 'src="data:image/png;base64,iVBOR' in html


@pytest.mark.parametrize("source", ["phantom", "real"])
def test_a_figure_of_phantoms_says_so_in_its_title(
    request, figure, shown, source
):
    nb = request.getfixturevalue(source)
    note = " (phantom images)" if source == "phantom" else ""
    plots.save_figure(nb, figure, "loss", alt=ALT)
    pictures = [np.zeros((8, 8), np.uint8)] * 5
    grid = plots.show_views(pictures, list("abcde"), "Five views")
    assert sum(len(axis.images) for axis in grid.axes) == 5
    plots.save_figure(nb, grid, "views", alt=ALT)
    for name, title in (("loss", "Loss"), ("views", "Five views")):
        words = (nb.folder / "figures" / f"{name}.svg").read_text()
        assert f">{title}{note}<" in words
        assert f"profile smoke · {source} images" in words
        assert ("phantom" in words) == (source == "phantom")


def test_a_heatmap_of_any_size_covers_the_picture():
    grey = np.zeros((96, 96), np.uint8)
    row = (grey, np.eye(7), pd.Series({"a": 0.1, "b": 0.9}))
    fig = draw.show_heatmaps({"frontal": row, "lateral": row}, "title")
    assert len(fig.axes) == 6
    for axis in (fig.axes[1], fig.axes[4]):
        image, heat = axis.images
        assert tuple(image.get_extent()) == tuple(heat.get_extent())
    plt.close(fig)
