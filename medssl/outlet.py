"""Files written by libraries that do not fail well: HDF5 and torch go on while they close, and hide the cause."""

from io import FileIO
from typing import Any


class Outlet(FileIO):
    """A file that keeps its first failure and swallows what comes after it.

    HDF5 writes while it closes, too; failing there it prints a page and may not close at all. Torch says where in its
    archive it was, not that the disk is full.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while rest and not self.failure:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self.tell() if self.failure else super().truncate(size)
        except OSError as error:
            self.failure = error
            return self.tell()
