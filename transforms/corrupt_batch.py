"""Painting and shuffling of whole batches: the corruptions of `corrupt` for all views of all crops at once.

No loop goes over crops but that of their seeds, and nothing waits for the device. A number of boxes that varies is
filled up with empty ones, whose corners are all 0. Axes: v view, b crop, c channel, then space.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from transforms.corrupt import Boxes
from transforms.in_batches import beside, fill


def filled_up(drawn: Sequence[Boxes | None], most: int, axes: int) -> Tensor:
    """The boxes of several views as one tensor (v, most, 2, axis), with empty boxes behind those drawn, if any were."""
    out = np.zeros((len(drawn), most, 2, axes), np.int64)
    for places, boxes in zip(out, drawn, strict=True):
        if boxes is not None:
            places[: len(boxes)] = boxes
    return torch.from_numpy(out)


def in_boxes(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Where ``boxes`` (..., box, 2, axis) are in crops of ``shape``: (..., *shape), True inside any.

    A box is a product of ranges, one for each axis, so a matrix product counts the boxes over every voxel.
    """
    start, stop = (corner[..., None] for corner in boxes.unbind(-2))  # (..., box, axis, 1)
    ranges = []
    for axis, length in enumerate(shape):
        places = torch.arange(length, device=boxes.device)
        ranges.append(((places >= start[..., axis, :]) & (places < stop[..., axis, :])).float())  # (..., box, length)
    *others, last = ranges
    planes = others[0]
    for other in others[1:]:
        planes = (planes[..., None] * other[..., None, :]).flatten(-2)
    return (planes.mT @ last > 0).view(*boxes.shape[:-3], *shape)


def noise_in_range(x: Tensor, views: int, seeds: Sequence[int]) -> Tensor:
    """Noise (v, b, c, *spatial) for ``x`` (b, c, *spatial), uniform between the minimum and maximum of each crop."""
    low, high = (beside(limit, x) for limit in x.flatten(1).aminmax(dim=1))
    noise = fill(x.new_empty(views, *x.shape), seeds, Tensor.uniform_)
    return torch.lerp(low, high, noise, out=noise)  # which never leaves low..high


def paint(x: Tensor, boxes: Tensor, outside: Tensor, seeds: Sequence[int]) -> Tensor:
    """Views (v, b, c, *spatial) of ``x`` (b, c, *spatial) with noise in ``boxes`` (v, b, box, 2, axis), or all around them.

    ``outside`` (v, b) says which are out-painted. The noise is that of `corrupt`, for each voxel and channel on its own.
    """
    inside = in_boxes(boxes, x.shape[2:])
    return torch.where((inside != beside(outside, inside))[:, :, None], noise_in_range(x, len(boxes), seeds), x)


def shuffle(x: Tensor, boxes: Tensor, largest: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Permute the voxels of ``x`` (v, b, c, *spatial) inside each of ``boxes`` (v, b, box, 2, axis), in place.

    Every channel has its own permutation; where boxes of a view overlap, a later one permutes what the earlier ones left.
    No box has sides longer than ``largest``.
    """
    voxels = voxels_of(boxes, largest, x.shape[3:])[..., None, :]  # (v, b, box, 1, n)
    count = (boxes[..., 1, :] - boxes[..., 0, :]).clamp(min=1).prod(-1)
    order = orders(beside(count, voxels), (*voxels.shape[:3], x.shape[2], voxels.shape[-1]), seeds)
    to = voxels.expand_as(order)
    come_from = to.gather(-1, order)
    rows = x.flatten(3)
    for place, source in zip(to.unbind(2), come_from.unbind(2), strict=True):
        rows.scatter_(-1, place, rows.gather(-1, source))
    return x


def voxels_of(boxes: Tensor, largest: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The numbers of the voxels in each of ``boxes`` (..., box, 2, axis), row by row, in crops of ``shape``: (..., box, n).

    n is what a box of ``largest`` holds; the rows of smaller boxes end in repetitions of their first voxel. An empty box
    counts as one voxel, its corner, which no permutation moves.
    """
    start, sides = boxes[..., 0, :, None], (boxes[..., 1, :] - boxes[..., 0, :]).clamp(min=1)[..., None]
    number = torch.arange(math.prod(map(min, largest, shape)), device=boxes.device)
    number = torch.where(number < sides.prod(-2), number, 0)
    found, stride = torch.zeros_like(number), 1
    for axis in reversed(range(len(shape))):
        side = sides[..., axis, :]
        found += (start[..., axis, :] + number % side) * stride
        number = number // side
        stride *= shape[axis]
    return found


def orders(count: Tensor, shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Random permutations (v, b, ..., n) of the first ``count`` (v, b, ..., 1) numbers; then their first, over and over."""
    keys = fill(torch.empty(shape, device=count.device), seeds, Tensor.uniform_)
    left = torch.arange(shape[-1], device=count.device) >= count
    order = keys.masked_fill_(left, 2).argsort(-1)
    return torch.where(left, order[..., :1], order)
