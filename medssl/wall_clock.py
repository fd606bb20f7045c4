"""The clock of a run: its seconds over all starts, and a line in the log that says where they went.

The line comes with a validation, at most once an epoch, and at the end; an epoch is over when as many crops were seen as
the training cases give.
"""

import time
from typing import Any

import torch

from medssl.config import Shared
from medssl.device import Compute
from medssl.launch import cores
from medssl.memory import peak_memory
from medssl.progress import Progress
from medssl.run_folder import RunFolder
from medssl.time_spent import Machine, bound_by, in_words, time_spent


class WallClock:
    """Keeps `progress.seconds` and `progress.memory` up to date and tells where the time went."""

    def __init__(self, run: RunFolder, settings: Shared, compute: Compute, epoch: int, progress: Progress) -> None:
        """`epoch` in crops."""
        self.run, self.progress, self.device = run, progress, compute.device
        self.machine = machine_of(settings, compute)
        self.steps = -(-epoch // settings.batch_size)
        self.began = time.monotonic() - progress.seconds
        self.told_step, self.told_at = progress.step, progress.seconds

    def update(self) -> None:
        """Bring seconds and memory up to now."""
        self.progress.seconds = time.monotonic() - self.began
        self.progress.memory = max(self.progress.memory, peak_memory(self.device))

    def tell(self, at_end: bool) -> None:
        """Say where the time went since it was told last, if an epoch has passed since or the run is at its end."""
        if self.progress.step - self.told_step < (1 if at_end else self.steps):
            return
        self.update()
        lines = (line for line in self.run.metrics() if line["step"] > self.told_step)
        spent = time_spent(lines, self.progress.seconds - self.told_at)
        if spent is not None:
            first = f"steps {self.told_step + 1} to {self.progress.step}"
            self.run.say(f"time of {first}: {in_words(spent)}. {bound_by(spent, self.machine)}")
        self.told_step, self.told_at = self.progress.step, self.progress.seconds


def machine_of(settings: Shared, compute: Compute) -> Machine:
    """What this process and its workers compute with."""
    gpu = compute.device.type != "cpu"
    movable = gpu and getattr(settings, "views_on", "device") == "loader"
    return Machine(settings.workers, cores(), torch.get_num_threads(), gpu, movable)


def costs_of(settings: Shared, compute: Compute, progress: Progress) -> dict[str, Any]:
    """What a run took, for its summary; `checkpoint_s` is the last checkpoint, which no metric line is left to tell."""
    memory = max(progress.memory, peak_memory(compute.device))
    return {
        "seconds": round(progress.seconds, 1),
        "checkpoint_s": round(progress.checkpoint_s, 5),
        "memory_mb": round(memory / 1e6),
        "machine": machine_of(settings, compute)._asdict(),
    }
