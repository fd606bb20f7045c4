"""One training step, the same for both scripts and every method: forward, backward, and the optimiser at the step's pace.

With `accumulate` the batch is computed in parts, one after the other, whose gradients add up to that of their mean loss:
as much memory as a part needs. A loss that compares crops compares those of a part, so parts add no negatives.
"""

import math
from collections.abc import Callable
from itertools import chain
from statistics import fmean
from typing import Any

import torch

from medssl.config import FineTune, OneCycle, Shared
from medssl.device import Compute
from medssl.optimisers import clip_gradients, set_pace
from medssl.parallel import Exchange
from medssl.problems import NotFiniteError
from medssl.processes import collected, everyones, said_once
from medssl.ranks import world_size
from medssl.schedules import Pace, pace_at
from medssl.stopwatch import Stopwatch
from medssl.training import Batch, Training, parts_of, to_device


class Step:
    """Takes the steps of a training; what a step does depends on its number, the batch and the weights alone."""

    def __init__(
        self, settings: Shared, compute: Compute, training: Training, optimiser: torch.optim.Optimizer,
        pace: Callable[[int], Pace] | None = None,
    ) -> None:  # fmt: skip
        """`pace` replaces that of the settings."""
        self.settings, self.compute, self.training, self.optimiser = settings, compute, training, optimiser
        self.loss = Exchange(training)
        self.pace = pace or (lambda number: pace_at(settings, number))
        self.opposed = isinstance(settings.schedule, OneCycle | FineTune)  # momentum varies against the rate
        self.parameters = [p for group in training.groups for p in group["params"]]

    def __call__(self, number: int, batch: Batch) -> dict[str, Any]:
        """Take step `number`, counted from 1; gives its metrics. Raises NotFiniteError, and the weights stay as they were.

        `batch` is this rank's share; losses and hash are those of the whole batch, times are this rank's own.
        """
        watch = Stopwatch(self.compute.device)
        moved = to_device(batch, self.compute.device)
        watch.lap("transfer_s")
        self.training.check(moved)
        torch.manual_seed(self.settings.seed * 1_000_003 + number)
        self.training.model.train()
        self.training.before_step(number)
        now = self.pace(number)
        set_pace(self.optimiser, now)
        self.optimiser.zero_grad(set_to_none=True)
        self.loss.follow()
        values = self.gradients(moved, watch)
        norm = clip_gradients(self.parameters, self.settings.clip)
        values, hashes = self.of_all_ranks(values, batch["data_hash"])
        if world_size() > 1:
            watch.lap("ranks_s")
        self.refuse_non_finite(number, values["loss"], norm, batch)
        self.optimiser.step()
        watch.lap("optimiser_s")
        told = {"lr": now.rate} | ({"momentum": now.momentum} if self.opposed else {}) | {"grad_norm": norm}
        return values | told | {"data_hash": "".join(hashes)} | watch.seconds()

    def gradients(self, batch: Batch, watch: Stopwatch) -> dict[str, float]:
        """Add up the gradients of a batch's parts; gives the loss and its parts, means over the parts of the batch."""
        sums, count = dict[str, float](), self.settings.accumulate
        for number, part in enumerate(parts_of(batch, count), 1):
            seen = self.training.views(part)
            if seen is not part:  # they are made here
                watch.lap("device_views_s")
            with self.loss.at(last=number == count):
                with self.compute.context():
                    losses = self.loss(seen)
                watch.lap("forward_s")
                (losses["loss"] / count).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item() / count
            watch.lap("backward_s")
        return sums

    def of_all_ranks(self, values: dict[str, float], hashes: list[str]) -> tuple[dict[str, float], list[str]]:
        """The means of values over the ranks, and the hashes of all items in the order in which one process has them."""
        told = everyones((values, hashes))
        share = len(hashes) // self.settings.accumulate
        ordered = [of_one[k : k + share] for k in range(0, len(hashes), share) for _, of_one in told]
        return {name: fmean(of_one[name] for of_one, _ in told) for name in values}, list(chain(*ordered))

    def refuse_non_finite(self, number: int, loss: float, norm: float, batch: Batch) -> None:
        """Raise NotFiniteError naming the cases of the batch, before the optimiser takes the gradients up."""
        if not math.isfinite(loss) or not math.isfinite(norm):
            found = f"loss {loss}, gradient norm {norm}"
            cases = ", ".join(collected(batch["id"]))
            raise said_once(
                NotFiniteError(f"step {number}: found {found}, expected finite numbers; cases of the batch: {cases}")
            )
