"""Frontal or lateral, by the picture and by nothing else."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import phantoms, view_model
from llamaxr_utils.datasets.conditions import VIEWS
from llamaxr_utils.datasets.layouts import known_views


def drawings(first, last, size=64):
    pairs = [(n, view) for n in range(first, last) for view in VIEWS]
    grey = [phantoms.draw(f"CXR{n}", ["normal"], v, size) for n, v in pairs]
    return np.stack(grey), np.array([view for _, view in pairs], object)


@pytest.fixture(scope="module")
def some():
    return drawings(0, 40)


@pytest.fixture(scope="module")
def model(some):
    grey, views = some
    return view_model.fit(grey[:60], views[:60])


def test_drawings_of_other_patients(model, some):
    grey, views = some
    assert view_model.accuracy(model, grey[60:], views[60:]) >= 0.9


def test_it_does_not_matter_which_way_a_lateral_faces(model, some):
    grey = some[0]
    found = view_model.classify(model, grey)
    pd.testing.assert_frame_equal(
        found, view_model.classify(model, grey[:, :, ::-1])
    )


def test_the_answer_is_the_pictures_not_its_places(model, some):
    """Backwards, alone, brighter: the same views."""
    grey = some[0]
    found = view_model.classify(model, grey)
    back = view_model.classify(model, grey[::-1])[::-1]
    assert list(found["view"]) == list(back["view"])
    alone = view_model.classify(model, grey[1:2])
    assert alone["view"][0] == found["view"][1]
    dim = view_model.classify(model, grey // 2 + 60)
    assert (dim["view"] == found["view"]).mean() > 0.98


def test_confidence(model, some):
    found = view_model.classify(model, some[0])
    assert list(found) == ["view", "confidence"]
    assert found["confidence"].between(0.5, 1).all()
    assert set(found["view"]) == set(VIEWS)
    assert view_model.classify(model, some[0][:0]).empty


@pytest.mark.parametrize("views", [["frontal"] * 4, ["PA", "lateral"] * 2])
def test_two_views_by_their_names_or_nothing(some, views):
    with pytest.raises(CourseError, match="frontal and of lateral"):
        view_model.fit(some[0][:4], views)


# --- the model of this machine ----------------------------------------------


@pytest.fixture
def small(folders, monkeypatch):
    """Few studies; counts how often a model was trained."""
    monkeypatch.setattr(
        view_model, "STUDIES", {"X-rays": 20, "phantoms": 20}
    )
    monkeypatch.setattr(view_model, "LEAST", 10)
    fit, trained = view_model.fit, []

    def counted(grey, views):
        trained.append(len(grey))
        return fit(grey, views)

    monkeypatch.setattr(view_model, "fit", counted)
    return trained


def test_without_xrays_phantoms_teach_and_it_says_so(small, folders):
    model = view_model.for_this_machine()
    assert model.trained_on == "phantoms"
    assert model.n_held_out == 8  # a fifth of 20 studies, two views each
    assert small == [32]
    assert str(model) == (
        f"classifier (accuracy {model.accuracy:.3f} on 8 held-out phantoms)"
    )
    assert view_model.for_this_machine() == model
    assert small == [32]  # trained once
    (kept,) = (folders.parent / "data" / "view_model").iterdir()
    assert json.loads(kept.read_text())["n_held_out"] == 8
    kept.write_text("{")
    assert view_model.for_this_machine() == model
    assert small == [32, 32]  # a broken file is no model


def test_xrays_on_disk_teach_better(small, folders):
    """Drawings under the names of known X-rays; one of them is broken."""
    known = known_views()
    known["study_id"] = known["image_id"].str.split("_").str[0]
    known = known[known["study_id"].isin(known["study_id"].unique()[:15])]
    home = folders.parent / "data"
    home.mkdir()
    for row in known.itertuples():
        grey = phantoms.draw(row.study_id, ["normal"], row.view, 64)
        Image.fromarray(grey).save(home / f"{row.image_id}.png")
    (home / f"{known['image_id'].iloc[0]}.png").write_bytes(b"no image")
    model = view_model.for_this_machine()
    assert model.trained_on == "X-rays"
    assert small[0] + model.n_held_out == len(known) - 1
    assert model.accuracy > 0.8


def test_studies_are_held_out_whole(small, folders, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        view_model,
        "read_grey",
        lambda path, size: np.full((64, 64), int(path), np.uint8),
    )
    for name in ("fit", "accuracy"):
        real = getattr(view_model, name)

        def spy(*arguments, name=name, real=real):
            grey = arguments[-2]
            seen[name] = set(grey[:, 0, 0].tolist())
            return real(*arguments)

        monkeypatch.setattr(view_model, name, spy)
    table = pd.DataFrame(
        {
            "study_id": np.repeat([f"s{n}" for n in range(20)], 2),
            "path": [str(n) for n in np.repeat(range(20), 2)],
            "view": list(VIEWS) * 20,
        }
    )
    view_model._fit_and_measure(table, "phantoms")
    assert not seen["fit"] & seen["accuracy"]
    assert len(seen["accuracy"]) == 4
