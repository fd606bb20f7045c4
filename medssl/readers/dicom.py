"""Reads DICOM: a file with a picture or the frames of a volume, or a folder with the files of one series.

A folder is read as it is, without those inside it, whatever its files are called. What is no part of a volume is left
out: DICOMDIR, scouts, secondary captures (but not X-rays published as such), segmentations, doses and files without pixels.
`folder#SeriesInstanceUID` picks one of several series. Volumes are (x, y, z) = (column, row, slice), in RAS; a single
picture is (row, column) with its pixels' spacing, as a PNG would be.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medssl.readers.dicom_file import DicomFile, read_file
from medssl.readers.dicom_pixels import pixel_type, read_pixels, refuse_pixels
from medssl.readers.dicom_stack import Frame, frames, refuse_spacing, stack
from medssl.readers.image import MAX_VOXELS, Affine, Header, ReadError, Volume, lengths, refuse_shape

SUFFIXES = (".dcm", ".dicom", ".ima")
_UID = re.compile(r"(.+)#(\d+(?:\.\d+)+)")
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURES = tuple(_STORAGE + end for end in ("7", "7.1", "7.2", "7.3", "7.4"))
_NO_IMAGES = tuple(_STORAGE + end for end in ("66.4", "66.7", "481.2"))  # segmentations and doses, which have pixels
_X_RAYS = ("CR", "DX", "MG")
_SCOUTS = ("LOCALIZER", "SCOUT", "SCREEN SAVE")


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


def split_path(path: Path) -> tuple[Path, str | None]:
    """The file or folder on disk and the series that a case's path picks, None for the only one."""
    match = _UID.fullmatch(path.name)
    if match is None or os.path.lexists(path):
        return path, None
    return path.with_name(match[1]), match[2]


def find_series(folder: str | Path) -> list[Series]:
    """Every series below a folder that can be a case's image; what can't be read is passed over.

    A picture without a place in the body is a series of its own, whatever its file says.
    """
    found = []
    for place, folders, _ in os.walk(folder):
        folders.sort()
        groups = _by_series(file for file in _files(Path(place), strict=False) if _is_image(file))
        cases = [files for group in groups.values() for files in _cases(group)]
        found += [_series(Path(place), files, len(cases)) for files in cases]
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


def _by_series(files: Iterator[DicomFile]) -> dict[str, list[DicomFile]]:
    groups: dict[str, list[DicomFile]] = {}
    for file in files:
        groups.setdefault(file.text("series"), []).append(file)
    return groups


def _files(folder: Path, strict: bool) -> Iterator[DicomFile]:
    """The DICOM files of a folder by name; a broken one raises ReadError where `strict`, and is passed over elsewhere."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
    for name in names:
        path = folder / name
        try:
            file = read_file(path)
            if file is None and name.lower().endswith(SUFFIXES):
                raise ReadError(path, "format", "no DICOM mark (DICM at byte 128)", "a DICOM file, as its name says")
        except ReadError:
            if strict:
                raise
        else:
            if file is not None:
                yield file


def _is_image(file: DicomFile) -> bool:
    kind = file.text("class")
    capture = kind in _CAPTURES and file.text("modality") not in _X_RAYS
    scout = any(name in file.text("image type").upper() for name in _SCOUTS)
    return file.pixels is not None and not capture and not scout and kind not in _NO_IMAGES


def _chosen(path: Path) -> list[DicomFile]:
    """The files of a case: one, or those of the series that the path picks."""
    place, uid = split_path(path)
    if not place.is_dir():
        file = read_file(place)
        if file is None:
            raise ReadError(path, "format", "no DICOM mark (DICM at byte 128)", "a DICOM file")
        return [file]
    try:
        groups = _by_series(file for file in _files(place, strict=True) if _is_image(file))
    except OSError as error:
        raise ReadError(path, "file", error.strerror or "nothing", "a readable folder") from None
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
        "patient": sorted({file.text("patient") for file in files}),
    }
    for field, found in kinds.items():
        if len(found) > 1:
            raise ReadError(path, field, f"{len(found)} in one series: {', '.join(found)}", "the same in every slice")
