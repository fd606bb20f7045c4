"""The store: one HDF5 file with every case of a split, its geometry prepared once, read in crops.

Orientation, spacing and the crop to the foreground are done when packing; intensities stay as the source has them
(small integers with slope and intercept), so that a new window rebuilds nothing. Percentiles and a sample of voxel
positions of every class stand beside each case. Data sets are contiguous and are read through one memory map, so a
crop touches only its own bytes. Axis letters: c channel, then space.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

VERSION = 1
PERCENTILES = np.arange(0, 100.25, 0.5)
POSITIONS = 2000  # sampled voxel positions of a class, enough that crops around them are all different


@dataclass(frozen=True)
class Geometry:
    """What packing does to a volume; another geometry is another store."""

    spatial_dims: int
    spacing: tuple[float, ...] | None = None
    foreground_above: float | None = None
    orientation: str = "RAS"

    @property
    def key(self) -> str:
        """A short name for these settings."""
        return sha256(json.dumps([VERSION, asdict(self)]).encode()).hexdigest()[:12]


class Extent(NamedTuple):
    """Where an array lies in the file."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One case in the store."""

    id: str
    patient: str
    image: Extent
    label: Extent | None
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    spacing: tuple[float, ...]
    percentiles: NDArray[np.float64]  # of the image in real units, at PERCENTILES
    positions: dict[int, Extent]  # class -> sampled voxels (n, dims); without labels, class 1 is the foreground
    content: str  # SHA-256 of the image as read
    files: tuple[tuple[str, int, int, str], ...]  # path, size, modification time, SHA-256

    @property
    def shape(self) -> tuple[int, ...]:
        """The prepared image's spatial shape."""
        return self.image.shape[1:]

    def percentile(self, q: float) -> float:
        """A percentile of the whole volume, in real units."""
        return float(np.interp(q, PERCENTILES, self.percentiles))


class Store:
    """A packed split, read-only; safe to share between processes and to hand to workers."""

    def __init__(self, path: Path, entries: Iterable[Entry]) -> None:
        self.path = path
        self.entries = {entry.id: entry for entry in entries}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the index of a store; raises OSError when it is no whole store of this version."""
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("medssl_store") != VERSION:
                raise OSError(f"{path}: found another format, expected a store of version {VERSION}")
            return cls(path, [read_entry(group) for group in file.values()])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "bytes"}

    @cached_property
    def bytes(self) -> NDArray[np.uint8]:
        """The whole file, mapped; pages are read when touched."""
        return np.memmap(self.path, np.uint8, mode="r")

    def array(self, extent: Extent) -> NDArray[Any]:
        """Map one array; nothing is copied or read yet."""
        length = int(np.prod(extent.shape)) * np.dtype(extent.dtype).itemsize
        if not length:
            return np.empty(extent.shape, extent.dtype)
        flat: NDArray[Any] = self.bytes[extent.offset : extent.offset + length].view(extent.dtype)
        return flat.reshape(extent.shape)

    def crop(self, extent: Extent, start: Iterable[int], size: Iterable[int]) -> NDArray[Any]:
        """Copy a crop (c, *size) out of an image or label; what lies outside the volume is left out."""
        inside = tuple(slice(max(a, 0), a + n) for a, n in zip(start, size, strict=True))
        return np.array(self.array(extent)[(slice(None), *inside)], order="C")


def write_entry(file: h5py.File, name: str, arrays: dict[str, NDArray[Any]], attributes: dict[str, Any]) -> None:
    """Write one case as a group of contiguous data sets."""
    group = file.create_group(name)
    for key, array in arrays.items():
        group.create_dataset(key, data=array)
    group.attrs.update(attributes)


def read_entry(group: h5py.Group) -> Entry:
    """Read one case's index from its group; raises OSError for a data set that does not lie in this file."""
    attributes = group.attrs
    positions = {
        int(key.split("-")[1]): extent_of(group[key]) for key in group if key.startswith("positions-") and len(group[key])
    }
    return Entry(
        id=attributes["id"],
        patient=attributes["patient"],
        image=extent_of(group["image"]),
        label=extent_of(group["label"]) if "label" in group else None,
        slope=float(attributes["slope"]),
        intercept=float(attributes["intercept"]),
        affine=attributes["affine"],
        spacing=tuple(float(s) for s in attributes["spacing"]),
        percentiles=attributes["percentiles"],
        positions=positions,
        content=attributes["content"],
        files=tuple((path, size, time, digest) for path, size, time, digest in json.loads(attributes["files"])),
    )


def extent_of(data: h5py.Dataset) -> Extent:
    """Find a data set's place in the file."""
    if data.external or data.is_virtual or data.chunks:
        raise OSError(f"{data.name}: found external, virtual or chunked storage, expected a plain data set")
    return Extent(data.id.get_offset() or 0, data.dtype.str, data.shape)
