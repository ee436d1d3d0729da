"""Texts that would like to be markup, in every place of every page."""

import base64
import hashlib
import re
import shutil
from html import escape
from types import SimpleNamespace

import draw
import numpy as np
import pandas as pd
import pytest
from conftest import Reader, run_cells
from evaluation.test_cases import table, write
from nbformat import v4
from studies.test_report import a_draft

from llamaxr_utils.course import plots, tables
from llamaxr_utils.datasets.conditions import VIEWS
from llamaxr_utils.studies import rebuild, report

HOSTILE = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>",
    "'><svg onload=alert(1)>", "[x](javascript:alert(1))",
    "<a href=javascript:alert(1)>x</a>", "![x](//example.org/x.png)",
    "{{ 7 * 7 }}", "{% raw %}", "</style><b>", "</script><b>", "<!--", "-->",
    "&#x3c;script>alert(1)&#x3c;/script>", "]]>", "\u202e<b>\u2066\u200f",
    "\x00<\x1b[31m\x07b>\x85\u2028", "$\\text{<img src=x onerror=alert(1)>}$",
    "$\\href{javascript:alert(1)}{x}$", "` onmouseover=alert(1) x=`", "<B/>",
    "|<i>|", "\\<b style=color:red>", "&lt;b onclick=alert(1)&gt;")


def shape(page):
    """Elements and attributes; none that acts."""
    read = Reader(page)
    assert not [a for a in read.attributes if a.startswith(("on", "style"))]
    assert not [link for link in read.links if link.startswith("javascr")]
    return read.tags, read.attributes


def draft(text, folder):
    told = a_draft(text)._replace(
        prompt=text, caveats=[(text, text)], facts={text: text})
    report.write_page(told, folder / "page.html")


def cases(text, folder):
    rows = table([(text, text, text, text, 0.1)]).assign(mesh=[[text]])
    page = write(folder / "page.html", rows, title=text, stamp=text)
    assert not re.search(r"\x1b|\u2028|\\u(?:001b|2028)", page)


def picture(text, folder):
    figure, _ = plots.canvas(1, 1)
    content = plots.picture(figure, "png", f"{text} and a line that rises")
    (folder / "a.png").write_bytes(content)
    return plots.as_html(folder / "a.png")


def index(text, folder):
    record = SimpleNamespace(images=text, seconds=1.0, outputs={
        f"figures/{text}.png": "", f"tables/{text}.csv": ""})
    head = f"\n# {text}\n\n**{text}**"
    shown = picture(text.replace("\x00", ""), folder)
    report._write(folder / "page.html", "index.html", name=text,
                  numbers=np.array([[text, 0.5, text]], object),
                  notebooks=[(text, head, record)] * 7,
                  files=set(record.outputs), picture=lambda _: shown)


def reproduction(text, folder):
    frame = pd.DataFrame({text: [text]})
    output = {"name": text, "notebook": text, "changed": True, "title": text,
              "table": frame, "stamp": text}
    item = {"item": text, "title": text, "status": text, "notebook": text,
            "tag": text, "drawn": "", "outputs": [output]}
    page = rebuild.PAGES.get_template("reproduction.html").render(
        run=text, stamp=text, titles=[text], items=[item, item | {
            "outputs": []}], marks={"a": "b"}, counts={}, verdicts=frame,
        runs=frame, rest=[output])
    (folder / "page.html").write_text(page, "utf-8")


def slides(_text, folder):  # written by hand; after a change: new hashes
    shutil.copyfile(draw.FOLDER / "slides.html", folder / "page.html")


PLACES = [cases, draft, index, reproduction]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("page", [*PLACES, slides])
def test_a_text_adds_no_element_and_no_attribute(tmp_path, page, text):
    shapes = []
    for content in ("word", text):
        page(content, tmp_path)
        shown = (tmp_path / "page.html").read_text("utf-8")
        shapes.append(shape(shown))
        (policy,) = re.findall("Policy content=\"(.*?)\"", shown)
        blocks = re.findall("(?s)<(?:style|script)>(.*?)</", shown)
        for block in blocks:
            digest = hashlib.sha256(block.encode()).digest()
            assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
        assert policy.count("'sha256-") == len(blocks)
        assert "unsafe" not in policy and "default-src 'none'" in policy
    assert shapes[0] == shapes[1]


def as_page(*outputs):
    """A notebook with these outputs, as the results show it."""
    cells = [v4.new_code_cell("1", outputs=[
        v4.new_output("display_data", output)]) for output in outputs]
    return report.without_script(v4.new_notebook(cells=cells))


def raw(text):
    """What no cell of the course would print unescaped."""
    return as_page({"text/html": text}, {"text/markdown": text},
                   {"text/plain": text})


def shown_table(text):
    frame = pd.DataFrame({text: [text, "word"]})
    return as_page({"text/markdown": tables.show(frame).data})


def token_by_token(text):
    space = run_cells("04-mask-picture", HTML=str, pairs=pd.DataFrame(
        {"split": ["train"], "prompt": "p", "completion": "c"}), escape=escape,
        tokenizer=type("T", (), {
            "__call__": lambda *a, **k: {"input_ids": [1]},
            "batch_decode": lambda self, ids: [text]})())
    return as_page({"text/html": space["shown"]})


def beside(text):
    space = run_cells(
        "07-02", "07-21b", "07-21c", nb=None, other="a",
        chosen=pd.DataFrame({"study_id": [text], "reference": text}),
        systems=pd.DataFrame({"a": text, "this run": f"A fracture. {text}"},
                             index=[text]))
    return as_page({"text/html": space["tables_beside"](
        "a", "table-5", "Table").data})


def strip(text):
    """One dose that changes a report: what is new and gone is marked."""
    quiet = pd.DataFrame(0.0, VIEWS, ["Edema"])
    common = pd.DataFrame({"train_prevalence": [0.1]}, ["Edema"])
    pages = []

    def write(scores):
        dosed = scores[0].to_numpy().all()
        return [f"{text} edema." if dosed else f"Cardiomegaly {text}"]

    run_cells("09-33", **run_cells("09-02") | {
        "write": write, "own_scores": [quiet], "HTML": pages.append,
        "status": ["normal"], "points": common,
        "nb": SimpleNamespace(stamp=text)})
    assert "0.00 → 1" in pages[0] and "not for diagnosis" in pages[0]
    assert "<mark>" in pages[0] and "<del>" in pages[0]
    return as_page({"text/html": pages[0]})


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("page", [
    raw, shown_table, token_by_token, beside, strip])
def test_no_notebook_runs_or_fetches_a_text(page, text, monkeypatch):
    monkeypatch.setattr(tables, "save_table", lambda *a, **k: None)
    assert page is raw or shape(page("word")) == shape(page(text))
    assert "script" not in shape(page(text))[0]


@pytest.mark.parametrize("page", PLACES)
def test_a_browser_runs_none_of_them(tmp_path, page):
    driver = pytest.importorskip("playwright.sync_api")
    page(" ".join(HOSTILE), tmp_path)
    said = []
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.goto(f"file://{tmp_path / 'page.html'}")
        assert tab.evaluate("getComputedStyle(document.body).margin") == "0px"
        browser.close()
    assert not said
