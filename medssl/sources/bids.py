"""BIDS: `sub-X/[ses-Y/]anat/sub-X_..._T1w.nii.gz`, labels from participants.tsv or from derivatives' `_dseg`."""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

from medssl.problems import InputError, Problem
from medssl.sources.found import Found, FoundCase, named
from medssl.sources.table import EMPTY, find_column, read_table
from medssl.sources.template import without_every_channel

IMAGE = re.compile(r"(sub-[^/_]+)/(?:ses-[^/_]+/)?[^/]+/(\1(?:_[^/_]+-[^/_]+)*)_([A-Za-z0-9]+)\.nii(?:\.gz)?")
DSEG = re.compile(r"derivatives/(?:.+/)?(sub-[^/]+)_dseg\.nii(?:\.gz)?")
NOT_ALIKE = {"space", "desc", "label", "res", "den"}  # entities that only derivatives have


def bids(
    folder: Path, files: Sequence[str], suffixes: Sequence[str], column: str | None, task: str, incomplete: bool = False
) -> Found | None:
    """The cases of the suffixes, one a channel (by default the only one, or T1w); raises InputError.

    Cases without every channel are left out, or with `incomplete` kept.
    """
    images: dict[str, dict[str, str]] = {}
    for path in files:
        match = IMAGE.fullmatch(path)
        if match:
            images.setdefault(match[2], {})[match[3]] = path
    if not images:
        return None
    chosen = suffixes or _usual(folder, {suffix for case in images.values() for suffix in case})
    least = 1 if incomplete else len(chosen)
    cases = [
        FoundCase(
            tuple(case[suffix] for suffix in chosen if suffix in case),
            patient=name.split("_")[0],
            missing=tuple(i for i, suffix in enumerate(chosen) if suffix not in case),
        )
        for name, case in sorted(images.items())
        if sum(suffix in case for suffix in chosen) >= least
    ]
    if not cases:
        raise InputError([Problem(str(folder), "--suffix", f"no image of all of {' '.join(chosen)}", "suffixes as T1w")])
    partly = [name for name, case in sorted(images.items()) if 0 < sum(suffix in case for suffix in chosen) < len(chosen)]
    left_out = without_every_channel(partly, incomplete)
    layout = f"BIDS, --suffix {' '.join(chosen)}"
    if column:
        return Found(layout, task, _from_participants(folder, cases, column, task), modality=tuple(chosen), left_out=left_out)
    labelled = _from_derivatives(folder, cases, list(images), files)
    return Found(layout, "segmentation", labelled, modality=tuple(chosen), left_out=left_out)


def _usual(folder: Path, there: set[str]) -> Sequence[str]:
    if len(there) == 1 or "T1w" in there:
        return ("T1w",) if "T1w" in there else tuple(there)
    raise InputError([Problem(str(folder), "--suffix", "none", f"one or several of {' '.join(sorted(there))}")])


def _from_participants(folder: Path, cases: Sequence[FoundCase], column: str, task: str) -> list[FoundCase]:
    path = folder / "participants.tsv"
    names, rows = read_table(path)
    missing = [name for name in ("participant_id", column) if not find_column(names, name)]
    if missing:
        raise InputError([Problem(str(path), "columns", f"no {name}", f"one of {', '.join(names)}") for name in missing])
    key, column = (find_column(names, name) or name for name in ("participant_id", column))
    problems: list[Problem] = []
    values: dict[str, str | float] = {}
    for row in rows:
        text, who = row.values[column], "sub-" + row.values[key].removeprefix("sub-")
        if text.lower() in EMPTY:
            continue
        if who in values:
            problems.append(Problem(str(path), f"line {row.line}, participant_id", f"{who} again", "a participant once"))
        try:
            values[who] = float(text) if task == "regression" else text
        except ValueError:
            values[who] = math.nan
        if isinstance(number := values[who], float) and not math.isfinite(number):
            problems.append(Problem(str(path), f"line {row.line}, {column}", text, "a number, as 0.5"))
    if not problems and not any(case.patient in values for case in cases):
        problems.append(Problem(str(path), column, "no label of any image", f"rows as {cases[0].patient} with a label"))
    if problems:
        raise InputError(problems)
    return [dataclasses.replace(case, label=values.get(str(case.patient))) for case in cases]


def _from_derivatives(folder: Path, cases: Sequence[FoundCase], names: Sequence[str], files: Sequence[str]) -> list[FoundCase]:
    by_entities: dict[frozenset[str], list[str]] = {}
    for path in files:
        match = DSEG.fullmatch(path)
        if match:
            name = match[1].rsplit("/", 1)[-1]
            by_entities.setdefault(_entities(name), []).append(path)
    known = {_entities(name) for name in names}
    alone = [path for entities, paths in by_entities.items() if entities not in known for path in paths]
    problems = [Problem(str(folder), "_dseg", f"no image to {named(alone)}", "the entities of an image")] if alone else []
    labelled = []
    for case in cases:
        entities = _entities(case.image[0].rsplit("/", 1)[-1].rsplit("_", 1)[0])
        labels = by_entities.get(entities, [])
        if len(labels) > 1:
            problems.append(Problem(labels[1], "label", f"a second one beside {labels[0]}", "one _dseg an image"))
        labelled.append(dataclasses.replace(case, label=labels[0] if labels else None))
    if problems:
        raise InputError(problems)
    return labelled


def _entities(name: str) -> frozenset[str]:
    return frozenset(piece for piece in name.split("_") if "-" in piece and piece.split("-")[0] not in NOT_ALIKE)
