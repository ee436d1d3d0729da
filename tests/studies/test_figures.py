"""Figures 1 and 2: what they say is true, and they say it without colour."""

import draw
import pandas as pd
from PIL import Image

from llamaxr_utils.course.run import project_folder
from llamaxr_utils.datasets import reports
from llamaxr_utils.datasets.conditions import NATIVE_ORDER

FIGURES = project_folder() / "figures"
COMMITTED = pd.read_csv(FIGURES / "data" / "prevalence.csv")


def test_the_counts_and_the_alt_text_of_figure_2_are_true():
    counted = draw.prevalence(reports.load_studies())
    pd.testing.assert_frame_equal(counted, COMMITTED, check_dtype=False)
    by_network = COMMITTED.sort_values("network_position")["condition"]
    assert list(by_network) == list(NATIVE_ORDER)
    ranked = COMMITTED.sort_values("mesh")["condition"]
    assert set(ranked[:3]) == {"Mass", "Pneumothorax", "Consolidation"}
    assert set(ranked[-3:]) == {"Lung Opacity", "Nodule", "Cardiomegaly"}
    kept = COMMITTED["network_position"] == COMMITTED["prompt_position"]
    assert kept.sum() == 2  # "only two keep their place"


def test_the_same_bytes_twice_and_no_date(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMAXR_RUNS", str(tmp_path / "none"))
    draw.redraw(tmp_path)
    first = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert len(first) == 11
    draw.keep(draw.draw_framework(), tmp_path / "figure-1",
              draw.ALT["figure-1"], "drawn phantoms")
    assert first == {p: p.read_bytes() for p in first}
    assert not any(b"<dc:date>" in content for content in first.values())


def test_every_committed_picture_is_one_of_these_and_described():
    stems = {p.relative_to(FIGURES).with_suffix("").as_posix()
             for p in FIGURES.rglob("*") if p.suffix in (".png", ".svg")}
    assert stems == set(draw.ALT)
    for stem in stems:
        path = FIGURES / f"{stem}.png"
        with Image.open(path) as picture:
            assert picture.info["Description"] == draw.ALT[stem]
