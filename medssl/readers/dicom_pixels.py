"""Decodes the pixels of DICOM files, compressed or not, through pydicom.

Bits beyond those stored are cleared or filled with the sign. MONOCHROME1 is turned round, so that larger is brighter
as in every other image. Colours are RGB.
"""

import os
import struct
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
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
RLE_SMALL = 2**24  # bytes that need not be counted before they are unpacked
START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG's, and JPEG-LS's
BARE = {0x01, *range(0xD0, 0xDA)}  # marks without a length, which have no place before a frame


def pixel_type(file: DicomFile) -> np.dtype[np.generic]:
    return np.dtype(f"{'i' if file.whole('signed', 0) else 'u'}{file.whole('bits allocated') // 8}")


def refuse_pixels(file: DicomFile) -> None:
    """Raise ReadError for pixels that can't be read, or of which some are missing, without reading any."""
    path, count = file.path, file.whole("samples", 1)
    if file.pixels is None:
        raise ReadError(path, "pixels", "none", "an image")
    if file.compressed:
        _refuse_syntax(path, file.syntax)
        if "extended offsets" in file.raw:  # by which other pictures would be decoded than those looked at
            raise ReadError(path, "pixels", "an extended offset table", "a basic one or none")
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
    try:
        if file.compressed:
            _refuse_other_sizes(file)
        array = _decoded(file)
    except (MemoryError, ReadError):
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


def _refuse_other_sizes(file: DicomFile) -> None:
    """A decoder takes size and number from the compressed data, whatever the header declares."""
    wanted = file.whole("rows"), file.whole("columns"), file.whole("samples", 1)
    for count, frame in enumerate(_frames(file), 1):
        if count > file.frames:
            raise ReadError(file.path, "pixels", "more compressed pictures", f"{file.frames}, the number of frames")
        if file.syntax == RLE:
            _refuse_more(file.path, frame, wanted[0] * wanted[1])
        elif (found := _coded_size(frame[:HEAD])) != wanted:
            raise ReadError(file.path, "pixels", f"a picture of {by(found)}", f"{by(wanted)}, as rows and columns say")


def _frames(file: DicomFile) -> Iterator[bytes]:
    """Each compressed picture, its fragments joined as they are for the decoder."""
    quiet_pydicom()
    from pydicom.encaps import generate_frames

    assert file.pixels is not None
    with open_file(file.path) as stream:
        stream.seek(file.pixels[0])
        yield from generate_frames(stream, number_of_frames=file.frames)


def _refuse_more(path: Path, frame: bytes, pixels: int) -> None:
    """A segment of RLE is unpacked whole; one byte a pixel it should be, and some writers pad (PS3.5 G)."""
    count, *starts = struct.unpack("<16I", frame[:64])
    for start, end in pairwise([*starts[:count], len(frame)]):
        segment = frame[start:end]
        if len(segment) * 64 > RLE_SMALL and _unpacked(segment, 2 * pixels) > 2 * pixels:
            raise ReadError(path, "pixels", "more bytes unpacked", f"{pixels} a segment, as rows and columns say")


def _unpacked(segment: bytes, most: int) -> int:
    """The bytes that a segment of RLE unpacks to, counted until they are more than `most`."""
    at = size = 0
    while at < len(segment) and size <= most:
        code = segment[at]
        at += code + 2 if code < 128 else 2 if code > 128 else 1
        size += code + 1 if code < 128 else 257 - code  # 128 writes nothing; counted, it can't keep this busy
    return size


def _coded_size(data: bytes) -> tuple[int, int, int]:
    """Rows, columns and colours of a JPEG or JPEG 2000 from its first bytes; zeros where they are not found."""
    if data.startswith(b"\0\0\0\x0cjP  "):
        data = _without_boxes(data)
    if data.startswith(b"\xff\x4f\xff\x51") and len(data) >= 42:
        right, bottom, left, top, colours = struct.unpack(">4I16xH", data[8:42])
        return bottom - top, right - left, colours
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 10 <= len(data) and data[at] == 0xFF and data[at + 1] not in BARE:
        if data[at + 1] in START_OF_FRAME:
            rows, columns, colours = struct.unpack(">2HB", data[at + 5 : at + 10])
            return rows, columns, colours
        if data[at + 1] == 0xFF:  # padding
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0, 0


def _without_boxes(data: bytes) -> bytes:
    """The JPEG 2000 in a JP2 file, as which some writers store it; empty where it is not found."""
    at = 0
    while data[at + 4 : at + 8] != b"jp2c":
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8:
            return b""
        at += length
    return data[at + 8 :]
