"""What a run will take, from the seconds of its pieces: arithmetic alone.

Workers prepare data beside the step, but on the same cores. On a CPU a step keeps as many cores busy as it has threads,
beside a GPU one core; so with workers a step comes no sooner than the slowest of three: the step itself, a batch by all
workers, and the work of both on all cores.
"""

from typing import NamedTuple

from medssl.time_spent import Machine, bound_by, time_spent


class Pieces(NamedTuple):
    """Seconds, each piece timed alone."""

    start: float  # until the first step
    step: float
    read: float  # of a batch, in one process
    views: float
    collate: float  # the rest of what makes it a batch
    validation: float  # of all cases, once
    checkpoint: float
    best: float  # a checkpoint of the best weights
    finish: float  # all that comes after the last step
    pack: float = 0.0  # of what the store lacks

    @property
    def load(self) -> float:
        return self.read + self.views + self.collate


class Plan(NamedTuple):
    """How often a run does what."""

    steps: int
    validate_every: int
    checkpoint_every: int

    @property
    def validations(self) -> int:
        return -(-self.steps // self.validate_every)  # one more at the end

    @property
    def checkpoints(self) -> int:
        return -(-self.steps // self.checkpoint_every)


def pace(pieces: Pieces, machine: Machine) -> float:
    """Seconds from step to step, where a step takes its data from workers or prepares it itself."""
    if machine.workers == 0:
        return pieces.step + pieces.load
    return max(crowded(pieces, machine), pieces.load / machine.workers)


def crowded(pieces: Pieces, machine: Machine) -> float:
    """Seconds of a step beside workers that keep up with it on the same cores."""
    busy = 1 if machine.gpu else min(machine.threads, machine.cores)
    return max(pieces.step, (pieces.step * busy + pieces.load) / machine.cores)


def seconds_of(pieces: Pieces, plan: Plan, machine: Machine) -> dict[str, float]:
    """What each part of the run takes, in its order; every validation is taken for the best so far, which is the most."""
    return {
        "packing": pieces.pack,
        "start": pieces.start,
        "steps": plan.steps * pace(pieces, machine),
        "validation": plan.validations * (pieces.validation + pieces.best),
        "checkpoints": plan.checkpoints * pieces.checkpoint,
        "end": pieces.finish,
    }


def bound(pieces: Pieces, machine: Machine) -> str:
    """What will set the pace, and what to do about it, as the log of the run would say it."""
    taken = crowded(pieces, machine) if machine.workers else pieces.step
    step = {"step_s": taken, "forward_s": taken, "data_s": pace(pieces, machine) - taken}
    spent = time_spent([step | {"read_s": pieces.read, "views_s": pieces.views + pieces.collate}])
    assert spent is not None
    return bound_by(spent, machine)


def hours(seconds: float) -> str:
    """Hours, and seconds or minutes where those say more."""
    if seconds < 300:
        return f"{seconds / 3600:.3f} hours, {seconds:.0f} s"
    return f"{seconds / 3600:.2f} hours" + (f", {seconds / 60:.0f} min" if seconds < 7200 else "")
