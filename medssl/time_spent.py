"""Where the time of a training went, from the lines of metrics.jsonl: shares of the wall time, and what it is bound by.

The main process waits for data, moves it, computes and writes: these parts follow each other and add up to the wall time.
The loader's work, reading and views, is counted apart: with workers it runs beside the step, and only the wait for it is
lost. With `workers=0` the wait is that work.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

PARTS = {  # keys of metrics.jsonl that follow each other, in words
    "data_s": "waiting for data",
    "transfer_s": "moving data",
    "device_views_s": "views on the device",
    "forward_s": "forward",
    "backward_s": "backward",
    "ranks_s": "waiting for other ranks",
    "optimiser_s": "optimiser",
    "validate_s": "validation",
    "checkpoint_s": "checkpoints",
}
COMPUTING = ("transfer_s", "device_views_s", "forward_s", "backward_s", "ranks_s", "optimiser_s")
LOADING = {"read_s": "reading", "views_s": "views"}  # in the loader, beside those
WAITS = 0.1  # share of the loop that a run may wait for its data and still be bound by compute
SPARE = 1.25  # work that workers should be able to do, relative to what is needed
OFTEN = 0.3  # share of the wall time from which validation or checkpoints are too many


class Machine(NamedTuple):
    """What a run has to compute with."""

    workers: int
    cores: int
    threads: int  # of the step on a CPU
    gpu: bool = False
    movable_views: bool = False  # whether a setting could make the views on the device


@dataclass(frozen=True)
class TimeSpent:
    """Seconds of the wall time by part, adding up to all of it; of the loader's work; and the steps they are of."""

    parts: Mapping[str, float]
    loading: Mapping[str, float]
    steps: int

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def shares(self) -> dict[str, float]:
        """The share of each part in the wall time, by its name in words."""
        return {name: seconds / self.total for name, seconds in self.parts.items()}

    @property
    def a_step(self) -> float:
        """Seconds that a step computes, without the wait for its data."""
        return sum(self.parts[PARTS[key]] for key in COMPUTING) / self.steps


def time_spent(lines: Iterable[Mapping[str, Any]], wall: float | None = None) -> TimeSpent | None:
    """Add up the times of metric lines; None where they have none, as those of older runs.

    `wall` is the time that the lines took, and what their parts do not explain is `other`; without it, the time between
    them is not known.
    """
    sums, steps, rest = dict.fromkeys((*PARTS, *LOADING), 0.0), 0, 0.0
    for line in lines:
        for key in sums:
            sums[key] += line.get(key, 0.0)
        if "forward_s" in line:
            steps += 1
            rest += max(line["step_s"] - sum(line.get(key, 0.0) for key in COMPUTING), 0.0)
    if not steps:
        return None
    parts = {PARTS[key]: sums[key] for key in PARTS}
    known = sum(parts.values())
    other = rest if wall is None else max(wall - known, 0.0)
    return TimeSpent(parts | {"other": other}, {name: sums[key] for key, name in LOADING.items()}, steps)


def in_words(spent: TimeSpent) -> str:
    """The shares that can be seen, in one line."""
    return ", ".join(f"{name} {share:.0%}" for name, share in spent.shares.items() if share >= 0.005)


def bound_by(spent: TimeSpent, machine: Machine) -> str:
    """Say in one line whether data or compute sets the pace, and what to do about it."""
    step, waiting = spent.a_step, spent.parts[PARTS["data_s"]] / spent.steps
    lost = waiting / (waiting + step)
    if lost >= WAITS:
        said = f"Bound by data: a step of {time_of(step)} waits {time_of(waiting)} for it; {faster_data(spent, machine)}."
    else:
        said = f"Bound by compute: a step waits {lost:.0%} of its time for data; {enough_workers(spent, machine)}."
    return " ".join([said, *too_often(spent)])


def faster_data(spent: TimeSpent, machine: Machine) -> str:
    """What would make the data come in time."""
    needed, most = workers_for(spent), machine.cores - (0 if machine.gpu else machine.threads)
    reading, views = (spent.loading[name] / spent.steps for name in LOADING.values())
    if machine.workers < most and machine.workers < needed:
        enough = needed <= most
        return (
            f"workers={min(needed, most)} {'would keep up' if enough else f'helps; {needed} would keep up, on as many cores'}"
        )
    if views >= reading:
        remedy = "views_on=device makes them on the GPU" if machine.movable_views else "cheaper views help"
        return f"views cost {time_of(views)} a step, and {no_more(machine)}: {remedy}"
    return f"reading costs {time_of(reading)} a step, and {no_more(machine)}: a faster disk for store= helps"


def no_more(machine: Machine) -> str:
    """Why more workers are no remedy."""
    return "there is one core" if machine.cores == 1 else f"the step and its workers take all {machine.cores} cores"


def enough_workers(spent: TimeSpent, machine: Machine) -> str:
    """Whether fewer workers would do."""
    needed = workers_for(spent)
    if needed >= machine.workers:
        return "more workers would not help"
    return f"workers={needed} would do" + ("" if machine.gpu else " and leave cores to the step")


def workers_for(spent: TimeSpent) -> int:
    """How many workers prepare a batch in the time of a step."""
    return max(math.ceil(SPARE * sum(spent.loading.values()) / spent.steps / spent.a_step), 1)


def too_often(spent: TimeSpent) -> list[str]:
    """What takes much of the time besides training."""
    settings = {PARTS["validate_s"]: "validate_every", PARTS["checkpoint_s"]: "checkpoint_every"}
    shares = {name: spent.shares[name] for name in settings if spent.shares[name] >= OFTEN}
    return [f"{name.capitalize()} took {share:.0%}: a higher {settings[name]} saves of it." for name, share in shares.items()]


def time_of(seconds: float) -> str:
    """A time in words."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 3600:.2f} h"
