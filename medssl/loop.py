"""What comes after each step of a training: its line, validation, a checkpoint, and the end where one is due.

All ranks do the same at the same step: what one of them was told, by a signal or by its clock, all have been told.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

import torch

from medssl import checkpoint
from medssl.average import Average
from medssl.config import Shared
from medssl.deadline import Deadline
from medssl.finite import refuse_non_finite
from medssl.lines import Lines
from medssl.parallel import full
from medssl.processes import everyones, said_once
from medssl.progress import Progress
from medssl.ranks import rank
from medssl.run_folder import RunFolder
from medssl.saving import Saving
from medssl.signals import Told
from medssl.stopping import Interrupted, OutOfTime, Stopped
from medssl.stopwatch import Stopwatch
from medssl.training import Training
from medssl.validation import Curves, judge
from medssl.wall_clock import WallClock


@dataclass
class Loop:
    """One start of a training, from the step that `progress` stands at."""

    run: RunFolder
    settings: Shared
    training: Training
    optimiser: torch.optim.Optimizer
    average: Average
    progress: Progress
    conditions: dict[str, Any]  # that its checkpoints were made under
    clock: WallClock
    saving: Saving
    deadline: Deadline
    told: Told
    metrics: Lines
    curves: Curves

    def __post_init__(self) -> None:
        self.deadline.see(self.run.metrics())

    def after(self, step: int, output: dict[str, Any], ids: list[str]) -> None:
        """Account for a step that was taken, which told `output` of the cases `ids`; raises as `settle`."""
        self.progress.step = step
        self.average.update()
        saved = {"checkpoint_s": self.progress.checkpoint_s} if self.progress.checkpoint_s else {}
        self.note({"step": step} | output | saved)
        self.progress.checkpoint_s = 0.0
        due = step % self.settings.validate_every == 0 or step == self.settings.steps
        self.progress.unjudged = due and self.training.validate is not None
        self.settle(output, ids)

    def settle(self, output: dict[str, Any], ids: list[str]) -> None:
        """Do what is due after a step; raises Stopped or OutOfTime, after a checkpoint, where that is the end of this start."""
        if self.progress.unjudged:
            self.validate(output)
        asked = everyones((self.told.stop, self.told.wants_checkpoint(), self.deadline.reached(), self.saving.overdue()))
        stop, wanted, late, overdue = (max(of_ranks) for of_ranks in zip(*asked, strict=True))
        step, done = self.progress.step, self.progress.stop or self.progress.step == self.settings.steps
        if stop or wanted or late or overdue or done or step % self.settings.checkpoint_every == 0:
            self.save(ids)
        if wanted:
            self.run.say(f"step {step}: a checkpoint, as SIGUSR1 asked for")
        if stop:
            raise said_once(Stopped(stop, f" after step {step}; --resume goes on from there"))
        if self.progress.stop:
            found = f"no better {self.training.watched} in {self.settings.patience} validations"
            self.run.say(f"step {step}: {found}, stopping")
        if late and not done:
            raise said_once(OutOfTime(f" after step {step}; --resume goes on from there"))

    def validate(self, output: dict[str, Any]) -> None:
        """Validate after a step, or leave that to the next start where a signal breaks it off."""
        try:
            with self.average.shown():
                judged = judge(self.run, self.settings, self.training, self.progress)
        except Interrupted:
            return
        self.progress.unjudged = False
        self.note({"step": self.progress.step} | judged)
        self.curves.draw()
        for warning in self.training.warnings(output | judged):
            self.run.say(f"warning: step {self.progress.step}: {warning}")
        self.clock.tell(self.progress.step == self.settings.steps or self.progress.stop)

    def save(self, ids: list[str]) -> None:
        """Write a checkpoint, which has only finite numbers."""
        self.clock.update()
        watch = Stopwatch(torch.device("cpu"))
        if rank() == 0:
            os.fsync(self.metrics.fileno())  # lest a checkpoint is there and lines of its steps are not
        state = state_of(self.training, self.optimiser, self.progress) | self.average.state() | {"conditions": self.conditions}
        refuse_non_finite(state, self.progress.step, ids)
        checkpoint.save_latest(self.run.folder, state)
        watch.lap("checkpoint_s")
        self.progress.checkpoint_s = watch.laps()["checkpoint_s"]
        self.deadline.see([vars(self.progress)])
        if warning := self.saving.done(self.progress.checkpoint_s):
            self.run.say(f"warning: {warning}")

    def note(self, line: dict[str, Any]) -> None:
        """Write a line of metrics.jsonl."""
        write_line(self.metrics, line)
        self.deadline.see([line])


def state_of(training: Training, optimiser: torch.optim.Optimizer, progress: Progress) -> dict[str, Any]:
    """Gather what a checkpoint holds of a training."""
    return {
        "model": full(training.model.state_dict()),
        "optimiser": full(optimiser.state_dict()),
        "progress": progress.state(),
    }


def write_line(file: Lines, line: dict[str, Any]) -> None:
    """Append one line of JSON."""
    file.write(json.dumps(line))
