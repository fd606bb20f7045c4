"""Folders of images and of labels: the Decathlon's and nnU-Net's `imagesTr` and `labelsTr`, or `images` and `labels`.

The Decathlon's `imagesTs` has no labels that anybody may see: its images are for pre-training. nnU-Net writes a file
a channel, `x_0000.nii.gz`, beside the label `x.nii.gz`.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssl.problems import InputError, Problem
from medssl.sources.found import Found, bare, is_image
from medssl.sources.template import from_templates

HIGHEST_CLASS = 65535
CHANNEL = re.compile(r"(.+)_(\d{4})")


def decathlon(folder: Path, files: Sequence[str]) -> Found | None:
    """imagesTr with labelsTr, and the names of dataset.json where it is there; raises InputError for a wrong one."""
    images, labels = (_inside(files, name) for name in ("imagesTr", "labelsTr"))
    if not images or not labels:
        return None
    channels = _channels(images, labels)
    about = _dataset_json(folder)
    name = "nnU-Net" if channels != [""] or "channel_names" in about else "Decathlon"
    found = _pairs(files, "Tr", channels, name, labelled=True)
    found.cases = [dataclasses.replace(case, part=None) for case in found.cases]
    if _inside(files, "imagesTs"):
        held = bool(_inside(files, "labelsTs"))
        others = _pairs(files, "Ts", channels, name, labelled=held).cases
        part = "test" if held else "pretraining"
        found.cases += [dataclasses.replace(case, part=part if case.label or not held else "pretraining") for case in others]
    if about:
        found.labels = _label_names(folder / "dataset.json", about.get("labels", {}))
        modality = about.get("modality", about.get("channel_names", {}))
        found.modality = tuple(str(modality[key]) for key in sorted(modality, key=int))
    return found


def images_and_labels(files: Sequence[str]) -> Found | None:
    """images/ and labels/ (or masks/) with files of one name."""
    for labels in ("labels", "masks"):
        if _inside(files, "images") and _inside(files, labels):
            return from_templates(files, ["images/{id}.*"], labels + "/{id}.*", f"images and {labels}")
    return None


def _inside(files: Sequence[str], folder: str) -> list[str]:
    return [path for path in files if path.startswith(folder + "/") and path.count("/") == 1 and is_image(path)]


def _channels(images: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The endings of a case's images: `_0000`, `_0001`, ... in nnU-Net, nothing in the Decathlon."""
    labelled = {bare(path).split("/")[1] for path in labels}
    matches = [CHANNEL.fullmatch(bare(path).split("/")[1]) for path in images]
    endings = sorted({"_" + match[2] for match in matches if match and match[1] in labelled})
    return endings or [""]


def _pairs(files: Sequence[str], which: str, channels: Sequence[str], name: str, labelled: bool) -> Found:
    images = [f"images{which}/{{id}}{channel}.*" for channel in channels]
    return from_templates(files, images, f"labels{which}/{{id}}.*" if labelled else None, name)


def _dataset_json(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError([Problem(str(path), "file", str(error), "JSON in UTF-8")]) from None
    channels = about.get("modality", about.get("channel_names", {})) if isinstance(about, dict) else None
    if not isinstance(channels, dict) or not all(_is_index(key) for key in channels):
        raise InputError([Problem(str(path), "modality", "no names by number", '{"0": "CT"}')])
    return dict(about)


def _is_index(text: object) -> bool:
    return str(text).isdecimal() and len(str(text)) < 10


def _label_names(path: Path, labels: Any) -> dict[int, str]:
    """Names by number from the Decathlon's number -> name or nnU-Net's name -> number."""
    if isinstance(labels, Mapping) and "ignore" in labels:
        expected = "classes alone, as medssl scores every voxel"
        raise InputError([Problem(str(path), "labels", "ignore, nnU-Net's mark for unlabelled voxels", expected)])
    if isinstance(labels, Mapping) and all(map(_is_index, labels)):
        names = {int(key): str(name) for key, name in labels.items()}
    elif isinstance(labels, Mapping) and all(type(number) is int and number >= 0 for number in labels.values()):
        names = {number: str(name) for name, number in labels.items()}
    else:  # nnU-Net's regions: lists of numbers, which overlap
        raise InputError([Problem(str(path), "labels", "no number a class", '{"background": 0, "liver": 1}')])
    highest = max(names, default=-1)
    if highest > HIGHEST_CLASS or highest + 1 - len(names) > 100:
        expected = f"classes counted from 0, at most {HIGHEST_CLASS} and without gaps"
        raise InputError([Problem(str(path), "labels", f"{len(names)} classes up to {highest}", expected)])
    return {number: names.get(number, f"class {number}") for number in range(highest + 1)}
