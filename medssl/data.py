"""From settings to data that is known to be good: split, checks, store. Every problem is reported before a run exists."""

from collections.abc import Sequence
from pathlib import Path

from medssl.check import check_split
from medssl.config import Shared
from medssl.pack import ensure_store
from medssl.problems import InputError, Problem
from medssl.splits import Split, read_split
from medssl.store import Geometry, Store


def load_data(settings: Shared, parts: Sequence[str], labels: bool) -> tuple[Split, Store]:
    """Read the split, check every header and voxel of the cases in `parts`, pack them; raises InputError with all problems.

    Without `labels` no label is looked at. Cases without a problem stay packed, so a second try is quick.
    """
    split = read_split(settings.split, settings.data_root)
    problems = header_problems(settings, split, parts, labels)
    bad = {problem.file for problem in problems}
    geometry = geometry_of(settings)
    store, found = ensure_store(split, parts, geometry, store_folder(settings), labels, settings.workers, skip=bad)
    problems += found
    if not settings.pad:
        entries = {entry.id: entry for entry in store.entries.values()}
        cases = [entries[case.id] for part in parts for case in split.part(part) if case.id in entries]
        problems += [
            Problem(entry.files[0][0], "shape", f"{list(entry.shape)} as prepared", f"{settings.crop_size} or pad=true")
            for entry in cases
            if any(have < need for have, need in zip(entry.shape, settings.crop_size, strict=True))
        ]
    if problems:
        raise InputError(problems)
    return split, store


def header_problems(settings: Shared, split: Split, parts: Sequence[str], labels: bool) -> list[Problem]:
    """Find what is wrong with the files of these parts without reading voxels."""
    file = str(split.file)
    empty = [Problem(file, part, "no cases", "at least one case") for part in parts if not split.part(part)]
    found = check_split(
        split,
        spatial_dims=settings.spatial_dims,
        image_parts=("pretraining",) if labels else parts,
        smallest=None if settings.pad else settings.crop_size,
        spacing=settings.spacing,
        parts=parts,
    )
    return empty + found + unlabelled(split, parts if labels else (), {problem.field for problem in found})


def unlabelled(split: Split, parts: Sequence[str], told: set[str]) -> list[Problem]:
    """Find parts that have no label at all; single cases without one are found by `check_split`."""
    bare = [part for part in parts if split.part(part) and all(case.label is None for case in split.part(part))]
    return [Problem(str(split.file), part, "no labels", "a label for every case") for part in bare if part not in told]


def geometry_of(settings: Shared) -> Geometry:
    """What packing does to the volumes of this run."""
    spacing = tuple(settings.spacing) if settings.spacing else None
    return Geometry(settings.spatial_dims, spacing, settings.foreground_above)


def store_folder(settings: Shared) -> Path:
    """Where prepared data is kept: by default a cache folder beside the split."""
    return settings.store or settings.split.parent / ".medssl-store"
