"""Images to 18 scores a view; the range trap; AUC."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course import artifacts
from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import images
from llamaxr_utils.datasets.conditions import CONDITIONS, NATIVE_ORDER
from llamaxr_utils.vision import backbones, features

SMALL = "densenet-small@phantom"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def views(folders):
    """Three studies: both views; frontal only; a file that is no image."""
    data = folders.parent / "data"
    data.mkdir()
    rng = np.random.default_rng(1)
    for name, light in (("a_f", 150), ("a_l", 100), ("b_f", 0)):
        grey = rng.integers(0, 80, (64, 80))
        grey[32:, 10:] += light  # what `model` was taught, off the centre
        Image.fromarray(grey.astype(np.uint8)).save(data / f"{name}.png")
    (data / "c_f.png").write_bytes(b"no image")
    rows = [
        ("CXR9", "frontal", "a_f.png"),
        ("CXR9", "lateral", "a_l.png"),
        ("CXR2", "frontal", "b_f.png"),
        ("CXR5", "frontal", "c_f.png"),
    ]
    return pd.DataFrame(rows, columns=["study_id", "view", "path"])


# --- scores -----------------------------------------------------------------


def test_one_row_a_view_and_nan_for_what_is_missing(model, views):
    scores = features.score_views(model, views)
    rows = list(zip(scores["study_id"], scores["view"]))
    assert rows == [
        (study, view)
        for study in ("CXR9", "CXR2", "CXR5")
        for view in ("frontal", "lateral")
    ]
    missing = scores[list(CONDITIONS)].isna()
    assert missing.all(axis=1).tolist() == [
        False, False, False, True, True, True,
    ]
    assert (missing.all(axis=1) == missing.any(axis=1)).all()
    there = scores[list(CONDITIONS)].dropna()
    assert there.to_numpy().min() >= 0
    assert there.to_numpy().max() <= 1
    assert set(scores["backbone"]) == {SMALL}
    assert [path for path, _ in scores.attrs["unreadable"]] == ["c_f.png"]


def test_the_columns_are_the_artifacts_and_survive_its_file(
    model, views, tmp_path
):
    scores = features.score_views(model, views)
    schema = artifacts.ARTIFACTS["image_scores"].columns
    assert tuple(scores.columns) == (*schema, *CONDITIONS)
    artifacts.save(
        tmp_path, "image_scores", scores, writer="02_extract_features"
    )
    back = artifacts.load(tmp_path, "image_scores")
    pd.testing.assert_frame_equal(back, scores)


def test_scores_belong_to_their_picture_and_their_name(model, views, folders):
    scores = features.score_views(model, views)
    grey = images.read_grey(images.locate("b_f.png"), model.resolution)
    outputs = backbones.predict(model, grey[None])[0]
    row = scores[scores["study_id"] == "CXR2"].iloc[0]
    for place, name in enumerate(NATIVE_ORDER):
        assert row[name] == pytest.approx(outputs[place], abs=1e-5)


def test_squash_and_crop_are_two_things(model, views):
    squashed = features.score_views(model, views, "squash")
    cropped = features.score_views(model, views, "crop")
    names = list(CONDITIONS)
    assert not np.allclose(
        squashed.loc[:2, names], cropped.loc[:2, names], atol=1e-3
    )
    with pytest.raises(CourseError, match="'squeeze' is not known"):
        features.score_views(model, views, "squeeze")


def test_a_study_whose_views_are_both_unreadable(model, views, folders):
    data = folders.parent / "data"
    for name in ("a_f", "a_l"):
        (data / f"{name}.png").write_bytes(b"")
    scores = features.score_views(model, views)
    assert len(scores) == 6
    assert scores[scores["study_id"] == "CXR9"]["Edema"].isna().all()
    assert len(scores.attrs["unreadable"]) == 3


# --- the range trap ---------------------------------------------------------


def test_the_wrong_range_does_not_reach_the_network(
    model, views, monkeypatch
):
    """Pixels in [-1, 1], torchxrayvision issue 89."""
    right = backbones.to_model_range
    monkeypatch.setattr(
        backbones, "to_model_range", lambda grey: right(grey) / 1024
    )
    with pytest.raises(CourseError) as caught:
        features.score_views(model, views)
    assert "issue 89" in caught.value.why
    assert "to_model_range" in caught.value.do


def test_scores_of_a_network_that_sees_nothing_are_refused(
    model, views, monkeypatch
):
    right = backbones.to_model_range
    monkeypatch.setattr(
        backbones, "to_model_range", lambda grey: right(grey) * 0
    )
    monkeypatch.setattr(backbones, "check_range", lambda _: None)
    with pytest.raises(CourseError) as caught:
        features.score_views(model, views)
    assert "same scores" in caught.value.what
    assert "[-1024, 1024]" in caught.value.why


def test_the_spread_of_one_image_says_nothing():
    features.check_spread(np.full((1, 18), 0.5))
    features.check_spread(np.zeros((0, 18)))
    with pytest.raises(CourseError):
        features.check_spread(np.full((2, 18), 0.5))
    different = np.full((2, 18), 0.5)
    different[0, 7] = 0.6
    features.check_spread(different)


# --- files ------------------------------------------------------------------


def test_scores_of_files(model, views, folders, tmp_path):
    data = folders.parent / "data"
    backbones.save(model, tmp_path / "backbone")
    paths = [data / "a_f.png", data / "b_f.png"]
    table = features.score_images(paths, weights=tmp_path / "backbone")
    assert list(table.columns) == ["path", "backbone", *CONDITIONS]
    assert list(table["path"]) == [str(path) for path in paths]
    assert set(table["backbone"]) == {SMALL}
    expected = features.score_views(model, views)
    assert table["Edema"][1] == pytest.approx(expected["Edema"][2], abs=1e-5)


def test_no_random_scores_under_a_trained_name(views, folders, tmp_path):
    file = folders.parent / "data" / "a_f.png"
    with pytest.raises(ValueError, match="no weights for densenet-small@iu"):
        features.score_images([file], "densenet-small@iu-train")
    with pytest.raises(ValueError, match="no weights for densenet-small@iu"):
        features.score_images(
            [file], "densenet-small@iu-train", tmp_path / "nowhere"
        )
    random = features.score_images([file], "densenet-small@random")
    assert set(random["backbone"]) == {"densenet-small@random"}


def test_the_released_network_is_the_default_and_needs_its_file(views):
    with pytest.raises(CourseError, match="not on this machine"):
        features.score_images(["a.png"])


def test_no_paths():
    with pytest.raises(ValueError, match="no image"):
        features.score_images([], "densenet-small@random")


# --- unfinished work --------------------------------------------------------


def long_views(folders, n=40):
    data = folders.parent / "data"
    data.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    rows = []
    for i in range(n):
        noise = rng.integers(0, 256, (64, 64)).astype(np.uint8)
        Image.fromarray(noise).save(data / f"{i}.png")
        rows.append((f"CXR{i}", "frontal", f"{i}.png"))
    (data / "5.png").write_bytes(b"no image")
    return pd.DataFrame(rows, columns=["study_id", "view", "path"])


def test_a_killed_scoring_goes_on_where_it_was(
    model, folders, tmp_path, monkeypatch
):
    views, part = long_views(folders), tmp_path / "part.npz"
    whole = features.score_views(model, views, batch_size=4)
    monkeypatch.setattr(features, "SAVE_EVERY", 2)
    predict, seen = backbones.predict, []

    def dies(model, grey, size):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(len(grey))
        return predict(model, grey, size)

    monkeypatch.setattr(backbones, "predict", dies)
    with pytest.raises(KeyboardInterrupt):
        features.score_views(model, views, batch_size=4, part=part)
    assert part.is_file()

    monkeypatch.setattr(
        backbones, "predict", lambda *a: (seen.append(1), predict(*a))[1]
    )
    seen.clear()
    again = features.score_views(model, views, batch_size=4, part=part)
    assert len(seen) == 6  # of ten batches, four were kept
    pd.testing.assert_frame_equal(again, whole)
    assert again.attrs["unreadable"] == whole.attrs["unreadable"] != []
    assert not part.exists()


def test_work_of_another_network_is_not_taken_up(
    model, folders, tmp_path, monkeypatch
):
    views, part = long_views(folders, 8), tmp_path / "part.npz"
    monkeypatch.setattr(features, "SAVE_EVERY", 1)
    key = features._key(model, views, "squash")
    features._keep(
        part, key, features.Work([np.zeros((4, 18))], [0, 1, 2, 3], [])
    )
    assert features._resume(part, key).rows == [0, 1, 2, 3]
    other = backbones.build(SMALL, seed=1)
    for changed in (
        features._key(other, views, "squash"),
        features._key(model, views, "crop"),
        features._key(model, views[::-1], "squash"),
    ):
        assert features._resume(part, changed).rows == []


# --- AUC, calibration -------------------------------------------------------


def test_auc_by_hand():
    n = 40
    scores = pd.DataFrame(0.5, index=range(n), columns=list(CONDITIONS))
    scores.insert(0, "study_id", [f"s{i}" for i in range(n)])
    scores.insert(1, "view", "frontal")
    labels = pd.DataFrame(0, index=scores["study_id"], columns=CONDITIONS)
    labels.loc[labels.index[:20], ["Edema", "Effusion"]] = 1
    labels.loc[labels.index[:3], "Mass"] = 1
    scores["Edema"] = np.linspace(1, 0, n)
    auc = features.auc_table(scores, labels).set_index("condition")
    assert set(auc.index) == {"Edema", "Effusion"}  # Mass: too few
    assert auc.loc["Edema", "auc"] == 1.0
    assert auc.loc["Effusion", "auc"] == 0.5
    assert auc.loc["Edema", "positives"] == 20
    shuffled = labels.sample(frac=1, random_state=0)  # by id, not by place
    again = features.auc_table(scores, shuffled).set_index("condition")
    assert again.loc["Edema", "auc"] == 1.0


def test_the_interval_of_an_auc():
    """DeLong against the bootstrap, on normal scores of known AUC (.76)."""
    rng = np.random.default_rng(0)
    ill, well = rng.normal(1, 1, 80), rng.normal(0, 1, 300)
    auc, low, high = features.auc_interval(ill, well)
    assert auc == pytest.approx(
        (ill[:, None] > well).mean() + (ill[:, None] == well).mean() / 2
    )
    draws = [
        (rng.choice(ill, 80)[:, None] > rng.choice(well, 300)).mean()
        for _ in range(500)
    ]
    assert [low, high] == pytest.approx(
        np.quantile(draws, [0.025, 0.975]), abs=0.015
    )
    same = features.auc_interval(np.ones(3), np.ones(4))
    assert same == (0.5, 0.5, 0.5)
    assert features.auc_interval(np.ones(3), np.zeros(4))[0] == 1.0


def test_calibration_counts_every_score_once():
    scores = pd.DataFrame(0.05, index=range(10), columns=list(CONDITIONS))
    scores.insert(0, "study_id", list("abcdefghij"))
    scores.insert(1, "view", "frontal")
    scores.loc[8:, "Edema"] = 1.0  # the last bin holds 1, too
    scores.loc[9, "Mass"] = np.nan
    labels = pd.DataFrame(0, index=scores["study_id"], columns=CONDITIONS)
    labels.loc["i", "Edema"] = 1
    curve = features.calibration(scores, labels)
    assert curve["score"].tolist() == [0.05, 0.95]
    assert curve["share"].tolist() == [0.0, 0.5]
    assert curve["values"].tolist() == [177, 2]


def test_auc_leaves_missing_views_out():
    scores = pd.DataFrame(np.nan, index=range(4), columns=list(CONDITIONS))
    scores["study_id"], scores["view"] = list("abcd"), "frontal"
    scores.loc[:1, list(CONDITIONS)] = [[0.9] * 18, [0.1] * 18]
    labels = pd.DataFrame(
        [[1] * 18, [0] * 18, [0] * 18, [1] * 18],
        index=list("abcd"),
        columns=CONDITIONS,
    )
    auc = features.auc_table(scores, labels, least=1)
    assert auc["auc"].eq(1.0).all()
    assert auc["positives"].eq(1).all()
