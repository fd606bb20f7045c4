"""model.safetensors: the whole network of a fine-tuning, with all that it takes to use it, needing neither data nor checkpoint.

The description stands in the file's metadata, and for people and programs beside it as model.json. It is the plan of the
weights (medssl/plan.py) and: task, classes, settings of preparation and network, the temperature of classes, the scale of a
regression's numbers, and the range of the training images, by which an image that is unlike them is told.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from medssl.atomic import atomic_path
from medssl.check import ras_axes
from medssl.config import Finetune
from medssl.plan import plan_of
from medssl.problems import InputError, Problem
from medssl.readers import ReadError, has_geometry, read_header
from medssl.run_folder import RunFolder
from medssl.splits import Case, Split
from medssl.store import Entry, Store
from networks.weight_files import TransferError, read_plan, read_weights, write_weights

MODEL, DESCRIPTION = "model.safetensors", "model.json"
FORMAT = 1
# What a run was told about this machine and its training, and no user of the network needs.
OF_THE_RUN = {
    *("follows", "expect", "takes", "split", "data_root", "store", "out", "overwrite", "encoder", "fold", "allow_seen"),
    *("workers", "threads", "device", "shard", "recompute", "compile", "checkpoint_every", "checkpoint_minutes"),
}
EXTREMES = (0.5, 50.0, 99.5)  # percentiles of an image that are compared with those of the training images
EXPECTED = f"a finished fine-tuning with {MODEL}, as this version writes it"

Description = dict[str, Any]


def describe(settings: Finetune, split: Split, store: Store, step: int, scores: Mapping[str, Any]) -> Description:
    """Everything that a user of the network has to know; `scores` are what the task's judging gave."""
    kept = settings.model_dump(mode="json", exclude=OF_THE_RUN)
    calibration = scores.get("calibration") or {}
    cases = split.part("training")
    return plan_of(settings, split, store, step) | {
        "format": FORMAT,
        "task": split.task,
        "labels": {str(k): name for k, name in split.labels.items()},
        "settings": kept,
        "targets": scores.get("targets"),
        "temperature": calibration.get("temperature"),
        "calibration": calibration or None,
        "training": {"cases": len(cases), **ranges((store.entries[case.id] for case in cases), cases)},
    }


def ranges(entries: Iterable[Entry], cases: Iterable[Case]) -> dict[str, Any]:
    """The least and the largest of what training images measure: spacing as read (mm), size (mm), percentiles a channel."""
    sizes, levels = [], []
    for entry in entries:
        sizes.append(np.multiply(entry.shape, entry.spacing))
        row = np.stack([entry.percentile(q) for q in EXTREMES], 1)  # (c, percentile)
        row[list(entry.missing)] = np.nan
        levels.append(row)
    spacings = [spacing for case in cases if (spacing := spacing_of(case)) is not None]
    told = {"size": np.array(sizes), "spacing": np.array(spacings), "levels": np.array(levels)}
    return {name: _ends(values) if len(values) else None for name, values in told.items()}


def spacing_of(case: Case) -> list[float] | None:
    """The spacing of a case's file, axes in RAS order; None for formats that know none and files that are gone."""
    if has_geometry(case.image[0]):
        with suppress(ReadError, OSError):
            header = read_header(case.image[0])
            return [header.spacing[axis] for axis in ras_axes(header)]
    return None


def _ends(values: np.ndarray[Any, Any]) -> list[Any] | None:
    """[least, largest] over the first axis, rounded to what a person reads; None where all is unknown."""
    known = values[np.isfinite(values).all(tuple(range(1, values.ndim)))] if np.isnan(values).any() else values
    if not len(known):
        return None
    ends: list[Any] = [np.vectorize(lambda number: float(f"{number:.6g}"))(f(known, axis=0)).tolist() for f in (np.min, np.max)]
    return ends


def save_model(run: RunFolder, network: nn.Module, description: Description) -> None:
    """Write model.safetensors, with the description inside, and the description beside it as model.json."""
    with atomic_path(run.path(MODEL)) as temporary:
        write_weights(temporary, network, description)
    run.write_json(DESCRIPTION, description)


def model_path(run: Path) -> Path:
    """The file of a run folder, or the file itself; raises InputError, in a line, for what is no such run."""
    path = run / MODEL if run.is_dir() else run
    if not path.is_file():
        raise InputError([Problem(str(run), MODEL, _what_is(run), EXPECTED)])
    return path


def _what_is(run: Path) -> str:
    """What a folder without a model is."""
    if not run.is_dir():
        return "no such folder"
    try:
        kind = json.loads((run / "config.json").read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        return "a folder that is no run"
    return "a pre-training" if kind == "pretrain" else "a fine-tuning without it, unfinished or of an older version"


def read_model(path: Path) -> tuple[dict[str, Tensor], Description]:
    """Read the tensors and the description of a model's file; raises InputError where it is none."""
    try:
        description = read_plan(path) if path.suffix == ".safetensors" else None
        if not description or "task" not in description or "settings" not in description:
            raise InputError([Problem(str(path), "description", "none", EXPECTED)])
        if description.get("format") != FORMAT:
            found = f"format {description.get('format')}"
            raise InputError([Problem(str(path), "format", found, f"{FORMAT}, as this version writes it")])
        return read_weights(path)[0], description
    except TransferError as error:
        found, _, expected = str(error).removeprefix("found ").partition(", expected ")
        raise InputError([Problem(str(path), "model", found, expected or EXPECTED)]) from error
