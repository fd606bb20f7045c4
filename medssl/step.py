"""One training step, the same for both scripts and every method: forward, backward, and the optimiser at the step's pace.

With `accumulate` the batch is computed in parts, one after the other, whose gradients add up to that of their mean loss:
as much memory as a part needs. A loss that compares crops compares those of a part, so parts add no negatives.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from medssl.config import FineTune, OneCycle, Shared
from medssl.device import Compute
from medssl.optimisers import clip_gradients, set_pace
from medssl.problems import NotFiniteError
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
        self.pace = pace or (lambda number: pace_at(settings, number))
        self.opposed = isinstance(settings.schedule, OneCycle | FineTune)  # momentum varies against the rate
        self.parameters = [p for group in training.groups for p in group["params"]]

    def __call__(self, number: int, batch: Batch) -> dict[str, Any]:
        """Take step `number`, counted from 1; gives its metrics. Raises NotFiniteError, and the weights stay as they were."""
        watch = Stopwatch(self.compute.device)
        moved = to_device(batch, self.compute.device)
        watch.lap("transfer_s")
        torch.manual_seed(self.settings.seed * 1_000_003 + number)
        self.training.model.train()
        self.training.before_step(number)
        now = self.pace(number)
        set_pace(self.optimiser, now)
        self.optimiser.zero_grad(set_to_none=True)
        values = self.gradients(moved, watch)
        norm = clip_gradients(self.parameters, self.settings.clip)
        self.refuse_non_finite(number, values["loss"], norm, batch)
        self.optimiser.step()
        watch.lap("optimiser_s")
        told = {"lr": now.rate} | ({"momentum": now.momentum} if self.opposed else {}) | {"grad_norm": norm}
        return values | told | {"data_hash": "".join(batch["data_hash"])} | watch.seconds()

    def gradients(self, batch: Batch, watch: Stopwatch) -> dict[str, float]:
        """Add up the gradients of a batch's parts; gives the loss and its parts, means over the parts of the batch."""
        sums, count = dict[str, float](), self.settings.accumulate
        for part in parts_of(batch, count):
            seen = self.training.views(part)
            watch.lap("device_views_s")
            with self.compute.context():
                losses = self.training.loss(seen)
            watch.lap("forward_s")
            (losses["loss"] / count).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item() / count
            watch.lap("backward_s")
        return sums

    def refuse_non_finite(self, number: int, loss: float, norm: float, batch: Batch) -> None:
        """Raise NotFiniteError naming the cases of the batch, before the optimiser takes the gradients up."""
        if not math.isfinite(loss) or not math.isfinite(norm):
            found = f"loss {loss}, gradient norm {norm}"
            raise NotFiniteError(
                f"step {number}: found {found}, expected finite numbers; cases of the batch: {', '.join(batch['id'])}"
            )
