"""Notebook 11's collection: complete, honest about what is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from llamaxr_utils.course import pages, plots, run, tables
from llamaxr_utils.course.errors import CourseError
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
    found = [t for cell in pages.read(path).cells for t in pages.tags(cell)]
    assert row["tag"] == f"paper:{item}" and row["tag"] in found


def test_committed_files_exist_and_nothing_else_lies_there():
    items = rebuild.registry()
    named = {name for name in items["committed"] if name}
    assert all((ROOT / "figures" / name).is_file() for name in named)
    readme = (ROOT / "figures" / "README.md").read_text("utf-8")
    for path in (ROOT / "figures").rglob("*"):
        if path.is_file() and path.suffix not in (".md", ".pyc"):
            stem = path.relative_to(ROOT / "figures").with_suffix("")
            assert f"{stem.as_posix()}." in readme, path.name


def test_the_status_is_one_of_the_four_words():
    items = rebuild.registry().set_index("item")
    words = {"rebuilt", "quoted", "yours", "needs a GPU run"}
    for status in items["status"]:
        assert set(status.split(", ")) <= words
    # What holds X-rays or report text can't be committed.
    for item in ("table-2", "table-4", "table-5", "table-6"):
        assert "yours" in items.loc[item, "status"]
        assert items.loc[item, "committed"] == ""
    preview = items.loc["figure-3", "committed"]
    assert preview.startswith("preview/")


def test_a_registry_that_is_not_there(tmp_path):
    with pytest.raises(CourseError, match="figures|registry"):
        rebuild.registry(tmp_path / "README.md")


# --- the runs ---------------------------------------------------------------


def summary(value=0.43, low=0.42, high=0.44, system="this run", **terms):
    """Numbers of one system, the same for each metric."""
    row = {"system": system, "protocol": "llamaxr", "split": "r2gen",
           "images": "real", "n": 590, "value": value, "low": low,
           "high": high, "note": None} | terms
    rows = [row | {"metric": metric} for metric in tables.METRICS]
    return pd.DataFrame(rows)


def finish(images, *, numbers=None, extra=None):
    """A finished notebook 06 of profile cpu; the Run."""
    nb = run.Run("06_evaluate_reports", "cpu", images)
    if numbers is not None:
        nb.save("summary", numbers)
    tables.save_table(nb, tables.table_1(), item="table-1", title="Table 1",
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


def test_the_runs_say_what_they_lack(quiet):
    finish("real")
    (quiet / "cache").mkdir()
    runs = rebuild.runs_on_disk().set_index("run")
    assert "cache" not in runs.index
    row = runs.loc["cpu-real"]
    assert row["images"] == "real" and row["finished"] == "06"
    assert row["do"] == "make course FROM=01 TO=10 IMAGES=real"


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
        assert set(found["verdict"]) <= set(tables.VERDICTS)
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


def test_what_another_notebook_measured_of_a_system_counts(quiet):
    """A table with the summary's columns, say of published predictions."""
    other = summary(0.377, 0.37, 0.39, "CvT-DistilGPT2", protocol="r2gen")
    finish("real", extra=other)
    found = rebuild.compare().set_index("quantity")
    line = found.loc["CvT-DistilGPT2: ROUGE-L"]
    assert line["verdict"] == "reproduced"
    assert found.loc["CvT-DistilGPT2: METEOR", "verdict"] == "differs"


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


def test_other_runs_bring_the_papers_items_only(html):
    assert "Run cpu-real, real images" in html
    assert html.count("A line &lt;rising&gt;") == 1
    assert "The same as in run cpu." in html  # Table 1, quoted twice


def test_a_file_changed_by_hand_is_said(quiet):
    nb = finish("phantom")
    path = nb.folder / "tables" / "table-1.md"
    path.write_text(path.read_text().replace("R2Gen", "R3Gen"))
    nb = run.Run("11_rebuild_paper", "cpu", None)
    page = rebuild.page(nb, rebuild.compare())
    assert "Changed since its notebook ran." in page


def test_make_study_always_collects_and_make_figures_draws():
    # Not as a part of the `make test` that may have started this.
    outside = {k: v for k, v in os.environ.items() if k[:4] != "MAKE"}
    done = [
        subprocess.run(["make", "-n", "-o", ".venv/.ready", target,
                        "PROFILE=smoke"], cwd=ROOT, check=True, env=outside,
                       capture_output=True, text=True).stdout
        for target in ("study", "figures")
    ]
    study = done[0].strip().splitlines()
    assert "--from 08 --to 10" in study[0] and "--force" not in study[0]
    assert study[1].endswith("--from 11 --to 11 --force")
    assert all("--profile smoke" in line for line in study)
    assert "figures/draw.py" in done[1]
