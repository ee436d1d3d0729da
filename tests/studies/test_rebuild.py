"""Notebook 11's collection: complete, honest about what is missing."""


import numpy as np
import pandas as pd
import pytest
from conftest import Reader

from llamaxr_utils.course import artifacts, plots, run, runner, tables
from llamaxr_utils.datasets.conditions import NATIVE_ORDER
from llamaxr_utils.evaluation.metrics import METRICS
from llamaxr_utils.studies import audit, rebuild

PAPER = [*(f"figure-{i}" for i in range(1, 5)),
         *(f"table-{i}" for i in range(1, 7))]


def test_every_item_of_the_paper_is_listed_once_and_has_its_cell():
    registry = rebuild.registry()
    assert list(registry["item"]) == PAPER
    for row in registry.itertuples():
        (path,) = (run.project_folder() / "notebooks").glob(
            f"{row.notebook}_*.ipynb")
        assert any(row.tag in cell.metadata.get("tags", [])
                   for cell in runner.read(path).cells), row.tag


def finish(images):
    nb = run.Run("06_evaluate_reports", "cpu", images)
    run.Run("01_explore_data", "cpu", images).save("studies", pd.DataFrame(
        columns=artifacts.ARTIFACTS["studies"].columns))
    nb.save("summary", pd.DataFrame({
        "system": "this run", "protocol": "llamaxr", "split": "r2gen",
        "images": images, "n": 590, "value": 0.43, "low": 0.42,
        "high": 0.44, "note": None, "metric": METRICS}), ["studies"])
    tables.save_table(nb, audit.table_1(), item="table-1", title="Table 1",
                      of_images=False)
    extra = pd.DataFrame({"text": ["<script>alert(1)</script>", "a | b"],
                          "value": [0.5, np.nan]})
    tables.save_table(nb, extra, "extra", title="<b>Extra</b>")
    fig, _ = plots.canvas()
    plots.save_figure(nb, fig, "loss", alt="A line <rising> to the right.")
    nb.finish()
    return nb


@pytest.fixture
def quiet(folders, monkeypatch, capsys):
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    plots.set_style()
    return folders


def test_without_any_run_there_are_counts_and_commands(quiet):
    runs = rebuild.runs_on_disk().set_index("run")
    assert runs.loc["paper", "do"] == "make course PROFILE=paper"
    assert (runs["finished"] == "").all()
    table = rebuild.compare()
    assert list(table["item"].unique())[:-2] == PAPER  # then its sections
    own = table[table["quantity"].str.startswith("LLaMA-XR")]
    assert len(own) == 6 and set(own["verdict"]) == {"not run"}
    exact = table[table["why"] == "counted, exact"]
    assert list(exact["computed here"]) == [3955, 7470, 41_943_040]
    assert set(exact["verdict"]) == {"reproduced"}
    gains = table[table["quantity"].str.startswith("gain in")]
    assert list(gains["paper"]) == [4.34, 54.13]
    assert list(gains["computed here"]) == pytest.approx(
        [4.34, 54.13], abs=0.005)
    assert set(gains["verdict"]) == {"not comparable"}  # two protocols


@pytest.mark.parametrize(("images", "split", "words"), [
    ("phantom", "r2gen", {"not comparable"}),
    ("real", "unknown", {"not comparable"}),
    ("real", "random", {"not comparable"}),
    ("real", "r2gen", {"reproduced", "differs"}),
    ("stale", "r2gen", {"not run"}),
    ("edited", "r2gen", {"not run"})])
def test_a_verdict_needs_xrays_a_split_and_numbers_of_now(
        quiet, images, split, words):
    folder = finish("phantom" if images == "phantom" else "real").folder
    if images == "stale":  # made from other studies than are there now
        (folder / "studies.parquet").write_bytes(b"another")
    if images == "edited":
        text = (folder / "summary.csv").read_text()
        (folder / "summary.csv").write_text(text.replace("0.43", "0.99"))
    table = rebuild.compare(split)
    own = table[table["from"].str.startswith(f"{folder.name} (")]
    own = own.set_index("quantity")
    assert len(own) == 6 and set(own["verdict"]) == words
    assert own.loc["LLaMA-XR: METEOR", "paper"] == 0.336
    if "reproduced" in words:
        assert own.loc["LLaMA-XR: ROUGE-L", "verdict"] == "reproduced"
        assert own.loc["LLaMA-XR: METEOR", "difference"] == 0.43 - 0.336
        shown = rebuild.readable(table)
        assert {"41,943,040", "–", "0.336"} <= set(shown["paper"])
        assert {"+0", "+0.094"} <= set(shown["difference"])
        assert "taking the paper's split" in own["why"].iloc[0]
    else:
        assert own["difference"].isna().all()


def test_the_36_scores_of_figure_4(quiet):
    printed = pd.read_csv(audit.DATA / "figure_4_scores.csv")
    nb = run.Run("02_extract_features", "cpu", "real")
    for shift, backbone, word in (
        (0.0, rebuild.RELEASED, "reproduced"),
        (0.01, rebuild.RELEASED, "differs"),
        (0.0, "densenet-small@iu-train", "not run"),
    ):
        both = [printed["first"], printed["second"] + shift]
        scores = pd.DataFrame(np.array(both), columns=NATIVE_ORDER)
        nb.save("image_scores", scores.assign(
            study_id="CXR24", view=["frontal", "lateral"], backbone=backbone))
        nb.finish()
        table = rebuild.compare().set_index("quantity")
        line = table.loc["36 scores of CXR24, largest difference"]
        assert line["verdict"] == word and np.isnan(line["paper"])


def test_the_page_stands_alone_has_every_item_and_says_the_verdict_first(
        quiet):
    finish("real")
    finish("phantom")
    nb = run.Run("11_rebuild_paper", "cpu", None)
    html = rebuild.page(nb, rebuild.compare())
    page = Reader(html)
    assert page.open == [] and page.pictures
    for picture in page.pictures:
        assert picture["src"].startswith("data:image/png;base64,")
        assert len(picture["alt"]) > 20
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inside) | set(PAPER) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.ids.index("verdict") == 0
    assert html.count(run.WARNING) >= 2
    assert "profile cpu · phantom images" in html  # the stamp
    for text in ("<td>a | b</td>", "&lt;script&gt;alert(1)&lt;/script&gt;",
                 'alt="A line &lt;rising&gt; to the right."'):
        assert text in html
