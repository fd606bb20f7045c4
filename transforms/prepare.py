"""Preparation: from files to volumes of one orientation and spacing with intensities in 0..1.

Geometry and intensity are apart, so that a store can keep the geometry and apply the intensity to crops. The defaults
for CT are those of MONAI's self-supervised tutorial: window -57..164 HU, crop to what is above it. Axes: c, then space.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    LoadImaged,
    MapTransform,
    Orientationd,
    Spacingd,
)
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from torch import Tensor

from transforms.fit import FitInsided
from transforms.region import CropToMaskd

LABEL = "label"  # the key that is interpolated by nearest neighbour and whose values are left alone
MASK = "mask"  # the key that marks the object of interest
Limit = float | Sequence[float] | Tensor  # one for the image or one for each channel


def prepare_geometry(
    keys: KeysCollection,
    spacing: Sequence[float] | None = None,
    orientation: str | None = "RAS",
    foreground_above: float | None = None,
    spatial_dims: int = 3,
    *,
    fit: Sequence[int] | None = None,
    label_key: Hashable = LABEL,
    roi: float | None = None,
    mask_key: Hashable = MASK,
) -> Compose:
    """Bring items to one orientation (3D only), cut a region out, bring it to a spacing (mm), crop, resize.

    Items are ``MetaTensor`` (c, *spatial). ``label_key`` is resampled by nearest neighbour, all others bilinearly.
    The box is that of the voxels of the first key above ``foreground_above`` in any channel; an image without any
    keeps its size. ``roi`` is the margin around the object of the item at ``mask_key``, which has the same grid and is
    left out of the result: see ``CropToMaskd``. It comes before the resampling, in which a small object might get lost.
    ``fit`` is the size in voxels that the items are resized to fit into. None leaves a step out.
    """
    names = ensure_tuple(keys)
    steps: list[MapTransform] = []
    if orientation is not None and spatial_dims == 3:
        turned = names if roi is None else (*names, mask_key)
        steps.append(Orientationd(turned, axcodes=orientation, labels=None))  # None: labels by the space of the affine
    if roi is not None:
        steps.append(CropToMaskd(names, roi, mask_key))
    if spacing is not None:
        modes = ["nearest" if name == label_key else "bilinear" for name in names]
        steps.append(Spacingd(names, pixdim=spacing, mode=modes))
    if foreground_above is not None:
        inside = partial(_foreground, above=foreground_above)
        steps.append(CropForegroundd(names, source_key=names[0], select_fn=inside, allow_smaller=True))
    if fit is not None:
        steps.append(FitInsided(names, fit, label_key))
    return Compose(steps)


def prepare_ct(
    keys: KeysCollection,
    spacing: Sequence[float] | None,
    window: tuple[float, float] = (-57.0, 164.0),
    spatial_dims: int = 3,
    label_key: Hashable = LABEL,
) -> Compose:
    """Load CT, bring it to ``spacing``, crop it to what is above the window, scale the window (HU) to 0..1."""
    names = ensure_tuple(keys)
    geometry = prepare_geometry(names, spacing, "RAS", window[0], spatial_dims, label_key=label_key)
    intensity = ScaleHUd([name for name in names if name != label_key], *window)
    return Compose([LoadImaged(names), EnsureChannelFirstd(names), geometry, intensity])


def prepare_mr(
    keys: KeysCollection,
    spacing: Sequence[float] | None,
    percentiles: tuple[float, float] = (0.5, 99.5),
    spatial_dims: int = 3,
    label_key: Hashable = LABEL,
) -> Compose:
    """Load MR, bring it to ``spacing``, crop it to what is above 0, scale two percentiles of each channel to 0..1."""
    names = ensure_tuple(keys)
    geometry = prepare_geometry(names, spacing, "RAS", 0.0, spatial_dims, label_key=label_key)
    intensity = ScalePercentiled([name for name in names if name != label_key], *percentiles)
    return Compose([LoadImaged(names), EnsureChannelFirstd(names), geometry, intensity])


def scale_intensity(x: Tensor, low: Limit, high: Limit, out: Tensor | None = None) -> Tensor:
    """Map ``low`` to 0 and ``high`` to 1 linearly and clip: (c, *spatial) of any type -> float32, in ``out`` or new.

    With ``high`` below ``low`` the ramp falls. Where they are equal the result is 0, never NaN.
    """
    first, last = (
        torch.as_tensor(limit, dtype=torch.float64, device=x.device).reshape(-1, *[1] * (x.ndim - 1)) for limit in (low, high)
    )
    span = last - first
    slope = torch.where(span == 0, 0.0, 1 / span)
    scaled = x.to(torch.float32, copy=True) if out is None else out.copy_(x)
    return scaled.sub_(first.float()).mul_(slope.float()).clamp_(0, 1)


def volume_percentiles(x: Tensor, percentiles: Sequence[float]) -> NDArray[np.float64]:
    """Percentiles of each channel of ``x`` (c, *spatial) over its finite voxels, 0 without any: (c, percentile)."""
    rows = x.detach().cpu().flatten(1).to(torch.float32).numpy()
    finite = [row[np.isfinite(row)] for row in rows]
    return np.stack([np.percentile(row, percentiles) if row.size else np.zeros(len(percentiles)) for row in finite])


class ScaleHUd(MapTransform):  # type: ignore[misc]
    """Scale a window of Hounsfield units to 0..1, float32; of volumes or of crops."""

    def __init__(self, keys: KeysCollection, low: float, high: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if not low < high:
            raise ValueError(f"window: expected low < high, found {low} and {high}")
        self.low, self.high = low, high

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = scale_intensity(torch.as_tensor(out[key]), self.low, self.high)
        return out


class ScalePercentiled(MapTransform):  # type: ignore[misc]
    """Scale two percentiles of each channel to 0..1, float32: for MR, whose intensities have no unit.

    The percentiles are those of the item it is given, so give it whole volumes. A constant channel becomes 0, and so
    does a voxel that is not a number (some tools write NaN outside the head).
    """

    def __init__(self, keys: KeysCollection, lower: float = 0.5, upper: float = 99.5, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"percentiles: expected 0 <= lower < upper <= 100, found {lower} and {upper}")
        self.percentiles = (lower, upper)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            x = torch.as_tensor(out[key])
            low, high = torch.from_numpy(volume_percentiles(x, self.percentiles).T)
            out[key] = scale_intensity(x, low, high).nan_to_num_(nan=0.0)
        return out


def _foreground(x: Tensor, above: float) -> Tensor:
    mask = x > above
    return mask if mask.any() else torch.ones_like(mask)  # MONAI crops an image without foreground to nothing
