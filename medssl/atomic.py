"""Nothing is half-written: temporary file in the same folder, fsync, rename, fsync of the folder.

A rename is atomic only within one file system, so the temporary file lies beside its target. Its name keeps the
target's suffix because writers such as `nibabel.save` and `numpy.savez` choose their format by it.
"""

import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFTOVER_AGE_S = 3600.0  # a temporary file that nobody has written to for so long belongs to a killed process


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path` so that a reader, or a crash at any moment, finds the old file or the new one, whole."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path (no file there yet) that takes the place of `path` when the block ends without an error.

    The folder must exist. On an error the temporary file is removed and `path` is left as it was. The block must
    have closed the file it wrote. FileNotFoundError if it wrote none.
    """
    target = Path(path)
    _remove_leftovers(target)
    temporary = target.with_name(f".partial-{secrets.token_hex(4)}-{target.name}")
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)) and error.errno:
            raise OSError(error.errno, error.strerror, str(target)) from error  # the name that says something
        raise
    _sync(target.parent, os.O_RDONLY)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty temporary folder that takes the place of `path` when the block ends without an error.

    A folder that is there already is replaced whole. On an error `path` is left as it was.
    """
    target = Path(path)
    temporary, replaced = (target.with_name(f".partial-{secrets.token_hex(4)}-{target.name}") for _ in range(2))
    temporary.mkdir()
    try:
        yield temporary
        for written in sorted(temporary.rglob("*"), reverse=True):  # what is in a folder before the folder
            _sync(written, os.O_RDONLY)
        _sync(temporary, os.O_RDONLY)
        if target.exists():
            os.replace(target, replaced)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not target.exists():
            os.replace(replaced, target)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    _sync(target.parent, os.O_RDONLY)


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writers of the same target left, so that many kills do not fill the disk."""
    for leftover in target.parent.glob(".partial-????????-" + glob.escape(target.name)):
        try:
            if time.time() - leftover.stat().st_mtime > LEFTOVER_AGE_S:
                leftover.unlink()
        except FileNotFoundError:  # its owner was faster
            continue


def _sync(path: Path, flags: int) -> None:
    if path.is_dir() and os.name != "posix":  # only POSIX can open a folder
        return
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
