"""Notebook 11's collection: complete, honest about what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course import plots, run, runner, tables
from llamaxr_utils.evaluation import published
from llamaxr_utils.studies import rebuild

ROOT = run.project_folder()
#: All that the paper has.
PAPER = [f"figure-{i}" for i in (1, 2, 3, 4)]
PAPER += [f"table-{i}" for i in (1, 2, 3, 4, 5, 6)]


# --- the registry -----------------------------------------------------------


def test_no_item_of_the_paper_is_missing_or_twice():
    assert list(rebuild.registry()["item"]) == PAPER


@pytest.mark.parametrize("item", PAPER)
def test_the_cell_of_an_item_exists(item):
    row = rebuild.registry().set_index("item").loc[item]
    (path,) = (ROOT / "notebooks").glob(f"{row['notebook']}_*.ipynb")
    cells = runner.read(path).cells
    found = [tag for cell in cells for tag in cell.metadata.get("tags", [])]
    assert row["tag"] == f"paper:{item}" and row["tag"] in found


# --- the runs ---------------------------------------------------------------


def summary(value=0.43, low=0.42, high=0.44, system="this run", **terms):
    """Numbers of one system, the same for each metric."""
    row = {"system": system, "protocol": "llamaxr", "split": "r2gen",
           "images": "real", "n": 590, "value": value, "low": low,
           "high": high, "note": None} | terms
    rows = [row | {"metric": metric} for metric in published.METRICS]
    return pd.DataFrame(rows)


def finish(images, *, numbers=None, extra=None):
    """A finished notebook 06 of profile cpu; the Run."""
    nb = run.Run("06_evaluate_reports", "cpu", images)
    if numbers is not None:
        nb.save("summary", numbers)
    tables.save_table(nb, published.table_1(), item="table-1", title="Table 1",
                      of_images=False)
    if extra is not None:
        tables.save_table(nb, extra, "extra", title="<b>Extra</b>")
    fig, axis = plots.canvas()
    axis.plot([0, 1])
    plots.save_figure(nb, fig, "loss", alt="A line <rising> to the right.")
    nb.finish()
    return nb


@pytest.fixture
def quiet(folders, monkeypatch, capsys):
    """Folders of its own, nothing shown."""
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    plots.set_style()
    return folders


def test_without_any_run_everything_has_its_command(quiet):
    runs = rebuild.runs_on_disk().set_index("run")
    assert runs.loc["paper", "do"] == "make course PROFILE=paper"
    assert (runs["finished"] == "").all()
    found = rebuild.compare()
    assert set(found["item"]) == set(PAPER)
    own = found[found["quantity"].str.startswith("LLaMA-XR")]
    assert len(own) == 6 and set(own["verdict"]) == {"not run"}
    missing = found[found["verdict"] == "not run"]
    assert missing["why"].str.startswith("make course").all()


def test_counts_and_arithmetic_are_checked_exactly(quiet):
    found = rebuild.compare().set_index(["item", "quantity"])
    for key in (("figure-1", "trainable parameters"), ("table-2", "reports"),
                ("table-2", "images")):
        line = found.loc[key]
        assert line["verdict"] == "reproduced" and line["difference"] == 0
    gain = found.loc[("table-3", "gain in METEOR, %")]
    assert gain["computed here"] == pytest.approx(54.13, abs=0.005)
    assert gain["verdict"] == "not comparable"  # two protocols


@pytest.mark.parametrize(
    ("images", "split", "words"),
    [
        ("phantom", "r2gen", {"not comparable"}),
        ("real", "unknown", {"not comparable"}),
        ("real", "random", {"not comparable"}),
        ("real", "r2gen", {"reproduced", "differs"}),
    ],
)
def test_a_verdict_needs_xrays_and_a_split(quiet, images, split, words):
    finish(images, numbers=summary(images=images))
    found = rebuild.compare(split)
    name = "cpu" if images == "phantom" else "cpu-real"
    own = found[found["from"].str.startswith(f"{name} ({images} ")]
    own = own[own["item"] == "table-3"]
    assert len(own) == 6 and set(own["verdict"]) == words
    by = own.set_index("quantity")
    assert by.loc["LLaMA-XR: METEOR", "paper"] == 0.336
    if words == {"reproduced", "differs"}:
        assert by.loc["LLaMA-XR: ROUGE-L", "verdict"] == "reproduced"
        assert set(found["verdict"]) <= set(published.VERDICTS)
        shown = rebuild.readable(found)
        assert {"41,943,040", "–", "0.336"} <= set(shown["paper"])
        assert "+0" in set(shown["difference"])
        assert "taking the paper's split" in by["why"].iloc[0]
    else:
        assert own["difference"].isna().all()


def test_numbers_out_of_date_are_not_taken(quiet):
    nb = finish("real", numbers=summary())
    path = nb.folder / "summary.csv"
    path.write_text(path.read_text().replace("0.43", "0.99"))
    found = rebuild.compare("r2gen")
    own = found[found["from"].str.startswith("cpu-real (")]
    assert set(own["verdict"]) == {"not run"}


def test_a_missing_input_is_no_objection_another_one_is(quiet):
    """An adapter left on Colab; one that was trained again since."""
    nb = finish("real", numbers=summary())
    path = nb.folder / "summary.json"
    record = json.loads(path.read_text()) | {"inputs": {"training_log": "0"}}
    path.write_text(json.dumps(record))
    assert rebuild._artifact("cpu-real", "summary") is not None
    (nb.folder / "training_log.csv").write_text("step\n")
    assert rebuild._artifact("cpu-real", "summary") is None


def test_the_36_scores_of_figure_4(quiet):
    from llamaxr_utils.datasets.conditions import NATIVE_ORDER

    printed = pd.read_csv(rebuild.DATA / "figure_4_scores.csv")
    nb = run.Run("02_extract_features", "cpu", "real")
    for shift, word in ((0.0, "reproduced"), (0.01, "differs")):
        scores = pd.DataFrame(
            [printed["first"], printed["second"] + shift]
        ).set_axis(list(NATIVE_ORDER), axis=1)
        scores = scores.assign(study_id="CXR24", view=["frontal", "lateral"],
                               backbone="densenet121-res224-all")
        nb.save("image_scores", scores)
        nb.finish()
        found = rebuild.compare().set_index("quantity")
        line = found.loc["36 scores of CXR24, largest difference"]
        assert line["verdict"] == word
    nb.save("image_scores", scores.assign(backbone="densenet-small@iu-train"))
    found = rebuild.compare().set_index("quantity")
    line = found.loc["36 scores of CXR24, largest difference"]
    assert line["verdict"] == "not run"


# --- the page ---------------------------------------------------------------


class Reader(HTMLParser):
    """Tags that stay open, pictures without alt text, ids, links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.bad, self.ids, self.links = [], [], [], []
        self.sources, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.names.add(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            self.sources.append(values["src"])
            if len(values.get("alt") or "") < 20:
                self.bad.append(values)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def html(quiet):
    extra = pd.DataFrame({"text": ["<script>alert(1)</script>", "a | b"],
                          "value": [0.5, np.nan]})
    finish("real", numbers=summary())
    finish("phantom", extra=extra)
    nb = run.Run("11_rebuild_paper", "cpu", None)
    return rebuild.page(nb, rebuild.compare())


def test_the_page_stands_alone(html):
    page = Reader(html)
    assert page.open == [] and page.bad == []
    assert page.sources
    assert all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert not page.names & {"script", "link", "iframe", "object"}
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//|url\(|@import", html)
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inside) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_the_page_has_every_item_and_says_the_verdict_first(html):
    for item in PAPER:
        assert f'<section id="{item}">' in html
    place = html.index
    assert place("id=verdict") < place("id=runs") < place("id=items")
    assert html.count(run.WARNING) >= 2
    assert "profile cpu · phantom images" in html  # the stamp
    for words in ("prefers-color-scheme: dark", "@media print"):
        assert words in html
    assert "make course PROFILE=paper" in html


def test_text_from_tables_is_only_text(html):
    assert "<script" not in html and "<b>Extra</b>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<td>a | b</td>" in html
    assert 'alt="A line &lt;rising&gt; to the right."' in html
