"""Reads what lies behind a header, plain or in gzip, to its end and never further than the header declares.

So a flipped bit is found by the checksum at the end of a gzip, and a small file can't fill the memory.
"""

import gzip
import os
import zlib
from pathlib import Path
from typing import IO, cast

from medssl.readers.image import ReadError

MAX_TAIL = 2**20  # bytes after the voxels of a NIfTI; some writers pad
CHUNK = 2**22  # bytes read at once
DEFLATE = 1032  # deflate never packs more bytes than this into one


def open_file(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise ReadError(path, "file", error.strerror or "nothing", "a readable file") from None


def unpacked(file: IO[bytes], packed: bool) -> IO[bytes]:
    """The bytes behind a file's position, as they were before gzip packed them, if it did."""
    return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb")) if packed else file


def read_part(path: Path, file: IO[bytes], count: int) -> bytearray:
    """At most that many bytes; raises ReadError where the packing is broken."""
    try:
        return bytearray(file.read(count))
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(path, "file", f"a broken file ({error})", "a whole one, e.g. a new copy") from None


def read_rest(path: Path, file: IO[bytes], buffer: bytearray, end: int, most: int = 0) -> bytearray:
    """Fill the buffer up to `end` bytes and read on to the end of the file, which lies at most `most` bytes behind."""
    while len(buffer) < end:
        part = read_part(path, file, min(CHUNK, end - len(buffer)))
        if not part:
            raise ReadError(path, "file", f"{len(buffer)} bytes", f"{end}, as its header says")
        buffer += part
    tail = max(0, len(buffer) - end)
    while part := read_part(path, file, CHUNK):  # to the end, where gzip compares the checksum
        tail += len(part)
        if tail > most:
            raise ReadError(path, "file", f"at least {tail} bytes after the voxels", "none")
    return buffer


def refuse_claim(path: Path, end: int, packed: bool, before: int = 0) -> None:
    """Raise ReadError where `end` bytes are more than the file, behind `before` plain bytes, can unpack to."""
    size = os.stat(path).st_size
    if end > max(0, size - before) * (DEFLATE if packed else 1):
        raise ReadError(path, "file", f"{size} bytes", f"{before + end}, as its header says")
