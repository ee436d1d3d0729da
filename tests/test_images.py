"""Which picture shows which view, and a picture in the model's range."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llamaxr_utils import images, reports
from llamaxr_utils.errors import CourseError

WIDE = np.tile(np.arange(200, dtype=np.uint8), (100, 1))  # 100 x 200, grey


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


def png16(path, values):
    Image.fromarray(values.astype(np.uint16)).save(path)
    return path


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


# --- the range --------------------------------------------------------------


def test_the_range_is_torchxrayvisions():
    import torchxrayvision as xrv

    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ours = images.to_model_range(grey)
    assert ours.min() == -1024
    assert ours.max() == 1024
    assert ours.dtype == np.float32
    theirs = xrv.datasets.normalize(grey, maxval=255)
    assert np.allclose(ours, theirs, atol=1e-3)


def test_the_range_of_one_value_does_not_depend_on_the_picture():
    dark = images.to_model_range(np.full((2, 2), 10, np.uint8))
    mixed = images.to_model_range(np.array([[10, 255]], np.uint8))
    assert dark[0, 0] == mixed[0, 0]


# --- reading ----------------------------------------------------------------


def save_as(tmp_path, kind):
    """The same grey ramp in another coat."""
    grey = Image.fromarray(WIDE)
    file = tmp_path / f"{kind}.{'jpg' if kind == 'jpeg' else 'png'}"
    if kind == "16 bit":
        return png16(file, WIDE.astype(np.uint32) * 257)
    if kind == "palette":
        grey.convert("P").save(file)
    elif kind == "jpeg":
        grey.save(file, quality=95)
    else:
        mode = {"rgb": "RGB", "rgba": "RGBA", "grey+alpha": "LA"}.get(kind)
        (grey.convert(mode) if mode else grey).save(file)
    return file


@pytest.mark.parametrize(
    "kind",
    ["grey", "16 bit", "rgb", "rgba", "grey+alpha", "palette", "jpeg"],
)
def test_any_coat_gives_the_same_grey(tmp_path, kind):
    grey = images.read_grey(save_as(tmp_path, kind), 50)
    plain = images.read_grey(save_as(tmp_path, "grey"), 50)
    assert grey.dtype == np.uint8
    assert grey.shape == (50, 50)
    assert np.abs(grey.astype(int) - plain).max() <= 2


def test_16_bit_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64).reshape(8, 8)
    grey = images.read_grey(png16(tmp_path / "a.png", values), 8)
    assert grey.min() == 0
    assert grey.max() == 255
    assert len(np.unique(grey)) > 50


def test_squash_keeps_everything_and_crop_keeps_the_shape(tmp_path):
    file = save_as(tmp_path, "grey")
    squashed = images.read_grey(file, 100, "squash")
    cropped = images.read_grey(file, 100, "crop")
    assert np.ptp(squashed) > 190  # from edge to edge
    assert cropped[0, 0] == 50
    assert cropped[0, -1] == 149
    assert (np.diff(cropped[0].astype(int)) == 1).all()  # no resampling


def test_crop_of_a_tall_picture_takes_the_middle(tmp_path):
    Image.fromarray(WIDE.T.copy()).save(tmp_path / "tall.png")
    cropped = images.read_grey(tmp_path / "tall.png", 100, "crop")
    assert cropped[0, 0] == 50
    assert cropped[-1, 0] == 149


def test_an_unknown_way_to_resize(tmp_path, data):
    with pytest.raises(CourseError, match="'stretch' is not known"):
        images.read_grey(save_as(tmp_path, "grey"), 8, "stretch")
    views = pd.DataFrame({"path": [str(put(data, "a"))]})
    with pytest.raises(CourseError, match="'stretch' is not known"):
        images.read_views(views, 8, "stretch")  # not "unreadable files"


def chunk(kind, content):
    check = zlib.crc32(kind + content)
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", check)
    )


def bomb():
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def good_png():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    Image.fromarray(noise.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


BROKEN = {
    "empty": b"",
    "text": b"<html>404 not found</html>",
    "header only": good_png()[:8],
    "cut": good_png()[:1500],
    "bomb": bomb(),
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(tmp_path, kind):
    file = tmp_path / "CXR7.png"
    file.write_bytes(BROKEN[kind])
    with pytest.raises(CourseError) as caught:
        images.read_grey(file, 8)
    assert "CXR7.png could not be read" in caught.value.what


def test_damaged_bytes_are_read_or_named_but_nothing_else(tmp_path):
    """200 files with a few wrong bytes each."""
    rng = np.random.default_rng(1)
    jpeg = io.BytesIO()
    Image.fromarray(WIDE).save(jpeg, "JPEG")
    for good in (good_png(), jpeg.getvalue()):
        for number in range(100):
            content = bytearray(good)
            for place in rng.integers(8, len(content), 4):
                content[place] = rng.integers(256)
            file = tmp_path / f"{number}.png"
            file.write_bytes(content)
            try:
                assert images.read_grey(file, 8).shape == (8, 8)
            except CourseError:
                pass


def test_a_folder_or_nothing_is_no_image(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.png"):
        with pytest.raises(CourseError):
            images.read_grey(path, 8)


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


def test_a_zip_is_unpacked_once(data, some):
    archive = packed(data, {f"deep/{some[0]}.png": good_png(), "a.txt": "x"})
    found = images.find_xrays()
    assert set(found) == {some[0]}
    assert not list(data.rglob("*.txt"))
    written = found[some[0]].stat().st_mtime_ns
    assert images.find_xrays()[some[0]].stat().st_mtime_ns == written
    assert archive.exists()


@pytest.mark.parametrize(
    "path", ["../{}.png", "a/../../{}.png", "/tmp/{}.png"]
)
def test_a_zip_that_wants_out_is_refused(data, some, path):
    outside = path.format(some[0])
    packed(data, {f"{some[1]}.png": good_png(), outside: good_png()})
    with pytest.raises(CourseError) as caught:
        images.find_xrays()
    assert "not safe" in caught.value.what
    assert repr(outside) in caught.value.why
    assert not (data.parent / f"{some[0]}.png").exists()
    assert not (data / "xrays").exists()  # and it is not taken for whole


def test_a_broken_zip_leaves_nothing_and_a_good_one_then_works(data, some):
    entries = {f"{i}.png": good_png() for i in some}
    archive = packed(data, entries)
    whole = archive.read_bytes()
    half = bytearray(whole)
    half[len(whole) // 2] ^= 255  # a checksum that fails
    for content in (whole[:1000], bytes(half), b"no zip"):
        archive.write_bytes(content)
        with pytest.raises(CourseError, match="could not be unpacked"):
            images.find_xrays()
    packed(data, {f"{some[0]}.png": good_png()})
    assert set(images.find_xrays()) == {some[0]}


def test_a_full_disk_while_unpacking(data, some, monkeypatch):
    packed(data, {f"{some[0]}.png": good_png()})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(CourseError, match="No space left"):
        images.find_xrays()


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


def test_an_image_that_is_gone_says_what_to_do(data):
    with pytest.raises(CourseError) as caught:
        images.locate("deep/CXR1.png")
    assert "CXR1.png is gone" in caught.value.what
    assert "LLAMAXR_DATA" in caught.value.do
