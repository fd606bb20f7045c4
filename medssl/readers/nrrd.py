"""Reads NRRD volumes with their header attached, raw or in gzip; pynrrd parses the header and nothing else.

Axes that are no place in space (a list, a vector, colours) are channels. Positions become RAS, as NIfTI has them.
https://teem.sourceforge.net/nrrd/format.html
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medssl.readers.image import Affine, Header, ReadError, Volume, by, lengths, refuse_affine, refuse_shape, refuse_type
from medssl.readers.stream import open_file, read_rest, refuse_claim, unpacked

MAX_HEADER = 2**16  # bytes
NAMES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
TYPES = {name: code for code, names in NAMES.items() for name in names.split(",")}
TO_RAS = {
    **dict.fromkeys(("right-anterior-superior", "RAS"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "LAS"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "LPS"), (-1, -1, 1)),
}
MM = {"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1e3, "um": 1e-3}
MICRO = re.compile(rb"\xc2?\xb5m|\xce\xbcm")  # of a micron, which pynrrd would leave out and so read metres
PLACES = {"domain", "space", "???", "none"}  # kinds of axes that may run through space
Fields = Mapping[str, Any]


class _Layout(NamedTuple):
    header: Header
    sizes: tuple[int, ...]
    channel_axis: int | None
    dtype: np.dtype[Any]  # in the file's byte order
    packed: bool


def header(path: Path, label: bool = False) -> Header:
    with open_file(path) as file:
        return _layout(path, file).header


def image(path: Path, label: bool = False) -> Volume:
    with open_file(path) as file:
        layout = _layout(path, file)
        with unpacked(file, layout.packed) as stream:
            buffer = read_rest(path, stream, bytearray(), math.prod(layout.sizes) * layout.dtype.itemsize)
    array = np.frombuffer(buffer, layout.dtype).reshape(layout.sizes, order="F")
    array = array[None] if layout.channel_axis is None else np.moveaxis(array, layout.channel_axis, 0)
    return Volume(np.ascontiguousarray(array, dtype=layout.header.dtype), 1.0, 0.0, layout.header.affine)


def _layout(path: Path, file: IO[bytes]) -> _Layout:
    """What the header says; the file is left at the first byte behind it."""
    fields = _fields(path, file)
    sizes = tuple(int(n) for n in fields["sizes"])
    if len(sizes) != fields["dimension"]:
        raise ReadError(path, "sizes", by(sizes), f"{fields['dimension']} numbers, as dimension says")
    refuse_shape(path, sizes)
    dtype = _type(path, fields)
    refuse_type(path, dtype)
    channel_axis = _channel_axis(path, fields, sizes)
    spatial = [axis for axis in range(len(sizes)) if axis != channel_axis]
    shape = tuple(sizes[axis] for axis in spatial)
    affine = _affine(path, fields, spatial)
    refuse_affine(path, affine)
    channels = 1 if channel_axis is None else sizes[channel_axis]
    header = Header(shape, channels, affine, lengths(affine, len(shape)), dtype.newbyteorder("="))
    packed = fields["encoding"] in {"gzip", "gz"}
    refuse_claim(path, math.prod(sizes) * dtype.itemsize, packed, before=file.tell())
    return _Layout(header, sizes, channel_axis, dtype, packed)


def _fields(path: Path, file: IO[bytes]) -> Fields:
    import nrrd  # type: ignore[import-untyped, unused-ignore]

    head = file.read(MAX_HEADER)
    ends = [head.find(blank) + len(blank) for blank in (b"\n\n", b"\n\r\n") if blank in head]
    if not head.startswith(b"NRRD") or not ends:
        raise ReadError(path, "format", "no NRRD header", "NRRD with its header attached")
    file.seek(min(ends))
    try:
        fields: Fields = nrrd.read_header(MICRO.sub(b"um", head[: min(ends)]).splitlines(keepends=True))
    except Exception as error:  # it raises whatever int, float and shlex raise
        raise ReadError(path, "header", str(error) or type(error).__name__, "a valid NRRD header") from None
    missing = [name for name in ("dimension", "type", "encoding", "sizes") if name not in fields]
    if missing:
        raise ReadError(path, missing[0], "nothing", "a field of the NRRD header")
    if "data file" in fields or "datafile" in fields:
        raise ReadError(path, "data file", "voxels in another file", "NRRD with its voxels attached")
    if fields["encoding"] not in {"raw", "gzip", "gz"}:
        raise ReadError(path, "encoding", str(fields["encoding"]), "raw or gzip")
    for name in ("byte skip", "byteskip", "line skip", "lineskip"):
        if fields.get(name, 0) != 0:
            raise ReadError(path, name, str(fields[name]), "none")
    return fields


def _type(path: Path, fields: Fields) -> np.dtype[Any]:
    if fields["type"] not in TYPES:
        raise ReadError(path, "voxel type", str(fields["type"]), "integers or floats of at most 64 bits")
    dtype = np.dtype(TYPES[fields["type"]])
    orders = {"little": "<", "big": ">"}
    if dtype.itemsize > 1 and fields.get("endian") not in orders:
        raise ReadError(path, "endian", str(fields.get("endian", "nothing")), "little or big")
    return dtype.newbyteorder(orders.get(fields.get("endian", ""), "="))  # type: ignore[arg-type]


def _channel_axis(path: Path, fields: Fields, sizes: tuple[int, ...]) -> int | None:
    kinds = fields.get("kinds", ["???"] * len(sizes))
    directions = _directions(path, fields, sizes)
    if directions is not None:
        axes = [axis for axis, row in enumerate(directions) if np.isnan(row).all()]
    else:
        axes = [axis for axis, kind in enumerate(kinds) if kind not in PLACES]
    if len(axes) > 1 or not 2 <= len(sizes) - len(axes) <= 3:
        raise ReadError(path, "axes", f"{len(sizes)} ({by(sizes)})", "2 or 3 in space, and at most one of channels")
    return axes[0] if axes else None


def _directions(path: Path, fields: Fields, sizes: tuple[int, ...]) -> Affine | None:
    """A row (mm) an axis, NaN for an axis that does not run through space; None where the header has no space."""
    if "space" not in fields and "space dimension" not in fields:
        return None
    if fields.get("space") not in TO_RAS:
        raise ReadError(path, "space", str(fields.get("space", "nothing")), "one of " + ", ".join(TO_RAS))
    directions = np.asarray(fields.get("space directions", ()), np.float64)
    if directions.shape != (len(sizes), 3):
        raise ReadError(path, "space directions", f"a table of {by(directions.shape)}", f"{len(sizes)}x3, a row an axis")
    return directions


def _affine(path: Path, fields: Fields, spatial: list[int]) -> Affine:
    affine = np.eye(4)
    directions = _directions(path, fields, tuple(fields["sizes"]))
    if directions is None:
        spacings = np.asarray(fields.get("spacings", np.ones(len(fields["sizes"]))), np.float64)
        spacing = spacings[spatial] if len(spacings) == len(fields["sizes"]) else np.zeros(1)
        if not (np.isfinite(spacing).all() and spacing.min() > 0):
            raise ReadError(path, "spacing", f"{by(spacings.tolist())} mm", "numbers above 0, one an axis")
        affine[range(len(spatial)), range(len(spatial))] = spacing
        return affine
    affine[:3, : len(spatial)] = directions[spatial].T
    if len(spatial) == 2:
        normal = np.cross(*directions[spatial])
        affine[:3, 2] = normal / max(float(np.linalg.norm(normal)), 1e-9)
    origin = np.asarray(fields.get("space origin", np.zeros(3)), np.float64)
    if origin.shape != (3,):
        raise ReadError(path, "space origin", f"{origin.size} numbers", "3")
    affine[:3, 3] = origin
    return np.diag([*(TO_RAS[fields["space"]] * _millimetres(path, fields)), 1.0]) @ affine


def _millimetres(path: Path, fields: Fields) -> npt.NDArray[np.float64]:
    """How many mm the unit along each axis of the space is; mm where the header names none."""
    units = [str(unit).strip() for unit in fields.get("space units", [""] * 3)]
    if len(units) != 3 or not set(units) <= set(MM):
        raise ReadError(path, "space units", " ".join(units), "three of m, cm, mm and um")
    return np.array([MM[unit] for unit in units])
