"""Reads DICOM: a file with a picture or the frames of a volume, or a folder with the files of one series.

A folder is read as it is, without those inside it, whatever its files are called. What is no part of a volume is left
out: DICOMDIR, scouts, secondary captures (but not X-rays published as such), segmentations, doses and files without pixels.
`folder#SeriesInstanceUID` picks one of several series. Volumes are (x, y, z) = (column, row, slice), in RAS; a single
picture is (row, column) with its pixels' spacing, as a PNG would be.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medssl.readers.dicom_file import DicomFile, read_file
from medssl.readers.dicom_folder import SUFFIXES, by_series, has_mark, read_folder, read_once, unreadable, visible_folders
from medssl.readers.dicom_pixels import pixel_type, read_pixels, refuse_pixels
from medssl.readers.dicom_stack import Frame, frames, refuse_spacing, stack
from medssl.readers.image import MAX_VOXELS, Affine, Header, ReadError, Volume, lengths, refuse_shape

__all__ = ["SUFFIXES", "Series", "find_series", "frames_in_order", "header", "image", "is_dicom", "modality", "split_path"]


@dataclass(frozen=True)
class Series:
    """One series of a folder, or one picture (then `folder` is its file), ready to be a case's image."""

    folder: Path
    uid: str
    needs_uid: bool
    patient: str | None
    modality: str
    description: str
    count: int  # files
    study: str

    @property
    def path(self) -> Path:
        """The path to put into a split."""
        return Path(f"{self.folder}#{self.uid}") if self.needs_uid else self.folder


class _Layout(NamedTuple):
    header: Header
    order: list[tuple[DicomFile, int, Frame]]  # file, frame in the file
    slope: float
    intercept: float


def header(path: Path, label: bool = False) -> Header:
    return _layout(path).header


def image(path: Path, label: bool = False) -> Volume:
    """The voxels: integers with one slope and intercept, or float32 where the slices' slopes differ."""
    header, order, slope, intercept = _layout(path)
    shape = header.shape if len(header.shape) == 2 else header.shape[::-1]
    array = np.empty((*shape, 3) if header.channels == 3 else shape, header.dtype)
    last: tuple[DicomFile, np.ndarray] | None = None
    for k, (file, frame, rescale) in enumerate(order):
        if last is None or last[0] is not file:
            last = file, read_pixels(file)
        pixels = last[1][frame]
        if len(header.shape) == 2:
            array[...] = pixels
        elif header.dtype.kind == "f":
            array[k] = pixels * rescale.slope + rescale.intercept
        else:
            array[k] = pixels
    array = np.moveaxis(array, -1, 0) if header.channels == 3 else array.T[None] if array.ndim == 3 else array[None]
    return Volume(np.ascontiguousarray(array), slope, intercept, header.affine)


def is_dicom(path: Path) -> bool:
    """Whether a case's image is DICOM: a folder, or a file with its mark."""
    place, _ = split_path(path)
    return place.is_dir() or has_mark(place)


def modality(path: Path) -> str:
    """What made a case's image, as its own files say; empty where they don't, or are not DICOM; raises ReadError."""
    return _chosen(path)[0].text("modality") if is_dicom(path) else ""


def frames_in_order(path: Path) -> list[tuple[Path, int]]:
    """The file of each slice of a case, and which of its frames, in the order of the slices; raises ReadError."""
    return [(file.path, frame) for file, frame, _ in _layout(path).order]


def split_path(path: Path) -> tuple[Path, str | None]:
    """The file or folder on disk and the series that a case's path picks, None for the only one."""
    if "#" not in path.name or os.path.lexists(path):
        return path, None
    for mark in reversed(list(re.finditer("#", path.name[1:]))):  # anonymisers write any text for a UID
        folder, uid = path.with_name(path.name[: mark.start() + 1]), path.name[mark.end() + 1 :]
        if uid and folder.is_dir():
            return folder, uid
    return path, None


def find_series(folder: str | Path, passed: list[ReadError] | None = None) -> list[Series]:
    """Every series below a folder that can be a case's image, through links to folders and not in hidden ones.

    A picture without a place in the body is a series of its own, whatever its file says. What can't be read is added
    to `passed`.
    """
    found: list[Series] = []
    errors: list[ReadError] = []
    closed: list[OSError] = []
    for place, _ in visible_folders(folder, closed.append):
        files, broken = read_folder(place)
        errors += broken
        cases = [case for group in by_series(files).values() for case in _cases(group)]
        for series in (_series(place, case, len(cases)) for case in cases):
            if series.needs_uid and (not series.uid or "/" in series.uid):
                expected = "a UID without a slash for each of several series"
                errors.append(ReadError(place, "series", series.uid or "nothing", expected))
            else:
                found.append(series)
    if passed is not None:
        passed += [*map(unreadable, closed), *errors]
    return found


def _series(folder: Path, files: list[DicomFile], cases: int) -> Series:
    first = files[0]
    alone = len(files) == 1 and cases > 1
    return Series(
        folder=first.path if alone else folder,
        uid=first.text("series"),
        needs_uid=cases > 1 and not alone,
        patient=first.patient,
        modality=first.text("modality"),
        description=first.text("description"),
        count=len(files),
        study=first.text("study"),
    )


def _cases(group: list[DicomFile]) -> list[list[DicomFile]]:
    placed = [file for file in group if file.text("position")]
    return [group] if placed or len(group) == 1 else [[file] for file in group]


def _chosen(path: Path) -> list[DicomFile]:
    """The files of a case: one, or those of the series that the path picks."""
    place, uid = split_path(path)
    if not place.is_dir():
        file = read_file(place)
        if file is None:
            raise ReadError(path, "format", "no DICOM mark (DICM at byte 128)", "a DICOM file")
        return [file]
    try:
        if uid is None:
            files, broken = read_folder(place)
            groups = by_series(files)
        else:
            groups, broken, _ = read_once(place, uid)
    except OSError as error:
        raise ReadError(path, "file", error.strerror or "nothing", "a readable folder") from None
    if broken:
        raise ReadError(*broken[0].problem)
    if not groups:
        raise ReadError(path, "file", "a folder without DICOM images", "an image file, or a folder with a DICOM series")
    if uid is None and len(groups) > 1:
        raise ReadError(path, "series", f"{len(groups)}: {' '.join(sorted(groups))}", "one, picked as folder#SeriesInstanceUID")
    if uid is not None and uid not in groups:
        raise ReadError(path, "series", " ".join(sorted(groups)), uid)
    return groups[uid] if uid is not None else next(iter(groups.values()))


def _layout(path: Path) -> _Layout:
    try:
        return _arrange(path, _chosen(path))
    except (ReadError, MemoryError):
        raise
    except Exception as error:  # pydicom parses a sequence when it is asked for, and raises whatever it meets
        raise ReadError(path, "header", str(error) or type(error).__name__, "valid DICOM") from None


def _arrange(path: Path, files: Sequence[DicomFile]) -> _Layout:
    first = files[0]
    for file in files:
        refuse_pixels(file)
    _refuse_mixture(path, files)
    slices = [(file, i, frame) for file in files for i, frame in enumerate(frames(file))]
    rows, columns, channels = first.whole("rows"), first.whole("columns"), first.whole("samples", 1)
    rescales = {(frame.slope, frame.intercept) for _, _, frame in slices}
    if any(slope == 0 for slope, _ in rescales):
        raise ReadError(path, "slope", "0", "any other number")
    shape: tuple[int, ...]
    if len(slices) == 1:
        shape, affine = (rows, columns), _picture_affine(path, slices[0][2])
    else:
        shape = (columns, rows, len(slices))
        refuse_shape(path, shape, MAX_VOXELS)
        if channels != 1:
            raise ReadError(path, "colours", f"{channels} channels in a stack", "grey slices")
        order, affine = stack(path, [frame for _, _, frame in slices])
        slices = [slices[i] for i in order]
    slope, intercept = rescales.pop() if len(rescales) == 1 else (1.0, 0.0)
    dtype = np.dtype(np.float32) if rescales else np.dtype(pixel_type(first))
    return _Layout(Header(shape, channels, affine, lengths(affine, len(shape)), dtype, first.patient), slices, slope, intercept)


def _picture_affine(path: Path, frame: Frame) -> Affine:
    spacing = frame.spacing or (1.0, 1.0)
    refuse_spacing(path, spacing)
    return np.diag([*spacing, 1.0, 1.0])


def _refuse_mixture(path: Path, files: Sequence[DicomFile]) -> None:
    def sizes(file: DicomFile) -> str:
        return f"{file.whole('rows')}x{file.whole('columns')}"

    kinds = {
        "shape": sorted({sizes(file) for file in files}),
        "voxel type": sorted({str(pixel_type(file)) for file in files}),
        "colours": sorted({f"{f.text('photometric interpretation')} of {f.whole('samples', 1)} samples" for f in files}),
        "patient": sorted({file.text("patient") for file in files}),
    }
    for field, found in kinds.items():
        if len(found) > 1:
            raise ReadError(path, field, f"{len(found)} in one series: {', '.join(found)}", "the same in every slice")
