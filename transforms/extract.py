"""The brain in an MR image of the head, without a trained network: threshold, erosion, largest piece, dilation.

The classical recipe (see Smith 2002, doi:10.1002/hbm.10062, which improves on it): in a T1 image the bright brain and
the bright scalp lie apart, between them the dark skull and fluid, with thin bridges at vessels and nerves. It is a way
to pre-train on "masked brain" images, not a segmentation: see ``brain_mask`` for where it fails. Axes: c, then space.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn import functional

from transforms.corrupt import Size, per_axis, plain, with_metadata
from transforms.jitter import blur

BINS = 256


class MaskBackgroundd(MapTransform):  # type: ignore[misc]
    """Set what lies outside the brain, as ``brain_mask`` finds it in the first key, to the minimum of each channel.

    Items are (c, *spatial), of one shape; none is written into. Of slices, the mask is that of the slice alone.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        mask: Tensor | None = None
        for key in self.key_iterator(out):
            crop = torch.as_tensor(out[key])
            x = plain(crop)
            mask = brain_mask(x) if mask is None else mask
            lowest = x.flatten(1).amin(dim=1).view(-1, *[1] * (x.ndim - 1))
            out[key] = with_metadata(torch.where(mask, x, lowest), crop)
        return out


def brain_mask(x: Tensor, radius: Size | None = None) -> Tensor:
    """Where the brain is in an MR image of the head (c, *spatial), 2D or 3D: (1, *spatial), bool.

    ``radius`` is that of the erosion in voxels, one or one for each axis, and has to be more than half the width of the
    bridges between brain and scalp; by default 1/32 of the head's extent. For T1 with the head whole and brighter than
    the air around it. On contrast-enhanced T1 slices of tumour patients in all three planes about three in four looked
    right; on the others half a brain cut off at the midline or the ventricles was lost, or face, neck or scalp that
    touch the brain widely were taken in. Volumes of thick slices fail at the skull's base, where everything hangs
    together: give their slices one by one. Of no use below the brain, on T2 or on CT. Look at the results. An image
    without contrast is all brain.
    """
    image = blur(x.float().mean(dim=0, keepdim=True), 1.0)
    bright = image > otsu_threshold(image)
    if not bright.any():
        return torch.ones_like(bright)
    radii = _radii(bright) if radius is None else per_axis(radius, x.ndim - 1, "radius")
    core = erode(bright, radii)
    if not core.any():
        return fill_holes(bright)
    grown = dilate(largest_component(core), radii) & bright
    return fill_holes(erode(dilate(grown, radii), radii))  # sulci and vessels closed


def otsu_threshold(x: Tensor) -> float:
    """The value that splits ``x`` into two classes of the largest variance between them (Otsu 1979), of 256 bins.

    The maximum, if ``x`` is constant.
    """
    low, high = (float(end) for end in x.aminmax())
    if low == high:
        return high
    counts = torch.histc(x.flatten(), BINS, low, high).double()
    centres = low + (high - low) * (torch.arange(BINS, dtype=torch.float64, device=x.device) + 0.5) / BINS
    below, sums = counts.cumsum(0), (counts * centres).cumsum(0)
    above = below[-1] - below
    means = sums / below, (sums[-1] - sums) / above
    between = (below * above * (means[0] - means[1]) ** 2).nan_to_num(nan=0.0)
    return float(low + (high - low) * (int(between.argmax()) + 1) / BINS)


def dilate(mask: Tensor, radii: Sequence[int]) -> Tensor:
    """``mask`` (1, *spatial) grown by about an ellipsoid: half the steps along the axes, half along diagonals too."""
    grown = mask
    for step in range(max(radii)):
        axes = [axis for axis, radius in enumerate(radii, start=1) if step < radius]
        grown = _grown_by_one(grown, axes, diagonal=step % 2 == 1)
    return grown


def erode(mask: Tensor, radii: Sequence[int]) -> Tensor:
    """``mask`` (1, *spatial) shrunk in the same way; beyond the image everything counts as inside."""
    return ~dilate(~mask, radii)


def fill_holes(mask: Tensor) -> Tensor:
    """``mask`` (1, *spatial) with everything that has no way to the image's border."""
    sides = [1, 1] * (mask.ndim - 1)
    outside = functional.pad(~mask, sides, value=True)
    labels = components(outside)
    inner = (slice(None), *[slice(1, -1)] * (mask.ndim - 1))
    return ~(labels == labels.flatten()[0])[inner]  # the corner is outside


def largest_component(mask: Tensor) -> Tensor:
    """The piece of ``mask`` (1, *spatial) with the most voxels; ``mask`` without any is itself."""
    labels = components(mask)
    counts = torch.bincount(labels[mask])
    return mask & (labels == counts.argmax()) if len(counts) else mask


def components(mask: Tensor) -> Tensor:
    """Number the pieces of ``mask`` (1, *spatial) that hang together by faces: int64, -1 outside, gaps in between.

    Every voxel points to a neighbour of a lower number, and pointers to pointers are shortened, so that the rounds
    grow with the logarithm of a piece's extent (Shiloach and Vishkin 1982, doi:10.1016/0196-6774(82)90008-6).
    """
    number = torch.full(mask.shape, -1, device=mask.device)
    count = int(mask.sum())
    number[mask] = torch.arange(count, device=mask.device)
    pairs = [_neighbours(number, axis) for axis in range(1, mask.ndim)]
    first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
    parent = torch.arange(count, device=mask.device)
    while True:
        lowest = torch.minimum(parent[first], parent[second])
        linked = parent
        for end in (first, second):
            linked = linked.scatter_reduce(0, parent[end], lowest, "amin")
        linked = linked[linked]
        if torch.equal(linked, parent):
            number[mask] = parent
            return number
        parent = linked


def _neighbours(number: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    n = number.shape[axis]
    one, other = number.narrow(axis, 0, n - 1), number.narrow(axis, 1, n - 1)
    both = (one >= 0) & (other >= 0)
    return one[both], other[both]


def _grown_by_one(mask: Tensor, axes: Sequence[int], diagonal: bool) -> Tensor:
    grown = mask.clone()
    for axis in axes:
        n, source = mask.shape[axis], grown.clone() if diagonal else mask
        grown.narrow(axis, 1, n - 1).logical_or_(source.narrow(axis, 0, n - 1))
        grown.narrow(axis, 0, n - 1).logical_or_(source.narrow(axis, 1, n - 1))
    return grown


def _radii(mask: Tensor) -> list[int]:
    """1/32 of the extent of ``mask`` along each axis, at least 1."""
    extents = []
    for axis in range(1, mask.ndim):
        places = mask.any(dim=[other for other in range(mask.ndim) if other != axis]).nonzero()
        extents.append(int(places.max() - places.min()) + 1)
    return [max(math.ceil(extent / 32), 1) for extent in extents]
