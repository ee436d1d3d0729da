"""Which picture shows which view, and a picture in the model's range."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import images, phantoms, reports, view_model
from llamaxr_utils.datasets.conditions import VIEWS


@pytest.fixture(scope="module")
def known():
    return images.known_views()


@pytest.fixture
def data(folders):
    """The data folder of this test, empty."""
    folder = folders.parent / "data"
    folder.mkdir()
    return folder


def put(folder, image_id, size=8, value=100):
    file = folder / f"{image_id}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), value).save(file)
    return file


# --- views ------------------------------------------------------------------


def test_the_list_of_views(known):
    assert len(known) == 7426
    assert known["image_id"].is_unique
    assert known["view"].value_counts().to_dict() == {
        "frontal": 3794,
        "lateral": 3632,
    }


def test_one_image_a_view_and_the_lowest_number(known):
    ids = reports.load_image_ids()
    chosen = images.choose_views(ids)
    assert not chosen.duplicated(["study_id", "view"]).any()
    both = chosen.groupby("study_id").size().eq(2).sum()
    assert both == 3376
    view = known.set_index("image_id")["view"]
    assert (view[chosen["image_id"]].to_numpy() == chosen["view"]).all()
    all_known = ids.merge(known, on="image_id")
    lowest = all_known.groupby(["study_id", "view"])["image_id"].min()
    picked = chosen.set_index(["study_id", "view"])["image_id"]
    assert picked.sort_index().equals(lowest.sort_index())


def test_the_first_image_is_not_always_the_frontal_one(known):
    ids = reports.load_image_ids()
    first = ids.groupby("study_id", sort=False)["image_id"].first()
    view = known.set_index("image_id")["view"].reindex(first)
    assert (view == "lateral").sum() > 200


def test_studies_stay_in_their_order(known):
    ids = pd.DataFrame(
        {"study_id": ["CXR9", "CXR2"], "image_id": known["image_id"][:2]}
    )
    assert list(images.choose_views(ids)["study_id"]) == ["CXR9", "CXR2"]


def test_unknown_images_are_left_out():
    ids = pd.DataFrame({"study_id": ["CXR1"], "image_id": ["CXR1_nothing"]})
    assert images.choose_views(ids).empty


def test_missing_views_are_named():
    views = pd.DataFrame(
        [("a", "frontal"), ("a", "lateral"), ("b", "frontal")],
        columns=["study_id", "view"],
    )
    assert images.missing_views(views).to_dict("list") == {
        "study_id": ["b"],
        "view": ["lateral"],
    }


def test_phantoms_take_the_places_of_the_real_views(folders, known):
    ids = pd.DataFrame(
        {
            "study_id": ["CXR1", "CXR1", "CXR2"],
            "image_id": [
                known.loc[known["view"] == "frontal", "image_id"].iloc[0],
                known.loc[known["view"] == "lateral", "image_id"].iloc[0],
                known.loc[known["view"] == "lateral", "image_id"].iloc[1],
            ],
        }
    )
    studies = pd.DataFrame(
        {"study_id": ["CXR1", "CXR2"], "mesh": [["normal"], ["normal"]]}
    )
    views = images.draw_views(studies, ids, size=16)
    assert list(zip(views["study_id"], views["view"])) == [
        ("CXR1", "frontal"),
        ("CXR1", "lateral"),
        ("CXR2", "lateral"),
    ]
    assert set(views["image_source"]) == {"phantom"}
    for path in views["path"]:
        assert not os.path.isabs(path)
        assert images.read_grey(images.locate(path), 16).shape == (16, 16)


def test_dicom_headers_call_laterals_pa(known):
    differ = images.view_disagreements()
    assert list(differ) == ["image_id", "published", "dicom"]
    assert differ.attrs["compared"] == 4863
    assert differ.groupby(["published", "dicom"]).size().to_dict() == {
        ("frontal", "LL"): 1,
        ("lateral", "AP"): 13,
        ("lateral", "PA"): 1368,
    }
    view = known.set_index("image_id")["view"]
    assert (view[differ["image_id"]].to_numpy() == differ["published"]).all()
    named = differ.set_index("image_id").loc["CXR1000_IM-0003-2001"]
    assert named.to_list() == ["lateral", "PA"]


def test_the_shape_of_the_radiographs(known):
    shapes = images.radiograph_shapes()
    assert shapes["CXR1_1_IM-0001-3001"] == (2828, 2320)
    assert known["image_id"].isin(shapes).sum() == 7425  # all but one
    wide = [shapes[i][1] > shapes[i][0] for i in shapes]
    assert 0.1 < np.mean(wide) < 0.6


# --- reading ----------------------------------------------------------------


def test_an_unknown_way_to_resize(data):
    views = pd.DataFrame({"path": [str(put(data, "a"))]})
    with pytest.raises(CourseError, match="'stretch' is not known"):
        images.read_views(views, 8, "stretch")  # not "unreadable files"


def good_png():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    Image.fromarray(noise.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_unreadable_files_are_listed_and_the_others_kept(data):
    put(data, "a", value=10)
    (data / "b.png").write_bytes(b"no image")
    put(data, "c", value=30)
    views = pd.DataFrame(
        {
            "study_id": ["1", "2", "3", "4"],
            "view": "frontal",
            "path": ["a.png", "b.png", "c.png", "gone.png"],
        }
    )
    grey, table = images.read_views(views, 8)
    assert list(table["study_id"]) == ["1", "3"]
    assert grey[:, 0, 0].tolist() == [10, 30]
    reasons = dict(table.attrs["unreadable"])
    assert set(reasons) == {"b.png", "gone.png"}
    assert all(reasons.values())


@pytest.mark.parametrize(
    ("source", "file_size", "round_again"),
    [
        ("IU X-ray", (256, 256), True),
        ("phantom", (256, 256), False),  # a square of its own
        ("IU X-ray", (232, 283), False),  # it still has its shape
    ],
)
def test_only_squashed_xrays_get_their_shape_back(
    data, source, file_size, round_again
):
    """A disc in a file of an image of 2,828 rows and 2,320 columns."""
    width, height = file_size
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < 60**2
    Image.fromarray((200 * inside).astype(np.uint8)).save(data / "a.png")
    views = pd.DataFrame(
        {
            "image_id": ["CXR1_1_IM-0001-3001"],
            "image_source": [source],
            "path": ["a.png"],
        }
    )
    (grey,), _ = images.read_views(views, 256, "crop")
    ratio = (grey > 99).any(1).sum() / (grey > 99).any(0).sum()
    expected = 2828 / 2320 if round_again else 1.0
    assert ratio == pytest.approx(expected, abs=0.02)
    (squashed,), _ = images.read_views(views, 256, "squash")
    plain = images.read_grey(data / "a.png", 256)
    assert (squashed == plain).all()


def test_the_order_of_the_rows_is_kept(data):
    """Files are read side by side."""
    for value in range(60):
        put(data, f"{value:02d}", value=4 * value)
    views = pd.DataFrame({"path": [f"{v:02d}.png" for v in range(60)]})
    grey, _ = images.read_views(views.iloc[::-1], 8)
    assert grey[:, 0, 0].tolist() == [4 * v for v in range(59, -1, -1)]


def test_no_readable_file_at_all(data):
    views = pd.DataFrame({"study_id": ["1"], "path": ["gone.png"]})
    grey, table = images.read_views(views, 8)
    assert grey.shape == (0, 8, 8)
    assert table.empty
    assert len(table.attrs["unreadable"]) == 1


# --- X-rays on disk ---------------------------------------------------------


@pytest.fixture
def some(known):
    return list(known["image_id"][:4])


def test_xrays_are_found_by_their_id_in_any_folder(data, some):
    put(data / "images" / "deep", some[0])
    put(data, some[1].removeprefix("CXR"))
    put(data, "holiday")
    Image.new("L", (8, 8)).save(data / f"{some[2]}.JPG")
    (data / f"{some[3]}.txt").write_text("no image")
    assert set(images.find_xrays()) == set(some[:3])


@pytest.mark.parametrize(
    "name",
    [
        "CXR1_1_IM-0001-3001",  # OpenI
        "CXR1_IM-0001-3001",  # the published list of views
        "1_IM-0001-3001.dcm",  # the Kaggle copy
    ],
)
def test_the_first_study_under_any_of_its_names(data, name):
    """Its images have a number more than all others."""
    put(data, name)
    views = images.xray_views(reports.load_image_ids())
    assert views[["study_id", "view"]].to_numpy().tolist() == [
        ["CXR1", "lateral"]
    ]


def test_every_study_of_r2gen_has_a_view():
    seen = images.choose_views(reports.load_image_ids())["study_id"]
    assert set(reports.r2gen_split()["study_id"]) <= set(seen)


def test_every_listed_image_is_one_that_a_report_refers_to(known):
    assert set(known["image_id"]) <= set(reports.load_image_ids()["image_id"])


def test_no_xrays_says_where_to_put_them(data):
    with pytest.raises(CourseError) as caught:
        images.find_xrays()
    assert "No X-rays" in caught.value.what
    assert "LLAMAXR_DATA" in caught.value.do


def test_the_views_of_xrays_that_are_there(data, known):
    """The lowest frontal image is missing: the next one is taken."""
    frontal = known.loc[known["view"] == "frontal", "image_id"].sort_values()
    ids = pd.DataFrame({"study_id": "CXR1", "image_id": frontal[:3]})
    put(data, frontal.iloc[1])
    put(data, frontal.iloc[2])
    views = images.xray_views(ids)
    assert list(views["image_id"]) == [frontal.iloc[1]]
    assert list(views["path"]) == [f"{frontal.iloc[1]}.png"]
    assert list(views["image_source"]) == ["IU X-ray"]


def packed(data, entries, name="xrays.zip"):
    with zipfile.ZipFile(data / name, "w") as archive:
        for path, content in entries.items():
            archive.writestr(path, content)
    return data / name


def test_a_read_only_data_folder(data, some, folders, monkeypatch):
    """A class folder: nothing is written there, caches go to the runs."""
    packed(data, {f"{some[0]}.png": good_png()})
    put(data, some[1])
    before = sorted(data.rglob("*"))
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: access(path, mode)
        and not (str(path).startswith(str(data)) and mode & os.W_OK),
    )
    found = images.find_xrays()
    assert set(found) == set(some[:2])
    assert found[some[0]].is_relative_to(folders / "cache")
    assert sorted(data.rglob("*")) == before
    ids = pd.DataFrame({"study_id": ["a", "b"], "image_id": some[:2]})
    for path in images.xray_views(ids)["path"]:
        assert not os.path.isabs(path)
        images.read_grey(images.locate(path), 8)


# --- X-rays whose view nobody has published ---------------------------------


@pytest.fixture(scope="module")
def model():
    """Trained on a few drawings."""
    drawn = [(f"CXR{n}", view) for n in range(12) for view in VIEWS]
    grey = np.stack([phantoms.draw(s, ["normal"], v, 64) for s, v in drawn])
    return view_model.fit(grey, [view for _, view in drawn])


@pytest.fixture
def trained(model, monkeypatch):
    monkeypatch.setattr(view_model, "for_this_machine", lambda *_: model)


def draw(file, view):
    file.parent.mkdir(parents=True, exist_ok=True)
    grey = phantoms.draw("CXR99", ["normal"], view, 64)
    Image.fromarray(grey).save(file)


def test_the_first_image_is_not_taken_for_the_frontal_one(data, trained):
    """R2Gen's folders hold 0.png and 1.png, in no published order."""
    draw(data / "CXR2384_IM-0942" / "0.png", "lateral")
    draw(data / "CXR2384_IM-0942" / "1.png", "frontal")
    views = images.xray_views(reports.load_image_ids())
    assert views[["view", "image_id"]].to_numpy().tolist() == [
        ["frontal", "CXR2384_IM-0942/1"],
        ["lateral", "CXR2384_IM-0942/0"],
    ]
    assert views["view_source"].str.startswith("classifier").all()
    assert set(views["study_id"]) == {"CXR2384"}


def test_the_published_list_wins_over_the_picture(data, trained, known):
    """An unlisted image of a lower number shows the same view; the listed
    one, whatever its picture looks like, is taken."""
    ids = reports.load_image_ids()
    assert "CXR2084_IM-0715-2001-0001" not in set(known["image_id"])
    view = known.set_index("image_id")["view"]["CXR2084_IM-0715-2001-0002"]
    other = {"frontal": "lateral", "lateral": "frontal"}[view]
    draw(data / "CXR2084_IM-0715-2001-0001.png", view)
    draw(data / "CXR2084_IM-0715-2001-0002.png", other)
    (row,) = images.xray_views(ids).itertuples()
    assert row.image_id == "CXR2084_IM-0715-2001-0002"
    assert row.view == view
    assert row.view_source == "published list"


def test_images_of_openi_that_the_list_does_not_know(data, trained, known):
    ids = reports.load_image_ids()
    unlisted = ids[~ids["image_id"].isin(known["image_id"])]
    assert len(unlisted) == 44
    first, second = unlisted["image_id"].iloc[:2]
    draw(data / f"{first}.png", "lateral")
    (data / f"{second}.png").write_bytes(b"no image")
    views = images.xray_views(ids)
    assert views[["image_id", "view"]].to_numpy().tolist() == [
        [first, "lateral"]
    ]
    ((path, reason),) = views.attrs["unreadable"]
    assert path.endswith(f"{second}.png")
    assert "cannot identify" in reason


def test_an_image_that_is_gone_says_what_to_do(data):
    with pytest.raises(CourseError) as caught:
        images.locate("deep/CXR1.png")
    assert "CXR1.png is gone" in caught.value.what
    assert "LLAMAXR_DATA" in caught.value.do
