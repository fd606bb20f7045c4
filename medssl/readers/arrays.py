"""Reads NumPy .npy files, never unpickled: (row, column), (x, y, z) or (c, x, y, z); an axis a mm.

numpy parses the header; the voxels are read here, since `numpy.load` takes any size that a header claims.
"""

import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np

from medssl.readers.image import Header, ReadError, Volume, by, refuse_shape, refuse_type
from medssl.readers.stream import open_file, read_rest


def header(path: Path, label: bool = False) -> Header:
    with open_file(path) as file:
        return _parse(path, file)[0]


def image(path: Path, label: bool = False) -> Volume:
    with open_file(path) as file:
        header, stored, dtype, fortran = _parse(path, file)
        buffer = read_rest(path, file, bytearray(), math.prod(stored) * dtype.itemsize)
    array = np.frombuffer(buffer, dtype, math.prod(stored)).reshape(stored, order="F" if fortran else "C")
    array = array.reshape(header.channels, *header.shape)
    return Volume(np.ascontiguousarray(array, dtype=header.dtype), 1.0, 0.0, header.affine)


def _parse(path: Path, file: IO[bytes]) -> tuple[Header, tuple[int, ...], np.dtype[Any], bool]:
    """The header, the stored shape, the type in the file's byte order, and whether the first axis runs fastest."""
    from numpy.lib import format as npy

    parsers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        shape, fortran, dtype = parsers[npy.read_magic(file)](file)
    except Exception:  # numpy raises whatever Python's tokenizer and parser raise
        raise ReadError(path, "format", "no NumPy header", "a .npy file of version 1 or 2") from None
    if dtype.hasobject:
        raise ReadError(path, "voxel type", "Python objects", "numbers: pickled data is never loaded")
    dtype = np.dtype("u1") if dtype.kind == "b" else dtype  # a mask
    refuse_type(path, dtype)
    if not 2 <= len(shape) <= 4:
        raise ReadError(path, "axes", f"{len(shape)} ({by(shape)})", "2, 3, or 4 with channels first")
    refuse_shape(path, shape)
    size, expected = os.stat(path).st_size, file.tell() + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise ReadError(path, "file", f"{size} bytes", f"{expected}, as its header says")
    channels, spatial = (shape[0], shape[1:]) if len(shape) == 4 else (1, shape)
    spacing = (1.0,) * len(spatial)
    return Header(spatial, channels, np.eye(4), spacing, dtype.newbyteorder("=")), shape, dtype, fortran
