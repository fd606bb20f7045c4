"""The store: every case of a split, its geometry prepared once, in HDF5 files that are read in crops.

Orientation, spacing and the crop to the foreground are done when packing; intensities stay as the source has them
(small integers with slope and intercept), so that a new window rebuilds nothing. Percentiles and a sample of voxel
positions of the foreground and of every class stand beside each case. A large store is several files, the shards
`NAME.h5`, `NAME.1.h5`, ..., each complete in itself. Arrays are contiguous and mapped, so a crop touches only its own
bytes.
Axis letters: c channel, then space.
"""

import errno
import glob
import itertools
import json
import math
import mmap
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VERSION = 4
PERCENTILES = np.arange(0, 100.25, 0.5)
POSITIONS = 2000  # sampled voxel positions of a class, enough that crops around them are all different
FOREGROUND = "foreground"
MAPPED = 2**28  # bytes that a process reads before it lets go of their pages
POPULATE = 22  # MADV_POPULATE_READ of Linux 5.14, which Python's mmap does not name yet

with warnings.catch_warnings():  # torch says once that a read-only array should not be written to, which nobody does
    warnings.simplefilter("ignore")
    torch.from_numpy(np.frombuffer(b"\0", np.uint8))


@dataclass(frozen=True)
class Geometry:
    """What packing does to a volume; another geometry is another store."""

    spatial_dims: int
    spacing: tuple[float, ...] | None = None
    foreground_above: float | None = None
    orientation: str = "RAS"
    fit: tuple[int, ...] | None = None  # voxels that the image is resized to fit into, its proportions kept
    mask: str = "none"  # what is hidden before all else: "brain" all but the brain, "label" the objects of the label
    roi: float | None = None  # margin around the object of a case's mask, to which the image is cut

    @property
    def key(self) -> str:
        """A short name for these settings."""
        told = {name: value for name, value in asdict(self).items() if name != "roi" or value is not None}  # as ever
        return sha256(json.dumps([VERSION, told]).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        crop = f"foreground_above={self.foreground_above}, fit={self.fit}, mask={self.mask}, roi={self.roi}"
        return f"{self.spatial_dims}D, spacing={self.spacing}, {crop}"


class Extent(NamedTuple):
    """Where an array lies: in which shard of its store, at which byte."""

    shard: int
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How long it is."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Entry:
    """One case in the store."""

    id: str
    patient: str
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    spacing: tuple[float, ...]
    percentiles: NDArray[np.float32]  # (c, percentile) of the image in real units, at PERCENTILES
    content: str  # SHA-256 of the image as read
    classes: int  # that its label was checked against, 0 without a label
    files: tuple[tuple[str, str], ...]  # each file's path when packed and the SHA-256 of its bytes
    arrays: Mapping[str, Extent]  # image, label, positions-foreground, positions-CLASS
    missing: tuple[int, ...] = ()  # channels that the case has no file of, stored as 0
    channels: tuple[str, ...] = ()  # SHA-256 of each channel as read, without those missing

    @property
    def image(self) -> Extent:
        """The image (c, *spatial)."""
        return self.arrays["image"]

    @property
    def label(self) -> Extent | None:
        """The label (1, *spatial), if it was packed."""
        return self.arrays.get("label")

    @property
    def positions(self) -> dict[int, Extent]:
        """Sampled voxels (n, axes) of each class in the label."""
        named = {name.removeprefix("positions-"): extent for name, extent in self.arrays.items()}
        return {int(name): extent for name, extent in named.items() if name.isdecimal()}

    @property
    def foreground(self) -> Extent | None:
        """Sampled voxels (n, axes) of the foreground, if there is any."""
        return self.arrays.get(f"positions-{FOREGROUND}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The prepared image's spatial shape."""
        return self.image.shape[1:]

    def percentile(self, q: float) -> NDArray[np.float64]:
        """A percentile of each channel of the whole volume, in real units: (c,)."""
        return np.array([np.interp(q, PERCENTILES, channel) for channel in self.percentiles])


class Shard:
    """One file of a store, mapped read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open()
        self.state = self.state_now()

    def open(self) -> None:
        """Map the file; its descriptor stays open, so that a file moved over it changes nothing here."""
        self.file = self.path.open("rb")
        self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        with suppress(AttributeError, OSError):  # only some systems have large pages for files: a third of the time
            self.map.madvise(mmap.MADV_HUGEPAGE)

    def state_now(self) -> tuple[int, int]:
        """What tells that the open file is written to: its size and modification time."""
        status = os.fstat(self.file.fileno())
        return status.st_size, status.st_mtime_ns

    def array(self, extent: Extent) -> NDArray[Any]:
        """Map one array; OSError when the file was written to."""
        if self.state_now() != self.state:
            raise OSError(f"found the store changed while in use, expected the file as it was opened: {self.path}")
        return np.ndarray(extent.shape, extent.dtype, self.map, extent.offset)

    def fetch(self, start: int, length: int) -> None:
        """Bring bytes into memory that are about to be read; OSError when the disk does not give them.

        To read mapped bytes that can't be read ends the process by a bus error; only Linux lets us ask first.
        """
        first = start - start % mmap.PAGESIZE
        try:
            self.map.madvise(POPULATE, first, start + length - first)
        except OSError as error:
            if error.errno == errno.EFAULT:
                raise OSError(f"found bytes that can't be read, expected the store's disk to be there: {self.path}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "state": self.state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.open()


class Store:
    """A packed split, read-only; safe to share between processes and to hand to workers.

    Memory stays small however much is read: pages that were read go back to the system's cache now and then.
    """

    def __init__(self, shards: Sequence[Shard], entries: Iterable[Entry]) -> None:
        self.shards = list(shards)
        self.entries = {entry.id: entry for entry in entries}
        self.read = 0

    def __str__(self) -> str:
        patients, size = {entry.patient for entry in self.entries.values()}, sum(shard.state[0] for shard in self.shards)
        return f"{len(self.entries)} cases, {len(patients)} patients, {len(self.shards)} files, {size / 1e6:.1f} MB"

    def array(self, extent: Extent) -> NDArray[Any]:
        """Map one array, to be read as a whole; OSError when it can't be."""
        if not extent.bytes:
            return np.empty(extent.shape, extent.dtype)
        mapped = self.mapped(extent, extent.bytes)
        self.shards[extent.shard].fetch(extent.offset, extent.bytes)
        return mapped

    def view(self, extent: Extent, start: Sequence[int], size: Sequence[int]) -> Tensor:
        """Map a crop (c, *size) of an image or label, to be copied at once; what lies outside the volume is left out.

        OSError when it can't be read.
        """
        inside = tuple(slice(max(a, 0), max(a + n, 0)) for a, n in zip(start, size, strict=True))
        spanned = extent.shape[0] * size[0] * math.prod(extent.shape[2:]) * np.dtype(extent.dtype).itemsize
        mapped = self.mapped(extent, spanned)
        for first, length in pieces(extent, inside):
            self.shards[extent.shard].fetch(first, length)
        return torch.from_numpy(mapped[(slice(None), *inside)])

    def mapped(self, extent: Extent, spanned: int) -> NDArray[Any]:
        """Map one array, in a span of so many bytes of which something is about to be read."""
        self.read += spanned
        if self.read > MAPPED:
            self.read = spanned
            for shard in self.shards:
                shard.map.madvise(mmap.MADV_DONTNEED)  # they stay in the system's cache, but no longer count as ours
        return self.shards[extent.shard].array(extent)


def pieces(extent: Extent, crop: Sequence[slice]) -> Iterator[tuple[int, int]]:
    """Where the bytes of a crop lie: first byte and length, one piece a channel.

    One a slice where the crop has less than a quarter of its slices' rows, so that little is read besides.
    """
    (first, last), (row, end) = ((axis.start, min(axis.stop, n)) for axis, n in zip(crop[:2], extent.shape[1:3], strict=True))
    if first >= last or row >= end:
        return
    line = math.prod(extent.shape[3:]) * np.dtype(extent.dtype).itemsize
    height = extent.shape[2]
    step = 1 if len(crop) == 3 and 4 * (end - row) < height else last - first
    for channel in range(extent.shape[0]):
        for k in range(first, last, step):
            start = (channel * extent.shape[1] + k) * height + row
            yield extent.offset + start * line, ((step - 1) * height + end - row) * line


class Index(NamedTuple):
    """What a shard says of itself: which store it is of, when it was written, how its cases were prepared."""

    store: str
    serial: int  # of two shards with the same case the later one counts
    geometry: Geometry
    entries: list[Entry]


def shard_path(path: Path, number: int) -> Path:
    """The name of a shard: NAME.h5, NAME.1.h5, NAME.2.h5, ..."""
    return path.with_name(f"{path.stem}.{number}.h5") if number else path


def shards_beside(path: Path) -> list[Path]:
    """The files beside NAME.h5 that are named as its further shards, whatever they hold."""
    found = [(file, file.name[len(path.stem) + 1 : -3]) for file in path.parent.glob(f"{glob.escape(path.stem)}.*.h5")]
    numbered = sorted(int(digits) for _, digits in found if digits.isdecimal())
    return [shard_path(path, number) for number in numbered if shard_path(path, number).is_file()]


class ShardWriter:
    """Writes cases into a new HDF5 file: a group a case, and last the index by which all are found."""

    def __init__(self, file: h5py.File, store: str, serial: int, geometry: Geometry) -> None:
        self.file = file
        self.head = {"store": store, "serial": serial, "geometry": asdict(geometry)}
        self.cases: list[dict[str, Any]] = []
        self.percentiles: list[NDArray[np.float32]] = []
        self.bytes = 0

    def add(self, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> None:
        """Write one case; attributes are the fields of its Entry but `arrays`."""
        group = self.file.create_group(f"{len(self.cases):06d}")
        group.attrs["id"], group.attrs["patient"] = attributes["id"], attributes["patient"]
        places = {}
        for name, array in arrays.items():
            data = group.create_dataset(name, data=array)
            places[name] = [data.id.get_offset() or 0, data.dtype.str, data.shape]  # an empty array has no place
            self.bytes += array.nbytes
        self.percentiles.append(attributes["percentiles"])
        plain = {name: value for name, value in attributes.items() if name != "percentiles"}
        self.cases.append({**plain, "affine": attributes["affine"].tolist(), "arrays": places})

    def finish(self) -> None:
        """Write the index: until then nothing reads the file as a shard."""
        index = self.head | {"cases": self.cases}
        self.file["percentiles"] = np.concatenate(self.percentiles, dtype=np.float32)
        self.file["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
        self.file.attrs["medssl_store"] = VERSION


def read_index(shard: Shard, number: int) -> Index:
    """Read the index of a shard; raises ValueError for a file that is no whole shard of this version."""
    try:
        with h5py.File(shard.file, "r") as file:
            if file.attrs.get("medssl_store") != VERSION:
                raise ValueError("no store of this version")
            index, percentiles = json.loads(file["index"][()].tobytes()), file["percentiles"][()]
        lists = {name: value and tuple(value) for name, value in index["geometry"].items() if name in ("spacing", "fit")}
        geometry = Geometry(**index["geometry"] | lists)
        rows = np.cumsum([0, *(case["arrays"]["image"][2][0] for case in index["cases"])])  # a row a channel
        parts = [percentiles[first:last] for first, last in itertools.pairwise(rows)]
        entries = [entry_of(case, number, part) for case, part in zip(index["cases"], parts, strict=True)]
        return Index(index["store"], index["serial"], geometry, entries)
    except (OSError, KeyError, TypeError, IndexError, AttributeError) as error:  # h5py has OSError for all it can't read
        raise ValueError(str(error)) from error


def entry_of(case: dict[str, Any], shard: int, percentiles: NDArray[np.float32]) -> Entry:
    """An entry from its part of the index."""
    arrays = {name: Extent(shard, offset, dtype, tuple(shape)) for name, (offset, dtype, shape) in case["arrays"].items()}
    return Entry(**case | {
        "affine": np.array(case["affine"]),
        "spacing": tuple(case["spacing"]),
        "percentiles": percentiles,
        "files": tuple((path, digest) for path, digest in case["files"]),
        "missing": tuple(case.get("missing", ())),
        "channels": tuple(case.get("channels", ())),
        "arrays": arrays,
    })  # fmt: skip
