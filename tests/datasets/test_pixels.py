"""One file -> grey bytes -> the network's range."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import pixels

WIDE = np.tile(np.arange(200, dtype=np.uint8), (100, 1))  # 100 x 200, grey


# --- the range --------------------------------------------------------------


def test_the_range_is_torchxrayvisions():
    import torchxrayvision as xrv

    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ours = pixels.to_model_range(grey)
    assert ours.min() == -1024
    assert ours.max() == 1024
    assert ours.dtype == np.float32
    theirs = xrv.datasets.normalize(grey, maxval=255)
    assert np.allclose(ours, theirs, atol=1e-3)
    pixels.check_range(theirs)


def test_the_range_of_one_value_does_not_depend_on_the_picture():
    dark = pixels.to_model_range(np.full((2, 2), 10, np.uint8))
    mixed = pixels.to_model_range(np.array([[10, 255]], np.uint8))
    assert dark[0, 0] == mixed[0, 0]


MISTAKES = {
    "0..1": lambda grey: grey / 255,
    "-1..1": lambda grey: grey / 127.5 - 1,
    "ImageNet": lambda grey: (grey / 255 - 0.449) / 0.226,
    "0..255": lambda grey: grey.astype(float),
    "0..4095": lambda grey: grey * (4095 / 255),
    "0..65535": lambda grey: grey * 257.0,
    "twice": lambda grey: pixels.to_model_range(grey) * 8.03 - 1024,
    "no numbers": lambda grey: np.where(grey > 9, np.nan, 0.0),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_range_is_refused_and_explained(mistake):
    batch = MISTAKES[mistake](np.stack([WIDE, WIDE[:, ::-1]])[:, None])
    with pytest.raises(CourseError, match="issue 89") as caught:
        pixels.check_range(batch)
    assert "to_model_range" in caught.value.do


def test_the_known_mistake_put_back_is_caught(monkeypatch):
    """to_model_range() that ends in [-1, 1]: the same scores for all."""
    monkeypatch.setattr(pixels, "LOW", -1.0)
    monkeypatch.setattr(pixels, "HIGH", 1.0)
    with pytest.raises(CourseError, match="go from -1 to"):
        pixels.check_range(pixels.to_model_range(WIDE))


@pytest.mark.parametrize("value", [0, 10, 127, 255])
def test_a_blank_picture_is_no_wrong_range(value):
    grey = np.full((1, 8, 8), value, np.uint8)
    pixels.check_range(pixels.to_model_range(grey))


def test_room_for_a_change_of_contrast_and_for_no_images():
    pixels.check_range(pixels.to_model_range(WIDE) * 1.1)
    pixels.check_range(np.zeros((0, 1, 8, 8)))


@pytest.mark.parametrize("kind", [float, np.float32, np.uint16, bool])
def test_only_bytes_are_turned_into_the_range(kind):
    with pytest.raises(CourseError, match="takes bytes"):
        pixels.to_model_range(np.ones((2, 2), kind))


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
    if kind == "palette":
        grey.convert("P").save(file)
    elif kind == "jpeg":
        grey.save(file, quality=95)
    elif kind == "cmyk":
        grey.convert("CMYK").save(file, quality=95)
    else:
        mode = {"rgb": "RGB", "rgba": "RGBA", "grey+alpha": "LA"}.get(kind)
        (grey.convert(mode) if mode else grey).save(file)
    return file


@pytest.mark.parametrize(
    "kind",
    ["16 bit", "rgb", "rgba", "grey+alpha", "palette", "jpeg", "cmyk"],
)
def test_any_coat_gives_the_same_grey(tmp_path, kind):
    grey = pixels.read_grey(save_as(tmp_path, kind), 50)
    plain = pixels.read_grey(save_as(tmp_path, "grey"), 50)
    assert grey.dtype == np.uint8
    assert grey.shape == (50, 50)
    assert np.abs(grey.astype(int) - plain).max() <= 2


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
def test_fewer_bits_in_16_are_not_read_dark(tmp_path, bits):
    values = np.linspace(0, 2**bits - 1, 64).reshape(8, 8)
    grey = pixels.read_grey(png16(tmp_path / "a.png", values), 8)
    assert np.abs(grey - np.linspace(0, 255, 64).reshape(8, 8)).max() <= 1


def test_one_bit_is_black_and_white(tmp_path):
    chess = Image.fromarray(np.indices((8, 8)).sum(0).astype(np.uint8) % 2)
    chess.point(lambda v: 255 * v, "1").save(tmp_path / "a.png")
    grey = pixels.read_grey(tmp_path / "a.png", 8)
    assert set(grey.ravel()) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_black(tmp_path, mode):
    picture = Image.new("L", (8, 8), 200)
    if mode == "P":
        picture = picture.convert("P")
        picture.paste(7, (0, 0, 4, 8))
        picture.save(tmp_path / "a.png", transparency=7)
    else:
        picture = picture.convert(mode)
        picture.putalpha(Image.fromarray(np.repeat([[0, 255]], 8, 0)
                                         .astype(np.uint8).repeat(4, 1)))
        picture.save(tmp_path / "a.png")
    grey = pixels.read_grey(tmp_path / "a.png", 8)
    assert grey[:, :4].max() == 0
    assert grey[:, 4:].min() == 200


def test_a_turn_noted_in_exif_is_made(tmp_path):
    notes = Image.Exif()
    notes[0x0112] = 6  # to be turned by a quarter, clockwise
    tall = Image.fromarray(WIDE).rotate(90, expand=True)
    tall.save(tmp_path / "a.jpg", exif=notes, quality=95)
    grey = pixels.read_grey(tmp_path / "a.jpg", 100)
    assert np.abs(grey[:, 50].astype(int) - WIDE[0, 100]).max() <= 3
    assert grey[50, 95] > 180


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    large = Image.fromarray(WIDE).resize((2000, 1000))
    large.save(tmp_path / "a.jpg", quality=95)
    grey = pixels.read_grey(tmp_path / "a.jpg", 64)
    full = np.asarray(large.resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(grey.astype(int) - full).max() <= 2


def test_fractions_have_no_known_range(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(CourseError, match="fractions"):
        pixels.read_grey(tmp_path / "a.tif", 8)


# --- a square ---------------------------------------------------------------


def test_squash_keeps_everything_and_crop_keeps_the_shape(tmp_path):
    file = save_as(tmp_path, "grey")
    squashed = pixels.read_grey(file, 100, "squash")
    cropped = pixels.read_grey(file, 100, "crop")
    assert np.ptp(squashed) > 190  # from edge to edge
    assert cropped[0, 0] == 50
    assert cropped[0, -1] == 149
    assert (np.diff(cropped[0].astype(int)) == 1).all()  # no resampling


def test_crop_of_a_tall_picture_takes_the_middle(tmp_path):
    Image.fromarray(WIDE.T.copy()).save(tmp_path / "tall.png")
    cropped = pixels.read_grey(tmp_path / "tall.png", 100, "crop")
    assert cropped[0, 0] == 50
    assert cropped[-1, 0] == 149


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
    back = pixels.read_grey(tmp_path / "square.png", 100, "crop", shape) > 99
    height, width = back.any(1).sum(), back.any(0).sum()
    assert abs(height - 60) <= 1  # 120 of 200 pixels, round again
    assert abs(width - 60) <= 1
    # A file that has its shape still is not given it twice.
    whole = pixels.read_grey(tmp_path / "whole.png", 100, "crop", shape) > 99
    assert (whole != back).mean() < 0.01


def test_squash_does_not_ask_for_the_shape(tmp_path):
    disc(300, 200).resize((256, 256)).save(tmp_path / "square.png")
    plain = pixels.read_grey(tmp_path / "square.png", 64)
    shaped = pixels.read_grey(tmp_path / "square.png", 64, shape=(300, 200))
    assert (plain == shaped).all()


def test_an_unknown_way_to_resize(tmp_path):
    with pytest.raises(CourseError, match="'stretch' is not known"):
        pixels.read_grey(save_as(tmp_path, "grey"), 8, "stretch")


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
    ours = pixels.to_model_range(pixels.read_grey(file, 8))
    theirs = xrv.utils.read_xray_dcm(file)
    assert np.abs(ours - theirs).max() <= 1024 / 255 + 0.01  # half a grey
    assert (ours[0, 0] < 0) == (kind == "MONOCHROME2")


@pytest.mark.parametrize("name", ["a", "a.png", "a.DCM"])
def test_dicom_is_known_by_its_content_or_its_name(tmp_path, name):
    grey = pixels.read_grey(dicom(tmp_path / name), 8)
    assert np.abs(grey - GREY).max() <= 1


def test_dicom_without_a_preamble(tmp_path):
    file = dicom(tmp_path / "a.dcm")
    file.write_bytes(file.read_bytes()[132:])
    assert np.abs(pixels.read_grey(file, 8) - GREY).max() <= 1


@pytest.mark.parametrize(
    ("slope", "intercept", "inverted"),
    [(1, 0, False), (0.5, -1024, False), (-1, 4095, True)],
)
def test_a_rescale_turns_the_greys_round_or_changes_nothing(
    tmp_path, slope, intercept, inverted
):
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    grey = pixels.read_grey(dicom(tmp_path / "a.dcm", **tags), 8)
    assert np.abs(grey - (255 - GREY if inverted else GREY)).max() <= 1


def test_12_bits_in_a_16_bit_header_and_signed_values(tmp_path):
    wide = pixels.read_grey(dicom(tmp_path / "a.dcm", bits=16), 8)
    assert np.abs(wide - GREY).max() <= 1
    below = RAMP.astype(np.int16) - 2048
    signed = pixels.read_grey(dicom(tmp_path / "b.dcm", below), 8)
    assert np.abs(signed - GREY).max() <= 1


def compressed(path):
    data = pydicom.dcmread(dicom(path))
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51junk"])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)


def coloured(path):
    dicom(path, np.zeros((8, 8, 3), np.uint8), "RGB", 8)


def films(path):
    dicom(path, np.stack([RAMP, RAMP]))


def without_pixels(path):
    data = pydicom.dcmread(dicom(path))
    del data.PixelData
    data.save_as(path)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (films, "2 frames"),
        (coloured, "but RGB"),
        (without_pixels, "no grey radiograph"),
        (lambda path: path.write_bytes(b"no dicom at all"), "no grey"),
        (lambda path: path.write_bytes(b""), "no grey"),
    ],
)
def test_a_dicom_that_is_no_radiograph(tmp_path, make, why):
    make(tmp_path / "CXR7.dcm")
    with pytest.raises(CourseError, match=why) as caught:
        pixels.read_grey(tmp_path / "CXR7.dcm", 8)
    assert "CXR7.dcm could not be read" in caught.value.what


def test_compressed_pixels_without_a_decoder(tmp_path, monkeypatch):
    compressed(tmp_path / "a.dcm")
    kind = type(pydicom.pixels.get_decoder(JPEG2000Lossless))
    monkeypatch.setattr(kind, "is_available", False)
    with pytest.raises(CourseError, match="JPEG 2000") as caught:
        pixels.read_grey(tmp_path / "a.dcm", 8)
    assert "no decoder" in caught.value.why
    assert "pip install pylibjpeg" in caught.value.do


# --- broken files -----------------------------------------------------------


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
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(tmp_path, kind):
    file = tmp_path / "CXR7.png"
    file.write_bytes(BROKEN[kind])
    with pytest.raises(CourseError) as caught:
        pixels.read_grey(file, 8)
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
                assert pixels.read_grey(file, 8).shape == (8, 8)
            except CourseError:
                pass


def test_a_folder_or_nothing_is_no_image(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.png", tmp_path / "no.dcm"):
        with pytest.raises(CourseError):
            pixels.read_grey(path, 8)
