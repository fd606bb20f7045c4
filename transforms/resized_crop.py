"""Random resized crops: a part of the image at the size of a view, perhaps mirrored; 2D and 3D.

The law is Inception's (Szegedy et al. 2015, arXiv:1409.4842), the one of SimCLR, Barlow Twins and SwAV: the share of the
area and the logarithm of the aspect ratio are uniform, so is the place. In 3D the share is that of the volume, and the
ratios of all three pairs of sides keep to the range. Axes: c, then space.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from transforms.corrupt import Size, per_axis

Span = Sequence[float]  # the two ends of a range
ATTEMPTS = 10  # as published; then the crop keeps its proportions, as large as fits


class CropBox(NamedTuple):
    """What was drawn for one view: first voxels, those one past the last, and which axes are mirrored."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    flips: tuple[bool, ...]


@dataclass(frozen=True)
class CropLaw:
    """How a box to cut out is drawn.

    ``scale`` is the range of its share of the image. ``ratio`` is the range of how much the resizing stretches an axis
    against another: a box without stretch has the proportions of the result, not of the image. Boxes that do not fit are
    drawn again, as published, so that with ratios of 3/4..4/3 shares of 0.2..1 are 0.53 on average in 2D, 0.48 in 3D.
    ``flip_prob`` is the probability of a flip, one for all axes or one each. Raises ValueError for a range or
    probability that cannot be.
    """

    scale: Span = (0.2, 1.0)
    ratio: Span = (3 / 4, 4 / 3)
    flip_prob: float | Sequence[float] = 0.5

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: expected 0 < low <= high <= 1, found {self.scale}")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= 1 <= self.ratio[1] < math.inf:
            raise ValueError(f"ratio: expected 0 < low <= 1 <= high, found {self.ratio}")
        if not np.all((np.asarray(self.flip_prob) >= 0) & (np.asarray(self.flip_prob) <= 1)):
            raise ValueError(f"flip_prob: expected 0..1, found {self.flip_prob}")

    def draw(self, rng: np.random.RandomState, shape: Sequence[int], size: Sequence[int]) -> CropBox:
        """Draw a box inside an image of ``shape`` that is to become ``size`` (both without channels)."""
        probs = per_axis(self.flip_prob, len(shape), "flip_prob")
        sides = self.sides(rng, shape, size)
        flips, places = rng.random_sample((2, len(shape))).tolist()
        start = [int(place * (n - side + 1)) for place, n, side in zip(places, shape, sides, strict=True)]
        stop = [first + side for first, side in zip(start, sides, strict=True)]
        return CropBox(tuple(start), tuple(stop), tuple(flip < prob for flip, prob in zip(flips, probs, strict=True)))

    def sides(self, rng: np.random.RandomState, shape: Sequence[int], size: Sequence[int]) -> list[int]:
        """Draw the box's sides in voxels: again while one is longer than the image's, at most ten times."""
        zoom, volume = 1.0, math.prod(shape) / math.prod(size)
        for _ in range(ATTEMPTS):
            zoom = (volume * rng.uniform(self.scale[0], self.scale[1])) ** (1 / len(shape))
            stretch = self.stretch(rng, len(shape))
            sides = [zoom * n * factor for n, factor in zip(size, stretch, strict=True)]
            if all(side <= n for side, n in zip(sides, shape, strict=True)):
                return [max(round(side), 1) for side in sides]
        zoom = min(zoom, *(have / want for have, want in zip(shape, size, strict=True)))
        return [min(max(round(zoom * want), 1), have) for have, want in zip(shape, size, strict=True)]

    def stretch(self, rng: np.random.RandomState, axes: int) -> list[float]:
        """Draw a factor for each axis, of product 1: their logarithms are uniform where every ratio is in its range.

        The ratio of an axis to one before it is meant; with two axes its logarithm is uniform.
        """
        low, high = map(math.log, self.ratio)
        while True:
            logs = [0.0, *rng.uniform(low, high, axes - 1).tolist()]
            if all(low <= b - a <= high for a, b in combinations(logs, 2)):
                return [math.exp(log - sum(logs) / axes) for log in logs]


def resized_crop(x: Tensor, box: CropBox, size: Size) -> Tensor:
    """Cut ``box`` out of ``x`` (c, *spatial), mirror it and resize it to (c, *size): a new float tensor."""
    part = x[(slice(None), *map(slice, box.start, box.stop))]
    mirrored = [axis for axis, flip in enumerate(box.flips, start=1) if flip]
    sizes = per_axis(size, x.ndim - 1, "size")
    if math.prod(part.shape[1:]) > math.prod(sizes):  # mirror the smaller of the two
        part = resize(part, sizes)
        return part.flip(mirrored) if mirrored else part
    return resize(part.flip(mirrored) if mirrored else part, sizes)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ``x`` (c, *spatial) linearly to (c, *size), every axis on its own: a new contiguous float tensor.

    Voxels are cells, and the outermost faces of both grids are the same. Where an axis shrinks, the triangle of linear
    interpolation is as much wider as the new cells are, so that nothing finer than they are is folded into the image.
    Other types than float32 and float64 become float32. Raises ValueError unless there are two or three axes.
    """
    if x.ndim not in (3, 4):
        raise ValueError(f"image: found shape {list(x.shape)}, expected (c, h, w) or (c, d, h, w)")
    out = x if x.element_size() >= 4 and x.is_floating_point() else x.float()
    if out.shape[-2:] != (*size[-2:],):
        planes = out if x.ndim == 4 else out[None]
        out = _linear(planes, size[-2], size[-1]).view(*x.shape[:-2], *size[-2:])
    if out.shape[1] != size[0]:  # the first axis of a volume: a picture with a row for every slice
        out = _linear(out.flatten(2)[None], size[0], math.prod(size[1:])).view(len(x), *size)
    return out.clone(memory_format=torch.contiguous_format) if out.data_ptr() == x.data_ptr() else out


def _linear(planes: Tensor, height: int, width: int) -> Tensor:
    resized: Tensor = functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return resized.contiguous()
