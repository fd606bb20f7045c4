"""Looks at every image and label of a split and reports all that is wrong with them in one pass.

The header pass costs a fraction of a millisecond a file; the deep pass reads every voxel once. `check_volume` is that
pass for one case, for whoever holds its voxels already, such as the store while it packs.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from medssl.patients import group_patients
from medssl.problems import Problem
from medssl.readers import Header, ReadError, Volume, has_geometry, has_patient, read_header, read_image, read_images, same_grid
from medssl.splits import PARTS, Case, Split

THREADS = min(8, (os.cpu_count() or 1) + 2)  # reading waits for the disk or runs in zlib, both without Python's lock

Role = tuple[Path, bool]  # a file, and whether it is read as a label or mask: one .mat file can be image and mask
Headers = Mapping[Role, Header | ReadError]
Place = tuple[str, int | None]  # a part, and in training the fold


def check_split(
    split: Split,
    *,
    spatial_dims: int | None = None,
    image_parts: Collection[str] = ("pretraining",),
    smallest: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    parts: Collection[str] = PARTS,
    deep: bool = False,
    masks: bool = True,
) -> list[Problem]:
    """Every problem of the files of a split's `parts`, one a defect; of `image_parts` no label is looked at.

    Masks are looked at in all parts, or with `masks=False` in none. The patients of the files are compared over the whole
    split, of which no script reads all parts: what can't be read of the others is left to the script that reads them.

    `smallest` is the least size in voxels, one number an axis or one for all; with `spacing` (mm) it is measured at
    that spacing, axes in RAS order. A part with one labelled case needs a label for each; `training` always does.
    """
    cases = [(case if masks else replace(case, mask=None), labelled) for case, labelled in _unique(split, parts, image_parts)]
    named = [(case.image[0], False) for part in PARTS for case in split.part(part) if has_patient(case.image[0])]
    files = dict.fromkeys([*(file for case, labelled in cases for file in _files(case, labelled)), *named])
    with ThreadPoolExecutor(THREADS) as pool:
        headers = dict(zip(files, pool.map(_header, files), strict=True))
        dims = spatial_dims or _usual_dims(headers, cases)
        problems = {case.id: list(_check_headers(case, labelled, headers, split, dims)) for case, labelled in cases}
        for case, _ in cases:
            if smallest is not None and not problems[case.id]:
                problems[case.id] += _check_size(case, headers, smallest, spacing)
        for id, shared in _check_patients(split, headers).items():
            problems[id] = problems.get(id, []) + shared
        if deep:
            whole = [(case, labelled) for case, labelled in cases if not problems[case.id]]
            found = pool.map(lambda pair: _read_case(pair[0], pair[1], split), whole)
            hashes = {}
            for (case, _), (voxel_problems, content) in zip(whole, found, strict=True):
                problems[case.id] += voxel_problems
                hashes[case.id] = content
            for id, copied in check_copies(split, hashes, parts).items():
                problems[id].append(copied)
    missing = _missing_labels(split, parts, image_parts)
    return list(dict.fromkeys([*missing, *(problem for found in problems.values() for problem in found)]))


def check_volume(
    case: Case, volume: Volume, label_volume: Volume | None, split: Split, mask: Volume | None = None
) -> list[Problem]:
    """What is wrong with the voxels of a case, whose image, label and mask have been read; see `read_image` for NaN.

    A label map of background only is wrong unless the split says that labels may be empty.
    """
    problems = []
    for channel, array in enumerate(volume.array):
        if array.min() == array.max():
            file = case.image[min(channel, len(case.image) - 1)]
            problems.append(Problem(str(file), "voxels", f"{array.flat[0]} everywhere", "an image"))
    if label_volume is not None:
        problems += _check_label(str(case.label), volume, label_volume, split)
    if mask is not None:
        problems += _check_mask(str(case.mask), volume, mask)
    return problems


def check_copies(split: Split, hashes: Mapping[str, str], parts: Collection[str] = PARTS) -> dict[str, Problem]:
    """By case id, the cases whose content another part or fold holds under another name; `hashes` are by case id."""
    problems: dict[str, Problem] = {}
    first: dict[str, dict[Place, Case]] = {}  # content -> place -> case
    for place, case in _placed(split, parts):
        seen = first.setdefault(hashes.get(case.id, case.id), {})
        other = next((there for there in seen if _apart(there, place)), None)
        if other and seen[other].id != case.id:
            found = f"the voxels of {seen[other].id} in {_named(other, place)}"
            problems[case.id] = Problem(str(case.image[0]), "content", found, f"{_named(place, other)} to share none")
        seen.setdefault(place, case)
    return problems


def content_hash(volume: Volume) -> str:
    """A digest of the intensities and their shape, the same however they are stored."""
    digest = hashlib.sha256(repr(volume.array.shape).encode())
    for array in volume.array:  # a channel at a time: the float32 copy can be twice the stored volume
        digest.update(Volume(array, volume.slope, volume.intercept, volume.affine).values().tobytes())
    return digest.hexdigest()


def size_at(header: Header, spacing: Sequence[float]) -> tuple[int, ...]:
    """The size in voxels after resampling to a spacing (mm), axes in RAS order: what MONAI's Spacing makes of it.

    Shear is taken out, and with it a thin image becomes as wide as the upright box around it.
    """
    axes = ras_axes(header)
    upright = np.linalg.qr(header.affine[: len(axes), axes]).R
    lengths = np.abs(upright) @ (np.array(header.shape)[list(axes)] - 1)  # mm
    return tuple(round(length / new) + 1 for length, new in zip(lengths, spacing, strict=True))


def ras_axes(header: Header) -> tuple[int, ...]:
    """For each of R, A, S the stored axis that runs along it."""
    dims = len(header.shape)
    if dims < 3:
        return tuple(range(dims))
    from nibabel.orientations import io_orientation

    orientation: Callable[[object], np.ndarray] = io_orientation
    along = orientation(header.affine)[:, 0]
    return tuple(int(axis) for axis in np.argsort(along))


def _unique(split: Split, parts: Collection[str], image_parts: Collection[str]) -> list[tuple[Case, bool]]:
    """Each case once, with whether its label is looked at: a training case is often in pre-training too."""
    cases: dict[str, tuple[Case, bool]] = {}
    for part in (part for part in PARTS if part in parts):
        for case in split.part(part):
            labelled = part not in image_parts and case.label is not None
            if labelled or case.id not in cases:
                cases[case.id] = (case, labelled)
    return list(cases.values())


def _files(case: Case, labelled: bool) -> tuple[Role, ...]:
    marks = [case.label if labelled else None, case.mask]
    return (*((path, False) for path in case.image), *((path, True) for path in marks if isinstance(path, Path)))


def _header(role: Role) -> Header | ReadError:
    try:
        return read_header(role[0], label=role[1])
    except ReadError as error:
        return error


def _usual_dims(headers: Headers, cases: Sequence[tuple[Case, bool]]) -> int:
    counts: dict[int, int] = {}
    for case, _ in cases:
        header = headers[case.image[0], False]
        if isinstance(header, Header):
            counts[len(header.shape)] = counts.get(len(header.shape), 0) + 1
    return max(counts, key=counts.__getitem__, default=3)


def _check_headers(case: Case, labelled: bool, headers: Headers, split: Split, dims: int) -> Iterator[Problem]:
    files = {role: headers[role] for role in _files(case, labelled)}
    unreadable = [error.problem for error in files.values() if isinstance(error, ReadError)]
    if unreadable:
        yield from dict.fromkeys(unreadable[:1] if {case.label, case.mask} & set(case.image) else unreadable)
        return
    first, *others = [(role, header) for role, header in files.items() if isinstance(header, Header)]
    name, shape = case.image[0].name, first[1].shape
    if len(shape) != dims:
        yield Problem(str(case.image[0]), "axes", f"{len(shape)} ({_by(shape)})", str(dims))
        return
    for (file, is_label), header in others:
        if header.shape != shape:
            yield Problem(str(file), "shape", _by(header.shape), f"{_by(shape)}, as {name} has")
        elif has_geometry(file) and has_geometry(case.image[0]) and not same_grid(header.affine, first[1].affine, shape):
            yield Problem(str(file), "affine", "another position", f"that of {name}")
        elif is_label and header.channels != 1:
            yield Problem(str(file), "channels", str(header.channels), f"1 for a {'mask' if file == case.mask else 'label'}")
    yield from _check_channels(case, [header for (_, is_label), header in [first, *others] if not is_label], split)


def _check_channels(case: Case, headers: Sequence[Header], split: Split) -> Iterator[Problem]:
    channels = sum(header.channels for header in headers) + len(case.missing)
    if channels != split.channels and not (channels == 1 and split.coloured):
        several = next((header.channels for header in headers if header.channels > 1 and len(header.shape) == 3), 0)
        found = f"{channels} ({several} volumes along the fourth axis)" if several else str(channels)
        yield Problem(str(case.image[0]), "channels", found, f"{split.channels}, as many as modality names")


def _check_size(case: Case, headers: Headers, smallest: Sequence[int], spacing: Sequence[float] | None) -> Iterator[Problem]:
    header = headers[case.image[0], False]
    assert isinstance(header, Header)
    size = size_at(header, spacing) if spacing is not None else header.shape
    least = tuple(smallest) * (len(size) if len(smallest) == 1 else 1)
    if any(have < need for have, need in zip(size, least, strict=True)):
        at = f" at {_by(spacing)} mm" if spacing is not None else ""
        yield Problem(str(case.image[0]), "size", f"{_by(size)}{at}", f"at least {_by(least)}, the crop")


def _read_case(case: Case, labelled: bool, split: Split) -> tuple[list[Problem], str]:
    """The problems of a case's voxels and its content hash, which for an unreadable case is its id."""
    try:
        volume = read_images(case.image)
        label_volume = read_image(case.label, label=True) if labelled and isinstance(case.label, Path) else None
        mask = read_image(case.mask, label=True) if case.mask else None
    except ReadError as error:
        return [error.problem], case.id
    return check_volume(case, volume, label_volume, split, mask), content_hash(volume)


def _check_label(file: str, volume: Volume, label: Volume, split: Split) -> Iterator[Problem]:
    labels = split.labels
    if other_shape := list(_check_shape(file, volume, label)):
        yield from other_shape
        return
    plain = (label.slope, label.intercept) == (1.0, 0.0)
    values = np.unique(label.array if plain else label.values())
    outside = [value for value in values if value not in labels]
    if any(value != round(value) for value in outside):
        value = next(value for value in outside if value != round(value))
        yield Problem(file, "label", f"{value:g}", f"whole numbers from 0 to {max(labels, default=0)}")
    elif outside:
        found = ", ".join(f"{value:g}" for value in outside)
        yield Problem(file, "label", f"class {found}", f"0 to {max(labels, default=0)}, the classes of the split")
    elif values.tolist() == [0] and not split.empty_labels:
        yield Problem(file, "label", "background only", "a labelled voxel")


def _check_mask(file: str, volume: Volume, mask: Volume) -> Iterator[Problem]:
    if other_shape := list(_check_shape(file, volume, mask)):
        yield from other_shape
    elif not (mask.values() > 0).any():
        yield Problem(file, "mask", "no marked voxel", "an object to cut around")


def _check_shape(file: str, volume: Volume, marks: Volume) -> Iterator[Problem]:
    found, expected = marks.array.shape[1:], volume.array.shape[1:]
    if found != expected:
        yield Problem(file, "shape", _by(found), f"{_by(expected)}, as its image has")


def _check_patients(split: Split, headers: Headers) -> dict[str, list[Problem]]:
    """By case id, the patients of the files, whatever the split calls them, who are in two parts or folds."""
    known = [
        (place, case, header.patient)
        for place, case in _placed(split, PARTS)
        if isinstance(header := headers.get((case.image[0], False)), Header) and header.patient
    ]
    groups = group_patients(patient for _, _, patient in known)
    problems: dict[str, list[Problem]] = {}
    first: dict[str, dict[Place, Case]] = {}  # patient -> place -> case
    said: set[str] = set()  # patients, of whom one line each is enough
    for place, case, patient in known:
        seen = first.setdefault(groups[patient], {})
        other = next((there for there in seen if _apart(there, place)), None)
        if other and groups[patient] not in said:
            said.add(groups[patient])
            found = f"{patient} in its header, who is in {_named(other, place)} ({seen[other].image[0].name})"
            expected = "a patient in one part only" if other[0] != place[0] else "a patient in one fold only"
            problems.setdefault(case.id, []).append(Problem(str(case.image[0]), "patient", found, expected))
        seen.setdefault(place, case)
    return problems


def _placed(split: Split, parts: Collection[str]) -> Iterator[tuple[Place, Case]]:
    for part in (part for part in PARTS if part in parts):
        for case in split.part(part):
            yield (part, case.fold if part == "training" else None), case


def _apart(a: Place, b: Place) -> bool:
    """Whether two places may share no patient and no voxels."""
    if a[0] == b[0]:
        return None not in (a[1], b[1]) and a[1] != b[1]
    return {a[0], b[0]} != {"pretraining", "training"}


def _named(place: Place, other: Place) -> str:
    return place[0] if place[0] != other[0] else f"fold {place[1]} of {place[0]}"


def _missing_labels(split: Split, parts: Collection[str], image_parts: Collection[str]) -> Iterator[Problem]:
    for part in (part for part in PARTS if part in parts and part not in image_parts):
        cases = split.part(part)
        bare = [case.id for case in cases if case.label is None]
        if bare and (part == "training" or len(bare) < len(cases)):
            names = ", ".join(bare[:3])
            yield Problem(str(split.file), part, f"{len(bare)} without a label ({names})", "a label for every case")


def _by(shape: Sequence[float]) -> str:
    return "x".join(f"{n:g}" for n in shape)
