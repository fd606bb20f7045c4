"""Checkpoints: written whole or not at all, the one before kept, read without unpickling. Rank 0 writes for all."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from medssl.atomic import atomic_path
from medssl.problems import RunError, first_line
from medssl.ranks import rank

LATEST, PREVIOUS, BEST = "checkpoint_latest.pt", "checkpoint_previous.pt", "checkpoint_best.pt"


def save_latest(folder: Path, state: dict[str, Any]) -> None:
    """Write the newest state of a run; what was newest is kept as the one before."""
    if rank() > 0:
        return
    with atomic_path(folder / LATEST) as temporary:
        torch.save(state, temporary)
        if (folder / LATEST).exists():
            os.replace(folder / LATEST, folder / PREVIOUS)


def save_best(folder: Path, state: dict[str, Any]) -> None:
    """Write the state with the best validation so far."""
    if rank() > 0:
        return
    with atomic_path(folder / BEST) as temporary:
        torch.save(state, temporary)


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the newest whole checkpoint, None when there never was one, and a warning for each damaged one.

    Raises RunError when there are checkpoints but none is whole.
    """
    warnings: list[str] = []
    paths = [folder / name for name in (LATEST, PREVIOUS) if (folder / name).exists()]
    for path in paths:
        try:
            return load(path), warnings
        except RunError as error:
            warnings.append(f"warning: {error}; using the one before")
    if paths:
        raise RunError(f"{folder}: no checkpoint is whole, so the run can't be resumed; overwrite=true starts it again")
    return None, warnings


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises RunError naming the file when it is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise RunError(f"{path} is damaged ({first_line(error)})") from error
    return state
