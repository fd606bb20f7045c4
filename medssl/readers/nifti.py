"""Reads NIfTI volumes, plain or in gzip; a fourth axis is channels, as the Decathlon stores several modalities.

nibabel parses the header and nothing else: it never checks a gzip's checksum, and what builds on it replaces a broken
affine by an invented one.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medssl.readers.image import Affine, Header, ReadError, Volume, by, lengths, refuse_affine, refuse_shape, refuse_type
from medssl.readers.stream import MAX_TAIL, open_file, read_part, read_rest, refuse_claim, unpacked

MAX_EXTENSION = 2**24  # bytes between the header and the voxels
MM = {1: 1e3, 2: 1.0, 3: 1e-3}  # in the units of xyzt_units; unknown ones are taken for mm
HEAD = 540  # bytes of the longer of the two headers


class _Layout(NamedTuple):
    """Where the voxels of a file lie and how they are stored."""

    header: Header
    dtype: np.dtype[Any]  # in the file's byte order
    offset: int
    slope: float
    intercept: float

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.header.shape) * self.header.channels * self.dtype.itemsize


def header(path: Path, label: bool = False) -> Header:
    with open_file(path) as plain, unpacked(plain, _is_packed(path)) as file:
        return _layout(path, read_part(path, file, HEAD)).header


def image(path: Path, label: bool = False) -> Volume:
    with open_file(path) as plain, unpacked(plain, _is_packed(path)) as file:
        buffer = read_part(path, file, HEAD)
        layout = _layout(path, buffer)
        read_rest(path, file, buffer, layout.end, MAX_TAIL)
    shape = (*layout.header.shape, layout.header.channels)
    array = np.frombuffer(buffer, layout.dtype, math.prod(shape), layout.offset).reshape(shape, order="F")
    array = np.ascontiguousarray(np.moveaxis(array, -1, 0), dtype=layout.header.dtype)
    return Volume(array, layout.slope, layout.intercept, layout.header.affine)


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _layout(path: Path, head: bytes | bytearray) -> _Layout:
    """Raise ReadError for each way in which a header can mislead a reader."""
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    kinds: dict[bytes, Any] = {b"n+1\0": nibabel.Nifti1Header, b"n+2\0": nibabel.Nifti2Header}
    kind = kinds.get(bytes(head[344:348])) or kinds.get(bytes(head[4:8]))
    if kind is None or len(head) < kind.template_dtype.itemsize:
        raise ReadError(path, "format", "no NIfTI header", "a NIfTI file")
    try:
        raw = kind(bytes(head[: kind.template_dtype.itemsize]), check=False)  # its own check repairs and goes on
        dtype = raw.get_data_dtype()
        slope, intercept = raw.get_slope_inter()
    except KeyError as error:
        raise ReadError(path, "voxel type", f"code {error}", "integers or floats of at most 64 bits") from None
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        raise ReadError(path, "header", str(error), "a valid NIfTI header") from None
    if np.isinf(raw["scl_slope"]):  # which nibabel takes for no slope; NaN does mean none
        raise ReadError(path, "scl_slope", "infinity", "a finite number")
    refuse_type(path, dtype)
    shape, channels = _shape(path, [int(n) for n in raw["dim"]])
    affine = _affine(path, raw, len(shape))
    header = Header(shape, channels, affine, lengths(affine, len(shape)), dtype.newbyteorder("="))
    offset = float(raw["vox_offset"])
    least = 352 if kind is kinds[b"n+1\0"] else 544
    if not (least <= offset <= MAX_EXTENSION and offset.is_integer()):
        raise ReadError(path, "vox_offset", f"{offset:g}", f"{least} to {MAX_EXTENSION}")
    layout = _Layout(header, dtype, int(offset), float(slope or 1.0), float(intercept or 0.0))
    refuse_claim(path, layout.end, _is_packed(path))
    return layout


def _shape(path: Path, dim: list[int]) -> tuple[tuple[int, ...], int]:
    """The spatial shape and the channels: (x, y, z, c), or (x, y, z, 1, c) as NIfTI has vectors."""
    if not 1 <= dim[0] <= 7:
        raise ReadError(path, "axes", str(dim[0]), "2 to 4")
    shape = tuple(dim[1 : dim[0] + 1])
    refuse_shape(path, shape)
    several = [axis for axis, n in enumerate(shape) if n > 1 and axis > 2]
    if len(shape) < 2 or len(several) > 1 or max(several, default=0) > 4:
        raise ReadError(path, "axes", f"{len(shape)} ({by(shape)})", "2 or 3, and a fourth for channels")
    return shape[:3], math.prod(shape[3:])


def _affine(path: Path, raw: Any, axes: int) -> Affine:
    from nibabel.spatialimages import HeaderDataError

    if int(raw["sform_code"]) == 0:  # then pixdim gives the spacing
        spacing = [float(number) for number in raw["pixdim"][1 : axes + 1]]
        if not all(number > 0 and math.isfinite(number) for number in spacing):
            raise ReadError(path, "spacing", f"{by(spacing)} mm", "numbers above 0")
    try:
        affine = np.asarray(raw.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        raise ReadError(path, "header", str(error), "a valid NIfTI header") from None
    mm = MM.get(int(raw["xyzt_units"]) & 7, 1.0)
    affine = np.diag([mm, mm, mm, 1.0]) @ affine if mm != 1.0 else affine  # NaN times 0 would spread
    refuse_affine(path, affine)
    return affine
