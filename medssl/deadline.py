"""When a run must have ended, as the time limit of a cluster's job wants it: `--max-hours`."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

ROUND = ("data_s", "step_s", "validate_s", "checkpoint_s")  # keys of metrics.jsonl: what comes before a run can end
SLACK = 1.5  # how much longer than the longest so far the next may take; a round may have two checkpoints
LEAVING = 5.0  # seconds from the last checkpoint until the process is gone


class Deadline:
    """The end of a run's time, with room for the longest step, validation and checkpoint so far."""

    def __init__(self, hours: float | None = None, began: float = 0.0) -> None:
        """`began` is when the hours began, of `time.monotonic`; without hours there is no end."""
        self.at = math.inf if hours is None else began + hours * 3600
        self.longest = dict.fromkeys(ROUND, 0.0)

    def see(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take the times in lines of metrics.jsonl into account, of earlier starts too."""
        for line in lines:
            for key in ROUND:
                self.longest[key] = max(self.longest[key], line.get(key, 0.0))

    @property
    def margin(self) -> float:
        """Seconds that another round takes, and the end after it."""
        return SLACK * sum(self.longest.values()) + LEAVING

    def reached(self) -> bool:
        """Whether another round might come too late."""
        return time.monotonic() + self.margin > self.at
