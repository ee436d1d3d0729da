"""Images: their files and views, grey bytes, the network's range."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import images, phantoms, reports
from llamaxr_utils.datasets.conditions import VIEWS


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


def put(folder, image_id, value=100):
    file = folder / f"{image_id}.png"
    Image.new("L", (8, 8), value).save(file)
    return file


def put_file(*parts, content=b"x"):
    path = Path(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- views ------------------------------------------------------------------


def test_the_list_of_views(known, ids):
    assert len(known) == 7426
    assert known["image_id"].is_unique
    counts = known["view"].value_counts().to_dict()
    assert counts == {"frontal": 3794, "lateral": 3632}
    assert set(known["image_id"]) <= set(ids["image_id"])
    seen = images.choose_views(ids)["study_id"]
    assert set(reports.r2gen_split()["study_id"]) <= set(seen)


def test_one_image_a_view_and_the_lowest_number(known, ids):
    chosen = images.choose_views(ids)
    assert not chosen.duplicated(["study_id", "view"]).any()
    assert chosen.groupby("study_id").size().eq(2).sum() == 3376
    listed = ids.merge(known, on="image_id")
    lowest = listed.groupby(["study_id", "view"])["image_id"].min()
    picked = chosen.set_index(["study_id", "view"])["image_id"]
    assert picked.sort_index().equals(lowest.sort_index())
    # What "the first is frontal" would get wrong.
    first = ids.groupby("study_id", sort=False)["image_id"].first()
    view = known.set_index("image_id")["view"].reindex(first)
    assert (view == "lateral").sum() > 200


def test_phantoms_take_the_places_of_the_real_views(folders, known):
    of_view = known.groupby("view")["image_id"].agg(list)
    chosen = [of_view["frontal"][0], *of_view["lateral"][:2]]
    table = pd.DataFrame({"study_id": ["CXR1", "CXR1", "CXR2"],
                          "image_id": chosen})  # fmt: skip
    studies = pd.DataFrame(
        {"study_id": ["CXR1", "CXR2"], "mesh": [["normal"], ["normal"]]}
    )
    views = images.draw_views(studies, table, size=16)
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


# --- X-rays on disk: names and layouts ---------------------------------------

DICOM = bytes(128) + b"DICM" + bytes(60)


def test_every_image_id_of_the_collection_is_recognised_under_both_names(ids):
    names = list(ids["image_id"])
    assert len(names) == 7470
    assert [images.openi_id(name) for name in names] == names
    kaggle = [name.removeprefix("CXR").replace("1_1_IM", "1_IM", 1)
              if name.startswith("CXR1_1_") else name.removeprefix("CXR")
              for name in names]  # fmt: skip
    assert {images.openi_id(f"{name}.dcm") for name in kaggle} == set(names)
    for other in ("holiday", "0", "CXR2", "CXR2_frontal", "CXR2_IM-0652"):
        assert images.openi_id(other) is None


def test_each_layout_is_told_by_its_names(data):
    put_file(data, "CXR1_1_IM-0001-3001.png")
    put_file(data, "images/images_normalized/2_IM-0652-1001.dcm.png")
    put_file(data, "again/CXR2_IM-0652-1001.png")  # counts once
    put_file(data, "NLMCXR_dcm/3/3_IM-1384-1001.dcm", content=DICOM)
    put_file(data, "dicom/CXR4_IM-2050-1001", content=DICOM)
    put_file(data, "iu_xray/images/CXR2384_IM-0942/0.png")
    put_file(data, "CXR5_IM-2117-1001.txt")
    put_file(data, "CXR6_IM-2192-1001")  # no ending, and no DICOM
    put_file(data, "holiday/0.jpg")
    # Hidden, half written, or drawn.
    put_file(data, ".work/CXR3_IM-1384-1001.png")
    put_file(data, ".CXR3_IM-1384-1001.png.part77")
    put_file(data, "__MACOSX/._CXR3_IM-1384-1001.png")
    put_file(data, "phantoms/v1-64/CXR3_frontal.png")
    table = images.find_images()
    assert list(table["image_id"]) == [
        "CXR1_1_IM-0001-3001",
        "CXR2_IM-0652-1001",
        "CXR3_IM-1384-1001",
        "CXR4_IM-2050-1001",
        "CXR2384_IM-0942/0",
    ]
    assert list(table["layout"]) == ["openi"] * 4 + ["r2gen"]
    assert [Path(p).name for p in table.attrs["ignored"]] == ["0.jpg"]
    assert all(path.is_file() for path in table["path"])


def test_without_xrays_it_is_said_what_was_looked_for(data):
    for i in range(2):  # 0.png need not be the frontal
        put_file(data, "CXR2384_IM-0942", f"{i}.png")
    with pytest.raises(CourseError, match="2 images there") as caught:
        images.find_xrays()
    assert "fetch openi" in caught.value.do
    with pytest.raises(CourseError, match=r"CXR1\.png is gone"):
        images.locate("deep/CXR1.png")


@pytest.mark.parametrize(
    "name",
    [
        "CXR1_1_IM-0001-3001",  # OpenI
        "CXR1_IM-0001-3001",  # the published list of views
        "1_IM-0001-3001.dcm",  # the Kaggle copy
    ],
)
def test_the_first_study_under_any_of_its_names(data, name, ids):
    """Its images have a number more than all others."""
    put(data, name)
    views = images.xray_views(ids)[["study_id", "view"]]
    assert views.to_numpy().tolist() == [["CXR1", "lateral"]]


def test_the_views_of_xrays_that_are_there(data, known):
    """The lowest frontal image is missing: the next one is taken."""
    frontal = known.loc[known["view"] == "frontal", "image_id"].sort_values()
    table = pd.DataFrame({"study_id": "CXR1", "image_id": frontal[:3]})
    put(data, frontal.iloc[1])
    put(data, frontal.iloc[2])
    views = images.xray_views(table)
    assert list(views["image_id"]) == [frontal.iloc[1]]
    assert list(views["path"]) == [f"{frontal.iloc[1]}.png"]
    assert list(views["image_source"]) == ["IU X-ray"]


def test_a_read_only_data_folder(data, known, folders, monkeypatch):
    """A class folder: nothing is written there, caches go to the runs."""
    two = list(known["image_id"][:2])
    with zipfile.ZipFile(data / "xrays.zip", "w") as archive:
        archive.writestr(f"{two[0]}.png", encoded("PNG"))
    put(data, two[1])
    before = sorted(data.rglob("*"))
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: access(path, mode)
        and not (str(path).startswith(str(data)) and mode & os.W_OK),
    )
    files = images.find_xrays()
    assert set(files) == set(two)
    assert files[two[0]].is_relative_to(folders / "cache")
    assert sorted(data.rglob("*")) == before
    table = pd.DataFrame({"study_id": ["a", "b"], "image_id": two})
    for path in images.xray_views(table)["path"]:
        assert not os.path.isabs(path)
        images.read_grey(images.locate(path), 8)


# --- X-rays whose view nobody has published ---------------------------------


def draw(file, view, study="CXR99"):
    file.parent.mkdir(parents=True, exist_ok=True)
    grey = phantoms.draw(study, ["normal"], view, 64)
    Image.fromarray(grey).save(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Taught by drawings of 30 patients."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("model")
        patch.setenv("LLAMAXR_DATA", str(place))
        patch.setattr(images, "VIEW_STUDIES", {"phantoms": 30})
        return images.view_model(images.find_images())


@pytest.fixture
def trained(model, monkeypatch):
    monkeypatch.setattr(images, "view_model", lambda _: model)


def test_a_model_of_views_judges_the_picture(model):
    classifier, source = model
    assert source.endswith("on 12 held-out phantoms)")  # 6 studies
    assert float(source.split()[2]) >= 0.9
    pairs = [(f"CXR{n}", view) for n in range(20) for view in VIEWS]
    grey = np.stack([phantoms.draw(s, ["normal"], v, 64) for s, v in pairs])

    def classify(grey):
        return classifier.predict(images._view_features(grey))

    views = classify(grey)
    assert (views == [view for _, view in pairs]).mean() >= 0.9
    assert (classify(grey[:, :, ::-1]) == views).all()  # faces the other way
    assert (classify(grey[::-1])[::-1] == views).all()
    assert (classify(grey // 2 + 60) == views).mean() > 0.95


def test_xrays_teach_once_there_are_enough(data, known, monkeypatch):
    monkeypatch.setattr(images, "VIEW_STUDIES", {"X-rays": 20})
    monkeypatch.setattr(images, "LEAST", 10)
    study = known["image_id"].str.split("_").str[0]
    some = known[study.isin(study.unique()[:15])]
    for row in some.itertuples():
        place = data / f"{row.image_id}.png"
        draw(place, row.view, row.image_id.split("_")[0])
    (data / f"{some['image_id'].iloc[0]}.png").write_bytes(b"no image")
    source = images.view_model(images.find_images())[1]
    assert source.endswith("held-out X-rays)")
    assert float(source.split()[2]) > 0.8


def test_the_first_image_is_not_taken_for_the_frontal_one(data, trained, ids):
    """R2Gen's folders hold 0.png and 1.png, in no published order."""
    draw(data / "CXR2384_IM-0942" / "0.png", "lateral")
    draw(data / "CXR2384_IM-0942" / "1.png", "frontal")
    views = images.xray_views(ids)
    assert views[["study_id", "view", "image_id"]].to_numpy().tolist() == [
        ["CXR2384", "frontal", "CXR2384_IM-0942/1"],
        ["CXR2384", "lateral", "CXR2384_IM-0942/0"],
    ]
    assert views["view_source"].str.startswith("classifier").all()


def test_the_published_list_wins_over_the_picture(data, trained, known, ids):
    """An unlisted image of a lower number shows the same view; the listed
    one, whatever its picture looks like, is taken."""
    assert "CXR2084_IM-0715-2001-0001" not in set(known["image_id"])
    view = known.set_index("image_id")["view"]["CXR2084_IM-0715-2001-0002"]
    other = {"frontal": "lateral", "lateral": "frontal"}[view]
    draw(data / "CXR2084_IM-0715-2001-0001.png", view)
    draw(data / "CXR2084_IM-0715-2001-0002.png", other)
    (row,) = images.xray_views(ids).itertuples()
    assert row.image_id == "CXR2084_IM-0715-2001-0002"
    assert row.view == view
    assert row.view_source == "published list"


def test_images_of_openi_that_the_list_does_not_know(
    data, trained, known, ids
):
    unlisted = ids[~ids["image_id"].isin(known["image_id"])]
    assert len(unlisted) == 44
    first, second = unlisted["image_id"].iloc[:2]
    draw(data / f"{first}.png", "lateral")
    (data / f"{second}.png").write_bytes(b"no image")
    views = images.xray_views(ids)
    assert list(views["image_id"]) == [first]
    assert list(views["view"]) == ["lateral"]
    ((path, reason),) = views.attrs["unreadable"]
    assert path.endswith(f"{second}.png")
    assert "cannot identify" in reason


# --- many files --------------------------------------------------------------


def test_unreadable_files_are_listed_and_the_order_is_kept(data):
    """Files are read side by side."""
    names = [f"{value:02d}.png" for value in range(60)]
    for value, name in enumerate(names):
        put(data, name.removesuffix(".png"), value=4 * value)
    (data / "07.png").write_bytes(b"no image")
    views = pd.DataFrame({"path": [*names[::-1], "gone.png"]})
    grey, table = images.read_views(views, 8)
    values = [v for v in range(59, -1, -1) if v != 7]
    assert grey[:, 0, 0].tolist() == [4 * v for v in values]
    assert list(table["path"]) == [names[v] for v in values]
    reasons = dict(table.attrs["unreadable"])
    assert set(reasons) == {"07.png", "gone.png"}
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
    disc(height, width).save(data / "a.png")
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
    assert (squashed == images.read_grey(data / "a.png", 256)).all()


# --- the range that the network expects --------------------------------------

WIDE = np.tile(np.arange(200, dtype=np.uint8), (100, 1))  # 100 x 200, grey
MISTAKES = {
    "0..1": lambda grey: grey / 255,
    "-1..1": lambda grey: grey / 127.5 - 1,
    "ImageNet": lambda grey: (grey / 255 - 0.449) / 0.226,
    "0..255": lambda grey: grey.astype(float),
    "0..4095": lambda grey: grey * (4095 / 255),
    "twice": lambda grey: images.to_model_range(grey) * 8.03 - 1024,
    "no numbers": lambda grey: np.where(grey > 9, np.nan, 0.0),
}


def test_the_range_is_torchxrayvisions():
    import torchxrayvision as xrv

    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ours = images.to_model_range(grey)
    assert (ours.min(), ours.max(), ours.dtype) == (-1024, 1024, np.float32)
    theirs = xrv.datasets.normalize(grey, maxval=255)
    assert np.allclose(ours, theirs, atol=1e-3)
    images.check_range(theirs)
    for value in (0, 10, 127, 255):  # a blank picture is no wrong range
        blank = np.full((1, 8, 8), value, np.uint8)
        images.check_range(images.to_model_range(blank))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_range_is_refused_and_explained(mistake):
    batch = MISTAKES[mistake](np.stack([WIDE, WIDE[:, ::-1]])[:, None])
    with pytest.raises(CourseError, match="issue 89") as caught:
        images.check_range(batch)
    assert "to_model_range" in caught.value.do


# --- formats ----------------------------------------------------------------


def png16(path, values):
    Image.fromarray(values.astype(np.uint16)).save(path)
    return path


def save_as(tmp_path, kind):
    """The same grey ramp in another coat."""
    grey = Image.fromarray(WIDE)
    file = tmp_path / f"a.{'jpg' if kind in ('jpeg', 'cmyk') else 'png'}"
    if kind == "16 bit":
        return png16(file, WIDE.astype(np.uint32) * 257)
    modes = {"rgb": "RGB", "rgba": "RGBA", "grey+alpha": "LA",
             "palette": "P", "cmyk": "CMYK"}  # fmt: skip
    grey = grey.convert(modes.get(kind, "L"))
    grey.save(file, **({"quality": 95} if file.suffix == ".jpg" else {}))
    return file


@pytest.mark.parametrize(
    "kind",
    ["16 bit", "rgb", "rgba", "grey+alpha", "palette", "jpeg", "cmyk"],
)
def test_any_coat_gives_the_same_grey(tmp_path, kind):
    grey = images.read_grey(save_as(tmp_path, kind), 50)
    plain = images.read_grey(save_as(tmp_path, "grey"), 50)
    assert grey.dtype == np.uint8
    assert grey.shape == (50, 50)
    assert np.abs(grey.astype(int) - plain).max() <= 2


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_fewer_bits_in_16_are_not_read_dark(tmp_path, bits):
    values = np.linspace(0, 2**bits - 1, 64).reshape(8, 8)
    grey = images.read_grey(png16(tmp_path / "a.png", values), 8)
    assert np.abs(grey - GREY).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_black(tmp_path, mode):
    picture = Image.new("L", (8, 8), 200).convert(mode)
    if mode == "P":
        picture.paste(7, (0, 0, 4, 8))
        picture.save(tmp_path / "a.png", transparency=7)
    else:
        halves = np.array([[0, 255]], np.uint8).repeat(8, 0).repeat(4, 1)
        picture.putalpha(Image.fromarray(halves))
        picture.save(tmp_path / "a.png")
    grey = images.read_grey(tmp_path / "a.png", 8)
    assert grey[:, :4].max() == 0
    assert grey[:, 4:].min() == 200


def test_a_turned_and_a_large_jpeg(tmp_path):
    notes = Image.Exif()
    notes[0x0112] = 6  # to be turned by a quarter, clockwise
    tall = Image.fromarray(WIDE).rotate(90, expand=True)
    tall.save(tmp_path / "a.jpg", exif=notes, quality=95)
    grey = images.read_grey(tmp_path / "a.jpg", 100)
    assert np.abs(grey[:, 50].astype(int) - WIDE[0, 100]).max() <= 3
    assert grey[50, 95] > 180
    large = Image.fromarray(WIDE).resize((2000, 1000))
    large.save(tmp_path / "b.jpg", quality=95)  # is decoded small
    grey = images.read_grey(tmp_path / "b.jpg", 64)
    full = np.asarray(large.resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(grey.astype(int) - full).max() <= 2


def test_squash_keeps_everything_and_crop_keeps_the_shape(tmp_path):
    file = save_as(tmp_path, "grey")
    squashed = images.read_grey(file, 100, "squash")
    cropped = images.read_grey(file, 100, "crop")
    assert np.ptp(squashed) > 190  # from edge to edge
    assert (cropped[0, 0], cropped[0, -1]) == (50, 149)
    assert (np.diff(cropped[0].astype(int)) == 1).all()  # no resampling
    with pytest.raises(CourseError, match="'squeeze' is not known"):
        images.read_grey(file, 8, "squeeze")


def disc(rows, columns):
    y, x = np.mgrid[:rows, :columns]
    inside = (y - rows / 2) ** 2 + (x - columns / 2) ** 2 < 60**2
    return Image.fromarray((200 * inside).astype(np.uint8))


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (200, 200)])
def test_a_squashed_picture_gets_its_shape_back_before_the_crop(
    tmp_path, shape
):
    disc(*shape).resize((256, 256)).save(tmp_path / "square.png")
    disc(*shape).save(tmp_path / "whole.png")
    back = images.read_grey(tmp_path / "square.png", 100, "crop", shape) > 99
    height, width = back.any(1).sum(), back.any(0).sum()
    assert abs(height - 60) <= 1  # 120 of 200 pixels, round again
    assert abs(width - 60) <= 1
    # A file that has its shape still is not given it twice.
    whole = images.read_grey(tmp_path / "whole.png", 100, "crop", shape) > 99
    assert (whole != back).mean() < 0.01


# --- DICOM ------------------------------------------------------------------

RAMP = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
GREY = np.linspace(0, 255, 64).reshape(8, 8)


def dicom(path, values=RAMP, kind="MONOCHROME2", bits=12, **tags):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.set_pixel_data(values, kind, bits)
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.filterwarnings("ignore:Converting MONOCHROME1")
def test_dicom_is_read_as_torchxrayvision_does(tmp_path, kind):
    import torchxrayvision as xrv

    file = dicom(tmp_path / "a.dcm", kind=kind)
    ours = images.to_model_range(images.read_grey(file, 8))
    theirs = xrv.utils.read_xray_dcm(file)
    assert np.abs(ours - theirs).max() <= 1024 / 255 + 0.01  # half a grey
    assert (ours[0, 0] < 0) == (kind == "MONOCHROME2")


@pytest.mark.parametrize(
    ("name", "options", "inverted"),
    [
        ("a", {}, False),  # known by its content
        ("a.png", {}, False),
        ("a.dcm", {"RescaleSlope": 0.5, "RescaleIntercept": -1024}, False),
        ("a.dcm", {"RescaleSlope": -1, "RescaleIntercept": 4095}, True),
        ("a.dcm", {"bits": 16}, False),  # 12 bits in a 16-bit header
        ("a.dcm", {"values": RAMP.astype(np.int16) - 2048}, False),
    ],
)
def test_dicom_headers_that_turn_the_greys_or_change_nothing(
    tmp_path, name, options, inverted
):
    grey = images.read_grey(dicom(tmp_path / name, **options), 8)
    assert np.abs(grey - (255 - GREY if inverted else GREY)).max() <= 1


def compressed(path):
    data = pydicom.dcmread(dicom(path))
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51junk"])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)


def without_pixels(path):
    data = pydicom.dcmread(dicom(path))
    del data.PixelData
    data.save_as(path)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: dicom(path, np.stack([RAMP, RAMP])), "2 frames"),
        (lambda path: dicom(path, np.zeros((8, 8, 3), np.uint8), "RGB", 8),
         "but RGB"),
        (without_pixels, "no grey radiograph"),
        (compressed, "decode"),
        (lambda path: path.write_bytes(b"no dicom at all"), "no grey"),
    ],
)  # fmt: skip
def test_a_dicom_that_is_no_radiograph(tmp_path, monkeypatch, make, why):
    kind = type(pydicom.pixels.get_decoder(JPEG2000Lossless))
    monkeypatch.setattr(kind, "is_available", False)
    make(tmp_path / "CXR7.dcm")
    with pytest.raises(CourseError, match=why) as caught:
        images.read_grey(tmp_path / "CXR7.dcm", 8)
    assert "CXR7.dcm could not be read" in caught.value.what


# --- broken files -----------------------------------------------------------


def chunk(kind, content):
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def bomb():
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def encoded(kind):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    Image.fromarray(noise.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


BROKEN = {
    "empty": b"",
    "text": b"<html>404 not found</html>",
    "header only": encoded("PNG")[:8],
    "cut": encoded("PNG")[:1500],
    "bomb": bomb(),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(tmp_path, kind):
    file = tmp_path / "CXR7.png"
    file.write_bytes(BROKEN[kind])
    with pytest.raises(CourseError) as caught:
        images.read_grey(file, 8)
    assert "CXR7.png could not be read" in caught.value.what
    assert caught.value.why.strip(". ")


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_read_or_named_but_nothing_else(tmp_path):
    """100 files of each kind with a few wrong bytes each."""
    rng = np.random.default_rng(1)
    dcm = dicom(tmp_path / "a.dcm").read_bytes()
    for good in (encoded("PNG"), encoded("JPEG"), dcm):
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
