"""Resize images of any size until they just fit into one, their proportions kept.

For sets of slices that come in several sizes, where a crop is to hold the whole of each. Axes: c, then space.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Resize


class FitInsided(MapTransform):  # type: ignore[misc]
    """Resize items (c, *spatial) by one factor in mm, so that they just fit into ``size`` voxels; affines follow.

    ``size`` may have fewer numbers than the image has axes: the axes after them are left alone, such as the slices of
    a volume. The first key says how large a voxel is. A voxel of a smaller image is the mean of what it covers, larger
    images are interpolated linearly; ``label_key`` takes its nearest neighbour.
    """

    def __init__(
        self, keys: KeysCollection, size: Sequence[int], label_key: Hashable, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.label_key = tuple(size), label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        target = self.target(out[self.keys[0]])
        for key in self.key_iterator(out):
            shape = tuple(out[key].shape[1:])
            if shape != target:
                mode = "nearest-exact" if key == self.label_key else self.mode(shape, target)  # "nearest" is half a voxel off
                out[key] = Resize(target, mode=mode)(out[key])
        return out

    def target(self, image: MetaTensor) -> tuple[int, ...]:
        """The size after resizing: never more than ``size`` and never less than one voxel."""
        axes = len(self.size)
        shape = np.array(image.shape[1:])
        lengths = shape[:axes] * np.asarray(image.pixdim, float)[:axes]
        voxel = (lengths / self.size).max()  # mm of the new voxels
        fitted = np.clip(np.rint(lengths / voxel), 1, self.size).astype(int)
        return (*fitted.tolist(), *shape[axes:].tolist())

    @staticmethod
    def mode(shape: Sequence[int], target: Sequence[int]) -> str:
        """How torch names the mean over what a voxel covers and linear interpolation."""
        if any(new < old for old, new in zip(shape, target, strict=True)):
            return "area"  # MONAI's anti_aliasing darkens the border
        return "trilinear" if len(target) == 3 else "bilinear"
