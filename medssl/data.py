"""From settings to data that is known to be good: split, checks, store. Every problem is reported before a run exists."""

from collections.abc import Sequence
from pathlib import Path

from medssl.check import check_split
from medssl.config import Pretrain, Shared, Window
from medssl.pack import Wanted, ensure_store
from medssl.problems import InputError, Problem
from medssl.regions import region_problems, without_mask
from medssl.splits import PARTS, Split, read_split
from medssl.store import Geometry, Store
from medssl.subsets import take_fold, take_unlabelled, with_training_labels


def load_data(settings: Shared, parts: Sequence[str], labels: bool) -> tuple[Split, Store]:
    """Read the split, check every header and voxel of the cases in `parts`, pack them; raises InputError with all problems.

    Without `labels` no label is looked at. Cases without a problem stay packed, so a second try is quick.
    """
    split = split_of(settings)
    problems = header_problems(settings, split, parts, labels)
    bad = {problem.file for problem in problems}
    if settings.roi is not None:  # told already, a line a part
        bad |= {str(case.image[0]) for part in parts for case in without_mask(split, part)}
    wanted = Wanted(split, parts, geometry_of(settings), labels)
    store, found = ensure_store(wanted, store_path(settings, wanted), settings.workers, skip=bad)
    problems += found
    if not settings.padded:
        crop = "x".join(map(str, settings.read_size))
        problems += [
            Problem(str(case.image[0]), "shape", "x".join(map(str, shape)) + " as prepared", f"{crop} or pad=true")
            for case, shape in ((case, store.entries[case.id].shape) for case in wanted.cases if case.id in store.entries)
            if any(have < need for have, need in zip(shape, settings.read_size, strict=True))
        ]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))  # a broken file in a series is found by header and by packing
    return split, store


def split_of(settings: Shared) -> Split:
    """Read the split; with `fold=` its cases are the validation part and their patients leave the pre-training."""
    split = read_split(settings.split, settings.data_root)
    split = split if settings.fold is None else take_fold(split, settings.fold)
    if not isinstance(settings, Pretrain):
        return split
    split = take_unlabelled(split, settings.unlabelled, settings.seed)
    return with_training_labels(split) if settings.reads_labels else split


def data_warnings(settings: Shared, split: Split, store: Store) -> list[str]:
    """What a reader of the scores should know about the split, and an intensity window that is not for these images."""
    divided = "warning: the split divides images, not patients: scores are too good if a patient is in two parts"
    return [divided] * (split.grouped_by != "patient") + window_warnings(settings, split, store)


def window_warnings(settings: Shared, split: Split, store: Store) -> list[str]:
    """Say so where a window reaches below 0, as for CT, and no image that is learned from does: CT has air at -1000."""
    window = settings.intensity
    learned = {case.id for part in ("pretraining", "training") for case in split.part(part)} & store.entries.keys()
    if not isinstance(window, Window) or window.low >= 0 or not learned:
        return []
    least = min(float(store.entries[name].percentiles.min()) for name in learned)
    if least < 0:
        return []
    found = f"intensity is a window from {window.low:g} to {window.high:g}, as for CT in Hounsfield units"
    return [f"warning: {found}, but no image has a value below {least:g}; MR takes intensity=percentile foreground_above=null"]


def pack_split(
    split: Split, path: Path, dims: int, spacing: tuple[float, ...] | None, above: float | None, labels: bool, workers: int
) -> Store:
    """Check and pack all parts of a split: those with labels, or else all but the test part; raises InputError."""
    parts = [part for part in PARTS if split.part(part) and part != ("pretraining" if labels else "test")]
    problems = check_split(split, spatial_dims=dims, image_parts=() if labels else parts, parts=parts)
    bad = {problem.file for problem in problems}
    store, found = ensure_store(Wanted(split, parts, Geometry(dims, spacing, above), labels), path, workers, skip=bad)
    if problems + found:
        raise InputError(list(dict.fromkeys(problems + found)))
    return store


def header_problems(settings: Shared, split: Split, parts: Sequence[str], labels: bool) -> list[Problem]:
    """Find what is wrong with the files of these parts without reading voxels."""
    file = str(split.file)
    empty = [Problem(file, part, "no cases", "at least one case") for part in parts if not split.part(part)]
    found = check_split(
        split,
        spatial_dims=settings.image_dims,
        image_parts=("pretraining",) if labels else parts,
        smallest=None if settings.padded else settings.read_size,
        spacing=settings.spacing,
        parts=parts,
        masks=settings.roi is not None,
    )
    found += unlabelled(split, parts if labels else (), {problem.field for problem in found})
    return empty + found + region_problems(settings, split, parts)


def unlabelled(split: Split, parts: Sequence[str], told: set[str]) -> list[Problem]:
    """Find parts that have no label at all; single cases without one are found by `check_split`."""
    bare = [part for part in parts if split.part(part) and all(case.label is None for case in split.part(part))]
    return [Problem(str(split.file), part, "no labels", "a label for every case") for part in bare if part not in told]


def geometry_of(settings: Shared) -> Geometry:
    """What packing does to the volumes of this run."""
    spacing = tuple(settings.spacing) if settings.spacing else None
    fit = tuple(settings.fit) if settings.fit else None
    above, roi = settings.foreground_above, settings.roi
    return Geometry(settings.image_dims, spacing, above, fit=fit, mask=settings.mask, roi=roi)


def store_path(settings: Shared, wanted: Wanted) -> Path:
    """Where prepared data is kept: the file given by name, or one in a folder, by default a cache beside the split."""
    if settings.store and settings.store.suffix == ".h5":
        return settings.store
    return wanted.path_in(settings.store or settings.split.parent / ".medssl-store")
