"""A file of lines that grows while a run lasts: each line is handed to the system at once, so that a kill loses none."""

from pathlib import Path
from typing import Self


class Lines:
    """Appends lines to a file; nothing waits in a buffer, to fail again when the file is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def fileno(self) -> int:
        """The file's descriptor."""
        return self.file.fileno()

    def write(self, line: str) -> None:
        """Append a line; raises OSError with the path where the disk is full."""
        rest = memoryview(f"{line}\n".encode())
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
