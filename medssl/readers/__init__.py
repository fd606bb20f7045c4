"""Reads images by suffix, or says what is wrong with the file: one file a format, and `image.py` for what they share.

A path is a file, a folder with a DICOM series, or `folder#SeriesInstanceUID`. What a case's path means can depend on
its role: a picture's palette is classes in a label, and one .mat file holds both a slice and its tumour mask.
"""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medssl.readers import arrays, dicom, matlab, nifti, nrrd, pictures
from medssl.readers.dicom_folder import has_mark
from medssl.readers.image import MAX_VOXELS, Header, ReadError, Volume, by, refuse_values, same_grid

__all__ = [
    "MAX_VOXELS",
    "SUFFIX",
    "Header",
    "ReadError",
    "Volume",
    "has_geometry",
    "has_patient",
    "location",
    "read_header",
    "read_image",
    "read_images",
    "same_grid",
]


class _Reader(NamedTuple):
    header: Callable[[Path, bool], Header]
    image: Callable[[Path, bool], Volume]


PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_DICOM = _Reader(dicom.header, dicom.image)
SUFFIX = {
    **dict.fromkeys((".nii.gz", ".nii"), _Reader(nifti.header, nifti.image)),
    **dict.fromkeys(PICTURES, _Reader(pictures.header, pictures.image)),
    **dict.fromkeys(dicom.SUFFIXES, _DICOM),
    ".mat": _Reader(matlab.header, matlab.image),
    ".npy": _Reader(arrays.header, arrays.image),
    ".nrrd": _Reader(nrrd.header, nrrd.image),
}
FORMATS = "NIfTI (.nii.gz), DICOM, NRRD, .npy, .mat, PNG, JPEG, TIFF or BMP"  # MHA: convert it, e.g. to NRRD


def read_header(path: str | Path, label: bool = False) -> Header:
    """Read the first bytes of a file, in the role of a label if so said; raises ReadError.

    Sizes, axes and voxel types that can't be read are refused here.
    """
    return _reader(Path(path)).header(Path(path), label)


def read_image(path: str | Path, label: bool = False) -> Volume:
    """Read every voxel of a file and verify its checksum; raises ReadError, also for NaN and infinite voxels."""
    path = Path(path)
    try:
        volume = _reader(path).image(path, label)
    except MemoryError:
        raise ReadError(path, "size", "more voxels than memory", "an image that fits") from None
    refuse_values(path, volume)
    return volume


def read_images(paths: Sequence[str | Path]) -> Volume:
    """Read a case of one file a channel (or of one file) as one volume; raises ReadError, also for unequal grids."""
    volumes = [read_image(path) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths, volumes, strict=True):
        if volume.array.shape[1:] != first.array.shape[1:]:
            found, expected = (by(v.array.shape[1:]) for v in (volume, first))
            raise ReadError(path, "shape", found, f"{expected}, as {Path(paths[0]).name} has")
        if not same_grid(volume.affine, first.affine, first.array.shape[1:]):
            raise ReadError(path, "affine", "another position", f"that of {Path(paths[0]).name}")
    if len(volumes) == 1:
        return first
    if len({(volume.slope, volume.intercept) for volume in volumes}) == 1:
        return Volume(np.concatenate([v.array for v in volumes]), first.slope, first.intercept, first.affine)
    return Volume(np.concatenate([v.values() for v in volumes]), 1.0, 0.0, first.affine)


def has_geometry(path: str | Path) -> bool:
    """Whether the format says where its voxels lie: a PNG mask of a DICOM image can only be compared by its shape."""
    return not str(path).lower().endswith((*PICTURES, ".mat", ".npy"))


def has_patient(path: str | Path) -> bool:
    """Whether the format can say whose image it is, as DICOM and the .mat files do."""
    return not str(path).lower().endswith((*PICTURES, ".nii.gz", ".nii", ".npy", ".nrrd"))


def location(path: str | Path) -> Path:
    """The file or folder on disk that a case's path stands for: without the series that `folder#UID` picks."""
    return dicom.split_path(Path(path))[0]


def _reader(path: Path) -> _Reader:
    """The format's reader; raises ReadError for an unknown format and for what is no file with something in it."""
    place = location(path)
    try:
        status = os.stat(place)
    except OSError as error:
        raise ReadError(path, "file", error.strerror or "nothing", "an image file") from None
    except ValueError:  # a lone surrogate or a zero
        raise ReadError(path, "file", "a name that no file can have", "an image file") from None
    if stat.S_ISDIR(status.st_mode):
        return _DICOM
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise ReadError(path, "file", "no plain file", "an image file")
    suffix = next((suffix for suffix in SUFFIX if place.name.lower().endswith(suffix)), None)
    if suffix is None and not has_mark(place):
        raise ReadError(path, "format", path.suffix or "no suffix", FORMATS)
    if status.st_size == 0:
        raise ReadError(path, "file", "0 bytes", "an image file")
    return SUFFIX[suffix] if suffix else _DICOM
