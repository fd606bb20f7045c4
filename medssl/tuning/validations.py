"""The validations of a run while it is being made, from the lines that its metrics.jsonl gains."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path


class Validations:
    """Reads each validation of a watched figure once, in the order of their steps.

    A run that is resumed writes its file anew without the lines of steps that it does again; those give the same figures.
    """

    def __init__(self, file: Path, watched: str) -> None:
        self.file, self.watched = file, watched
        self.place, self.inode, self.step = 0, 0, 0

    def new(self) -> Iterator[tuple[int, float]]:
        """The steps and figures of validations since the last call; those that are no number are left out."""
        try:
            with self.file.open("rb") as lines:
                inode = os.fstat(lines.fileno()).st_ino
                if inode != self.inode:
                    self.place, self.inode = 0, inode
                lines.seek(self.place)
                read = lines.read()
        except FileNotFoundError:
            return
        whole = read[: read.rfind(b"\n") + 1]  # the last line may still be on its way
        self.place += len(whole)
        for line in whole.splitlines():
            if b'"val_' not in line:
                continue
            found = json.loads(line)
            value = found.get(self.watched)
            if found["step"] > self.step and isinstance(value, int | float) and math.isfinite(value):
                self.step = found["step"]
                yield self.step, float(value)
