"""Reads PNG, JPEG, TIFF and BMP pictures with pillow: grey, RGB, with a palette, of 1 to 16 bits or float.

A picture has no place in the body: its affine is the identity and its spacing 1.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from medssl.readers.image import MAX_PIXELS, Array, Header, ReadError, Volume
from medssl.readers.stream import open_file

TYPES = {"1": "u1", "I;16": "u2", "I;16B": "u2", "I;16L": "u2", "I": "i4", "F": "f4"}  # the others are "u1"
BITS, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 262, 274, 339  # TIFF's tags
CHANNELS = {"RGB": 3, "RGBA": 3, "LA": 1, "L": 1, "P": 1, **dict.fromkeys(TYPES, 1)}


def header(path: Path, label: bool = False) -> Header:
    with _opened(path) as picture:
        return _header(path, picture, label)


def image(path: Path, label: bool = False) -> Volume:
    """The pixels; transparency is left out where nothing is transparent, and refused elsewhere."""
    with _opened(path) as picture:
        picture.verify()  # the checksums of a PNG, which loading skips
    with _opened(path) as picture:
        header = _header(path, picture, label)
        few, bits = picture.mode == "L" and label, _bits(path, picture)
        array = _pixels(path, picture, header.channels, label)
        if few and bits < 8:  # pillow spreads grey over 0 to 255, in steps of 85 or 17
            array = array // (255 // (2**bits - 1))
        if picture.format == "PNG":
            _refuse_turned(path, picture.getexif())  # which may lie behind the pixels
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return Volume(np.ascontiguousarray(array, dtype=header.dtype), 1.0, 0.0, header.affine)


@cache
def _pillow() -> Any:
    import PIL.Image

    warnings.filterwarnings("ignore", module="PIL")  # what matters is said by the errors here
    return PIL


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pillow = _pillow()
    try:
        picture = pillow.Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP"))
    except Exception as error:  # pillow raises whatever its parsing of a broken file meets
        found = "no picture" if isinstance(error, pillow.UnidentifiedImageError) else str(error)
        raise ReadError(path, "format", found, "a PNG, JPEG, TIFF or BMP") from None
    with picture:
        try:
            yield picture
        except (ReadError, MemoryError):
            raise
        except Exception as error:
            raise ReadError(path, "file", f"a broken picture ({error})", "a whole one, e.g. a new copy") from None


def _header(path: Path, picture: Any, label: bool) -> Header:
    if picture.mode not in CHANNELS:
        raise ReadError(path, "colours", f"mode {picture.mode}", "grey, RGB or a palette")
    if getattr(picture, "n_frames", 1) > 1:
        raise ReadError(path, "pages", str(picture.n_frames), "1")
    width, height = picture.size
    if not 1 <= width * height <= MAX_PIXELS:
        raise ReadError(path, "size", f"{width}x{height} pixels", f"1 to {MAX_PIXELS}")
    if picture.format != "PNG" or "exif" in picture.info:  # else pillow would load it to look behind the pixels
        _refuse_turned(path, picture.getexif())
    dtype = _refuse_bits(path, picture, np.dtype(TYPES.get(picture.mode, "u1")))
    coloured = picture.mode == "P" and not label and not _is_grey(picture)
    channels = 3 if coloured else CHANNELS[picture.mode]
    return Header((height, width), channels, np.eye(4), (1.0, 1.0), dtype)


def _bits(path: Path, picture: Any) -> int:
    """The bits of a sample as the file has them: pillow cuts some of them off."""
    if picture.format == "PNG":
        with open_file(path) as file:
            return file.read(25)[-1]
    return max(picture.tag_v2.get(BITS, (1,))) if picture.format == "TIFF" else 8


def _refuse_bits(path: Path, picture: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of the pixels; raises ReadError where pillow would give other values than the file has."""
    bits = _bits(path, picture)
    if bits > 8 and dtype == np.uint8:
        raise ReadError(path, "bits", f"{bits} a sample in mode {picture.mode}", "8, or up to 16 of grey without alpha")
    if picture.format == "TIFF" and bits > 8:
        if picture.tag_v2.get(PHOTOMETRIC) == 0:
            raise ReadError(path, "photometric interpretation", f"WhiteIsZero of {bits} bits", "BlackIsZero")
        if dtype == np.int32 and bits == 32 and picture.tag_v2.get(SAMPLE_FORMAT, (1,))[0] == 1:
            return np.dtype("u4")  # which pillow gives as "i4", bit by bit
    return dtype


def _refuse_turned(path: Path, exif: Any) -> None:
    """Raise ReadError for pixels that viewers turn and other readers do not; of a TIFF's pillow loses some."""
    turned = exif.get(ORIENTATION, 1)
    if turned in range(2, 9):
        raise ReadError(path, "orientation", f"{turned}, pixels to be turned or mirrored", "1: pixels stored upright")


def _pixels(path: Path, picture: Any, channels: int, label: bool) -> Array:
    if picture.mode == "P" and label:  # as VOC-style masks are stored: the palette only says how to show a class
        return np.asarray(picture)
    if picture.has_transparency_data and picture.mode in {"RGBA", "LA", "P", "RGB", "L"}:
        least = picture.convert("RGBA").getchannel("A").getextrema()[0]
        if least < 255:
            raise ReadError(path, "transparency", f"pixels of opacity {least} of 255", "opaque pixels, or no alpha channel")
    if picture.mode in {"RGBA", "LA", "P"}:
        colours = np.asarray(picture.convert("RGB"))  # not "L", which mixes colours by brightness
        return colours if channels == 3 else colours[..., 0]
    return np.asarray(picture)


def _is_grey(picture: Any) -> bool:
    """Whether a palette has no colours; it is looked at as the file has it, since pillow would load the picture first."""
    raw, order = np.frombuffer(bytes(picture.palette.palette), np.uint8), picture.palette.rawmode or picture.palette.mode
    table = raw.reshape(3, -1).T if order.endswith(";L") else raw.reshape(-1, len(order))
    return bool((table[:, :3] == table[:, :1]).all())
