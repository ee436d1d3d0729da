"""One image file -> a grey square of bytes -> the range the network expects.

Reads what chest X-rays come as: PNG of 1 to 16 bits, JPEG, colour, palette,
transparency, DICOM. It knows nothing of studies and views (`images`).
`check_range` makes the best-known mistake, a wrong range, impossible to miss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..course.errors import CourseError

RESIZE = ("squash", "crop")
#: torchxrayvision's range: ``xrv.datasets.normalize(image, maxval=255)``.
LOW, HIGH = -1024.0, 1024.0
DICOM_SUFFIXES = (".dcm", ".dicom")


def read_grey(
    path: str | Path,
    size: int,
    resize: str = "squash",
    shape: tuple[float, float] | None = None,
) -> np.ndarray:
    """One image as uint8 grey values: air dark, bone bright.

    Parameters
    ----------
    path : path
        PNG, JPEG or another format of Pillow's, or DICOM. Colour becomes
        luminance, transparent parts black; a turn noted in EXIF is made.
    size : int
        Height and width of the result.
    resize : {"squash", "crop"}
        ``squash`` changes the aspect ratio (the paper); ``crop`` takes the
        central square (torchxrayvision's examples).
    shape : (rows, columns), optional
        Of the radiograph that a *square* file was squashed from: ``crop``
        then takes the radiograph's central square. Other files still have
        their shape, and it is ignored.

    Returns
    -------
    ndarray of uint8, shape (size, size)

    Raises
    ------
    CourseError
        For a file that is no image or that nothing here can decode, or an
        unknown `resize`.

    Notes
    -----
    More than 8 bits are scaled, not clipped: white is ``2**bits - 1`` for
    the fewest bits (8 to 16) that hold the largest value, so 12-bit values
    stored in 16 bits are not read sixteen times too dark.
    """
    from PIL import Image

    check_resize(resize)
    try:
        grey = _dicom(path) if _is_dicom(path) else _picture(path, size)
    except CourseError:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise _unreadable(path, f"{error or type(error).__name__}.") from error
    box = _central_square(grey.size, shape) if resize == "crop" else None
    square = grey.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(square)


def check_resize(resize: str) -> None:
    """Refuse what is neither ``squash`` nor ``crop``."""
    if resize not in RESIZE:
        raise CourseError(
            f"RESIZE = {resize!r} is not known.",
            "Images are squashed (the paper) or cropped.",
            'Set RESIZE to "squash" or "crop".',
        )


def _unreadable(path: str | Path, why: str, do: str = "") -> CourseError:
    return CourseError(
        f"{Path(path).name} could not be read.",
        why,
        do
        or "Get the image again, or remove the file: its view then counts "
        "as missing.",
    )


def _central_square(
    file_size: tuple[int, int], shape: tuple[float, float] | None
) -> tuple[float, float, float, float]:
    """The box of the file that is the radiograph's central square."""
    width, height = file_size
    rows, columns = shape if shape and width == height else (height, width)
    side = min(rows, columns)
    across, down = width * side / columns, height * side / rows
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


# --- files that Pillow reads ------------------------------------------------


def _picture(path: str | Path, size: int) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        # A large JPEG is decoded small, at four times what is asked for.
        image.draft(None, (4 * size, 4 * size))
        if image.mode == "F":
            raise ValueError("it holds fractions, whose range is not known")
        turned = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            return Image.fromarray(_to_bytes(np.asarray(turned)))
        if image.has_transparency_data:
            turned = turned.convert("RGBA")
            black = Image.new("RGBA", turned.size, "black")
            turned = Image.alpha_composite(black, turned)
        return turned.convert("L")


def _to_bytes(values: np.ndarray, most: int = 16) -> np.ndarray:
    """Whole numbers from 0 up -> uint8; `most` is the bits they may have."""
    bits = min(max(int(values.max()).bit_length(), 8), most)
    scaled = values * (255.0 / (2**bits - 1))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


# --- DICOM ------------------------------------------------------------------


def _is_dicom(path: str | Path) -> bool:
    if Path(path).suffix.lower() in DICOM_SUFFIXES:
        return True
    with open(path, "rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _dicom(path: str | Path) -> Any:
    """A radiograph in DICOM as a grey picture.

    As torchxrayvision's ``utils.read_xray_dcm`` does it: the whole range of
    stored values, no window of the header (half of IU X-ray has none), and
    MONOCHROME1 inverted. Beyond it: signed values are shifted to begin at 0,
    and values that need fewer bits than the header allows are not read dark.
    A linear rescale (slope, intercept) cancels out of a scaling of the whole
    range; a negative slope inverts.
    """
    import pydicom
    from PIL import Image

    data = pydicom.dcmread(path, force=True)
    kind = data.get("PhotometricInterpretation", "no image")
    if not kind.startswith("MONOCHROME") or "PixelData" not in data:
        raise _unreadable(
            path, f"It is no grey radiograph in DICOM, but {kind}."
        )
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise _unreadable(
            path,
            f"It holds {data.NumberOfFrames} frames; a radiograph has one.",
            "Export the frame that you mean as a file of its own.",
        )
    _check_decoder(path, data)
    values = data.pixel_array.astype(np.int32)
    if data.PixelRepresentation:
        values -= min(int(values.min()), 0)
    grey = _to_bytes(values, int(data.BitsStored))
    inverted = kind == "MONOCHROME1"
    if float(data.get("RescaleSlope") or 1) < 0:
        inverted = not inverted
    return Image.fromarray(255 - grey if inverted else grey)


def _check_decoder(path: str | Path, data: Any) -> None:
    from pydicom.pixels import get_decoder

    meta = getattr(data, "file_meta", {})
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_compressed:
        return
    if not get_decoder(syntax).is_available:
        raise _unreadable(
            path,
            f"Its pixels are compressed as {syntax.name}, and no decoder "
            "for that is installed.",
            "Run `pip install pylibjpeg pylibjpeg-libjpeg "
            "pylibjpeg-openjpeg`, or store the file uncompressed first.",
        )


# --- the range --------------------------------------------------------------


def to_model_range(grey: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 in [-1024, 1024], as torchxrayvision expects.

    In [-1, 1] its networks give every image the same scores
    (torchxrayvision issue 89).

    Raises
    ------
    CourseError
        For values that are not uint8: 0..1 or -1..1 would be scaled wrongly.
    """
    if grey.dtype != np.uint8:
        raise _wrong_range(
            f"to_model_range() takes bytes (uint8), not {grey.dtype}."
        )
    return grey.astype(np.float32) * ((HIGH - LOW) / 255.0) + LOW


def check_range(batch: np.ndarray) -> None:
    """Refuse a batch that cannot be in torchxrayvision's range.

    Parameters
    ----------
    batch : ndarray of float, any shape
        What a network is about to see.

    Raises
    ------
    CourseError
        Values not finite; beyond 1024 by more than a quarter (room for a
        change of contrast); all within (-4, 4), which no grey value comes to
        (127 and 128 of 255 are -4.02 and 4.02): [0, 1], [-1, 1], ImageNet's
        mean and deviation; or all from 0 to 255.
    """
    batch = np.asarray(batch)
    if not batch.size:
        return
    low, high = float(batch.min()), float(batch.max())
    largest = max(-low, high)
    if not np.isfinite(largest):
        raise _wrong_range("The batch holds values that are no numbers.")
    if largest < 4 or largest > 1.25 * HIGH or 0 <= low and high <= 255:
        raise _wrong_range(
            f"The pixel values of this batch go from {low:g} to {high:g}."
        )


def _wrong_range(what: str) -> CourseError:
    return CourseError(
        what,
        f"torchxrayvision's networks expect [{LOW:g}, {HIGH:g}]. In a wrong "
        "range they run without an error and give every image nearly the "
        "same scores (torchxrayvision issue 89).",
        "Read images with pixels.read_grey() and turn them into the range "
        "with pixels.to_model_range().",
    )
