"""Images: their files and views, grey bytes, the network's range."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import images, phantoms, reports
from llamaxr_utils.datasets.conditions import VIEWS

WIDE = np.tile(np.arange(200, dtype=np.uint8), (100, 1))  # 100 x 200, grey
RAMP = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
GREY = np.linspace(0, 255, 64).reshape(8, 8)


@pytest.fixture(scope="module")
def known():
    return images.known_views()


@pytest.fixture(scope="module")
def ids():
    return reports.load_image_ids()


@pytest.fixture
def data(folders):
    """The data folder of this test, empty."""
    folder = folders.parent / "data"
    folder.mkdir()
    return folder


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


def patient(view, study="CXR99"):
    return phantoms.draw(study, ["normal"], view, images.VIEW_SIZE)


def encoded():
    buffer = io.BytesIO()
    Image.fromarray(patient("frontal")).save(buffer, "PNG")
    return buffer.getvalue()


# --- names and layouts ------------------------------------------------------


def test_every_image_id_is_recognised_under_both_names(known, ids):
    openi = ids["image_id"]
    assert openi.map(images.openi_id).equals(openi)
    kaggle = openi.str.replace("^CXR(1_1_)?", "", regex=True) + ".dcm"
    first = ids["study_id"].eq("CXR1")
    kaggle[first] = "1_" + kaggle[first]
    assert kaggle.map(images.openi_id).equals(openi)
    assert len(known) == 7426 and set(known["image_id"]) <= set(openi)


def test_each_layout_is_told_by_its_names(data):
    first = put(data, "CXR1_1_IM-0001-3001.png")
    put(data, "images/images_normalized/2_IM-0652-1001.dcm.png")
    put(data, "twice/CXR1_IM-0001-3001.png")
    put(data, "NLMCXR_dcm/3/3_IM-1384-1001.dcm")
    put(data, "iu_xray/images/CXR2384_IM-0942/0.png")
    put(data, "iu_xray/images/CXR2384_IM-0942/1.png")
    put(data, "CXR5_IM-2117-1001.txt")
    put(data, "holiday/0.jpg")
    put(data, "holiday/CXR2_IM-0652.jpg")
    # Hidden, half written, drawn:
    put(data, ".work/CXR7_IM-1384-1001.png")
    put(data, ".CXR7_IM-1384-1001.png.part77")
    put(data, "__MACOSX/._CXR7_IM-1384-1001.png")
    put(data, "phantoms/v1-64/CXR7_IM-1384-1001.png")
    table = images.find_images()
    assert table[["study_id", "image_id"]].to_numpy().tolist() == [
        ["CXR1", "CXR1_1_IM-0001-3001"],
        ["CXR2", "CXR2_IM-0652-1001"],
        ["CXR3", "CXR3_IM-1384-1001"],
        ["CXR2384", "CXR2384_IM-0942/0"],
        ["CXR2384", "CXR2384_IM-0942/1"],
    ]
    assert table["path"][0] == first
    assert all(path.is_file() for path in table["path"])


def test_an_empty_folder_says_where_xrays_come_from(data, ids):
    with pytest.raises(CourseError, match="fetch openi"):
        images.xray_views(ids)


def test_a_read_only_data_folder(data, known, folders, monkeypatch):
    """A class folder: nothing is written there, caches go to the runs."""
    one, two = known["image_id"][:2]
    with zipfile.ZipFile(data / "xrays.zip", "w") as archive:
        archive.writestr(f"{one}.png", encoded())
    save(data, f"{two}.png", flat(1))
    before = sorted(data.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, _: path != data)
    ids = pd.DataFrame({"study_id": ["a", "b"], "image_id": [one, two]})
    paths = images.xray_views(ids)["path"]
    assert len(paths) == 2
    assert images.locate(paths[0]).is_relative_to(folders / "cache")
    assert sorted(data.rglob("*")) == before
    for path in paths:
        assert not os.path.isabs(path)
        images.read_grey(images.locate(path), 8)


# --- views ------------------------------------------------------------------


def test_one_image_a_view_and_the_lowest_number(known, ids):
    chosen = images.choose_views(ids)
    listed = ids.merge(known, on="image_id")
    lowest = listed.groupby(["study_id", "view"])["image_id"].min()
    picked = chosen.set_index(["study_id", "view"])["image_id"]
    assert picked.sort_index().equals(lowest.sort_index())
    assert chosen.groupby("study_id").size().eq(2).sum() == 3376
    r2gen = reports.r2gen_split()["study_id"]
    assert set(r2gen) <= set(chosen["study_id"])
    # What "the first image is the frontal one" would get wrong.
    first = listed.groupby("study_id")["view"].first()
    assert (first == "lateral").sum() > 200


def test_phantoms_take_the_places_of_the_real_views(folders, ids):
    studies = reports.load_studies().head(3)[["study_id", "mesh"]]
    only = images.choose_views(ids).merge(studies["study_id"])[:-1]
    views = images.draw_views(studies, only.drop(columns="view"), size=16)
    names = ["study_id", "image_id", "view"]
    assert views[names].equals(only[names]) and len(views) >= 3
    assert set(views["image_source"]) == {"phantom"}
    for path in views["path"]:
        assert not os.path.isabs(path)
        assert images.read_grey(images.locate(path), 16).shape == (16, 16)


def test_if_the_lowest_number_is_missing_the_next_one_is_taken(data, known):
    frontal = known.loc[known["view"] == "frontal", "image_id"].sort_values()
    ids = pd.DataFrame({"study_id": "CXR1", "image_id": frontal[:3]})
    for image_id in frontal[1:3]:
        save(data, f"{image_id}.png", flat(1))
    (row,) = images.xray_views(ids).itertuples()
    assert row.path == f"{row.image_id}.png" == f"{frontal.iloc[1]}.png"
    assert row.view_source == "published list"
    assert row.image_source == "IU X-ray"


# --- X-rays whose view nobody has published ---------------------------------


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Trained on phantoms: there are no X-rays."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LLAMAXR_DATA", str(tmp_path_factory.mktemp("data")))
    patch.setattr(images, "VIEW_STUDIES", {"phantoms": 40})
    yield images.view_model(images.find_images())
    patch.undo()


@pytest.fixture
def trained(classifier, monkeypatch):
    monkeypatch.setattr(images, "view_model", lambda _: classifier)


def test_the_classifier_looks_at_the_picture_alone(classifier):
    """Other patients, mirrored, dimmed: the same views."""
    model, name = classifier
    assert name.endswith("on 16 held-out phantoms)")  # a fifth of 40, 2 views
    views = np.array([*VIEWS] * 10)
    grey = np.stack([patient(v, f"X{i}") for i, v in enumerate(views)])
    assert (model.predict(grey) == views).mean() >= 0.9
    for changed in (grey[:, :, ::-1], grey // 2 + 60):
        assert (model.predict(changed) == model.predict(grey)).all()


def test_with_enough_xrays_they_teach(data, known, monkeypatch):
    """Studies are held out whole; a broken file is left out."""
    monkeypatch.setattr(images, "VIEW_STUDIES", {"X-rays": 20})
    monkeypatch.setattr(images, "LEAST", 10)
    studies = known["image_id"].str.split("_").str[0]
    few = known[studies.isin(studies.unique()[:15])]
    for number, row in enumerate(few.itertuples()):
        save(data, f"{row.image_id}.png", patient(row.view, f"X{number}"))
    put(data, f"{few['image_id'].iloc[0]}.png", b"no image")
    _, name = images.view_model(images.find_images())
    assert name.endswith("held-out X-rays)")
    assert float(name.split()[2]) > 0.8


def test_the_first_image_is_not_taken_for_the_frontal_one(data, trained, ids):
    """R2Gen's folders hold 0.png and 1.png, in no published order."""
    save(data, "CXR2384_IM-0942/0.png", patient("lateral"))
    save(data, "CXR2384_IM-0942/1.png", patient("frontal"))
    views = images.xray_views(ids)
    assert views[["study_id", "view", "image_id"]].to_numpy().tolist() == [
        ["CXR2384", "frontal", "CXR2384_IM-0942/1"],
        ["CXR2384", "lateral", "CXR2384_IM-0942/0"],
    ]
    assert views["view_source"].str.startswith("classifier").all()


def test_the_published_list_wins_over_the_picture(data, trained, known, ids):
    """An unlisted image of a lower number shows the same view; the listed
    one, whatever its picture looks like, is taken."""
    unlisted, listed = (f"CXR2084_IM-0715-2001-000{i}" for i in (1, 2))
    assert unlisted not in set(known["image_id"])
    view = known.set_index("image_id")["view"][listed]
    other = {"frontal": "lateral", "lateral": "frontal"}[view]
    save(data, f"{unlisted}.png", patient(view))
    save(data, f"{listed}.png", patient(other))
    (row,) = images.xray_views(ids).itertuples()
    assert (row.image_id, row.view) == (listed, view)
    assert row.view_source == "published list"


def test_images_of_openi_that_the_list_does_not_know(
    data, trained, known, ids
):
    unlisted = ids[~ids["image_id"].isin(known["image_id"])]
    assert len(unlisted) == 44
    first, second = unlisted["image_id"].iloc[:2]
    save(data, f"{first}.png", patient("lateral"))
    put(data, f"{second}.png", b"no image")
    views = images.xray_views(ids)
    (row,) = views.itertuples()
    assert (row.image_id, row.view) == (first, "lateral")
    ((path, reason),) = views.attrs["unreadable"]
    assert path == f"{second}.png" and "cannot identify" in reason


# --- pictures ---------------------------------------------------------------


def test_rows_keep_their_order_and_unreadable_ones_are_listed(data):
    """Files are read side by side."""
    names = [f"{value:02d}.png" for value in range(60)]
    for value, name in enumerate(names):
        save(data, name, flat(4 * value))
    put(data, "07.png", b"no image")
    rows = pd.DataFrame({"path": ["gone.png", *names[::-1]]})
    grey, table = images.read_views(rows, 8)
    names.remove("07.png")
    assert list(table["path"]) == names[::-1]
    assert grey[:, 0, 0].tolist() == [4 * int(n[:2]) for n in names[::-1]]
    reasons = dict(table.attrs["unreadable"])
    assert set(reasons) == {"07.png", "gone.png"} and all(reasons.values())
    with pytest.raises(CourseError, match="squashed"):
        images.read_views(rows, 8, "stretch")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a.png", lambda picture: picture.convert("RGB")),
        ("a.png", lambda picture: picture.convert("P")),
        ("a.jpg", lambda picture: picture.convert("CMYK")),
        ("a.jpg", lambda picture: picture.resize((2000, 1000))),
    ],
)
def test_any_coat_gives_the_same_grey(tmp_path, name, change):
    """A large JPEG is decoded small."""
    file = tmp_path / name
    change(Image.fromarray(WIDE)).save(file, quality=95)
    grey = images.read_grey(file, 50)
    plain = images.read_grey(save(tmp_path, "b.png", WIDE), 50)
    assert grey.dtype == np.uint8 and grey.shape == (50, 50)
    assert np.abs(grey.astype(int) - plain).max() <= 2


@pytest.mark.parametrize("bits", [8, 12, 15, 16])
def test_fewer_bits_in_16_are_not_read_dark(tmp_path, bits):
    values = np.linspace(0, 2**bits - 1, 64).reshape(8, 8).astype(np.uint16)
    grey = images.read_grey(save(tmp_path, "a.png", values), 8)
    assert np.abs(grey - GREY).max() <= 1


def test_squash_keeps_everything_and_crop_keeps_the_shape(tmp_path):
    file = save(tmp_path, "a.png", WIDE)
    assert np.ptp(images.read_grey(file, 100, "squash")) > 190
    cropped = images.read_grey(file, 100, "crop")
    assert (cropped[0] == range(50, 150)).all()  # no resampling


def dicom(path, values=RAMP, kind="MONOCHROME2", bits=12):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.set_pixel_data(values, kind, bits)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, GREY),
        ({"kind": "MONOCHROME1"}, 255 - GREY),
        ({"bits": 16}, GREY),
        ({"values": RAMP.astype(np.int16) - 2048}, GREY),
    ],
)
def test_dicom_of_any_bits_sign_and_kind(tmp_path, change, expected):
    grey = images.read_grey(dicom(tmp_path / "a.dcm", **change), 8)
    assert np.abs(grey - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("CXR7.png", b"<html>404</html>"),
        ("CXR7.png", encoded()[:1500]),
        ("CXR7.png", encoded()),  # a bomb
        ("CXR7.dcm", b"no dicom at all"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    file = put(tmp_path, name, content)
    with pytest.raises(CourseError, match=f"{name} could not be") as caught:
        images.read_grey(file, 8)
    assert caught.value.why.strip(". ")


# --- the range --------------------------------------------------------------


def test_the_range_is_torchxrayvisions():
    import torchxrayvision as xrv

    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ours = images.to_model_range(grey)
    assert ours.dtype == np.float32
    theirs = xrv.datasets.normalize(grey, maxval=255)
    assert np.allclose(ours, theirs, atol=1e-3)
    images.check_range(theirs)
    for value in (0, 10, 127, 255):  # a blank picture is no wrong range
        images.check_range(images.to_model_range(flat(value)))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda grey: grey / 255,
        lambda grey: grey / 127.5 - 1,
        lambda grey: (grey / 255 - 0.449) / 0.226,  # ImageNet's
        lambda grey: grey.astype(float),
        lambda grey: grey * 257.0,
        lambda grey: images.to_model_range(grey) * 8.03 - 1024,  # twice
        lambda grey: np.where(grey > 9, np.nan, 0.0),
    ],
)
def test_a_wrong_range_is_refused_and_explained(mistake):
    with pytest.raises(CourseError, match="issue 89") as caught:
        images.check_range(mistake(WIDE))
    assert "to_model_range" in caught.value.do
