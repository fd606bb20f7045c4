"""What the bytes of a file are, remembered so that unchanged files are not read again.

A file is taken for unchanged while its size, modification and change times and inode are; the change time also tells
of files that were swapped. Otherwise its bytes are hashed again. Losing what is remembered costs time, nothing else.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from medssl.atomic import write_atomically
from medssl.readers import location


class Fingerprints:
    """The SHA-256 of files, remembered beside a store while used as a context."""

    def __init__(self, store: Path) -> None:
        self.path = store.with_suffix(".fingerprints.json")
        self.known: dict[str, tuple[list[list[int]], str]] = {}
        self.changed = False

    def __enter__(self) -> Self:
        try:
            self.known = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            self.known = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.changed:
            with suppress(OSError):  # a folder that is only for reading
                write_atomically(self.path, json.dumps(self.known).encode())

    def of(self, path: Path) -> str:
        """The SHA-256 of a file, or of all files of a folder (a DICOM series); empty where there is none."""
        files = list(files_at(location(path)))
        try:
            state = [state_of(file) for file in files]
            known = self.known.get(str(path))
            if known and known[0] == state:
                return known[1]
            digest = digest_of(files)
        except OSError:
            return ""
        if files:
            self.known[str(path)] = (state, digest)
            self.changed = True
        return digest


def files_at(path: Path) -> Iterator[Path]:
    """The file, or the files of the folder in the order of their names."""
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file())
    elif path.is_file():
        yield path


def state_of(file: Path) -> list[int]:
    """What changes when a file does."""
    status = os.stat(file)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def digest_of(files: list[Path]) -> str:
    """The SHA-256 of one file's bytes, or of the digests of several; empty for none."""
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(file_digest(opened, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest() if digests else ""
