"""From a split of volumes to files of slices and the cases of their split, one volume in memory at a time."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from medssl.check import THREADS, check_copies, check_volume, content_hash
from medssl.nifti_bytes import label_volume, nifti_bytes
from medssl.problems import InputError, Problem
from medssl.readers import ReadError, Volume, read_image
from medssl.slices import Choice, Slice, axial_slices, chosen, read_channels, without_blank
from medssl.splits import PARTS, Case, Split

FOLDERS = IMAGES, LABELS = "images", "labels"


class Written(NamedTuple):
    """A slice on disk: its case in the split, whether it shows an object, and whether it is one of those to learn from."""

    entry: dict[str, Any]
    is_object: bool
    chosen: bool


class Cut(NamedTuple):
    """What became of a volume: its slices on disk, and how many were blank."""

    slices: list[Written]
    blank: int

    def of_part(self, part: str) -> list[Written]:
        """The slices that a part takes: all of them are for pre-training, whatever their labels."""
        return [one for one in self.slices if one.chosen or part == "pretraining"]


def unique_cases(split: Split) -> list[Case]:
    """Each case once, with its label where one of its parts has it: a training case is often in pre-training too."""
    cases: dict[str, Case] = {}
    for case in (case for part in PARTS for case in split.part(part)):
        if case.id not in cases or case.label is not None:
            cases[case.id] = case
    return list(cases.values())


def cut_split(split: Split, choice: Choice, out: Path, label_maps: bool, merged: bool = False) -> dict[str, Cut]:
    """Write the slices of every case into `out`; gives by case id what became of it.

    With `merged` all objects become one class. Every volume is read once and its voxels checked; raises InputError with
    the problems of all of them.
    """
    unlabelled = {case.id for case in split.part("pretraining")}
    cuts: dict[str, Cut] = {}
    hashes: dict[str, str] = {}
    problems: list[Problem] = []
    for folder in FOLDERS if label_maps else [IMAGES]:
        (out / folder).mkdir()
    with ThreadPoolExecutor(THREADS) as pool:
        for case in tqdm(unique_cases(split), "slices", unit="volume", disable=None):
            try:
                channels = read_channels(case)
                label = read_image(case.label, label=True) if isinstance(case.label, Path) else None
            except ReadError as error:
                problems.append(error.problem)
                continue
            problems += _problems(case, channels, label, replace(split, empty_labels=True))
            hashes[case.id] = hashlib.sha256("".join(map(content_hash, channels)).encode()).hexdigest()
            if label is not None and merged:
                label = Volume((label.values() > 0).astype(np.uint8), 1.0, 0.0, label.affine)
            if not problems:  # otherwise the rest is only looked at
                cuts[case.id] = cut_case(case, channels, label, choice, out, label_maps, case.id in unlabelled, pool)
    problems += check_copies(split, hashes).values()
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return cuts


def cut_case(
    case: Case,
    channels: Sequence[Volume],
    label: Volume | None,
    choice: Choice,
    out: Path,
    label_maps: bool,
    all_of_them: bool,
    pool: ThreadPoolExecutor,
) -> Cut:
    """Write one case's chosen slices, or all that show something; their label maps only where these are wanted."""
    slices = axial_slices(channels, label)[:: choice.every]
    shown = without_blank(slices)
    picked = {one.number for one in (shown if label is None else chosen(case.id, shown, choice))}
    kept = [one for one in shown if all_of_them or one.number in picked]
    files = [file for one in kept for file in _files(case, one, label_maps and one.number in picked)]
    for _ in pool.map(lambda file: (out / file[0]).write_bytes(nifti_bytes(file[1])), files):
        pass  # the loop raises what a thread raised
    written = [Written(_entry(case, one, choice, label_maps), choice.is_object(one), one.number in picked) for one in kept]
    return Cut(written, len(slices) - len(shown))


def divided(split: Split, cuts: Mapping[str, Cut]) -> dict[str, list[dict[str, Any]]]:
    """The entries of the slices in the parts of their volumes; those for pre-training go without their labels."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for part in (part for part in PARTS if part in split.parts):
        parts[part] = []
        for case in split.part(part):
            kept: dict[str, Any] = {"fold": case.fold} if case.fold is not None else {}
            kept |= {"weight": case.weight} if case.weight != 1.0 else {}
            bare = part == "pretraining" or case.label is None
            for entry, _, _ in cuts[case.id].of_part(part):
                parts[part].append({key: value for key, value in entry.items() if key != "label" or not bare} | kept)
    return parts


def _problems(case: Case, channels: Sequence[Volume], label: Volume | None, split: Split) -> list[Problem]:
    """What `medssl check --deep` would say; a volume without any object is a healthy one."""
    files = case.image if len(case.image) == len(channels) else case.image[:1] * len(channels)
    problems = []
    for number, (file, channel) in enumerate(zip(files, channels, strict=True)):
        problems += check_volume(replace(case, image=(file,)), channel, None if number else label, split)
    return problems


def _name(case: Case, one: Slice) -> str:
    return f"{case.id}_s{one.number:03d}"


def _images(case: Case, one: Slice) -> list[str | None]:
    """A path a channel, None for one that the case lacks."""
    channels = len(one.images) + len(case.missing)
    endings = [""] if channels == 1 else [f"_c{channel}" for channel in range(channels)]
    paths = [f"{IMAGES}/{_name(case, one)}{ending}.nii.gz" for ending in endings]
    return [None if channel in case.missing else path for channel, path in enumerate(paths)]


def _files(case: Case, one: Slice, label_maps: bool) -> Iterator[tuple[str, Volume]]:
    yield from zip(filter(None, _images(case, one)), one.images, strict=True)
    if label_maps and one.label is not None:
        yield f"{LABELS}/{_name(case, one)}.nii.gz", label_volume(one.label, one.affine)


def _entry(case: Case, one: Slice, choice: Choice, label_maps: bool) -> dict[str, Any]:
    images = _images(case, one)
    entry: dict[str, Any] = {"id": _name(case, one), "patient": case.patient, "image": images if len(images) > 1 else images[0]}
    if one.label is None:
        return entry
    return entry | {"label": f"{LABELS}/{_name(case, one)}.nii.gz" if label_maps else int(choice.is_object(one))}
