"""Reads a folder of DICOM files: which of them are images, in which series, and what is wrong with the others.

A folder can hold many series, each a case of its own: it is read for the first one, and again once its files change.
"""

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from medssl.readers.dicom_file import DicomFile, read_file
from medssl.readers.image import ReadError

SUFFIXES = (".dcm", ".dicom", ".ima")
_NOTES = {"dicomdir", "readme", "license", "licence", "version", "copying", "changelog", "checksums", "md5sums", "sha256sums"}
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURES = tuple(_STORAGE + end for end in ("7", "7.1", "7.2", "7.3", "7.4"))
_NO_IMAGES = tuple(_STORAGE + end for end in ("66.4", "66.7", "481.2"))  # segmentations and doses, which have pixels
_X_RAYS = ("CR", "DX", "MG")
_SCOUTS = ("LOCALIZER", "SCOUT", "SCREEN SAVE")
_Stamp = tuple[int, int, int]  # inode, bytes, time of change


def visible_folders(folder: str | Path, refused: Callable[[OSError], object]) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it with the names of their files, through links, without hidden folders."""
    visited: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), names


def has_mark(path: Path) -> bool:
    """Whether a plain file has DICOM's mark: such files often have no suffix, or a number for one."""
    try:
        if not path.is_file():  # opening a named pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def by_series(files: Iterable[DicomFile]) -> dict[str, list[DicomFile]]:
    """The images among the files, by series."""
    groups: dict[str, list[DicomFile]] = {}
    for file in files:
        if _is_image(file):
            groups.setdefault(file.text("series"), []).append(file)
    return groups


def _is_image(file: DicomFile) -> bool:
    kind = file.text("class")
    capture = kind in _CAPTURES and file.text("modality") not in _X_RAYS
    scout = any(name in file.text("image type").upper() for name in _SCOUTS)
    return file.pixels is not None and not capture and not scout and kind not in _NO_IMAGES


def read_folder(folder: Path) -> tuple[list[DicomFile], list[ReadError]]:
    """The DICOM files of a folder by name, and what is wrong with others that are, or look like, slices."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and os.path.isfile(folder / name))
    files, broken, lost = [], [], []
    for name in names:
        path = folder / name
        try:
            file = read_file(path)
        except ReadError as error:
            broken.append(error)
        except OSError as error:  # of the disk, in the middle
            broken.append(unreadable(error, path))
        else:
            if file is not None:
                files.append(file)
            elif name.lower().endswith(SUFFIXES):
                broken.append(_unmarked(path, "a DICOM file, as its name says"))
            elif re.fullmatch(r"|\.\d+", path.suffix) and name.lower() not in _NOTES:
                lost.append(_unmarked(path, "a DICOM file, as those beside it"))
    return files, broken + (lost if files else [])


def _unmarked(path: Path, expected: str) -> ReadError:
    if not path.stat().st_size:
        return ReadError(path, "file", "0 bytes", expected)
    return ReadError(path, "format", "no DICOM mark (DICM at byte 128)", expected)


def unreadable(error: OSError, path: Path | None = None) -> ReadError:
    return ReadError(path or str(error.filename), "file", error.strerror or "nothing", "a readable file or folder")


class _Folder(NamedTuple):
    """The series of a folder, and what tells whether its files have changed since."""

    groups: dict[str, list[DicomFile]]
    broken: list[ReadError]
    stamps: dict[Path, _Stamp | None]

    def is_fresh(self, folder: Path, uid: str) -> bool:
        """Whether the list of files and those of a series are as they were: all others would cost a look a series."""
        paths = [file.path for file in self.groups[uid]] if uid in self.groups and not self.broken else self.stamps
        return all(_stamp(path) == self.stamps.get(path) for path in (folder, *paths))


class _Folders:
    """The last folders of several series that were read: each series would read all files of its folder again."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: dict[Path, _Folder] = {}
        self.lock = threading.Lock()  # threads that ask for series of one folder wait for the first

    def __call__(self, folder: Path, uid: str) -> _Folder:
        with self.lock:
            kept = self.kept.pop(folder, None)
            if kept is None or not kept.is_fresh(folder, uid):
                stamps = {path: _stamp(path) for path in (folder, *folder.iterdir())}
                files, broken = read_folder(folder)
                kept = _Folder(by_series(files), broken, stamps)
            self.kept[folder] = kept
            while len(self.kept) > self.most:
                del self.kept[next(iter(self.kept))]
            return kept


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = os.stat(path)
    except OSError:  # such as a link to nowhere
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


read_once = _Folders(most=8)
os.register_at_fork(after_in_child=lambda: read_once.__init__(read_once.most))  # type: ignore[misc]
