"""From settings to data that is known to be good: split, checks, store. Every problem is reported before a run exists."""

from collections.abc import Sequence
from pathlib import Path

from medssl.check import check_split
from medssl.config import Shared
from medssl.pack import ensure_store
from medssl.problems import InputError, Problem
from medssl.splits import Split, read_split
from medssl.store import Geometry, Store


def checked_split(settings: Shared, parts: Sequence[str], labels: bool) -> Split:
    """Read the split and check the headers of the cases in `parts`; raises InputError with every problem."""
    split = read_split(settings.split, settings.data_root)
    problems = [Problem(str(split.file), part, "no cases", "at least one case") for part in parts if not split.part(part)]
    if labels:
        problems += [
            Problem(str(split.file), f"{part} {case.id}", "no label", "a label")
            for part in parts
            for case in split.part(part)
            if case.label is None
        ]
    problems += check_split(split, spatial_dims=settings.spatial_dims, parts=parts)
    if problems:
        raise InputError(problems)
    return split


def prepared(settings: Shared, split: Split, parts: Sequence[str], labels: bool) -> Store:
    """Open the store of these parts, packing what is missing; raises InputError with every problem of the data."""
    spacing = tuple(settings.spacing) if settings.spacing else None
    geometry = Geometry(settings.spatial_dims, spacing, settings.foreground_above)
    store = ensure_store(split, parts, geometry, store_folder(settings), labels, settings.workers)
    if not settings.pad:
        problems = [
            Problem(entry.files[0][0], "shape", f"{list(entry.shape)} as prepared", f"at least {settings.crop_size}, or pad=true")
            for entry in (store.entries[case.id] for part in parts for case in split.part(part))
            if any(have < need for have, need in zip(entry.shape, settings.crop_size, strict=True))
        ]
        if problems:
            raise InputError(problems)
    return store


def store_folder(settings: Shared) -> Path:
    """Where prepared data is kept: by default a cache folder beside the split."""
    return settings.store or settings.split.parent / ".medssl-store"
