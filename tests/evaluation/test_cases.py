"""Reports side by side: outcomes, remarks, the case page; its last test opens
the page in Chromium, and is skipped without one."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from llamaxr_utils.datasets.conditions import CONDITIONS, VIEWS
from llamaxr_utils.evaluation import cases

REFERENCE = "The heart is enlarged. No pleural effusion. No pneumothorax."
FIRST = "The heart is enlarged. There is no pleural effusion."
SECOND = "The heart is normal. No effusion. There is a rib fracture."


def test_what_two_states_are_to_each_other():
    states = ["present", "uncertain", "absent", None]  # of the reference
    expected = [["agree", "agree", "contradicts", "missed"],
                ["agree", "agree", "contradicts", "missed"],
                ["contradicts", "contradicts", "agree", ""],
                ["added", "added", "", ""]]
    assert [[cases.outcome(a, b) for b in states] for a in states] == expected


@pytest.mark.parametrize(("named", "remark"), [
    (["Pneumothorax"], cases.SUPPORTED), (["Edema"], cases.UNSUPPORTED),
    (None, cases.UNSUPPORTED)])
def test_findings_of_two_texts_and_the_support_of_an_added_one(named, remark):
    table = cases.findings_table(
        "The heart is enlarged. No pleural effusion. There is a fracture.",
        "The heart is enlarged. There is a pleural effusion. "
        "There is a pneumothorax.", named)
    assert table.to_numpy().tolist() == [
        ["Cardiomegaly", "present", "present", "agree", "agree"],
        ["Pneumothorax", "", "present", "added", remark],
        ["Pleural Effusion", "absent", "present", "contradicts",
         "contradicts"],
        ["Fracture", "present", "", "missed", "missed"]]
    # "mass" and "nodule" are both a lung lesion
    lesion = cases.remark("added", "Lung Lesion", ["Nodule"])
    assert lesion == cases.SUPPORTED


def test_green_is_right_in_one_system_and_the_strongest_outcome_stands():
    words = cases.outcomes(REFERENCE, {"a": FIRST, "b": SECOND})
    assert words == {
        # both deny an effusion; a denial left unsaid is none
        "a": {"Cardiomegaly": "only", "Pleural Effusion": "agree"},
        "b": {"Cardiomegaly": "contradicts", "Pleural Effusion": "agree",
              "Fracture": "added"}}
    parts = cases.marked(
        "There is a fracture and cardiomegaly. Lungs are clear.",
        {"Fracture": "added", "Cardiomegaly": "only"})
    assert parts == [
        ("There is a fracture and cardiomegaly.", "added", ["Fracture"]),
        ("Lungs are clear.", "", [])]
    text = "No fracture on the left. There is a fracture on the right."
    assert [names for _, names in cases.decisive(text)] == [[], ["Fracture"]]


# study, status, reference, generated, score of Fracture in the frontal view
STUDIES = [
    ("CXR7", "abnormal", "The heart is enlarged.", "The lungs clear.", 0.2),
    ("CXR12", "normal", "The lungs are clear.", "There is a fracture.", 0.9),
    ("CXR3", "normal", "The lungs are clear.", "The lungs are clear.", 0.4),
]


def table(rows=STUDIES):
    columns = ["study_id", "status", "reference", "generated", "score"]
    return pd.DataFrame(rows, columns=columns).assign(
        mesh=[["normal"]] * len(rows), **{"BLEU-4": 0.1, "ROUGE-L": 0.2},
        METEOR=np.linspace(0.1, 0.9, len(rows)))


def write(path, rows=None, **changed):
    rows = table() if rows is None else rows
    both = pd.MultiIndex.from_product([rows["study_id"], VIEWS])
    scores = pd.DataFrame(0.1, both, CONDITIONS)
    scores["Fracture"] = rows["score"].repeat(2).to_numpy()
    scores.loc[(slice(None), "lateral"), :] = float("nan")
    options = {
        "scores": scores, "points": dict.fromkeys(CONDITIONS, 0.5),
        "views": pd.DataFrame(columns=["study_id", "view", "path"]),
        "heatmaps": path.parent / "heat", "title": "Cases", "stamp": "a stamp",
    }
    systems = {"this run": list(rows["generated"])}
    cases.write_page(path, rows, systems, **options | changed)
    return path.read_text("utf-8")


def content(page):
    begin = page.index('id="data">') + len('id="data">')
    return json.loads(page[begin : page.index("</script>", begin)])


def test_the_page_stands_alone_and_shows_a_study(tmp_path):
    page = write(tmp_path / "cases.html")
    assert not re.search(r"https?://|@import|url\(|{{| src=| href=", page)
    assert page.count("not for diagnosis") == 2
    first, second, _ = content(page)["studies"]
    assert first["scores"].keys() == {"frontal"}  # the lateral one is NaN
    assert first["texts"][0] == [
        ["The heart is enlarged.", "missed", ["Cardiomegaly"]]]
    assert second["named"] == [CONDITIONS.index("Fracture")]
    row = next(r for r in second["findings"] if r[0] == "Fracture")
    assert row[2:] == ["added", cases.SUPPORTED]


def test_images_and_heatmaps_are_inside(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMAXR_DATA", str(tmp_path))
    Image.linear_gradient("L").save(tmp_path / "large.png")
    (tmp_path / "heat").mkdir()
    note = PngImagePlugin.PngInfo()
    note.add_text("Description", "Edema")
    Image.new("RGB", (128, 128), "red").save(
        tmp_path / "heat" / "CXR7_frontal.png", pnginfo=note)
    views = pd.DataFrame(
        [("CXR7", "frontal", "large.png"), ("CXR7", "lateral", "large.png"),
         ("CXR99", "frontal", "large.png"), ("CXR12", "frontal", "gone")],
        columns=["study_id", "view", "path"])
    page = write(tmp_path / "c.html", views=views)
    first, second, _ = content(page)["studies"]
    assert first["heatof"] == {"frontal": "Edema"}
    assert second["img"] == second["heat"] == {}
    frontal, lateral = first["img"].values()
    for image in (frontal, lateral, first["heat"]["frontal"]):
        assert image.startswith("data:image/jpeg;base64,")
        assert len(image) < 8_000


@pytest.fixture
def open_page(tmp_path):
    """Write a page and open it; fails on a request, an error, a dialog."""
    driver = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("no Chromium: the case page is not opened")
    trouble = []

    def opened(rows=None):
        write(tmp_path / "cases.html", rows)
        page = browser.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on("request", lambda request: trouble.append(request.url)
                if not request.url.startswith(("file:", "data:")) else None)
        page.goto(f"file://{tmp_path / 'cases.html'}")
        page.wait_for_selector("html[data-ready=yes]")
        return page

    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update"]
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=quiet)
        yield opened
        browser.close()
    assert trouble == []


def listed(page):
    """The studies in the list; also rows that no frame has drawn yet, whose
    inner text is empty (content-visibility)."""
    rows = page.locator("#list button")
    return rows.evaluate_all("all => all.map(row => row.firstChild.data)")


def test_order_keyboard_filters_and_marks(open_page):
    page = open_page()
    page.keyboard.press("j")
    assert page.locator("main h2").inner_text() == "CXR7"
    page.select_option("#order", "METEOR, highest first")
    assert listed(page) == ["CXR3", "CXR12", "CXR7"]
    page.click("[data-verdict=missed]")
    page.click("[data-verdict=added]")  # any of the two
    assert listed(page) == ["CXR12", "CXR7"]
    page.select_option("#finding", "Fracture")
    assert listed(page) == ["CXR12"]
    page.click("#reset")
    page.select_option("#status", "normal")
    page.select_option("#condition", "Fracture")
    page.fill("#least", "0.5")
    assert listed(page) == ["CXR12"]
    mark = page.locator("main mark.added")
    assert mark.inner_text() == "+There is a fracture."
    assert cases.SUPPORTED in page.inner_text("main table")
    page.fill("#word", "jk")
    assert "No study has all of this" in page.inner_text("main")
