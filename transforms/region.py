"""The region of interest: images cut to a square or cube around the object that a mask marks.

For images in which the object is small and a classifier would have to find it first. Every side of the box has the same
length in mm, so that the object keeps its proportions when the box is resized. Axes: c, then space.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, SpatialCrop
from numpy.typing import ArrayLike, NDArray

Corner = NDArray[np.int64]


def region_box(mask: ArrayLike, margin: float, spacing: Sequence[float] | None = None) -> tuple[Corner, Corner]:
    """Find the box around what is above 0 in a mask (*spatial): its first voxel and the one after its last.

    Its sides are the object's longest side (in the unit of ``spacing``, the size of a voxel) plus ``margin`` times that
    on both ends, rounded up to voxels, around the middle of the object. At the border it is shifted inside; along an axis
    where the image is shorter it is the whole axis. Raises ValueError for an empty mask and a negative margin.
    """
    if margin < 0:
        raise ValueError(f"roi: found {margin}, expected 0 or more")
    marked = np.argwhere(np.asarray(mask) > 0)
    if len(marked) == 0:
        raise ValueError("mask: found no voxel above 0, expected an object to cut around")
    shape, voxel = np.array(np.shape(mask)), np.asarray([1.0] * np.ndim(mask) if spacing is None else spacing)
    low, high = marked.min(0), marked.max(0) + 1
    side = ((high - low) * voxel).max() * (1 + 2 * margin)
    size = np.minimum(np.ceil(side / voxel - 1e-6), shape).astype(np.int64)  # less the rounding of floats
    start: Corner = np.clip((low + high - size) // 2, 0, shape - size)
    return start, start + size


class CropToMaskd(MapTransform):  # type: ignore[misc]
    """Crop items (c, *spatial) of one grid to the ``region_box`` of the item at ``mask_key``; affines follow.

    The mask is not in the result. It says how large a voxel is.
    """

    def __init__(self, keys: KeysCollection, margin: float, mask_key: Hashable, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.margin, self.mask_key = margin, mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        mask = out.pop(self.mask_key)
        marked = np.asarray(mask).max(0)
        start, end = region_box(marked, self.margin, np.asarray(mask.pixdim, float)[: marked.ndim].tolist())
        crop = SpatialCrop(roi_start=start.tolist(), roi_end=end.tolist())
        return out | {key: crop(out[key]) for key in self.key_iterator(out)}
