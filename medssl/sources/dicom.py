"""DICOM: a case a series, patients from the files; such series have no labels."""

import os
from collections.abc import Sequence
from pathlib import Path

from medssl.problems import InputError, Problem
from medssl.sources.found import Found, FoundCase, suffix


def looks_like_dicom(folder: Path, files: Sequence[str]) -> bool:
    """Whether a file has DICOM's suffix, or no suffix and DICOM's mark after 128 bytes."""
    from medssl.readers.dicom import SUFFIXES

    if any(suffix(path) in SUFFIXES for path in files):
        return True
    for path in [path for path in files if "." not in path.rsplit("/", 1)[-1]][:100]:
        with (folder / path).open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                return True
    return False


def dicom(folder: Path) -> Found:
    """Every series below the folder; raises InputError where there is none, or where it lies in the folder itself."""
    from medssl.readers.dicom import find_series

    series = find_series(folder)
    if not series:
        raise InputError([Problem(str(folder), "DICOM", "no series of images", "one or more")])
    top = [one for one in series if Path(one.folder) == folder]
    if top:
        raise InputError([Problem(str(folder), "DICOM", "a series in FOLDER itself", "FOLDER above the series' folders")])
    cases = []
    for one in series:
        path = os.path.relpath(one.folder, folder).replace(os.sep, "/") + (f"#{one.uid}" if one.needs_uid else "")
        cases.append(FoundCase((path,), patient=one.patient))
    names = sorted({one.modality for one in series if one.modality})
    return Found("DICOM, a case a series", "segmentation", cases, modality=(names[0],) if len(names) == 1 else ())
