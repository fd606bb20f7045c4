"""The axial slices of a case's volumes as upright 2D images, and which of them are worth keeping.

A 2D image is shown row by column, so a slice is stored as the report shows an axial one: rows run from anterior to
posterior, columns from the patient's right to the left, and slices are counted from the feet up. Oblique volumes are
cut along the axis nearest to it. Nothing is resampled, so the voxels and the spacing are those of the volume.
Axis letters: c channel, k slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medssl.divide import hash_order
from medssl.readers import Volume, read_image
from medssl.splits import Case

UPRIGHT = "PLS"  # what the axes row, column and slice run towards
FAINT = 0.05  # a slice whose values span less than this share of what the volume's most varied slice spans is blank

Array = npt.NDArray[Any]


class Slice(NamedTuple):
    """One axial slice: its number from the feet up, an image (1, row, column) a channel, its label (row, column)."""

    number: int
    images: tuple[Volume, ...]
    label: Array | None
    affine: npt.NDArray[np.float64]

    @property
    def labelled_voxels(self) -> int:
        return 0 if self.label is None else int(np.count_nonzero(self.label))


@dataclass(frozen=True)
class Choice:
    """Which slices are kept: every n-th, and of these by whether they hold `least` labelled voxels."""

    every: int = 1
    keep: str = "all"
    least: int = 1

    def is_object(self, found: Slice) -> bool:
        """Whether a slice shows an object, by its label."""
        return found.labelled_voxels >= self.least


def read_channels(case: Case) -> list[Volume]:
    """Read a case's files as one volume (1, x, y, z) a channel, each as stored; raises ReadError."""
    volumes = [read_image(path) for path in case.image]
    return [volume._replace(array=channel[None]) for volume in volumes for channel in volume.array]


def axial_slices(channels: Sequence[Volume], label: Volume | None) -> list[Slice]:
    """All axial slices of volumes (1, x, y, z) on one grid, upright; the arrays are views of theirs."""
    turned = [_upright(volume.array[0], channels[0].affine) for volume in channels]
    classes = None if label is None else _upright(_whole(label), channels[0].affine)[0]
    affine = turned[0][1]
    slices = []
    for k in range(turned[0][0].shape[2]):
        place = affine.copy()
        place[:3, 3] += k * affine[:3, 2]
        images = tuple(
            volume._replace(array=array[None, :, :, k], affine=place)
            for volume, (array, _) in zip(channels, turned, strict=True)
        )
        slices.append(Slice(k, images, None if classes is None else classes[:, :, k], place))
    return slices


def without_blank(slices: Sequence[Slice]) -> list[Slice]:
    """The slices that show something.

    Blank is one in which a channel is constant, or in which no channel varies (FAINT) and nothing is labelled.
    """
    spreads = np.array([[_spread(image.array) for image in one.images] for one in slices])  # (k, c)
    faint = (spreads < FAINT * spreads.max(0, initial=0)).all(1)
    flat = [any(image.array.min() == image.array.max() for image in one.images) for one in slices]
    return [one for one, pale, dead in zip(slices, faint, flat, strict=True) if not dead and (one.labelled_voxels or not pale)]


def chosen(name: str, slices: Sequence[Slice], choice: Choice) -> list[Slice]:
    """The slices of a labelled volume that `keep` asks for: balanced takes those without an object by a fixed shuffle."""
    if choice.keep == "all":
        return list(slices)
    objects = [one for one in slices if choice.is_object(one)]
    others = [one for one in slices if not choice.is_object(one)] if choice.keep == "balanced" else []
    others = sorted(others, key=lambda one: hash_order(one.number, name))[: len(objects)]
    return sorted(objects + others, key=lambda one: one.number)


def _upright(array: Array, affine: npt.NDArray[np.float64]) -> tuple[Array, npt.NDArray[np.float64]]:
    """A volume (x, y, z) as (row, column, slice), and the affine of these axes."""
    from nibabel import orientations

    turn: Any = orientations  # which has no types
    change = turn.ornt_transform(turn.io_orientation(affine), turn.axcodes2ornt(UPRIGHT))
    return turn.apply_orientation(array, change), affine @ turn.inv_ornt_aff(change, array.shape)


def _whole(label: Volume) -> Array:
    """The class of every voxel, in the label's own type where that holds it."""
    whole: Array = label.array[0] if (label.slope, label.intercept) == (1.0, 0.0) else np.rint(label.values()[0])
    return whole


def _spread(values: Array) -> float:
    """What the middle 99 % of the values span."""
    low, high = np.percentile(values, [0.5, 99.5])
    return float(high - low)
