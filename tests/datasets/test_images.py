"""Images: their files and views, grey bytes, the network's range."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import images, reports

WIDE = np.tile(np.arange(200, dtype=np.uint8), (100, 1))  # 100 x 200, grey
KNOWN = images.known_views()


@pytest.fixture(scope="module")
def ids():
    return reports.load_image_ids()


def put(folder, name, content=b"x"):
    file = Path(folder, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def save(folder, name, grey):
    file = put(folder, name)
    Image.fromarray(grey).save(file)
    return file


def flat(value):
    return np.full((8, 8), value, np.uint8)


def test_every_image_id_is_recognised_under_both_names(ids):
    openi = ids["image_id"]
    assert openi.map(images.openi_id).equals(openi)
    kaggle = openi.str.replace("^CXR(1_1_)?", "", regex=True) + ".dcm"
    first = ids["study_id"].eq("CXR1")
    kaggle[first] = "1_" + kaggle[first]
    assert kaggle.map(images.openi_id).equals(openi)
    assert len(KNOWN) == 7426 and set(KNOWN["image_id"]) <= set(openi)


def test_each_layout_is_told_by_its_names(data):
    files = [put(data, name) for name in (
        "CXR1_1_IM-0001-3001.png", "NLMCXR_dcm/3/3_IM-1384-1001.dcm",
        "images/images_normalized/2_IM-0652-1001.dcm.png",
        "twice/CXR1_IM-0001-3001.png", "CXR5_IM-2117-1001.txt",
        "iu_xray/images/CXR2384_IM-0942/0.png",  # R2Gen's: no view
        "holiday/0.jpg", "holiday/CXR2_IM-0652.jpg",
        # Hidden, half written, drawn:
        ".work/CXR7_IM-1384-1001.png", ".CXR7_IM-1384-1001.png.part77",
        "__MACOSX/._CXR7_IM-1384-1001.png",
        "phantoms/v1-64/CXR7_IM-1384-1001.png")]
    paths = images.find_images().set_index("image_id")["path"]
    assert paths.to_dict() == dict(zip((
        "CXR1_1_IM-0001-3001", "CXR3_IM-1384-1001", "CXR2_IM-0652-1001"),
        files))


def test_without_xrays_it_says_where_they_come_from(data, ids):
    put(data, "CXR2384_IM-0942/0.png")  # which view is it?
    with pytest.raises(CourseError, match="fetch openi"):
        images.xray_views(ids)


def test_a_read_only_data_folder(data, folders, monkeypatch):
    """A class folder: nothing is written there, caches go to the runs."""
    one, two = KNOWN["image_id"][:2]
    file = save(data, f"{two}.png", flat(1))
    with zipfile.ZipFile(data / "xrays.zip", "w") as archive:
        archive.write(file, f"{one}.png")
    before = sorted(data.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, _: path != data)
    ids = pd.DataFrame({"study_id": ["a", "b"], "image_id": [one, two]})
    views = images.xray_views(ids)
    place = images.locate(views["path"][0])
    assert place.is_relative_to(folders / "cache")
    assert sorted(data.rglob("*")) == before
    assert not any(map(os.path.isabs, views["path"]))
    assert len(images.read_views(views, 8)[0]) == 2


def test_one_image_a_view_and_the_lowest_number(ids):
    chosen = images.choose_views(ids)
    listed = ids.merge(KNOWN, on="image_id")
    lowest = listed.groupby(["study_id", "view"])["image_id"].min()
    picked = chosen.set_index(["study_id", "view"])["image_id"]
    assert picked.sort_index().equals(lowest.sort_index())
    assert chosen.groupby("study_id").size().eq(2).sum() == 3376
    assert set(reports.r2gen_split()["study_id"]) <= set(chosen["study_id"])


def test_phantoms_take_the_places_of_the_real_views(folders, studies, ids):
    only = images.choose_views(ids)[:3]
    views = images.draw_views(studies, only.drop(columns="view"), size=16)
    assert views[[*only]].equals(only)
    assert set(views["image_source"]) == {"phantom"}
    assert len(images.read_views(views, 16)[0]) == 3


def test_if_the_lowest_number_is_missing_the_next_one_is_taken(data):
    frontal = KNOWN.loc[KNOWN["view"] == "frontal", "image_id"].sort_values()
    ids = pd.DataFrame({"study_id": "CXR1", "image_id": frontal[:3]})
    for image_id in frontal[1:3]:
        save(data, f"{image_id}.png", flat(1))
    (row,) = images.xray_views(ids).itertuples()
    assert row.path == f"{row.image_id}.png" == f"{frontal.iloc[1]}.png"
    assert row.view_source == "published list"
    assert row.image_source == "IU X-ray"


def test_rows_keep_their_order_and_unreadable_ones_are_listed(data):
    """Files are read side by side."""
    names = [f"{value}.png" for value in range(240, 0, -4)]
    for name in names:
        save(data, name, flat(int(name[:-4])))
    put(data, "48.png", b"no image")
    rows = pd.DataFrame({"path": ["gone.png", *names]})
    grey, table = images.read_views(rows, 8)
    names.remove("48.png")
    assert list(table["path"]) == names
    assert [f"{value}.png" for value in grey[:, 0, 0]] == names
    reasons = dict(table.attrs["unreadable"])
    assert set(reasons) == {"48.png", "gone.png"} and all(reasons.values())
    with pytest.raises(CourseError, match="'stretch' is not known"):
        images.read_views(rows, 8, "stretch")


def test_squash_keeps_everything_and_crop_keeps_the_shape(tmp_path):
    file = save(tmp_path, "a.png", WIDE)
    assert np.ptp(images.read_grey(file, 100, "squash")) > 190
    cropped = images.read_grey(file, 100, "crop")
    assert (cropped[0] == range(50, 150)).all()  # no resampling


def test_the_range_is_torchxrayvisions():
    import torchxrayvision as xrv

    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    theirs = xrv.datasets.normalize(grey, maxval=255)
    assert np.allclose(images.to_model_range(grey), theirs, atol=1e-3)
    images.check_range(theirs)
    for value in (0, 10, 127, 255):  # a blank picture is no wrong range
        images.check_range(images.to_model_range(flat(value)))


@pytest.mark.parametrize("mistake", [
    lambda grey: grey / 255, lambda grey: grey / 127.5 - 1,
    lambda grey: (grey / 255 - 0.449) / 0.226,  # ImageNet's
    lambda grey: grey.astype(float), lambda grey: grey * 257.0,
    lambda grey: images.to_model_range(grey) * 8.03 - 1024,  # twice
    lambda grey: np.where(grey > 9, np.nan, 0.0),
])
def test_a_wrong_range_is_refused_and_explained(mistake):
    with pytest.raises(CourseError, match="issue 89") as caught:
        images.check_range(mistake(WIDE))
    assert "to_model_range" in caught.value.do
