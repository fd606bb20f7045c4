"""Reads images: NIfTI volumes and 2D pictures, by suffix, or says what is wrong with the file.

nibabel parses the NIfTI header and nothing else: it never checks a gzip's checksum, and what builds on it replaces a
broken affine by an invented one. Here a stream is read to its end, so that a flipped bit is found, and never further
than the header declares, so that a small file can't fill the memory.
Axis letters: c channel, x y z as NIfTI has them; pictures are (c, row, column).
"""

import gzip
import math
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from medssl.problems import Problem

MAX_VOXELS = 2**31  # declared voxels above this are refused before anything is decompressed
MAX_PIXELS = 2**27  # of a picture
MAX_EXTENSION = 2**24  # bytes between the NIfTI header and the voxels
MAX_TAIL = 2**20  # bytes after the voxels; some writers pad
CHUNK = 2**22  # bytes read at once
DEFLATE = 1032  # deflate never packs more bytes than this into one

Array = npt.NDArray[Any]


class ReadError(ValueError):
    """A file that can't be used as an image."""

    def __init__(self, file: str | Path, field: str, found: str, expected: str) -> None:
        super().__init__(str(Problem(str(file), field, found, expected)))
        self.file, self.field, self.found, self.expected = str(file), field, found, expected

    @property
    def problem(self) -> Problem:
        return Problem(self.file, self.field, self.found, self.expected)


@dataclass(frozen=True)
class Header:
    """What a file says about its image before a voxel is read; `affine` is 4x4 float64, `spacing` in mm."""

    shape: tuple[int, ...]
    channels: int
    affine: npt.NDArray[np.float64]
    spacing: tuple[float, ...]
    dtype: np.dtype[Any]


class Volume(NamedTuple):
    """An image as stored, array (c, *spatial); its values are `array * slope + intercept`."""

    array: Array
    slope: float
    intercept: float
    affine: npt.NDArray[np.float64]

    def values(self) -> npt.NDArray[np.float32]:
        """The intensities, float32 (c, *spatial)."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return self.array.astype(np.float32)
        return (self.array * np.float64(self.slope) + self.intercept).astype(np.float32)


def read_header(path: str | Path) -> Header:
    """Read the first bytes of a file; raises ReadError, also for sizes, axes and voxel types that can't be read."""
    return _reader(Path(path)).header(Path(path))


def read_image(path: str | Path) -> Volume:
    """Read every voxel of a file and verify its checksum; raises ReadError, also for NaN and infinite voxels."""
    path = Path(path)
    try:
        volume = _reader(path).image(path)
    except MemoryError:
        raise ReadError(path, "size", "more voxels than memory", "an image that fits") from None
    _refuse_values(path, volume)
    return volume


def read_images(paths: Sequence[str | Path]) -> Volume:
    """Read a case of one file a channel (or of one file) as one volume; raises ReadError, also for unequal grids."""
    volumes = [read_image(path) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths, volumes, strict=True):
        if volume.array.shape[1:] != first.array.shape[1:]:
            found, expected = (_by(v.array.shape[1:]) for v in (volume, first))
            raise ReadError(path, "shape", found, f"{expected}, as {Path(paths[0]).name} has")
        if not same_grid(volume.affine, first.affine, first.array.shape[1:]):
            raise ReadError(path, "affine", "another position", f"that of {Path(paths[0]).name}")
    if len(volumes) == 1:
        return first
    if len({(volume.slope, volume.intercept) for volume in volumes}) == 1:
        return Volume(np.concatenate([v.array for v in volumes]), first.slope, first.intercept, first.affine)
    return Volume(np.concatenate([v.values() for v in volumes]), 1.0, 0.0, first.affine)


def same_grid(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], shape: Sequence[int]) -> bool:
    """Whether two affines put every voxel of the shape within a tenth of a voxel of the same place."""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in (*shape, 1, 1)[:3]), [1])).reshape(4, -1)
    apart = np.linalg.norm(((a - b) @ corners)[:3], axis=0).max()
    return bool(apart <= 0.1 * np.linalg.norm(a[:3, :3], axis=0).min())


class _Reader(NamedTuple):
    header: Callable[[Path], Header]
    image: Callable[[Path], Volume]


def _reader(path: Path) -> _Reader:
    """The format's reader; raises ReadError for an unknown suffix and for what is no file with something in it."""
    suffix = next((suffix for suffix in SUFFIX if path.name.lower().endswith(suffix)), None)
    try:
        status = os.stat(path)
    except OSError as error:
        raise ReadError(path, "file", error.strerror or "nothing", "an image file") from None
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise ReadError(path, "file", "a folder" if stat.S_ISDIR(status.st_mode) else "no plain file", "an image file")
    if suffix is None:
        raise ReadError(path, "format", path.suffix or "no suffix", "one of " + " ".join(SUFFIX))
    if status.st_size == 0:
        raise ReadError(path, "file", "0 bytes", "an image file")
    return SUFFIX[suffix]


def _refuse_values(path: Path, volume: Volume) -> None:
    array = volume.array
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):  # min and max pass a NaN on
        nans, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        raise ReadError(path, "voxels", f"{nans} NaN and {infinite} infinite of {array.size}", "finite values")
    extreme = max(abs(value * volume.slope + volume.intercept) for value in (low, high))
    if extreme > float(np.finfo(np.float32).max):
        raise ReadError(path, "voxels", f"{extreme:.3g}", "values that fit float32")


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


# NIfTI


class _Layout(NamedTuple):
    """Where the voxels of a NIfTI file lie and how they are stored."""

    header: Header
    stored: tuple[int, ...]
    dtype: np.dtype[Any]  # in the file's byte order
    offset: int
    slope: float
    intercept: float

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.stored) * self.dtype.itemsize


def _nifti_header(path: Path) -> Header:
    with _open(path) as file:
        return _layout(path, _read(path, file, 540)).header


def _nifti_image(path: Path) -> Volume:
    with _open(path) as file:
        buffer = _read(path, file, 540)
        layout = _layout(path, buffer)
        while len(buffer) < layout.end:
            part = _read(path, file, min(CHUNK, layout.end - len(buffer)))
            if not part:
                raise ReadError(path, "file", f"{len(buffer)} bytes", f"{layout.end}, as its header says")
            buffer += part
        tail = max(0, len(buffer) - layout.end)
        while part := _read(path, file, CHUNK):  # to the end, where gzip compares the checksum
            tail += len(part)
            if tail > MAX_TAIL:
                raise ReadError(path, "file", f"over {tail} bytes after the voxels", "none")
    array = np.frombuffer(buffer, layout.dtype, math.prod(layout.stored), layout.offset)
    array = array.reshape(layout.stored, order="F").reshape(1, *layout.header.shape, order="F")
    array = np.ascontiguousarray(array, dtype=layout.header.dtype)
    return Volume(array, layout.slope, layout.intercept, layout.header.affine)


def _open(path: Path) -> IO[bytes]:
    try:
        plain = path.open("rb")
    except OSError as error:
        raise ReadError(path, "file", error.strerror or "nothing", "a readable file") from None
    if not path.name.lower().endswith(".gz"):
        return plain
    plain.close()
    return cast(IO[bytes], gzip.open(path, "rb"))


def _read(path: Path, file: IO[bytes], count: int) -> bytearray:
    try:
        return bytearray(file.read(count))
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(path, "file", f"a broken file ({error})", "a whole one, e.g. a new copy") from None


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
        affine = np.asarray(raw.get_best_affine(), np.float64)
    except KeyError as error:
        raise ReadError(path, "voxel type", f"code {error}", "integers or floats of at most 64 bits") from None
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        raise ReadError(path, "header", str(error), "a valid NIfTI header") from None
    if np.isinf(raw["scl_slope"]):  # which nibabel takes for no slope; NaN does mean none
        raise ReadError(path, "scl_slope", "infinity", "a finite number")
    _refuse_type(path, dtype)
    stored = _stored_shape(path, [int(n) for n in raw["dim"]])
    _refuse_affine(path, affine)
    spatial = stored[: max(2, min(3, len(stored)))]
    spacing = tuple(float(length) for length in np.linalg.norm(affine[:3, : len(spatial)], axis=0))
    header = Header(spatial, 1, affine, spacing, dtype.newbyteorder("="))
    offset = float(raw["vox_offset"])
    least = 352 if kind is kinds[b"n+1\0"] else 544
    if not (least <= offset <= MAX_EXTENSION and offset.is_integer()):
        raise ReadError(path, "vox_offset", f"{offset:g}", f"{least} to {MAX_EXTENSION}")
    layout = _Layout(header, stored, dtype, int(offset), float(slope or 1.0), float(intercept or 0.0))
    size = os.stat(path).st_size
    if layout.end > size * (DEFLATE if path.name.lower().endswith(".gz") else 1):
        raise ReadError(path, "file", f"{size} bytes", f"{layout.end}, as its header says")
    return layout


def _stored_shape(path: Path, dim: list[int]) -> tuple[int, ...]:
    if not 1 <= dim[0] <= 7:
        raise ReadError(path, "axes", str(dim[0]), "2 or 3")
    shape = dim[1 : dim[0] + 1]
    if min(shape) < 1:
        raise ReadError(path, "shape", _by(shape), "at least one voxel along every axis")
    if len(shape) < 2 or max(shape[3:], default=1) > 1:
        raise ReadError(path, "axes", f"{len(shape)} ({_by(shape)})", "2 or 3")
    if math.prod(shape) > MAX_VOXELS:
        raise ReadError(path, "size", f"{_by(shape)} voxels", f"at most {MAX_VOXELS}")
    return tuple(shape)


def _refuse_type(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        name = "colours" if dtype.fields else str(dtype)
        raise ReadError(path, "voxel type", name, "integers or floats of at most 64 bits")


def _refuse_affine(path: Path, affine: npt.NDArray[np.float64]) -> None:
    if not np.isfinite(affine).all():
        raise ReadError(path, "affine", "NaN or infinite numbers", "finite ones")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-6 or lengths.max() > 1e6 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise ReadError(path, "affine", "a singular matrix", "three independent axes")


# Pictures


def _picture_header(path: Path) -> Header:
    with _open_picture(path) as picture:
        return _picture_layout(path, picture)


def _picture_image(path: Path) -> Volume:
    try:
        with _open_picture(path) as picture:
            picture.verify()  # the checksums of a PNG, which loading skips
        with _open_picture(path) as picture:
            header = _picture_layout(path, picture)
            array = np.asarray(picture)
    except (OSError, EOFError, SyntaxError, ValueError, zlib.error) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(path, "file", f"a broken picture ({error})", "a whole one, e.g. a new copy") from None
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return Volume(np.ascontiguousarray(array, dtype=header.dtype), 1.0, 0.0, header.affine)


def _open_picture(path: Path) -> Any:
    import PIL.Image

    try:
        return PIL.Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP"))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        found = "no picture" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
        raise ReadError(path, "format", found, "a PNG, JPEG, TIFF or BMP") from None


def _picture_layout(path: Path, picture: Any) -> Header:
    modes = {"1": "u1", "L": "u1", "I;16": "u2", "I;16B": "u2", "I;16L": "u2", "I": "i4", "F": "f4", "RGB": "u1"}
    if picture.mode not in modes:
        raise ReadError(path, "colours", f"mode {picture.mode}", "grey or RGB, without palette or transparency")
    if getattr(picture, "n_frames", 1) > 1:
        raise ReadError(path, "pages", str(picture.n_frames), "1")
    width, height = picture.size
    if not 1 <= width * height <= MAX_PIXELS:
        raise ReadError(path, "size", f"{width}x{height} pixels", f"1 to {MAX_PIXELS}")
    channels = 3 if picture.mode == "RGB" else 1
    return Header((height, width), channels, np.eye(4), (1.0, 1.0), np.dtype(modes[picture.mode]))


SUFFIX = {
    ".nii.gz": _Reader(_nifti_header, _nifti_image),
    ".nii": _Reader(_nifti_header, _nifti_image),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"), _Reader(_picture_header, _picture_image)),
}
