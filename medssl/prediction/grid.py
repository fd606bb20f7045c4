"""From the prepared grid back to the grid of the input: orientation, spacing, cropping and fitting inverted.

Where the axes of both grids are parallel (nearly always: preparation turns, crops and scales) each output voxel lies
between prepared planes, so that class scores are interpolated plane by plane while the windows are swept, and only two
planes of them are held: k scores for a whole volume never exist. Otherwise, as for a tilted gantry at a new spacing,
labels are taken from the nearest voxel. Axis letters: k class, then the spatial axes (2 or 3).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssl.windows import Corner, Largest, label_type

PARALLEL = 1e-3  # voxels that an axis may stray over its whole length and still count as parallel
EDGE = 0.5 + 1e-3  # voxels beyond the outermost centre that still belong to the prepared image

Affine = NDArray[np.float64]


class Grid(NamedTuple):
    """Where voxels lie: the spatial shape and the affine (4x4, mm in RAS) of the array."""

    shape: tuple[int, ...]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres a voxel along each axis."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))

    @property
    def voxel(self) -> float:
        """The volume of a voxel in mm3; of a 2D image its area in mm2."""
        axes = self.affine[:3, : len(self.shape)]
        return float(np.sqrt(np.linalg.det(axes.T @ axes)))  # sheared ones too


class Lines(NamedTuple):
    """For each axis of the prepared grid the axis of the output along it, and where its voxels lie, in prepared voxels."""

    axes: tuple[int, ...]
    places: tuple[NDArray[np.float64], ...]


def places_of(output: Grid, prepared: Grid) -> Affine:
    """The matrix (axes, axes + 1) that takes an output voxel's index to the prepared grid."""
    dims = len(output.shape)
    matrix: Affine = (np.linalg.inv(prepared.affine) @ output.affine)[[*range(dims)]][:, [*range(dims), 3]]
    return matrix


def lines_of(output: Grid, prepared: Grid) -> Lines | None:
    """How both grids lie along each other; None where their axes are not parallel."""
    matrix = places_of(output, prepared)
    turn, offset = matrix[:, :-1], matrix[:, -1]
    axes = np.abs(turn * np.array(output.shape)).argmax(1)
    rest = turn.copy()
    rest[np.arange(len(axes)), axes] = 0
    strays = np.abs(rest) @ np.array(output.shape)
    if len(set(axes.tolist())) < len(axes) or strays.max() > PARALLEL:
        return None
    places = [turn[a, axis] * np.arange(output.shape[axis]) + offset[a] for a, axis in enumerate(axes)]
    return Lines(tuple(int(axis) for axis in axes), tuple(_rounded(place) for place in places))


def is_exact(lines: Lines) -> bool:
    """Whether every output voxel is a voxel of the prepared grid, or lies outside of it."""
    return all((place == np.rint(place)).all() for place in lines.places)


class Nearest:
    """Labels on the prepared grid, and last on the output's by its nearest voxel; 0 outside of what was prepared."""

    needs_sums = False

    def __init__(self, output: Grid, prepared: Grid) -> None:
        self.output, self.prepared, self.inner = output, prepared, Largest(prepared.shape)

    def begin(self, size: Sequence[int], axis: int, margins: Corner) -> None:
        self.inner.begin(size, axis, margins)

    def take(self, start: int, scores: Tensor) -> None:
        self.inner.take(start, scores)

    def finish(self) -> Tensor:
        return nearest(self.inner.finish(), self.output, self.prepared)


class Linear:
    """Labels of the output's voxels by class probabilities interpolated linearly; 0 outside of what was prepared.

    Probabilities and not scores: those of two windows' networks may differ in scale.
    """

    needs_sums = True

    def __init__(self, output: Grid, lines: Lines) -> None:
        self.output, self.lines = output, lines
        self.labels = self.last = torch.empty(0)
        self.weights: list[Tensor] = []
        self.done = 0

    def begin(self, size: Sequence[int], axis: int, margins: Corner) -> None:
        self.size, self.axis, self.margins = tuple(size), axis, margins
        places = self.lines.places
        self.inside = [(place >= -EDGE) & (place <= n - 1 + EDGE) for place, n in zip(places, size, strict=True)]
        self.weights = [interpolation(places[a], n) for a, n in enumerate(size) if a != axis]
        along = np.clip(places[axis], 0, size[axis] - 1)
        order = np.argsort(along, kind="stable")
        self.planes = [int(j) for j in order if self.inside[axis][j]]  # of the output, in the order of the sweep
        self.along = along

    def take(self, start: int, scores: Tensor) -> None:
        if not len(self.labels):
            shape = [self.output.shape[axis] for axis in self.lines.axes]
            self.labels = torch.zeros(shape, dtype=label_type(len(scores)))
            self.weights = [weight.to(scores.device) for weight in self.weights]
        margin, end = self.margins[self.axis], start + scores.shape[1 + self.axis]
        first = max(start - margin, 0)
        known: dict[int, Tensor] = {first - 1: self.last}
        ready = min(end - margin, self.size[self.axis])  # planes before this one are there

        def plane(i: int) -> Tensor:
            if i not in known:
                for old in [old for old in known if old < i - 1]:
                    del known[old]
                known[i] = self.crop(scores.select(1 + self.axis, i + margin - start))
            return known[i]

        while self.done < len(self.planes):
            j = self.planes[self.done]
            low = int(self.along[j])
            share = float(self.along[j] - low)
            if low + (share > 0) >= ready:
                break
            mixed = plane(low) if share == 0 else torch.lerp(plane(low), plane(low + 1), share)
            self.paint(j, mixed)
            self.done += 1
        if ready > first:
            self.last = plane(ready - 1)

    def crop(self, plane: Tensor) -> Tensor:
        """The probabilities (k, *plane) of a plane without the padding."""
        inside = [slice(m, m + n) for a, (m, n) in enumerate(zip(self.margins, self.size, strict=True)) if a != self.axis]
        return plane[(slice(None), *inside)].softmax(0)

    def paint(self, j: int, probabilities: Tensor) -> None:
        """Bring a plane (k, *plane) to the output's voxels and keep its largest."""
        for weight in self.weights:
            probabilities = torch.tensordot(probabilities, weight, ([1], [1]))  # the axis done goes to the end
        self.labels.select(self.axis, j).copy_(probabilities.max(0).indices)

    def finish(self) -> Tensor:
        for a, inside in enumerate(self.inside):
            np.moveaxis(self.labels.numpy(), a, 0)[~inside] = 0
        return self.labels.permute(*np.argsort(self.lines.axes).tolist()).contiguous()


def interpolation(places: NDArray[np.float64], size: int) -> Tensor:
    """The matrix (outputs, size) that interpolates `size` numbers linearly at places, the outermost ones beyond them."""
    at = np.clip(places, 0, size - 1)
    low = np.minimum(at.astype(np.int64), max(size - 2, 0))
    share = at - low
    matrix = np.zeros((len(at), size), np.float32)
    rows = np.arange(len(at))
    matrix[rows, low] = 1 - share
    if size > 1:
        matrix[rows, low + 1] += share
    return torch.from_numpy(matrix)


def nearest(labels: Tensor, output: Grid, prepared: Grid) -> Tensor:
    """Take each output voxel's label from the nearest prepared voxel, 0 where none is near; a plane at a time."""
    matrix, source = places_of(output, prepared), labels.numpy()
    dims = len(output.shape)
    lines = lines_of(output, prepared)
    found = np.zeros(output.shape, source.dtype)
    if lines is not None:
        picked = [
            np.where((place >= -EDGE) & (place <= n - 1 + EDGE), np.clip(np.rint(place), 0, n - 1), -1).astype(np.int64)
            for place, n in zip(lines.places, source.shape, strict=True)
        ]
        turned = found.transpose(lines.axes)
        turned[np.ix_(*(np.flatnonzero(p >= 0) for p in picked))] = source[np.ix_(*(p[p >= 0] for p in picked))]
        return torch.from_numpy(found)
    plane = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in output.shape[:-1]), indexing="ij"), -1)
    for k in range(output.shape[-1]):
        at = plane @ matrix[:, : dims - 1].T + matrix[:, dims - 1] * k + matrix[:, -1]
        inside = ((at >= -EDGE) & (at <= np.array(source.shape) - 1 + EDGE)).all(-1)
        index = np.clip(np.rint(at[inside]), 0, np.array(source.shape) - 1).astype(np.int64)
        found[..., k][inside] = source[tuple(index.T)]
    return torch.from_numpy(found)


def labels_on(output: Grid, prepared: Grid, interpolate: str = "linear") -> Nearest | Linear:
    """How label maps of the prepared grid come to the output's: exactly where it is the same one turned or cropped."""
    lines = lines_of(output, prepared)
    if lines is None or is_exact(lines) or interpolate == "nearest":
        return Nearest(output, prepared)
    return Linear(output, lines)


def _rounded(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places that differ from whole numbers by rounding alone, as whole numbers."""
    whole = np.rint(places)
    return np.where(np.abs(places - whole) < PARALLEL, whole, places)
