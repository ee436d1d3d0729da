"""What leaves a notebook: stamped, titled, described."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course import plots, run, tables

ALT = 'A line that rises from left to right, from <"zero"> to one.'
TABLE = pd.DataFrame({
    "system": ["a|b", "two\nlines"], "value": [0.123456789, np.nan],
    "n": pd.array([590, None], dtype="Int64")})


@pytest.fixture(params=["phantom", "real"])
def nb(folders, request):
    return run.Run("06_evaluate_reports", "smoke", request.param)


@pytest.fixture
def shown(monkeypatch):
    """What would be shown in the notebook; texts in an SVG stay texts."""
    seen = []
    monkeypatch.setattr("IPython.display.display",
                        lambda _, **more: seen.append(more))
    plots.set_style()
    monkeypatch.setitem(plt.rcParams, "svg.fonttype", "none")
    yield seen
    plt.close("all")


def test_a_table_is_csv_and_markdown_and_says_where_it_comes_from(nb, capsys):
    back = tables.save_table(nb, TABLE, "scores", title="Scores", rows=1)
    header, rule, first, *_, last = back.data.splitlines()
    assert (header, rule) == ("| system | value | n |",
                              "| :--- | ---: | ---: |")
    assert (first, last) == ("| a\\|b | 0.123 | 590 |", "*1 of 2 rows.*")
    assert tables.show(pd.DataFrame({"a": ["<b>"]})).data.endswith(
        "&lt;b&gt; |")
    assert f"runs/{nb.name}/tables/scores.csv" in capsys.readouterr().out
    folder = nb.folder / "tables"
    csv = pd.read_csv(folder / "scores.csv")
    assert csv["value"][0] == 0.123456789  # all digits
    text = (folder / "scores.md").read_text()
    assert text.startswith(f"**Scores{nb.title_note}**")
    assert ("phantom" in text) == (nb.images == "phantom")
    for words in ("| a\\|b | 0.123 | 590 |", "| two lines | – | – |",
                  "profile smoke", "not for diagnosis"):
        assert words in text


def test_phantoms_never_stand_in_a_column_ours_and_xrays_may(nb):
    table = pd.DataFrame({"paper": [0.3], " OURS ": [0.9]})
    if nb.images == "real":
        tables.save_table(nb, table, item="table-3", title="Table 3")
        assert (nb.folder / "tables" / "table-3.md").is_file()
        return
    with pytest.raises(ValueError, match='no column "ours"'):
        tables.save_table(nb, table, item="table-3", title="Table 3")
    assert not (nb.folder / "tables").exists()


def test_a_figure_is_described_stamped_and_shown(nb, shown):
    figure, axis = plots.canvas()
    axis.set_title("Loss")
    for alt in ("", "A plot.", " " * 30):
        with pytest.raises(ValueError, match="needs alt text"):
            plots.picture(figure, "png", alt)
    plots.save_figure(nb, figure, item="figure-3", alt=ALT)
    assert shown[0]["metadata"]["image/png"]["alt"] == ALT
    assert not plt.fignum_exists(figure.number)
    png = nb.folder / "figures" / "figure-3.png"
    with Image.open(png) as picture:
        assert min(picture.size) > 300
        assert picture.info["Description"] == ALT
    html = plots.as_html(png)
    assert "&lt;&#34;zero&#34;&gt;" in html
    assert 'src="data:image/png;base64,iVBOR' in html
    grid = plots.show_views([np.zeros((8, 8))] * 5, "abcde", "Five views")
    plots.save_figure(nb, grid, "views", alt=ALT)
    for name, title in (("figure-3", "Loss"), ("views", "Five views")):
        words = (nb.folder / "figures" / f"{name}.svg").read_text()
        assert "rises from left" in words
        assert f">{title}{nb.title_note}<" in words
        assert f"profile smoke · {nb.images} images" in words
        assert ("phantom" in words) == (nb.images == "phantom")
