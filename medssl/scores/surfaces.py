"""How far the surfaces of two label maps lie apart: HD95 and surface Dice, from the same distances; numpy and scipy.

Surface voxels are those that an erosion by one (face neighbours) takes away, as in `monai.metrics`; what leaves the
image ends at its border. HD95 is the 95th percentile (linear interpolation) of the distances from one surface to the
nearest voxel of the other, the larger of the two directions. Surface Dice at a tolerance is the share of the voxels of
both surfaces that lie within the tolerance of the other surface (Nikolov et al. 2018, with voxels as the elements).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

ROUNDING = 1e-6  # share of the tolerance: three voxels of 0.1 mm are 0.30000000000000004 mm, and within 0.3
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
LabelMap = npt.NDArray[np.integer[Any]]


class SurfaceScores(NamedTuple):
    """`hd95` in mm and `dice` of each class: NaN where both maps lack it; where one does, the diagonal and 0."""

    hd95: Floats
    dice: Floats


def surface_scores(
    prediction: LabelMap, label: LabelMap, spacing: Sequence[float], tolerance: float, classes: Sequence[int] = (1,)
) -> SurfaceScores:
    """Score the surface of each class in label maps (*spatial), 2D or 3D; `spacing` (one number an axis) and tolerance in mm.

    ValueError where the numbers of axes differ.
    """
    if not len(spacing) == prediction.ndim == label.ndim:
        raise ValueError(f"spacing: found {len(spacing)} numbers for label maps of {prediction.ndim} and {label.ndim} axes")
    diagonal = math.hypot(*(size * mm for size, mm in zip(label.shape, spacing, strict=True)))
    scores = SurfaceScores(np.full(len(classes), diagonal), np.zeros(len(classes)))
    boxes = [ndimage.find_objects(array, max_label=max(classes, default=0)) for array in (prediction, label)]
    for position, index in enumerate(classes):
        found = [box[index - 1] for box in boxes if box[index - 1] is not None]
        if not found:
            scores.hd95[position] = scores.dice[position] = np.nan
        elif len(found) == 2:
            # Nothing nearest lies outside the box of both, and a distance transform costs by the voxel.
            both = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*found, strict=True))
            there, back = surface_distances(prediction[both] == index, label[both] == index, spacing)
            scores.hd95[position] = max(np.percentile(there, 95), np.percentile(back, 95))
            scores.dice[position] = np.mean(np.concatenate([there, back]) <= tolerance * (1 + ROUNDING))
    return scores


def surface_distances(a: Mask, b: Mask, spacing: Sequence[float]) -> tuple[Floats, Floats]:
    """Give the distance in mm from each surface voxel of `a` to the nearest of `b`, and the reverse; neither is empty."""
    surface_a, surface_b = (mask ^ ndimage.binary_erosion(mask) for mask in (a, b))
    to_b = ndimage.distance_transform_edt(~surface_b, sampling=spacing)[surface_a]
    to_a = ndimage.distance_transform_edt(~surface_a, sampling=spacing)[surface_b]
    return to_b, to_a
