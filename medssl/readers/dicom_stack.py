"""Puts the slices of a DICOM series in order and says where their voxels lie.

A position is that of a slice's first pixel, in mm, in DICOM's LPS; the affine is RAS, as NIfTI has it, for an array
(x, y, z) = (column, row, slice). Slices may be sheared against their normal, as a tilted gantry makes them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medssl.readers.dicom_file import DicomFile
from medssl.readers.image import Affine, ReadError, refuse_affine

UNEVEN = 0.01  # of a gap that is still rounding
ROUNDING = 0.01  # mm
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Frame(NamedTuple):
    """One slice: where it is (None where it doesn't say) and what its numbers mean; `spacing` is (row, column)."""

    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    slope: float
    intercept: float


def frames(file: DicomFile) -> list[Frame]:
    """The slices of one file, in its order; raises ReadError where several have no places."""
    position, orientation = file.numbers("position", 3), file.numbers("orientation", 6)
    spacing = file.numbers("spacing", 2) or file.numbers("imager spacing", 2)
    frame = Frame(position, orientation, spacing, file.number("slope", 1.0), file.number("intercept", 0.0))
    if file.groups("per frame"):
        return _grouped(file, frame)
    if file.frames == 1:
        return [frame]
    gap = file.number("spacing between slices", 0.0)
    if gap <= 0:
        raise ReadError(file.path, "frames", f"{file.frames} without positions", "a position or a spacing between slices")
    start, turn = np.array(position or (0, 0, 0)), orientation or (1, 0, 0, 0, 1, 0)
    normal = np.cross(turn[:3], turn[3:])
    places = [tuple((start + k * gap * normal).tolist()) for k in range(file.frames)]
    return [frame._replace(position=place, orientation=tuple(turn)) for place in places]


def _grouped(file: DicomFile, top: Frame) -> list[Frame]:
    """The frames of an enhanced image, each described by its functional groups and those that all share."""
    shared, groups = file.groups("shared"), file.groups("per frame")
    if len(groups) != file.frames:
        raise ReadError(file.path, "frames", f"{len(groups)} described", f"{file.frames}, the number of frames")

    def numbers(group: Any, macro: str, key: str) -> tuple[float, ...] | None:
        for place in (group, *shared):
            item = place.get(macro)
            if item and item[0].get(key) is not None:
                return tuple(float(number) for number in np.atleast_1d(item[0].get(key)))
        return None

    def one(group: Any) -> Frame:
        slope = numbers(group, "PixelValueTransformationSequence", "RescaleSlope") or (top.slope,)
        intercept = numbers(group, "PixelValueTransformationSequence", "RescaleIntercept") or (top.intercept,)
        return Frame(
            numbers(group, "PlanePositionSequence", "ImagePositionPatient"),
            numbers(group, "PlaneOrientationSequence", "ImageOrientationPatient"),
            numbers(group, "PixelMeasuresSequence", "PixelSpacing"),
            slope[0],
            intercept[0],
        )

    return [one(group) for group in groups]


def refuse_spacing(path: Path, spacing: Sequence[float]) -> None:
    if not all(0 < number < 1e6 for number in spacing):
        raise ReadError(path, "spacing", "x".join(f"{number:g}" for number in spacing) + " mm", "numbers above 0")


def stack(path: Path, slices: Sequence[Frame]) -> tuple[list[int], Affine]:
    """The order of two slices or more along their normal, and the affine; raises ReadError for an uneven stack."""
    first = slices[0]
    bare = sum(None in (frame.position, frame.orientation, frame.spacing) for frame in slices)
    if bare or not (first.orientation and first.spacing):
        found = f"{bare or len(slices)} of {len(slices)} without place or spacing"
        raise ReadError(path, "slices", found, "a position, orientation and spacing, or one picture a case")
    refuse_spacing(path, first.spacing)
    _refuse_unlike(path, slices)
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 1e-2:
        raise ReadError(path, "orientation", "axes that are no right angle", "two unit vectors at a right angle")
    places = np.array([frame.position for frame in slices])
    along = places @ np.cross(row, column)
    order = np.argsort(along, kind="stable")
    _refuse_uneven(path, along[order], places[order])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2] = (places[order[-1]] - places[order[0]]) / (len(slices) - 1)
    affine[:3, 3] = places[order[0]]
    affine = LPS_TO_RAS @ affine
    refuse_affine(path, affine)
    return order.tolist(), affine


def _refuse_unlike(path: Path, slices: Sequence[Frame]) -> None:
    turns = np.array([frame.orientation for frame in slices])
    if np.abs(turns - turns[0]).max() > 1e-3:
        count = len(np.unique(turns.round(2), axis=0))
        raise ReadError(path, "orientation", f"{count} orientations", "one: a folder or #series each")
    spacings = np.array([frame.spacing for frame in slices])
    if np.abs(spacings - spacings[0]).max() > 1e-3 * spacings[0].max():
        low, high = spacings.min(), spacings.max()
        raise ReadError(path, "spacing", f"pixels of {low:g} to {high:g} mm", "one size for all slices")


def _refuse_uneven(path: Path, along: Affine, places: Affine) -> None:
    """Both in order; `along` is the distance along the normal."""
    rises, steps = np.diff(along), np.diff(places, axis=0)
    if rises.min() < ROUNDING / 10:
        count = 1 + int((rises >= ROUNDING / 10).sum())
        found = f"{len(along)} at {count} positions (several phases or echoes?)"
        raise ReadError(path, "slices", found, "one a position: a folder or series for each phase")
    gaps = np.linalg.norm(steps, axis=1)
    tolerance = max(UNEVEN * gaps.mean(), ROUNDING)
    if np.abs(gaps - gaps.mean()).max() > tolerance:
        found = f"gaps of {gaps.min():.3g} to {gaps.max():.3g} mm between {len(along)}"
        raise ReadError(path, "slices", found, "even gaps, e.g. as dcm2niix resamples")
    apart = np.linalg.norm(steps - steps.mean(0), axis=1).max()
    if apart > tolerance:
        raise ReadError(path, "slices", f"one moved sideways by {apart:.3g} mm", "positions on one line")
