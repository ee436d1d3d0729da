"""Images to 18 scores a view; the range trap; heatmaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils import artifacts, backbones, features, images
from llamaxr_utils.conditions import CONDITIONS, NATIVE_ORDER
from llamaxr_utils.errors import CourseError

SMALL = "densenet-small@phantom"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    """Trained on squares: a bright lower half is an effusion."""
    model = backbones.build(SMALL)
    rng = np.random.default_rng(0)
    size = model.resolution
    grey = rng.integers(0, 80, (48, size, size))
    labels = np.zeros((48, 18), int)
    labels[::2, NATIVE_ORDER.index("Effusion")] = 1
    grey[::2, size // 2 :] += 150
    backbones.train(model, grey.astype(np.uint8), labels, 3, batch_size=8)
    return model


@pytest.fixture
def views(folders):
    """Three studies: both views; frontal only; a file that is no image."""
    data = folders.parent / "data"
    data.mkdir()
    rng = np.random.default_rng(1)
    for name in ("a_f", "a_l", "b_f"):
        noise = rng.integers(0, 256, (64, 80)).astype(np.uint8)
        Image.fromarray(noise).save(data / f"{name}.png")
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
    assert tuple(scores.columns) == artifacts.ARTIFACTS["image_scores"].columns
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


def test_in_the_wrong_range_all_scores_are_the_same(
    model, views, monkeypatch
):
    """Pixels in [-1, 1], torchxrayvision issue 89."""
    right = backbones.to_model_range
    monkeypatch.setattr(
        backbones, "to_model_range", lambda grey: right(grey) / 1024
    )
    with pytest.raises(CourseError) as caught:
        features.score_views(model, views)
    assert "same scores" in caught.value.what
    assert "[-1024, 1024]" in caught.value.why
    assert "issue 89" in caught.value.why
    assert "to_model_range" in caught.value.do


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
    with pytest.raises(CourseError, match="no weights for densenet-small@iu"):
        features.score_images([file], "densenet-small@iu-train")
    with pytest.raises(CourseError, match="no weights for densenet-small@iu"):
        features.score_images(
            [file], "densenet-small@iu-train", tmp_path / "nowhere"
        )
    random = features.score_images([file], "densenet-small@random")
    assert set(random["backbone"]) == {"densenet-small@random"}


def test_the_released_network_is_the_default_and_needs_its_file(views):
    with pytest.raises(CourseError, match="not on this machine"):
        features.score_images(["a.png"])


def test_no_paths():
    with pytest.raises(CourseError, match="no image"):
        features.score_images([], "densenet-small@random")


# --- AUC and heatmaps -------------------------------------------------------


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


def test_a_heatmap_lies_on_what_the_network_looks_at(model):
    size = model.resolution
    grey = np.full((size, size), 40, np.uint8)
    grey[size // 2 :] += 150
    heat = features.heatmap(model, grey, "Effusion")
    assert heat.shape == (size, size)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1.0)
    assert np.isfinite(heat).all()


def test_a_heatmap_knows_torchxrayvisions_spelling(model, monkeypatch):
    spelled = [n.replace(" Th", "_Th") for n in NATIVE_ORDER]
    grey = np.zeros((model.resolution,) * 2, np.uint8)
    plain = features.heatmap(model, grey, "Pleural Thickening")
    monkeypatch.setattr(model, "pathologies", spelled)
    same = features.heatmap(model, grey, "Pleural Thickening")
    assert np.array_equal(plain, same)


def test_a_heatmap_leaves_the_network_as_it_was(model):
    grey = np.zeros((2, model.resolution, model.resolution), np.uint8)
    before = backbones.predict(model, grey)
    features.heatmap(model, grey[0], "Edema")
    assert np.array_equal(backbones.predict(model, grey), before)
