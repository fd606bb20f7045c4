"""The pace of a step: its learning rate and momentum, from its number alone.

One cycle: Smith, "A disciplined approach to neural network hyper-parameters", 2018 (https://arxiv.org/abs/1803.09820), with
cosines and the positions of fastai: step k of n, counted from 1, stands at (k - 1) / n.
"""

from math import cos, pi
from typing import NamedTuple

from medssl.config import Constant, FineTune, OneCycle, Shared

DEPTH = 100.0  # `fine_tune`: the head's rate over that of the encoder's lower half
HEAD = OneCycle(pct_start=0.99, div=25, div_final=1e5)
WHOLE = OneCycle(pct_start=0.3, div=5, div_final=1e5)


class Pace(NamedTuple):
    """What all parameter groups of a step share; each multiplies the rate by its `scale`."""

    rate: float
    momentum: float


def pace_at(settings: Shared, step: int) -> Pace:
    """The learning rate and momentum of a step, counted from 1."""
    schedule = settings.schedule
    if isinstance(schedule, OneCycle):
        return one_cycle(schedule, schedule.momentum, settings.lr, (step - 1) / settings.steps)
    if isinstance(schedule, FineTune):
        return fine_tune(schedule, settings.lr, step, settings.freeze_steps, settings.steps)  # type: ignore[attr-defined]
    if step <= settings.warmup:
        return Pace(settings.lr * step / settings.warmup, settings.momentum)
    if isinstance(schedule, Constant):
        return Pace(settings.lr, settings.momentum)
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return Pace(settings.lr * 0.5 * (1 + cos(pi * done)), settings.momentum)


def one_cycle(cycle: OneCycle, momenta: list[float], lr: float, position: float) -> Pace:
    """The pace at a position 0..1 of a cycle whose highest rate is `lr`, reached at `pct_start`."""
    rates = [lr / cycle.div, lr, lr / cycle.div_final]
    start, falling = cycle.pct_start, int(position >= cycle.pct_start)
    part = (position - start) / (1 - start) if falling else position / start
    rate, momentum = (between(values[falling], values[falling + 1], part) for values in (rates, momenta))
    return Pace(rate, momentum)


def fine_tune(schedule: FineTune, lr: float, step: int, frozen: int, steps: int) -> Pace:
    """The pace of a step of fastai's `fine_tune`; unlike there the optimiser goes on with what it remembers of the head."""
    if step <= frozen:
        return one_cycle(HEAD, schedule.momentum, lr, (step - 1) / frozen)
    return one_cycle(WHOLE, schedule.momentum, lr / 2, (step - frozen - 1) / (steps - frozen))


def between(first: float, last: float, part: float) -> float:
    """Go from `first` to `last` as half a cosine."""
    return first + (last - first) * (1 - cos(pi * part)) / 2
