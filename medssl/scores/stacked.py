"""Scores of volumes from scores of their slices: the Dice of the slices stacked, which is that of the volume.

A mean over slices would give a slice without the object, where one wrong voxel makes 0 and none makes nothing, as much
say as one with all of it. Instead the voxels are added up. From Dice = 2 I / (P + L) of a slice follow those that its
prediction P and its label L share, and the volume's Dice is 2 sum(I) / (sum(P) + sum(L)).
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from medssl.scores.voxels import NAN, Score

SLICE = re.compile(r"_s\d{3,}$")  # as `medssl slices` ends the id of a slice


class VolumeScore(NamedTuple):
    """One class of one volume; `dice` is NaN where neither label nor prediction has it."""

    volume: str
    patient: str
    name: str
    dice: float
    label_voxels: int
    predicted_voxels: int


def stack_slices(rows: Iterable[Score]) -> list[VolumeScore]:
    """Score volumes by the rows of their slices, in the order of the first; the row of a volume stays as it is."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        both = row.label_voxels + row.predicted_voxels
        shared = 0 if math.isnan(row.dice) else round(row.dice * both / 2)
        total = sums.setdefault((SLICE.sub("", row.case), row.patient, row.name), [0, 0, 0])
        total[:] = [a + b for a, b in zip(total, (shared, row.label_voxels, row.predicted_voxels), strict=True)]
    return [
        VolumeScore(*who, 2 * shared / (labelled + predicted) if labelled + predicted else NAN, labelled, predicted)
        for who, (shared, labelled, predicted) in sums.items()
    ]
