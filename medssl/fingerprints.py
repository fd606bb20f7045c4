"""What the bytes of a file are, remembered so that unchanged files are not read again.

A file is taken for unchanged while its size, modification and change times and inode are; the change time also tells
of files that were swapped. Otherwise its bytes are hashed again. Losing what is remembered costs time, nothing else.
"""

import json
import os
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path

from medssl.atomic import write_atomically
from medssl.readers import location


class Fingerprints:
    """The SHA-256 of files, remembered beside a store."""

    def __init__(self, store: Path) -> None:
        self.path = store.with_suffix(".fingerprints.json")
        self.known: dict[str, tuple[list[int], str]] = {}
        self.changed = False
        with suppress(OSError, ValueError):
            known = json.loads(self.path.read_bytes())
            self.known = known if isinstance(known, dict) else {}

    def save(self) -> None:
        """Write down what is new, without files that are gone; a folder only for reading stays as it is."""
        if self.changed:
            self.known = {file: known for file, known in sorted(self.known.items()) if os.path.exists(file)}
            with suppress(OSError):
                write_atomically(self.path, json.dumps(self.known).encode())
            self.changed = False

    def of(self, path: Path) -> str:
        """The SHA-256 of a file, or of the files of a folder and the name of the series in it; empty for none."""
        place = location(path)
        try:
            if not place.is_dir():
                return self.of_file(place)
            files = sorted(file for file in place.iterdir() if file.is_file() and not file.name.startswith("."))
            digests = [path.name.removeprefix(place.name), *(self.of_file(file) for file in files)]
        except OSError:
            return ""
        return sha256("/".join(digests).encode()).hexdigest()

    def of_file(self, file: Path) -> str:
        """The SHA-256 of one file's bytes."""
        status = os.stat(file)
        state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self.known.get(str(file))
        if known and known[0] == state:
            return known[1]
        with file.open("rb") as opened:
            digest = file_digest(opened, "sha256").hexdigest()
        self.known[str(file)] = (state, digest)
        self.changed = True
        return digest
