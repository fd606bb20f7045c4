"""Decodes the pixels of DICOM files, compressed or not, through pydicom.

Bits beyond those stored are cleared or filled with the sign. MONOCHROME1 is turned round, so that larger is brighter
as in every other image. Colours are RGB.
"""

import os
import struct
from functools import cache
from pathlib import Path

import numpy as np

from medssl.readers.dicom_decoder import decode
from medssl.readers.dicom_file import UNDEFINED, DicomFile, broken, fragments, quiet_pydicom
from medssl.readers.image import MAX_VOXELS, Array, ReadError, by, refuse_shape
from medssl.readers.stream import open_file

GREY = ("MONOCHROME1", "MONOCHROME2")
RLE = "1.2.840.10008.1.2.5"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
HEAD = 2**16  # bytes of a compressed picture in which its size must be found
RLE_DENSEST, JPEG_DENSEST, JPEG_2000_DENSEST = 128, 2**10, 2**13  # times that an (empty) picture may have been shrunk
START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG's, and JPEG-LS's


def pixel_type(file: DicomFile) -> np.dtype[np.generic]:
    return np.dtype(f"{'i' if file.whole('signed', 0) else 'u'}{file.whole('bits allocated') // 8}")


def refuse_pixels(file: DicomFile) -> None:
    """Raise ReadError for pixels that can't be read, or of which some are missing, without reading any."""
    path, count = file.path, file.whole("samples", 1)
    if file.pixels is None:
        raise ReadError(path, "pixels", "none", "an image")
    if file.compressed:
        _refuse_syntax(path, file.syntax)
    refuse_shape(path, (file.frames, file.whole("rows"), file.whole("columns"), count), MAX_VOXELS)
    photometric = file.text("photometric interpretation")
    if (count, photometric) not in [*((1, name) for name in GREY), *((3, name) for name in COLOURS)]:
        raise ReadError(path, "colours", f"{photometric or 'nothing'} of {count} samples", "grey or RGB")
    allocated, stored = file.whole("bits allocated"), file.whole("bits stored")
    if allocated not in ((8, 16, 32) if count == 1 else (8,)):
        raise ReadError(path, "bits allocated", str(allocated), "8, 16 or 32" if count == 1 else "8 a colour")
    if not 1 <= stored <= allocated or file.whole("high bit", stored - 1) != stored - 1:
        found = f"{stored}, the highest is bit {file.whole('high bit', stored - 1)}"
        raise ReadError(path, "bits stored", found, f"1 to {allocated}, counted from the lowest")
    if "lookup table" in file.raw:
        raise ReadError(path, "values", "a lookup table", "a rescale slope and intercept")
    _refuse_missing(file, allocated // 8 * count)


def _refuse_missing(file: DicomFile, depth: int) -> None:
    assert file.pixels is not None
    offset, length = file.pixels
    size = os.stat(file.path).st_size
    expected = file.frames * file.whole("rows") * file.whole("columns") * depth
    if file.compressed:
        count = len(fragments(file))
        if count < file.frames:
            raise ReadError(file.path, "pixels", f"{count} compressed pictures", f"{file.frames}, the number of frames")
        if expected > _densest(file.syntax) * size:
            raise ReadError(file.path, "pixels", f"{size} bytes", f"what unpacks to {expected}, as rows and columns say")
        return
    if file.text("photometric interpretation") == "YBR_FULL_422":
        expected = expected * 2 // 3
    there = min(length, size - offset)
    if there < expected or length == UNDEFINED:
        raise ReadError(file.path, "pixels", f"{max(0, there)} bytes", f"{expected}, as rows and columns say")


def _densest(syntax: str) -> int:
    if syntax == RLE:
        return RLE_DENSEST
    return JPEG_2000_DENSEST if syntax.startswith(("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")) else JPEG_DENSEST


@cache
def _unreadable(syntax: str) -> str:
    """Why a transfer syntax can't be read; empty when it can."""
    quiet_pydicom()
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    try:
        readable = get_decoder(UID(syntax)).is_available
    except NotImplementedError:
        readable = False
    return "" if readable else str(UID(syntax).name)


def _refuse_syntax(path: Path, syntax: str) -> None:
    if name := _unreadable(syntax):
        raise ReadError(path, "transfer syntax", name, "no compression, RLE, JPEG, JPEG-LS or JPEG 2000")


def read_pixels(file: DicomFile) -> Array:
    """The pixels (frame, row, column), or (frame, row, column, colour), of the type that `pixel_type` says."""
    shape = (file.frames, file.whole("rows"), file.whole("columns"))
    if file.compressed:
        _refuse_other_sizes(file, shape[1:])
    try:
        array = _decoded(file)
    except MemoryError:
        raise
    except Exception as error:  # each decoder raises its own
        from pydicom.uid import UID

        raise broken(file.path, ValueError(f"{UID(file.syntax).name}: {error}")) from None
    wanted = shape if file.whole("samples", 1) == 1 else (*shape, 3)
    if array.size != np.prod(wanted):
        raise ReadError(file.path, "pixels", by(array.shape), by(wanted))
    array = array.reshape(wanted).astype(pixel_type(file), copy=False)
    if file.whole("samples", 1) == 3:
        return array
    return _stored_bits(array, file.whole("bits stored"), file.text("photometric interpretation") == "MONOCHROME1")


def _decoded(file: DicomFile) -> Array:
    if file.pixels and not file.compressed and file.little and file.whole("samples", 1) == 1:
        count = file.frames * file.whole("rows") * file.whole("columns")
        return np.fromfile(file.path, pixel_type(file).newbyteorder("<"), count, offset=file.pixels[0])
    if file.compressed and file.syntax != RLE:
        return decode(os.path.abspath(file.path))
    quiet_pydicom()
    from pydicom.pixels import pixel_array

    return np.asarray(pixel_array(file.path))


def _stored_bits(array: Array, stored: int, turned: bool) -> Array:
    unused = array.dtype.itemsize * 8 - stored
    if unused:
        array = array << unused >> unused  # of a signed type, shifting right repeats the sign
    if turned:
        array = np.invert(array) if array.dtype.kind == "i" else array.dtype.type(2**stored - 1) - array
    return array


def _refuse_other_sizes(file: DicomFile, shape: tuple[int, ...]) -> None:
    """A decoder takes the size from the compressed data, whatever the header declares."""
    with open_file(file.path) as stream:
        for offset, length in fragments(file):
            stream.seek(offset)
            found = _coded_size(stream.read(min(length, HEAD)))
            if found not in (None, shape):
                raise ReadError(file.path, "pixels", f"a picture of {by(found or ())}", f"{by(shape)}, as rows and columns say")


def _coded_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG or JPEG 2000, None where no picture starts; (0, 0) where the size is not found."""
    if data.startswith(b"\xff\x4f\xff\x51") and len(data) >= 24:
        right, bottom, left, top = struct.unpack(">4I", data[8:24])
        return bottom - top, right - left
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in START_OF_FRAME:
            rows, columns = struct.unpack(">2H", data[at + 5 : at + 9])
            return rows, columns
        if data[at + 1] == 0xFF:  # padding
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0
