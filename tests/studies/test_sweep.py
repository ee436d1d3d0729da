"""Sweeps of the tiny notebooks of fixtures/course; the log of designs."""

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import FIXTURES, keep
from PIL import Image
from scipy import stats

from llamaxr_utils.course import plots, run
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets.conditions import VIEWS
from llamaxr_utils.studies import sweep
from llamaxr_utils.vision import backbones, features

PAGE = Path(__file__).parents[2] / "notebooks" / "score_big_image_sets.md"

POINTS = {"plain": {}, "crop": {"RESIZE": "crop"},
          "paper": {"SCORE_FORMAT": "paper"}, "same": {}}


@pytest.fixture
def grid(tmp_path, monkeypatch, folders):
    shutil.copytree(FIXTURES / "course", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps({
        "profile": "smoke", "first": "02", "last": "03", "points": POINTS}))
    return path


def ran():
    return sorted(json.loads(file.read_text("utf-8"))["notebook"][:2]
                  for file in sweep.home().glob("*/done.json"))


def test_chains_that_begin_alike_share_their_runs(grid):
    table = sweep.sweep(grid)
    assert list(table["point"]) == list(POINTS)
    assert ran() == ["02", "02", "03", "03", "03"]
    nodes = table.set_index("point")["node"]
    assert nodes["same"] == nodes["plain"] != nodes["paper"]
    before = {p: p.stat().st_mtime_ns for p in sweep.home().rglob("*.json")}
    again = sweep.sweep(grid)
    pd.testing.assert_frame_equal(again, table)
    assert before == {p: p.stat().st_mtime_ns
                      for p in sweep.home().rglob("*.json")}
    # Another value of a knob is another run, and its row is not there yet.
    content = json.loads(grid.read_text())
    content["points"]["crop"]["RESIZE"] = "squash"
    grid.write_text(json.dumps(content))
    assert list(sweep.rows(grid)["point"]) == ["plain", "paper", "same"]


def test_a_run_that_fails_is_named_and_the_others_end(grid):
    source = grid.parent / "notebooks" / f"{run.NOTEBOOKS[2]}.ipynb"
    text = source.read_text("utf-8")
    bad = '"if nb.SCORE_FORMAT == \'paper\': raise ValueError(\'ink\')\\n",'
    mark = '"source": ['
    last = text.rindex(mark) + len(mark)
    source.write_text(text[:last] + bad + text[last:])
    crop = '"crop": {"RESIZE": "crop"}, '
    grid.write_text(grid.read_text().replace(crop, ""))
    with pytest.raises(CourseError, match="(?s)1 of 3 runs failed.*ink"):
        sweep.sweep(grid)
    assert list(sweep.rows(grid)["point"]) == ["plain", "same"]


@pytest.mark.parametrize(("content", "words"), [
    ("points: {a: {RANKS: 4}}", "RANKS"), ("", "no grid"),
    ("points: {a: 3}", "no grid"), ("point: {}", "no grid"),
    ("points: [", "no grid"), ("{points: {}, seeds: [a]}", "no grid"),
    ("{points: {}, profile: lap}", "lap"), ("{points: {}, first: 01}", "02"),
    ("{points: {a: {GUIDANCE: 1}}, last: '04'}", "GUIDANCE")])
def test_a_broken_grid_is_named(tmp_path, content, words):
    (tmp_path / "g.yaml").write_text("points: {a: {LEARNING_RATE: 2e-6}}")
    assert sweep.read_grid(tmp_path / "g.yaml").points["a"] == {
        "LEARNING_RATE": 2e-6}
    (tmp_path / "g.yaml").write_text(content)
    with pytest.raises(CourseError, match=words):
        sweep.read_grid(tmp_path / "g.yaml")


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    yield ray.init("local", num_cpus=2, include_dashboard=False,
                   log_to_driver=False)
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_is_replaced_and_each_point_runs_once(grid):
    killed, stop = [], threading.Event()

    def kill_one():
        while not (killed or stop.wait(0.05)):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    kernels = process.children()
                    if process.name().startswith("ray::task") and kernels:
                        process.kill()
                        killed.append(process.pid)
                        break

    thread = threading.Thread(target=kill_one)
    try:
        thread.start()
        assert len(sweep.sweep(grid, "local")) == 4
    finally:
        stop.set()
        thread.join()
    assert killed
    assert ran() == ["02", "02", "03", "03", "03"]


@pytest.mark.usefixtures("cluster")
def test_a_big_image_set_has_the_scores_of_one_machine(
        tmp_path, monkeypatch, model, pictures):
    monkeypatch.chdir(tmp_path)
    rows = []
    for i, grey in enumerate(pictures[0][:24]):
        Image.fromarray(grey).save(tmp_path / f"{i}.png")
        rows.append((f"s{i // 2:02}", VIEWS[i % 2], f"{tmp_path}/{i}.png"))
    (tmp_path / "5.png").write_bytes(b"no image")
    views = pd.DataFrame(rows, columns=["study_id", "view", "path"])
    (tmp_path / "runs" / "t4").mkdir(parents=True)
    views.to_parquet("runs/t4/views.parquet")
    backbones.save(model, tmp_path / "runs" / "t4" / "backbone")
    code = PAGE.read_text("utf-8").split("```python\n")[1].split("```")[0]
    for old, new in (("500", "5"), ('"scores"', f'"{tmp_path}/scores"'),
                     ('WEIGHTS = "', f'WEIGHTS = "{tmp_path}/')):
        code = code.replace(old, new)
    space = {}
    exec(code, space)  # noqa: S102 (our page)
    files = {p: p.stat().st_mtime_ns for p in Path("scores").iterdir()}
    assert len(files) == len(space["parts"]) == 3
    again = space["Scorer"]()
    assert sum(again(part)["studies"] for part in space["parts"]) == 12
    assert files == {p: p.stat().st_mtime_ns for p in Path("scores").iterdir()}
    whole = features.score_views(model, views)
    pd.testing.assert_frame_equal(
        space["scores"].reset_index(drop=True), whole)


def test_a_row_holds_what_was_measured(tmp_path, no_java):
    heart, clear = "The heart is enlarged.", "The lungs are clear."
    studies = pd.DataFrame({
        "study_id": ["a", "b", "c", "d"], "findings": [heart, clear] * 2,
        "mesh": [["Cardiomegaly"], ["normal"]] * 2,
        "status": ["abnormal", "normal"] * 2, "split": "test"})
    keep(tmp_path, "studies", studies)
    numbers = sweep.numbers(tmp_path, studies["study_id"], [heart, clear] * 2)
    assert numbers["f1"] == numbers["abnormal_called"] == 1
    assert numbers["normal_called"] == 0 and numbers["distinct"] == 2
    assert numbers["gap"] == pytest.approx(1 - 1 / 3)


def test_the_interval_over_seeds_is_students():
    table = pd.DataFrame({"point": ["a"] * 3 + ["b"], "run": "cpu",
                          "seed": [1, 2, 3, 1], "gap": [0.1, 0.2, 0.3, 0.15]})
    means = sweep.over_seeds(table).set_index("point")
    half = stats.t.ppf(0.975, 2) * 0.1 / 3**0.5
    assert means.loc["a", "gap_to"] == pytest.approx(0.2 + half)


@pytest.mark.parametrize("name", ["designs", "designs-real"])
def test_a_log_of_designs_is_of_one_commit_and_one_loss_an_adapter(name):
    log = pd.read_csv(plots.figures_data(f"{name}.csv"), dtype=str)
    assert log["commit"].nunique() == 1 and log["commit"][0].isalnum()
    assert (log.groupby("adapter")["val_loss"].nunique() == 1).all()
    grid = sweep.read_grid(run.project_folder() / f"figures/{name}.yaml")
    assert log.dropna(subset="adapter")["point"].value_counts().to_dict() == (
        dict.fromkeys(grid.points, 3))
