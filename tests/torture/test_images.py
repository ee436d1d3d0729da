"""Files that are no X-ray, or one told in another way."""

import io
import os
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from llamaxr_utils.course.errors import CourseError
from llamaxr_utils.datasets import downloads, images, phantoms
from llamaxr_utils.studies.report import about_pictures
from llamaxr_utils.vision import backbones

GREY = np.linspace(0, 255, 64).reshape(8, 8)
VIEW = phantoms.draw("CXR7", ["normal"], "frontal", 64)
SIDE = phantoms.draw("CXR7", ["normal"], "lateral", 64)
NOISE = np.random.default_rng(1).integers(0, 255, (300, 300, 3), np.uint8)


def dicom(stored, kind="MONOCHROME2", bits=8, header=(),
          syntax=ExplicitVRLittleEndian):
    """A DICOM file's bytes."""
    data, file = Dataset(), io.BytesIO()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.set_pixel_data(stored, kind, bits)
    data.file_meta.TransferSyntaxUID = syntax
    for name, value in dict(header).items():
        setattr(data, name, value)
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def lut(first, depth, entries):
    item = Dataset()
    item.LUTDescriptor = [entries, first, depth]
    values = np.linspace(0, 2**depth - 1, entries)
    item.LUTData = values.astype("<u2").tobytes()
    return Sequence([item])


def headers(low, high):
    """Name -> header that shows the stored values low..high as 0..255."""
    def window(scale, add):
        ends = low * scale + add, high * scale + add
        return {"WindowCenter": [sum(ends) / 2 + 0.5, 1],
                "WindowWidth": [abs(ends[1] - ends[0]) + 1, 2]} | (
                    {} if scale == 1 else
                    {"RescaleSlope": scale, "RescaleIntercept": add})

    table, both = (low, high - low + 1), window(1, 0)
    return {
        "window": both, "one": {key: v[0] for key, v in both.items()},
        "rescaled": window(0.5, 10), "negative": window(-2, 100),
        "padded": both | {"PixelPaddingValue": low},
        "lut": {"VOILUTSequence": lut(table[0], 16, table[1])},
        "lut of 8 bits": {"VOILUTSequence": lut(table[0], 8, table[1])},
        "lut first": both | {"VOILUTSequence": lut(table[0], 12, table[1])},
        "lut of floats": {"RescaleSlope": 1, "RescaleIntercept": 0,
                          "VOILUTSequence": lut(table[0], 16, table[1])},
        "modality": {"ModalityLUTSequence": lut(table[0], 16, table[1])}}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*headers(0, 9), "plain", "slope"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_looks_like_its_copy_of_8_bits(
        tmp_path, kind, bits, signed, name):
    top, base = 2**bits - 1, -(2 ** (bits - 1)) * signed
    low, high = base + top // 4, base + top // 4 + min(top // 2, 32000)
    header = headers(low, high).get(name)
    if header is None:  # all values are used, and no window says which
        low, high = base, base + top
        header = {"RescaleSlope": -1, "RescaleIntercept": 0} if (
            name == "slope") else {}
    grey = 255 - GREY if header.get("RescaleSlope", 1) < 0 else GREY
    stored = np.rint(low + grey / 255 * (high - low)).astype(
        f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    expected = 255 - GREY if kind == "MONOCHROME1" else GREY.copy()
    if name == "padded":
        expected[0, 0] = 0
    file = tmp_path / "a"
    file.write_bytes(dicom(stored, kind, bits, header))
    off = np.abs(images.read_grey(file, 8) - expected).max()
    assert off <= 1 + 255 / (high - low)


def coded(kind="PNG", pixels=VIEW, mode=None, **options):
    """The bytes of a picture."""
    file, picture = io.BytesIO(), Image.fromarray(pixels)
    picture.convert(mode or picture.mode).save(file, kind, **options)
    return file.getvalue()


WIDE = bytearray(coded())
WIDE[16:24] = 2 * (20_000).to_bytes(4, "big")
WIDE[29:33] = zlib.crc32(WIDE[12:29]).to_bytes(4, "big")
LARGE = {"Rows": 20_000, "Columns": 20_000}
MORE = {"save_all": True, "append_images": [Image.fromarray(SIDE)]}
SPOILED = {
    "nothing": b"", "text": b"no picture", "cut": coded()[:900],
    "cut jpeg": coded("JPEG")[:300], "gif": coded("GIF", **MORE),
    "pages": coded("TIFF", **MORE), "bmp": coded("BMP"),
    "nan": coded("TIFF", VIEW.astype("f4") * np.nan), "pdf": b"%PDF-1.4 ",
    "j2k": coded("JPEG2000"), "svg": b"<svg xmlns='http://www.w3.org/'/>",
    "eps": coded("EPS"), "ps": b"%!PS-Adobe-3.0\n(%pipe%id) (w) file",
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(16) + b"\x01\0\t\0" + bytes(60),
    "pixels: wide": bytes(WIDE), "pixels: dicom": dicom(VIEW, header=LARGE),
    "pixels: deep": dicom(VIEW, header=LARGE | {"SamplesPerPixel": 3}),
    "deflated": dicom(VIEW, syntax=DeflatedExplicitVRLittleEndian),
    "cut dicom": dicom(VIEW)[:900], "head": dicom(VIEW)[:200],
    "palette": dicom(VIEW, header={
        "PhotometricInterpretation": "PALETTE COLOR"}),
    "no window": dicom(VIEW, header={
        "WindowCenter": 5, "WindowWidth": 0}),
    "bits: 32": dicom(VIEW, header={
        "BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "Columns": 16}),
    "other syntax": dicom(VIEW).replace(b"1.2.840.10008.1.2.1\0",
                                        b"1.2.840.10008.1.2.5\0")}


def place(folder, name, kind):
    """A file of `kind`, or what only looks like one."""
    path = folder / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind != "missing":
        path.write_bytes(SPOILED[kind])
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.dcm"])
@pytest.mark.parametrize("kind", [
    *SPOILED, "folder", "pipe", "device", "missing"])
def test_what_is_no_x_ray_is_refused(tmp_path, kind, name, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    with pytest.raises(CourseError, match="could not be read") as caught:
        images.read_grey(place(tmp_path, name, kind), 64)
    assert not started and caught.value.why.strip(". ")
    if ":" in kind or kind == "deflated":
        assert kind.split(":")[0] in caught.value.why
    if kind in ("nan", "pages", "gif", "eps", "ps", "wmf", "pdf", "text"):
        assert caught.value.why == "It holds no PNG, JPEG or DICOM."


COLOUR = np.stack([VIEW] * 3, 2)
PADDED = np.where(np.eye(64, dtype=bool), 4095, VIEW).astype("u2")
TURNED = {3: np.rot90(VIEW, 2), 6: np.rot90(VIEW), 8: np.rot90(VIEW, 3)}


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.dcm", "a"])
@pytest.mark.parametrize("content", [
    coded("JPEG", mode="CMYK"), coded(mode="RGBA"), coded(mode="LA"),
    coded(mode="P"), coded(pixels=VIEW.astype("u2") * 257), coded(),
    coded(pixels=VIEW.astype("u2") * 16), coded("JPEG", VIEW.repeat(9, 0)),
    coded(pixels=COLOUR), dicom(VIEW), dicom(COLOUR, "RGB"),
    dicom(np.stack([VIEW, SIDE])), coded(**MORE),
    dicom(PADDED, bits=12, header={"PixelPaddingValue": 4095}),
    *(coded("JPEG", turned, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"
            b"\x03\0\x01\0\0\0" + bytes([how, 0, 0, 0, 0, 0, 0, 0]))
      for how, turned in TURNED.items())])
def test_another_coat_is_the_same_picture(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    off = images.read_grey(tmp_path / name, 64).astype(int) - VIEW
    assert np.abs(off).mean() < 5


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "a.tar"])
def test_a_pipe_is_no_archive(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CourseError, match="There is no such file"):
        downloads.unpack_images(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (2, 3)])
def test_any_shape(tmp_path, shape, resize):
    (tmp_path / "a").write_bytes(coded(pixels=np.full(shape, 9, np.uint8)))
    assert (images.read_grey(tmp_path / "a", 64, resize) == 9).all()


@pytest.mark.parametrize("level", range(0, 256, 5))
def test_a_dull_picture_has_no_wrong_range(level):
    dull = (level + (255 - level) / 255 * VIEW / 9).astype(np.uint8)
    backbones.to_batch(dull[None])
    kinds = dict(about_pictures({"frontal": Image.fromarray(dull)}))
    assert "noise" not in kinds and "no contrast" in kinds


@pytest.mark.parametrize(("pictures", "expected"), [
    ((VIEW, SIDE), []), ((VIEW,), []), ((SIDE, VIEW), ["swapped"]),
    ((SIDE,), ["swapped"]), ((VIEW // 9,), ["no contrast"]),
    ((NOISE[..., 0],), ["noise"]), ((NOISE,), ["noise", "in colour"]),
    ((np.stack([VIEW, VIEW // 2, VIEW // 3], 2), SIDE), ["in colour"])])
def test_a_caveat_for_each_doubt(pictures, expected):
    shown = zip(("frontal", "lateral"), map(Image.fromarray, pictures))
    assert {k for k, _ in about_pictures(dict(shown))} == {*expected}
