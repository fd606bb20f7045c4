"""How far a run is: what its checkpoints remember besides weights and conditions."""

import math
from dataclasses import dataclass, field
from typing import Any

FORGOTTEN = ("checkpoint_s", "memory")


@dataclass
class Progress:
    """What a checkpoint remembers besides the weights; best is the watched figure, lower always better."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    worse: int = 0  # validations since the best one
    unjudged: bool = False  # validation after the step was broken off, and comes first when the run goes on
    seconds: float = 0.0
    checkpoint_s: float = 0.0  # of the last checkpoint, until the next step's line tells it; not remembered
    memory: float = 0.0  # bytes at most, of this start; not remembered
    stop: bool = False  # patience is at its end
    warnings: list[str] = field(default_factory=list)  # of what --resume-loose let through

    def state(self) -> dict[str, Any]:
        """What is remembered."""
        return {key: value for key, value in vars(self).items() if key not in FORGOTTEN}

    def forget_best(self) -> None:
        """Take the best of the validations to come."""
        self.best, self.best_step, self.worse = math.inf, 0, 0
