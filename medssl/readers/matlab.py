"""Reads the brain tumour slices of figshare 1512427: MATLAB v7.3 files, which are HDF5, with one struct `cjdata`.

Its fields are PID, label (1 meningioma, 2 glioma, 3 pituitary tumour), image, tumorBorder and tumorMask. MATLAB stores
the first axis fastest, so HDF5 shows arrays transposed. An HDF5 file can name other files to read from, and declare
any size: each dataset is looked at before it is read.
"""

import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medssl.readers.image import MAX_PIXELS, Array, Header, ReadError, Volume, by, known_patient, refuse_type
from medssl.readers.stream import DEFLATE, open_file

GROUP = "cjdata"
DEFLATED, SHUFFLED, FLETCHER32 = 1, 2, 3  # HDF5's numbers of the filters that are read
LONGEST_PID = 1000


def header(path: Path, label: bool = False) -> Header:
    with _open(path) as file:
        return _header(path, file, label)


def image(path: Path, label: bool = False) -> Volume:
    """The slice, or as a label its tumour mask (0 or 1)."""
    with _open(path) as file:
        header = _header(path, file, label)
        array = _values(path, file, _field(label)).T[None]
    return Volume(np.ascontiguousarray(array, dtype=header.dtype), 1.0, 0.0, header.affine)


def _field(label: bool) -> str:
    return "tumorMask" if label else "image"


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    import h5py

    with open_file(path) as plain:
        start = plain.read(116)
    if start.startswith(b"MATLAB 5"):
        raise ReadError(path, "format", "a MATLAB file of version 5 to 7", "v7.3, as save(..., '-v7.3') writes it")
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise ReadError(path, "format", "no whole HDF5 file", f"a MATLAB v7.3 file with {GROUP}") from None
    with file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            if isinstance(error, ReadError):
                raise
            raise ReadError(path, "file", f"a broken file ({error})", "a whole one, e.g. a new copy") from None


def _header(path: Path, file: Any, label: bool) -> Header:
    dataset = _dataset(path, file, _field(label), MAX_PIXELS)
    if dataset is None:
        raise ReadError(path, f"{GROUP}/{_field(label)}", "nothing", "a picture")
    if dataset.ndim != 2:
        raise ReadError(path, f"{GROUP}/{_field(label)}", f"{dataset.ndim} axes", "2")
    dtype = np.dtype("u1") if dataset.dtype.kind == "b" else dataset.dtype.newbyteorder("=")
    patient, number = _patient(path, file), _class(path, file)
    return Header(dataset.shape[::-1], 1, np.eye(4), (1.0, 1.0), dtype, patient, number)


def _patient(path: Path, file: Any) -> str | None:
    dataset = _dataset(path, file, "PID", LONGEST_PID)
    if dataset is None or dataset.attrs.get("MATLAB_empty"):  # then the numbers are a shape
        return None
    codes = _values(path, file, "PID").ravel()
    kind = dataset.attrs.get("MATLAB_class", b"char" if codes.dtype in (np.uint8, np.uint16) else b"")
    if kind == b"char" and codes.dtype.kind == "u" and codes.max() <= sys.maxunicode:
        return known_patient("".join(map(chr, codes)))
    if len(codes) == 1 and float(codes[0]).is_integer():
        return known_patient(str(int(codes[0])))
    found = f"{by(codes[:5].tolist())} of type {codes.dtype}"
    raise ReadError(path, f"{GROUP}/PID", found, "text or a whole number")


def _class(path: Path, file: Any) -> int | None:
    if _dataset(path, file, "label", 1) is None:
        return None
    value = float(_values(path, file, "label").ravel()[0])
    if not value.is_integer():
        raise ReadError(path, f"{GROUP}/label", f"{value:g}", "a whole number")
    return int(value)


def _dataset(path: Path, file: Any, name: str, most: int) -> Any:
    """A field of the struct, none of whose bytes have been read; None where there is none. Raises ReadError."""
    import h5py

    group = _hard(path, file, GROUP, GROUP)
    if not isinstance(group, h5py.Group):
        raise ReadError(path, GROUP, "no struct", "that of figshare 1512427")
    field = f"{GROUP}/{name}"
    dataset = _hard(path, group, name, field)
    if dataset is None:
        return None
    if not isinstance(dataset, h5py.Dataset):
        raise ReadError(path, field, "no array", "an array of numbers")
    if dataset.external:
        raise ReadError(path, field, "external storage", "data in the file itself")
    if dataset.is_virtual:
        raise ReadError(path, field, "a virtual data set", "data in the file itself")
    if dataset.dtype.kind != "b":
        refuse_type(path, dataset.dtype, field)
    if not dataset.shape or min(dataset.shape) < 1 or math.prod(dataset.shape) > most:
        raise ReadError(path, field, f"{by(dataset.shape or ())} numbers", f"1 to {most}")
    _refuse_storage(path, field, dataset)
    return dataset


def _hard(path: Path, group: Any, name: str, field: str) -> Any:
    """A member of a group that lies in the file itself: a link can lead to any other file."""
    import h5py

    if name not in group and group.get(name, getlink=True) is None:
        return None
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ReadError(path, field, "a link", "data in the file itself")
    return group[name]


def _refuse_storage(path: Path, field: str, dataset: Any) -> None:
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if not set(filters) <= {DEFLATED, SHUFFLED, FLETCHER32}:
        raise ReadError(path, field, f"filter {max(filters)}", "gzip, shuffle or fletcher32")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > stored * (DEFLATE if DEFLATED in filters else 1):
        raise ReadError(path, field, f"{stored} bytes stored", f"{dataset.nbytes}, as declared")
    if dataset.chunks:
        count = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() < count:  # HDF5 fills the others with a constant
            raise ReadError(path, field, f"{dataset.id.get_num_chunks()} chunks", str(count))


def _values(path: Path, file: Any, name: str) -> Array:
    dataset = file[GROUP][name]
    if dataset.chunks:
        _refuse_bombs(path, f"{GROUP}/{name}", dataset)
    try:
        return np.asarray(dataset[()])
    except (OSError, RuntimeError) as error:
        found = f"broken data ({str(error).splitlines()[0]})"
        raise ReadError(path, f"{GROUP}/{name}", found, "whole data, e.g. a new copy") from None


def _refuse_bombs(path: Path, field: str, dataset: Any) -> None:
    """HDF5 unpacks a chunk to whatever size it has, also beyond the declared one."""
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if size > MAX_PIXELS * 8:
        raise ReadError(path, field, f"a chunk of {size} bytes", f"at most {MAX_PIXELS * 8}")
    for i in range(dataset.id.get_num_chunks() if DEFLATED in filters else 0):
        info = dataset.id.get_chunk_info(i)
        skipped = info.filter_mask >> filters.index(DEFLATED) & 1
        if skipped or info.size <= size // DEFLATE:  # too small to unpack to more
            continue
        packed = dataset.id.read_direct_chunk(info.chunk_offset)[1]
        if _unpacks_beyond(packed, size + 4):  # a checksum of 4 bytes can be packed with the data
            raise ReadError(path, field, f"a chunk that unpacks beyond {size} bytes", f"{size} bytes, as declared")


def _unpacks_beyond(packed: bytes, most: int) -> bool:
    try:
        return len(zlib.decompressobj().decompress(packed, most + 1)) > most
    except zlib.error:
        return False  # broken: HDF5 says so when it reads
