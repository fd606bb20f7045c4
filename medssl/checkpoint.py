"""Checkpoints: written whole or not at all, the one before kept, read without unpickling. Rank 0 writes for all.

A file is torch's own format, which any `torch.load` reads, with a seal behind it: a mark and the SHA-256 of every byte
before. Torch itself sees no damage in tensors or numbers.
"""

import hashlib
import os
import pickle
import secrets
from pathlib import Path
from typing import Any, BinaryIO

import torch

from medssl.atomic import atomic_path
from medssl.outlet import Outlet
from medssl.problems import RunError, first_line
from medssl.ranks import rank

LATEST, PREVIOUS, BEST = "checkpoint_latest.pt", "checkpoint_previous.pt", "checkpoint_best.pt"
MARK = b"medssl checkpoint 1\n"
DIGEST = hashlib.sha256().digest_size
CHUNK = 2**20  # bytes that are read at once


class Sealed(Outlet):
    """A new file that is hashed while it is written, so that nothing is held or read twice."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return super().write(data)

    def seal(self) -> None:
        """Write the mark and the hash, and bring all to the disk."""
        self.write(MARK)
        self.write(self.digest.digest())
        if self.failure is None:
            os.fsync(self.fileno())


def save_latest(folder: Path, state: dict[str, Any]) -> None:
    """Write the newest state of a run; what was newest is kept as the one before. Raises RunError as `write` does."""
    if rank() == 0:
        write(folder / LATEST, state, keep=folder / PREVIOUS)


def save_best(folder: Path, state: dict[str, Any]) -> None:
    """Write the state with the best validation so far; raises RunError as `write` does."""
    if rank() == 0:
        write(folder / BEST, state)


def write(path: Path, state: dict[str, Any], keep: Path | None = None) -> None:
    """Write a checkpoint, and `keep` what was there under another name; RunError where it can't be, then all is as it was."""
    try:
        with atomic_path(path) as temporary:
            with Sealed(temporary) as file:
                try:
                    torch.save(state, file)
                    file.seal()
                finally:
                    if file.failure:
                        raise file.failure
            if keep is not None:
                keep_as(path, keep)
    except OSError as error:
        raise RunError(f"{path}: found {error.strerror or error}, expected to write a checkpoint there") from error


def keep_as(path: Path, other: Path) -> None:
    """Give a file, if there is one, a second name in place of another file; so it is never without its own."""
    link = other.with_name(f".partial-{secrets.token_hex(4)}-{other.name}")
    try:
        os.link(path, link)
        os.replace(link, other)
        link.unlink(missing_ok=True)  # two names of one file can't replace each other: then it stays
    except FileNotFoundError:
        return
    except OSError:  # a file system without links: for a moment only the other name is there
        os.replace(path, other)


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the newest whole checkpoint, None when there never was one, and a warning for each damaged one.

    Raises RunError when there are checkpoints but none is whole.
    """
    damages: list[str] = []
    for path in (folder / name for name in (LATEST, PREVIOUS) if (folder / name).exists()):
        try:
            return load(path), [f"warning: {damage}; using the one before" for damage in damages]
        except RunError as error:
            damages.append(str(error))
    if damages:
        found = ", ".join(damage.removeprefix(f"{folder}{os.sep}") for damage in damages)
        raise RunError(f"{folder}: found no whole checkpoint to go on from: {found}; overwrite=true starts the run again")
    return None, []


def replace_damaged(folder: Path) -> None:
    """Put the one before in place of a damaged newest one, which would else be kept as the one before; when all have read."""
    if rank() == 0:
        os.replace(folder / PREVIOUS, folder / LATEST)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises RunError naming the file when it is damaged, or cannot be read."""
    try:
        with path.open("rb") as file:
            check_seal(file)
            file.seek(0)
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"{path} is not there") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise RunError(f"{path} is damaged ({reason})") from error
    return state


def load_best(folder: Path, step: int) -> dict[str, Any]:
    """Read the best weights, which are of `step`; raises RunError with a way out where they are lost."""
    remedy = "--resume-loose checkpoint=latest takes the last weights instead"
    try:
        state = load(folder / BEST)
    except RunError as error:
        raise RunError(f"{error}; {remedy}") from error
    if state["step"] != step:
        raise RunError(f"{folder / BEST}: found weights of step {state['step']}, expected {step}; {remedy}")
    return state


def check_seal(file: BinaryIO) -> None:
    """Raise ValueError unless a file ends with its mark and the hash of all that comes before the hash."""
    left = os.fstat(file.fileno()).st_size - DIGEST
    digest, last = hashlib.sha256(), b""
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        digest.update(chunk)
        left, last = left - len(chunk), last[-len(MARK) :] + chunk
    if not last.endswith(MARK):
        raise ValueError("no seal: cut short, or of an older version")
    if file.read() != digest.digest():
        raise ValueError("other bytes than were written")
