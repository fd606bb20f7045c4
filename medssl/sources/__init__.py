"""Where the cases of a split come from: one file a kind of source, and here which of them a folder is."""

from collections.abc import Callable, Sequence
from pathlib import Path

from medssl.problems import InputError, Problem
from medssl.sources.bids import bids
from medssl.sources.class_folders import class_folders, flat
from medssl.sources.dicom import dicom, looks_like_dicom
from medssl.sources.figshare import figshare
from medssl.sources.found import Found, is_image
from medssl.sources.image_label import decathlon, images_and_labels

LAYOUTS = ("class-folders", "decathlon", "images-labels", "bids", "dicom", "figshare", "flat")


def find_layout(
    folder: Path,
    files: Sequence[str],
    layout: str | None = None,
    task: str | None = None,
    suffixes: Sequence[str] = (),
    column: str | None = None,
    besides: Sequence[str] = (),
    incomplete: bool = False,
) -> Found:
    """The cases of the layout that the folder has; raises InputError where it has none or several and none is named.

    Images in folders of `besides` are no reason against a folder of images alone.
    """
    found: dict[str, Callable[[], Found | None]] = {
        "class-folders": lambda: class_folders(files),
        "decathlon": lambda: decathlon(folder, files),
        "images-labels": lambda: images_and_labels(files),
        "bids": lambda: bids(folder, files, suffixes, column, task or "classification", incomplete),
        "dicom": lambda: dicom(folder) if layout == "dicom" or looks_like_dicom(folder, files) else None,
        "figshare": lambda: figshare(folder, files, task or "classification"),
        "flat": lambda: flat(files),
    }
    asked = [layout] if layout else [name for name in LAYOUTS if name != "flat"]
    seen = {name: case for name in asked if (case := found[name]()) is not None}
    others = tuple(place.rstrip("/") + "/" for place in besides)
    deeper = any("/" in path and is_image(path) and not path.startswith(others) for path in files)
    if not seen and not layout and not deeper and (alone := flat(files)):
        return alone
    if len(seen) > 1:
        choice = " or ".join(f"--layout {name}" for name in seen)
        raise InputError([Problem(str(folder), "layout", f"{len(seen)} at once", choice)])
    if not seen:
        expected = "a template as --image '{patient}/{id}.nii.gz' or --table"
        if not layout and flat(files):
            expected = "--layout flat, or a template as --image '{patient}/{id}.*'"
        example = f", as {files[0]}" if files else ""
        what = f"not {layout}" if layout else f"no known one in {len(files)} files"
        raise InputError([Problem(str(folder), "layout", what + example, expected)])
    return next(iter(seen.values()))
