"""What every reader gives, whatever the format, and what it refuses.

Axis letters: c channel, x y z as NIfTI has them. Volumes are (c, x, y, z), pictures are (c, row, column).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medssl.problems import Problem

MAX_VOXELS = 2**31  # declared voxels above this are refused before anything is decompressed
MAX_PIXELS = 2**27  # of a picture
# what stands in the place of a patient's id once it is taken out
NOBODY = {
    *("", "-", "anon", "anonymous", "anonymized", "anonymised", "deidentified", "de-identified", "removed", "none", "null"),
    *("unknown", "unk", "na", "n/a", "nil", "noid", "no id", "patient", "undefined", "unnamed"),
}

Array = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]


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
    """What a file says about its image before a voxel is read; `affine` is 4x4 float64, `spacing` in mm.

    `patient` and `label` (a class, as the file numbers it) are None where the format or the file has none.
    """

    shape: tuple[int, ...]
    channels: int
    affine: Affine
    spacing: tuple[float, ...]
    dtype: np.dtype[Any]
    patient: str | None = None
    label: int | None = None


class Volume(NamedTuple):
    """An image as stored, array (c, *spatial); its values are `array * slope + intercept`."""

    array: Array
    slope: float
    intercept: float
    affine: Affine

    def values(self) -> npt.NDArray[np.float32]:
        """The intensities, float32 (c, *spatial)."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return self.array.astype(np.float32)
        return (self.array * np.float64(self.slope) + self.intercept).astype(np.float32)


def same_grid(a: Affine, b: Affine, shape: Sequence[int]) -> bool:
    """Whether two affines put every voxel of the shape within a tenth of a voxel of the same place."""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in (*shape, 1, 1)[:3]), [1])).reshape(4, -1)
    apart = np.linalg.norm(((a - b) @ corners)[:3], axis=0).max()
    return bool(apart <= 0.1 * np.linalg.norm(a[:3, :3], axis=0).min())


def known_patient(text: str) -> str | None:
    """A patient's id as a file gives it, or None for an empty one and for what stands for a removed one."""
    text = text.strip("\0 \t\r\n")
    return None if text.casefold() in NOBODY else text


def by(shape: Sequence[float]) -> str:
    return "x".join(f"{n:.10g}" for n in shape)


def lengths(affine: Affine, axes: int) -> tuple[float, ...]:
    """The spacing along the first axes, in mm."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :axes], axis=0))


def refuse_shape(path: Path, shape: Sequence[int], most: int = MAX_VOXELS) -> None:
    """Raise ReadError for an empty axis and for more voxels, channels included, than are ever read."""
    if min(shape, default=0) < 1:
        raise ReadError(path, "shape", by(shape) or "no axes", "at least one voxel along every axis")
    if math.prod(shape) > most:
        raise ReadError(path, "size", f"{by(shape)} voxels", f"at most {most}")


def refuse_type(path: Path, dtype: np.dtype[Any], field: str = "voxel type") -> None:
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        name = "colours" if dtype.fields else str(dtype)
        raise ReadError(path, field, name, "integers or floats of at most 64 bits")


def refuse_affine(path: Path, affine: Affine) -> None:
    if not np.isfinite(affine).all():
        raise ReadError(path, "affine", "NaN or infinite numbers", "finite ones")
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    if norms.min() < 1e-6 or norms.max() > 1e6 or abs(np.linalg.det(affine[:3, :3] / norms)) < 1e-3:
        raise ReadError(path, "affine", "a singular matrix", "three independent axes")


def refuse_values(path: Path, volume: Volume) -> None:
    """Raise ReadError for NaN and infinite voxels and for values beyond float32."""
    array = volume.array
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):  # min and max pass a NaN on
        nans, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        raise ReadError(path, "voxels", f"{nans} NaN and {infinite} infinite of {array.size}", "finite values")
    extreme = max(abs(value * volume.slope + volume.intercept) for value in (low, high))
    if extreme > float(np.finfo(np.float32).max):
        raise ReadError(path, "voxels", f"{extreme:.3g}", "values that fit float32")
