"""What leaves a notebook: stamped, titled, described."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course import plots, run, tables
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.evaluation import published

ALT = "A line that rises from left to right, from zero to one."


@pytest.fixture
def phantom(folders, capsys):
    return begin("smoke", None)


@pytest.fixture
def real(folders, capsys):
    return begin("smoke", "real")


def begin(profile, images):
    return run.start("06_evaluate_reports", profile, images)


@pytest.fixture
def shown(monkeypatch):
    """What would be shown in the notebook."""
    seen = []
    monkeypatch.setattr("IPython.display.display", seen.append)
    return seen


@pytest.fixture
def figure():
    import matplotlib.pyplot as plt

    plots.set_style()
    fig, axis = plots.canvas()
    axis.plot([0, 1])
    axis.set_title("Loss")
    yield fig
    plt.close("all")


TABLE = pd.DataFrame(
    {
        "system": ["a|b", "two\nlines"],
        "value": [0.123456789, np.nan],
        "n": pd.array([590, None], dtype="Int64"),
    }
)


# --- tables -----------------------------------------------------------------


def test_a_header_of_two_levels_has_both_names():
    table = pd.DataFrame([["a", 0.1234]])
    table.columns = pd.MultiIndex.from_tuples([("system", ""), ("B", "all")])
    text = tables.markdown(table)
    assert text.splitlines()[0] == "| system | B, all |"
    assert text.splitlines()[2] == "| a | 0.123 |"


def test_a_table_is_csv_and_markdown(phantom, capsys):
    back = tables.save_table(phantom, TABLE, "scores", title="Scores")
    folder = phantom.folder / "tables"
    csv = pd.read_csv(folder / "scores.csv")
    assert csv["value"][0] == 0.123456789  # all digits
    markdown = (folder / "scores.md").read_text()
    assert "| a\\|b | 0.123 | 590 |" in markdown
    assert "| two lines | – | – |" in markdown
    assert back["value"][0] == 0.123
    assert "runs/smoke/tables/scores.csv" in capsys.readouterr().out


def test_a_table_says_where_it_comes_from(phantom):
    tables.save_table(phantom, TABLE, "scores", title="Scores")
    markdown = (phantom.folder / "tables" / "scores.md").read_text()
    assert markdown.startswith("**Scores (phantom images)**")
    for words in ("profile smoke", "phantom images", "not for diagnosis"):
        assert words in markdown


def test_a_table_of_xrays_does_not_say_phantom(real):
    tables.save_table(real, TABLE, "scores", title="Scores")
    markdown = (real.folder / "tables" / "scores.md").read_text()
    assert markdown.startswith("**Scores**")
    assert "phantom" not in markdown


@pytest.mark.parametrize("column", ["ours", "Ours", " OURS "])
def test_phantoms_never_stand_in_a_column_ours(phantom, column):
    table = pd.DataFrame({"paper": [0.3], column: [0.9]})
    with pytest.raises(ValueError, match='no column "ours"'):
        tables.save_table(phantom, table, "table-3", title="Table 3")
    assert not (phantom.folder / "tables").exists()


def test_xrays_may_stand_in_a_column_ours(real):
    table = pd.DataFrame({"paper": [0.3], "ours": [0.2]})
    tables.save_table(real, table, item="table-3", title="Table 3")
    assert (real.folder / "tables" / "table-3.csv").is_file()


def test_tables_are_outputs_of_the_run(phantom):
    tables.save_table(phantom, TABLE, "scores", title="Scores")
    phantom.finish()
    file = phantom.folder / "records" / "06_evaluate_reports.json"
    outputs = json.loads(file.read_text())["outputs"]
    assert {"tables/scores.csv", "tables/scores.md"} <= set(outputs)


def test_the_published_table_has_20_rows():
    table = published.published_results()
    assert len(table) == 20
    assert list(table.columns) == [
        "system", "year", "citation", *published.METRICS,
    ]


# --- figures ----------------------------------------------------------------


@pytest.mark.parametrize("alt", ["", "A plot.", " " * 30])
def test_a_figure_needs_alt_text(phantom, figure, shown, alt):
    with pytest.raises(ValueError, match="needs alt text"):
        plots.save_figure(phantom, figure, "loss", alt=alt)
    assert shown == []
    assert not (phantom.folder / "figures").exists()


def test_a_figure_is_png_and_svg_and_is_shown(phantom, figure, shown):
    import matplotlib.pyplot as plt

    plots.save_figure(phantom, figure, "loss", alt=ALT)
    png = phantom.folder / "figures" / "loss.png"
    svg = phantom.folder / "figures" / "loss.svg"
    with Image.open(png) as picture:
        assert min(picture.size) > 300
    assert svg.read_text().startswith("<?xml")
    assert len(shown) == 1
    assert shown[0].alt == ALT
    assert not plt.fignum_exists(figure.number)


def test_the_alt_text_travels_in_both_files(phantom, figure, shown):
    plots.save_figure(phantom, figure, "loss", alt=ALT)
    folder = phantom.folder / "figures"
    with Image.open(folder / "loss.png") as picture:
        assert picture.info["Description"] == ALT
    assert ALT in (folder / "loss.svg").read_text()


def svg_words(nb, figure, monkeypatch, **options):
    """The text in a figure's SVG, as text."""
    import matplotlib.pyplot as plt

    monkeypatch.setitem(plt.rcParams, "svg.fonttype", "none")
    plots.save_figure(nb, figure, "loss", alt=ALT, **options)
    return (nb.folder / "figures" / "loss.svg").read_text()


def test_a_figure_of_phantoms_says_so_in_its_title(
    phantom, figure, shown, monkeypatch
):
    words = svg_words(phantom, figure, monkeypatch)
    assert "Loss (phantom images)" in words
    assert "profile smoke" in words


@pytest.mark.parametrize("place", ["left", "center", "right"])
def test_the_title_is_kept_wherever_it_stands(
    phantom, shown, monkeypatch, place
):
    import matplotlib.pyplot as plt

    with plt.rc_context({"axes.titlelocation": "center"}):
        fig, axis = plots.canvas()
        axis.set_title("Loss", loc=place)
        words = svg_words(phantom, fig, monkeypatch)
    assert "Loss (phantom images)" in words


def test_the_title_over_several_panels_says_so_too(
    phantom, shown, monkeypatch
):
    fig = plots.show_views(
        [np.zeros((8, 8), np.uint8)] * 2, ["one", "two"], "Two views"
    )
    words = svg_words(phantom, fig, monkeypatch)
    assert "Two views (phantom images)" in words
    assert ">one<" in words


def test_a_figure_of_xrays_does_not_say_phantom(
    real, figure, shown, monkeypatch
):
    words = svg_words(real, figure, monkeypatch)
    assert "phantom" not in words
    assert "real images" in words


def test_the_paper_item_names_the_file(phantom, figure, shown):
    plots.save_figure(phantom, figure, item="figure-3", alt=ALT)
    assert (phantom.folder / "figures" / "figure-3.png").is_file()


def test_views_are_shown_as_many_as_there_are(phantom, shown):
    fig = plots.show_views(
        [np.zeros((8, 8), np.uint8)] * 5, list("abcde"), "Five", columns=4
    )
    assert len(fig.axes) == 8
    assert sum(len(axis.images) for axis in fig.axes) == 5


def test_the_loss_curve_has_a_line_a_split():
    log = pd.DataFrame(
        {
            "step": [1, 2, 2],
            "split": ["train", "train", "val"],
            "loss": [3.0, 2.0, 2.5],
        }
    )
    axis = plots.loss_curve(log, "Loss").axes[0]
    assert [len(line.get_xdata()) for line in axis.lines] == [2, 1]
    alone = plots.loss_curve(log[log["split"] == "train"], "Loss").axes[0]
    assert len(alone.lines) == 1


def test_small_logs_are_found_or_named():
    with pytest.raises(CourseError, match="figures/data/nothing"):
        plots.figures_data("nothing.csv")


def test_progress_says_the_end(capsys):
    show = plots.progress(every=1000)
    show(1, 3)
    show(3, 3)
    assert capsys.readouterr().out.startswith("3 of 3")


# --- one look ---------------------------------------------------------------

#: What is left of linear red, green, blue without one kind of cone (Machado
#: et al. 2009, severity 1: protanopia, deuteranopia, tritanopia).
WITHOUT_CONES = {
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
              [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779],
             [-0.078411, 0.930809, 0.147602],
             [0.004733, 0.691367, 0.303900]],
}


def lab(linear):
    """CIE L*a*b* (D65) of linear sRGB colours, shape (n, 3)."""
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
              [0.0193, 0.1192, 0.9505]]
    xyz = np.clip(linear, 0, 1) @ np.array(matrix).T
    f = np.cbrt(np.maximum(xyz / (0.9505, 1, 1.089), 0.008856))
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("missing", WITHOUT_CONES)
def test_the_first_four_colours_differ_for_every_kind_of_eye(missing):
    import seaborn as sns

    colours = np.array(sns.color_palette(plots.PALETTE)[:4])
    linear = np.where(colours <= 0.04045, colours / 12.92,
                      ((colours + 0.055) / 1.055) ** 2.4)
    seen = lab(linear @ np.array(WITHOUT_CONES[missing]).T)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    # 2.3 is just noticeable; matplotlib's own first four come down to 5.
    assert apart[np.triu_indices(4, 1)].min() > 12


def test_a_picture_has_no_date_and_no_program_in_it(figure):
    for suffix in ("svg", "png"):
        first = plots.picture(figure, suffix, ALT)
        assert first == plots.picture(figure, suffix, ALT)
        assert b"dc:date" not in first and b"Software" not in first


def test_a_picture_as_html_has_its_alt_text(phantom, figure, shown):
    plots.save_figure(phantom, figure, "loss", alt=ALT + ' <"quoted">')
    html = plots.as_html(phantom.folder / "figures" / "loss.png")
    assert "&lt;&quot;quoted&quot;&gt;" in html
    assert 'src="data:image/png;base64,iVBOR' in html


def test_a_refused_figure_keeps_its_title(phantom, figure, shown):
    with pytest.raises(ValueError, match="alt"):
        plots.save_figure(phantom, figure, "loss", alt="short")
    assert figure.axes[0].get_title("left") == "Loss"


def test_a_heatmap_of_any_size_covers_the_picture():
    import matplotlib.pyplot as plt

    grey = np.zeros((96, 96), np.uint8)
    row = (grey, np.eye(7), pd.Series({"a": 0.1, "b": 0.9}))
    fig = plots.show_heatmaps({"frontal": row, "lateral": row}, "title")
    assert len(fig.axes) == 6
    for axis in (fig.axes[1], fig.axes[4]):
        image, heat = axis.images
        assert tuple(image.get_extent()) == tuple(heat.get_extent())
    plt.close(fig)
