"""Crops of a volume that is read in parts: where to start and how to pad.

For a pipeline of dictionaries MONAI's ``RandCropByPosNegLabeld`` does the same; these serve a loader that reads only
the crop from disk. Volumes are (c, *spatial), sizes and starts have one number for each spatial axis. n foreground
voxels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

Start = NDArray[np.int64]


def random_start(shape: ArrayLike, size: ArrayLike, random: np.random.Generator | np.random.RandomState) -> Start:
    """Draw the first voxel of a crop of ``size``, uniform over those where it lies inside a volume of ``shape``.

    Along an axis where the volume is smaller than the crop the start is 0.
    """
    room = np.maximum(np.subtract(shape, size), 0)
    start: Start = (random.random(room.shape) * (room + 1)).astype(np.int64)
    return start


def foreground_start(
    voxels: NDArray[np.integer], shape: ArrayLike, size: ArrayLike, random: np.random.Generator | np.random.RandomState
) -> Start:
    """Draw the first voxel of a crop of ``size`` whose centre is one of ``voxels`` (n, axes), each as likely.

    The centre is voxel ``size // 2`` of the crop. At the border the crop is moved to lie inside the volume: it still
    holds that voxel, but no longer in its centre. Without any foreground (n = 0) the crop is anywhere:
    ``random_start``.
    """
    if len(voxels) == 0:
        return random_start(shape, size, random)
    centre = voxels[int(random.random() * len(voxels))].astype(np.int64)  # sampled positions may be kept as int16
    room = np.maximum(np.subtract(shape, size), 0)
    start: Start = np.clip(centre - np.floor_divide(size, 2), 0, room)
    return start


def pad_to(x: Tensor, size: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad ``x`` (c, *spatial) with ``value`` to at least ``size``, evenly on both sides, an odd voxel at the end.

    It is the place that MONAI's ``SpatialPad`` chooses. Gives ``x`` itself where nothing is missing.
    """
    gaps = [max(want - have, 0) for have, want in zip(x.shape[1:], size, strict=True)]
    sides = [side for gap in reversed(gaps) for side in (gap // 2, gap - gap // 2)]
    return functional.pad(x, sides, value=value) if any(gaps) else x
