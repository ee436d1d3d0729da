"""Images to 18 scores a view; the range trap; AUC; unfinished work."""

import numpy as np
import pandas as pd
import pytest
from conftest import run_cells
from PIL import Image

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import images
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER, VIEWS
from llamaxr_utils.vision import backbones, features

SMALL = "densenet-small@phantom"
NAMES = list(CONDITIONS)


@pytest.fixture
def views(data):
    """Three studies: both views; frontal only; a file that is no image."""
    rng = np.random.default_rng(1)
    for name, light in (("a_f", 150), ("a_l", 100), ("b_f", 0)):
        grey = rng.integers(0, 80, (64, 80))
        grey[32:, 10:] += light  # what `model` was taught, off the centre
        Image.fromarray(grey.astype(np.uint8)).save(data / f"{name}.png")
    (data / "c_f.png").write_bytes(b"no image")
    rows = [("CXR9", "frontal", "a_f.png"), ("CXR9", "lateral", "a_l.png"),
            ("CXR2", "frontal", "b_f.png"), ("CXR5", "frontal", "c_f.png")]
    return pd.DataFrame(rows, columns=["study_id", "view", "path"])


def test_one_row_a_view_and_nan_for_what_is_missing(model, views):
    scores = features.score_views(model, views)
    rows = [(study, view) for study in ("CXR9", "CXR2", "CXR5")
            for view in ("frontal", "lateral")]
    assert list(zip(scores["study_id"], scores["view"])) == rows
    missing = scores[NAMES].isna()
    assert missing.all(axis=1).tolist() == [False] * 3 + [True] * 3
    assert set(scores["backbone"]) == {SMALL}
    assert [path for path, _ in scores.attrs["unreadable"]] == ["c_f.png"]
    # They belong to their picture and their name.
    grey = images.read_grey(images.locate("b_f.png"), model.resolution)
    outputs = backbones.predict(model, grey[None])[0]
    row = scores[scores["study_id"] == "CXR2"].iloc[0]
    by_name = row[list(NATIVE_ORDER)].astype(float)
    assert by_name.to_numpy() == pytest.approx(outputs, abs=1e-5)
    cropped = features.score_views(model, views, "crop")
    assert not np.allclose(scores.loc[:2, NAMES], cropped.loc[:2, NAMES])


@pytest.mark.parametrize("factor", [1 / 1024, 0])
def test_the_wrong_range_is_not_scored(model, views, monkeypatch, factor):
    """Pixels in [-1, 1] (torchxrayvision issue 89); scores all the same."""
    right = images.to_model_range
    monkeypatch.setattr(
        backbones, "to_model_range", lambda grey: right(grey) * factor)
    if not factor:  # what the range's own check would not see
        monkeypatch.setattr(backbones, "check_range", lambda _: None)
    with pytest.raises(CourseError) as caught:
        features.score_views(model, views)
    assert "issue 89" in caught.value.why


def test_scores_of_files(model, views, data, tmp_path):
    backbones.save(model, tmp_path / "backbone")
    paths = [data / "a_f.png", data / "b_f.png"]
    table = features.score_images(paths, weights=tmp_path / "backbone")
    expected = features.score_views(model, views)
    assert table["Edema"][1] == pytest.approx(expected["Edema"][2], abs=1e-5)


def test_a_killed_scoring_goes_on(
    model, pictures, data, tmp_path, monkeypatch
):
    part, names = tmp_path / "part.parquet", [f"{i}.png" for i in range(40)]
    for name, grey in zip(names, pictures[0]):
        Image.fromarray(grey).save(data / name)
    (data / "5.png").write_bytes(b"no image")
    views = pd.DataFrame({"study_id": names, "view": "frontal", "path": names})
    whole = features.score_views(model, views, batch_size=4)
    monkeypatch.setattr(features, "SAVE_EVERY", 2)
    predict, seen = backbones.predict, []

    def dies(model, grey, size):
        seen.append(len(grey))
        if len(seen) == 6:
            raise KeyboardInterrupt
        return predict(model, grey, size)

    monkeypatch.setattr(backbones, "predict", dies)
    with pytest.raises(KeyboardInterrupt):
        features.score_views(model, views, batch_size=4, part=part)

    key = features._key(model, views, "squash")
    assert sum(map(len, features._resume(part, key))) == 16
    other = backbones.build(SMALL, seed=1)
    for what in ((other, views, "squash"), (model, views, "crop"),
                 (model, views[::-1], "squash")):
        assert features._resume(part, features._key(*what)) == []

    again = features.score_views(model, views, batch_size=4, part=part)
    assert len(seen) == 6 + 6  # of ten batches four were kept
    pd.testing.assert_frame_equal(again, whole)
    assert again.attrs["unreadable"] == whole.attrs["unreadable"] != []
    assert not part.exists()


def test_auc_by_hand():
    scores = pd.DataFrame(0.5, index=range(41), columns=NAMES)
    scores.insert(0, "study_id", [f"s{i}" for i in range(41)])
    scores.insert(1, "view", "frontal")
    labels = pd.DataFrame(0, index=scores["study_id"], columns=NAMES)
    labels.loc[labels.index[:20], ["Edema", "Effusion"]] = 1
    labels.loc[labels.index[:3], "Mass"] = 1
    scores["Edema"] = np.linspace(1, 0, 41)
    scores.loc[40, NAMES] = np.nan  # a missing view
    for truth in (labels, labels.sample(frac=1, random_state=0)):
        auc = features.auc_table(scores, truth).set_index("condition")
        assert set(auc.index) == {"Edema", "Effusion"}  # Mass: too few
        assert auc.loc["Edema", "auc"] == 1.0
        assert auc.loc["Effusion", "auc"] == 0.5
        assert auc.loc["Edema", "positives"] == 20


def test_the_interval_of_an_auc():
    """DeLong against the bootstrap, on normal scores of known AUC (.76)."""
    rng = np.random.default_rng(0)
    ill, well = rng.normal(1, 1, 80), rng.normal(0, 1, 300)
    auc, low, high = features.auc_interval(ill, well)
    assert auc == pytest.approx((ill[:, None] > well).mean())
    draws = [(rng.choice(ill, 80)[:, None] > rng.choice(well, 300)).mean()
             for _ in range(500)]
    expected = np.quantile(draws, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected, abs=0.015)
    assert features.auc_interval(np.ones(3), np.ones(4)) == (0.5, 0.5, 0.5)


def test_the_way_that_made_figure_4s_numbers_is_told(
    model, tmp_path, monkeypatch
):
    printed = features.printed_scores()
    assert printed[0, 0] == 0.01646517962217331
    assert printed[1, 17] == 0.2825494408607483
    rng, files = np.random.default_rng(0), []
    for view, shape in (("frontal", (60, 90)), ("lateral", (90, 60))):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 3)).astype("u1"))
        files.append(tmp_path / f"{view}.png")
        coarse.resize(shape).save(files[-1])
    # Lateral first, cropped, by the alphabet:
    grey = [images.read_grey(file, model.resolution, "crop")
            for file in files[::-1]]
    scores = backbones.predict(model, np.stack(grey))
    scores = scores[:, [model.pathologies.index(c) for c in CONDITIONS]]
    monkeypatch.setattr(features, "printed_scores", lambda: scores)

    space = run_cells(
        "11-readings", images=images, features=features, pd=pd, np=np,
        backbones=backbones, CONDITIONS=CONDITIONS, VIEWS=VIEWS)
    table = space["figure_4_readings"](model, files)
    best, second = table["largest difference"][:2]
    assert best < 1e-5 and second > 1e-3
    way = ["alphabetical", "lateral", "[-1024, 1024]", "crop"]
    assert table.iloc[0, :4].tolist() == way
