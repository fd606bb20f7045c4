"""What one DICOM file says before its pixels: the transfer syntax, a few tags, and where the pixels lie.

A series has hundreds of files, so only the tags that are used are read, as raw bytes; pydicom takes several times as
long, and would inflate a deflated file whole and without a limit. It parses the sequences of enhanced images.
Standard: https://dicom.nema.org/medical/dicom/current (parts 3, 5 and 10).
"""

import os
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any

from medssl.readers.image import ReadError, known_patient
from medssl.readers.stream import open_file

TAGS = {
    "image type": 0x00080008,
    "class": 0x00080016,
    "modality": 0x00080060,
    "description": 0x0008103E,
    "patient": 0x00100020,
    "spacing between slices": 0x00180088,
    "imager spacing": 0x00181164,
    "study": 0x0020000D,
    "series": 0x0020000E,
    "position": 0x00200032,
    "orientation": 0x00200037,
    "samples": 0x00280002,
    "photometric interpretation": 0x00280004,
    "frames": 0x00280008,
    "rows": 0x00280010,
    "columns": 0x00280011,
    "spacing": 0x00280030,
    "bits allocated": 0x00280100,
    "bits stored": 0x00280101,
    "high bit": 0x00280102,
    "signed": 0x00280103,
    "intercept": 0x00281052,
    "slope": 0x00281053,
    "lookup table": 0x00283000,
    "shared": 0x52009229,
    "per frame": 0x52009230,
    "extended offsets": 0x7FE00001,
}
NAMES = {tag: name for name, tag in TAGS.items()}
PIXELS = 0x7FE00010
PIXEL_TAGS = {0x7FE00008, 0x7FE00009, PIXELS}  # the first two are floats, which are not read
END_MARKS = {0xFFFEE00D, 0xFFFEE0DD}  # of an item and of a sequence
SEQUENCES = ("lookup table", "shared", "per frame")
UNREAD = (*SEQUENCES, "extended offsets")
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
PLAIN = {IMPLICIT, "1.2.840.10008.1.2.1", BIG_ENDIAN}
DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED = 0xFFFFFFFF
MAX_META = 2**20  # bytes of one element of the file meta information
MAX_VALUE = 2**16  # of a tag that is used, all of which are short words or a few numbers
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


@dataclass(frozen=True)
class DicomFile:
    """The tags of one file; numbers and text are parsed when asked for."""

    path: Path
    syntax: str
    little: bool
    raw: dict[str, bytes]  # of a sequence or a table nothing
    pixels: tuple[int, int] | None  # offset and length of the pixel data's value

    def text(self, name: str) -> str:
        """The text of a tag, empty where there is none."""
        value = self.raw.get(name, b"")
        try:
            return value.decode("utf-8").strip("\0 ")
        except UnicodeDecodeError:
            return value.decode("latin-1").strip("\0 ")

    def whole(self, name: str, default: int | None = None) -> int:
        """An unsigned number of 16 bits."""
        value = self.raw.get(name, b"")
        if len(value) != 2 and (default is None or value):
            raise ReadError(self.path, name, "nothing" if not value else f"{len(value)} bytes", "a number")
        return int.from_bytes(value, "little" if self.little else "big") if value else int(default or 0)

    def numbers(self, name: str, count: int) -> tuple[float, ...] | None:
        """That many decimal numbers, or None where the tag is absent or empty."""
        text = self.text(name)
        if not text:
            return None
        try:
            numbers = tuple(float(part) for part in text.split("\\"))
        except ValueError:
            numbers = ()
        if len(numbers) != count or not all(abs(number) < 1e9 for number in numbers):
            raise ReadError(self.path, name, text, f"{count} finite numbers")
        return numbers

    def number(self, name: str, default: float) -> float:
        return (self.numbers(name, 1) or (default,))[0]

    def groups(self, name: str) -> list[Any]:
        """The items of a sequence, as pydicom reads them."""
        return list(self._sequences[TAGS[name]].value) if name in self.raw else []

    @cached_property
    def _sequences(self) -> Any:
        return quiet_pydicom().dcmread(self.path, stop_before_pixels=True, specific_tags=[TAGS[name] for name in SEQUENCES])

    @cached_property
    def patient(self) -> str | None:
        return known_patient(self.text("patient"))

    @property
    def frames(self) -> int:
        return int(self.number("frames", 1))

    @property
    def compressed(self) -> bool:
        return self.syntax not in PLAIN


def read_file(path: Path) -> DicomFile | None:
    """The tags of a DICOM file, or None for a file without DICOM's mark; raises ReadError for a broken one."""
    with open_file(path) as file:
        if file.read(132)[128:] != b"DICM":
            return None
        syntax = _syntax(path, file)
        little = syntax != BIG_ENDIAN
        raw, pixels = _walk(path, file, syntax != IMPLICIT, "<" if little else ">")
        if pixels is None and file.tell() != os.fstat(file.fileno()).st_size:
            raise broken(path, EOFError("it ends inside a tag"))
    return DicomFile(path, syntax, little, raw, pixels)


def _walk(path: Path, file: IO[bytes], explicit: bool, order: str) -> tuple[dict[str, bytes], tuple[int, int] | None]:
    """The values of the tags that are used, by name, and offset and length of the pixels; the file is at its tags.

    What has no length (a sequence, an item) goes on to its end mark: until then every tag is a deeper one.
    """
    raw: dict[str, bytes] = {}
    depth, unknown = 0, 0  # the depth at which a sequence of unknown type began, whose tags have no type
    halves, short, long = struct.Struct(order + "HH"), struct.Struct(order + "H"), struct.Struct(order + "I")
    read, skip = file.read, file.seek
    while len(head := read(8)) == 8:
        group, element = halves.unpack_from(head)
        tag, kind = group << 16 | element, head[4:6]
        if not explicit or unknown or group == 0xFFFE or not kind.isalpha():
            length = long.unpack_from(head, 4)[0]
            kind = b""
        else:
            length = long.unpack(read(4).ljust(4, b"\0"))[0] if kind in LONG else short.unpack_from(head, 6)[0]
        if tag in END_MARKS:
            depth -= 1
            unknown = unknown if depth >= unknown else 0
        elif tag in PIXEL_TAGS and depth == 0:
            return raw, (file.tell(), length) if tag == PIXELS else None
        elif length == UNDEFINED:
            depth += 1
            unknown = unknown or (depth if kind == b"UN" else 0)
            if depth == 1 and tag in NAMES:
                raw[NAMES[tag]] = b""
        elif depth == 0 and tag in NAMES and NAMES[tag] not in UNREAD:
            if length > MAX_VALUE:
                raise ReadError(path, NAMES[tag], f"{length} bytes", f"at most {MAX_VALUE}")
            raw[NAMES[tag]] = read(length)
        else:
            if depth == 0 and tag in NAMES:
                raw[NAMES[tag]] = b""
            skip(length, os.SEEK_CUR)
    return raw, None


@cache
def quiet_pydicom() -> Any:
    """pydicom, which else warns on stderr of every odd value; what matters is said by the errors here."""
    import pydicom

    warnings.filterwarnings("ignore", module="pydicom")
    return pydicom


def broken(path: Path, error: BaseException) -> ReadError:
    """A ReadError about what pydicom complained of."""
    found = (str(error) or type(error).__name__).splitlines()[0]
    return ReadError(path, "file", f"a broken file ({found})", "a whole one, e.g. a new copy")


def fragments(file: DicomFile) -> list[tuple[int, int]]:
    """Offset and length of each item of compressed pixels; raises ReadError where one or their end is missing."""
    assert file.pixels is not None
    size = os.stat(file.path).st_size
    with open_file(file.path) as stream:
        found = list(_items(stream, file.pixels[0], size))
    if not found or found[-1] != (0, 0):
        raise ReadError(file.path, "pixels", f"{size} bytes", "all compressed pixels and their end mark")
    return found[1:-1]  # the first is a table of offsets


def _items(stream: IO[bytes], offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Items as far as they lie in the file, then (0, 0) for the end mark if it is there."""
    while True:
        stream.seek(offset)
        head = stream.read(8)
        if len(head) < 8:
            return
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == (0xFFFE, 0xE0DD):
            yield 0, 0
            return
        if (group, element) != (0xFFFE, 0xE000) or offset + 8 + length > size:
            return
        yield offset + 8, length
        offset += 8 + length


def _syntax(path: Path, file: IO[bytes]) -> str:
    """The transfer syntax; the file is left behind the file meta information."""
    found = ""
    while len(head := file.read(8)) == 8:
        group, element, vr, length = struct.unpack("<HH2sH", head)
        if group != 2:
            file.seek(-8, os.SEEK_CUR)
            break
        length = struct.unpack("<I", file.read(4))[0] if vr in LONG else length
        if length > MAX_META:
            raise ReadError(path, "file meta information", f"an element of {length} bytes", f"at most {MAX_META}")
        value = file.read(length)
        found = value.decode("latin-1").strip("\0 ") if element == 0x10 else found
    if found == DEFLATED:
        raise ReadError(path, "transfer syntax", "Deflated Explicit VR Little Endian", "one with a size known beforehand")
    if not found:
        raise ReadError(path, "transfer syntax", "nothing", "one in the file meta information")
    return found
