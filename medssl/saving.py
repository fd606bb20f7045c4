"""When a checkpoint is due by the clock, and whether checkpoints take too much of the time."""

import time

from medssl.config import Shared
from medssl.time_spent import time_of

MOST = 0.05  # share of the time that checkpoints should take
SOON = 60.0  # seconds of training before which the share says nothing


class Saving:
    """Keeps the time since the last checkpoint, and what all of this start have taken."""

    def __init__(self, settings: Shared) -> None:
        self.every = 60 * settings.checkpoint_minutes
        self.began = self.last = time.monotonic()
        self.seconds, self.count, self.told = 0.0, 0, False

    def overdue(self) -> bool:
        """Whether a checkpoint is due whatever the step."""
        return time.monotonic() - self.last >= self.every

    def done(self, seconds: float) -> str | None:
        """Count a checkpoint that took so long; gives a warning, once, where they take too much of the time."""
        self.last = time.monotonic()
        self.seconds, self.count = self.seconds + seconds, self.count + 1
        passed = self.last - self.began
        if self.told or passed < SOON or self.seconds <= MOST * passed:
            return None
        self.told = True
        each = self.seconds / self.count
        return (
            f"checkpoints took {self.seconds / passed:.0%} of the time so far, {time_of(each)} each: one every "
            f"{time_of(each / MOST)} would keep to {MOST:.0%}, see checkpoint_every and checkpoint_minutes"
        )
