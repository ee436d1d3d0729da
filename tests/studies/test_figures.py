"""Figures 1 and 2: what they say is true, and they say it without colour."""

from __future__ import annotations

import draw
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course.run import project_folder
from llamaxr_utils.datasets import reports
from llamaxr_utils.datasets.conditions import NATIVE_ORDER
from llamaxr_utils.studies import rebuild

FIGURES = project_folder() / "figures"


def words_of(figure) -> list[str]:
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    found = [t.get_text() for t in figure.findobj(Text)]
    plt.close(figure)
    return [" ".join(words.split()) for words in found if words.strip()]


# --- Figure 1: the shapes ---------------------------------------------------


def test_the_layers_add_up_to_the_published_8_billion():
    """Of Llama 3.1 8B: 8,030,261,248, embeddings and norms included."""
    linear = sum(a * b for a, b in rebuild.LINEAR.values())
    embeddings = 2 * rebuild.VOCABULARY * rebuild.WIDTH
    norms = (2 * rebuild.LAYERS + 1) * rebuild.WIDTH
    total = rebuild.LAYERS * linear + embeddings + norms
    assert total == 8_030_261_248
    assert rebuild.lora_parameters(16) == rebuild.TRAINABLE == 41_943_040


def test_figure_1_says_the_shapes():
    words = words_of(draw.draw_framework())
    for shape in ("1 × 224 × 224", "1024 × 7 × 7", "1024", "18"):
        assert words.count(shape) == 2, f"{shape}: once a view"
    text = " ".join(words)
    assert "41,943,040 parameters" in text and "6,966,034" in text
    assert "2 × 18 = 36 numbers, frontal first" in text
    assert text.count("(drawn)") == 2


# --- Figure 2: the classes --------------------------------------------------


@pytest.fixture(scope="module")
def committed():
    return pd.read_csv(FIGURES / "data" / "prevalence.csv")


def test_the_committed_counts_are_those_of_the_reports(committed):
    counted = draw.prevalence(reports.load_studies())
    pd.testing.assert_frame_equal(counted, committed, check_dtype=False)


def test_the_alt_text_of_figure_2_is_true(committed):
    by_network = committed.sort_values("network_position")["condition"]
    assert list(by_network) == list(NATIVE_ORDER)
    ranked = committed.sort_values("mesh")["condition"]
    assert set(ranked[:3]) == {"Mass", "Pneumothorax", "Consolidation"}
    assert set(ranked[-3:]) == {"Lung Opacity", "Nodule", "Cardiomegaly"}
    kept = committed["network_position"] == committed["prompt_position"]
    assert kept.sum() == 2  # "only two keep their place"


# --- figures/ ---------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Everything that needs no run; Figures 1 and 2 again; the lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMAXR_RUNS", str(tmp_path_factory.mktemp("none")))
        first, second = (tmp_path_factory.mktemp(n) for n in "ab")
        lines = draw.redraw(first)
        table = pd.read_csv(FIGURES / "data" / "prevalence.csv")
        for name, figure, source in (
            ("figure-1", draw.draw_framework(), "drawn phantoms"),
            ("figure-2", draw.draw_classes(table),
             "data/prevalence.csv"),
        ):
            draw.keep(figure, second / name, draw.ALT[name], source)
    return first, second, lines


def test_the_same_bytes_twice_and_no_date(drawn):
    assert len([p for p in drawn[0].rglob("*") if p.is_file()]) == 7
    again = list(drawn[1].iterdir())
    assert len(again) == 4
    for path in again:
        assert path.read_bytes() == (drawn[0] / path.name).read_bytes()
        if path.suffix == ".svg":
            assert "<dc:date>" not in path.read_text()


def test_every_committed_picture_is_one_of_these_small_and_described():
    stems = {p.relative_to(FIGURES).with_suffix("").as_posix()
             for p in FIGURES.rglob("*") if p.suffix in (".png", ".svg")}
    assert stems == set(draw.ALT)
    for path in FIGURES.rglob("*.png"):
        with Image.open(path) as picture:
            alt = picture.info["Description"]
        assert alt == draw.ALT[
            path.relative_to(FIGURES).with_suffix("").as_posix()]
        assert path.stat().st_size < 150_000, path.name
