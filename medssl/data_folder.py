"""A new folder for a data set, which nothing takes for one before it is whole.

The files go to their places at once, since an output folder is often a mount that can't be renamed into place; what is
written last makes it a data set. Until then a mark says that it is unfinished, and the next try begins it anew.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from medssl.locks import take_lock
from medssl.problems import InputError, Problem

UNFINISHED = ".unfinished"  # a killed process leaves it; a living one holds its lock


@contextmanager
def new_data_folder(path: Path, folders: Sequence[str], last: str) -> Iterator[Path]:
    """Give a folder, absent or empty so far; the block makes some of `folders`, writes into them and then `last`.

    After an error nothing of it is left. Raises InputError for a folder with other files in it and for one that another
    process fills.
    """
    if path.exists() and not path.is_dir():
        raise InputError([Problem(str(path), "folder", "a file", "a new or empty folder")])
    mark = path / UNFINISHED
    there = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if there and (UNFINISHED not in there or last in there or there - {UNFINISHED, *folders}):
        raise InputError([Problem(str(path), "folder", f"{len(there)} files or folders in it", "a new or empty folder")])
    new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    with mark.open("ab") as lock:
        if not take_lock(lock):
            found = "another process that fills it"
            raise InputError([Problem(str(path), "folder", found, "a new or empty folder")])
        try:
            _empty(path, folders)
            yield path
            mark.unlink()
        except BaseException:
            for name in (last, UNFINISHED):
                (path / name).unlink(missing_ok=True)
            _empty(path, folders)
            if new:
                with suppress(OSError):
                    path.rmdir()
            raise


def flush_to_disk() -> None:
    """Wait until what was written is on the disk: of thousands of files much faster than one by one."""
    os.sync()


def _empty(path: Path, folders: Sequence[str]) -> None:
    for name in folders:
        shutil.rmtree(path / name, ignore_errors=True)
