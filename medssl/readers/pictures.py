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

TYPES = {"1": "u1", "I;16": "u2", "I;16B": "u2", "I;16L": "u2", "I": "i4", "F": "f4"}  # the others are "u1"
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
        array = _pixels(path, picture, header.channels, label)
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
    coloured = picture.mode == "P" and not label and not _is_grey(picture)
    channels = 3 if coloured else CHANNELS[picture.mode]
    return Header((height, width), channels, np.eye(4), (1.0, 1.0), np.dtype(TYPES.get(picture.mode, "u1")))


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
