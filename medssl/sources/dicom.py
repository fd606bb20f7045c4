"""DICOM: a case a series, patients from the files; such series have no labels."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medssl.problems import InputError, Problem
from medssl.readers import ReadError
from medssl.readers.dicom import find_series
from medssl.readers.dicom_folder import SUFFIXES, has_mark
from medssl.sources.found import TEXT, Found, FoundCase, named, shortened, suffix


def looks_like_dicom(folder: Path, files: Sequence[str]) -> bool:
    """Whether a file has DICOM's suffix, or another that no format has and DICOM's mark after 128 bytes."""
    if any(suffix(path) in SUFFIXES for path in files):
        return True
    tried: Counter[str] = Counter()
    for path in [path for path in files if not suffix(path) and not path.lower().endswith(TEXT)]:
        place = os.path.dirname(path)
        tried[place] += 1
        if tried[place] <= 3 and len(tried) <= 1000 and has_mark(folder / path):
            return True
    return False


def dicom(folder: Path) -> Found:
    """Every series below the folder; raises InputError where there is none, or where it lies in the folder itself."""
    passed: list[ReadError] = []
    series = find_series(folder, passed=passed)
    if not series:
        raise InputError([Problem(str(folder), "DICOM", "no series of images", "one or more")])
    top = [one for one in series if Path(one.folder) == folder]
    if top:
        raise InputError([Problem(str(folder), "DICOM", "a series in FOLDER itself", "FOLDER above the series' folders")])
    by_uid: dict[str, list[str]] = {}
    for one in series:
        if one.uid and one.folder.is_dir():  # pictures beside each other are series of their own
            by_uid.setdefault(one.uid, []).append(os.path.relpath(one.folder, folder))
    doubled = {uid: places for uid, places in by_uid.items() if len(places) > 1}
    if doubled:
        raise InputError(
            shortened(
                Problem(str(folder), f"series {uid}", f"in {named(places)} folders", "a series in one folder")
                for uid, places in doubled.items()
            )
        )
    cases = []
    for one in series:
        path = os.path.relpath(one.folder, folder).replace(os.sep, "/") + (f"#{one.uid}" if one.needs_uid else "")
        cases.append(FoundCase((path,), patient=one.patient))
    names = sorted({one.modality for one in series if one.modality})
    modality = (names[0],) if len(names) == 1 else ()
    count = f"{len(passed)} file{'s' if len(passed) > 1 else ''} that can't be read"
    left_out = [f"left out: {count} (first one: {passed[0]})"] if passed else []
    return Found("DICOM, a case a series", "segmentation", cases, modality=modality, left_out=left_out)
