"""What a run will take, from the seconds of its pieces: arithmetic alone."""

import math
from typing import NamedTuple


class Pieces(NamedTuple):
    """Seconds of each piece, timed by itself."""

    start: float  # until the first step, and what that takes longer than others
    pace: float  # from step to step
    validation: float  # of all cases, once
    checkpoint: float
    best: float  # a checkpoint of the best weights
    finish: float  # all that comes after the last step
    pack: float = 0.0  # of what the store lacks


class Plan(NamedTuple):
    """How often a run does what."""

    steps: int
    validate_every: int
    checkpoint_every: int
    checkpoint_minutes: float = math.inf

    @property
    def validations(self) -> int:
        return -(-self.steps // self.validate_every)  # one more at the end

    def checkpoints(self, pace: float) -> int:
        """How many, where a step takes `pace` seconds: one whenever enough steps or minutes have passed."""
        return math.ceil(self.steps / min(self.checkpoint_every, max(60 * self.checkpoint_minutes / pace, 1)))


def seconds_of(pieces: Pieces, plan: Plan) -> dict[str, float]:
    """What each part of the run takes, in its order; every validation is taken for the best so far, which is the most."""
    return {
        "packing": pieces.pack,
        "start": pieces.start,
        "steps": plan.steps * pieces.pace,
        "validation": plan.validations * (pieces.validation + pieces.best),
        "checkpoints": plan.checkpoints(pieces.pace) * pieces.checkpoint,
        "end": pieces.finish,
    }


def hours(seconds: float) -> str:
    """Hours, and seconds or minutes where those say more."""
    if seconds < 300:
        return f"{seconds / 3600:.3f} hours, {seconds:.0f} s"
    return f"{seconds / 3600:.2f} hours" + (f", {seconds / 60:.0f} min" if seconds < 7200 else "")
