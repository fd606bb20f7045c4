"""A running average of the weights, which is often better than the last of them: `ema=`.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992, with exponential weights. Statistics of
batch norms are averaged too, counters are copied. The first average is the weights after step 1; from then on the decay
after k steps is min(ema, (1 + k) / (10 + k)), so that the average soon forgets the start and works in short runs too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Average:
    """The average of a model's weights and buffers over the steps; without a decay it does nothing."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.averaged = AveragedModel(model, multi_avg_fn=self.average, use_buffers=True) if decay else None

    def average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor | int) -> None:
        """Move averages towards the weights after step `number` + 1; all tensors of a call have one type."""
        decay = min(self.decay, (1 + int(number)) / (10 + int(number)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def exchange(self) -> None:
        """Let the model and the average change places; a second call changes them back, bit for bit."""
        if self.averaged is not None:
            other = self.averaged.module
            pairs = zip(
                chain(self.model.parameters(), self.model.buffers()), chain(other.parameters(), other.buffers()), strict=True
            )
            for ours, theirs in pairs:
                ours.data, theirs.data = theirs.data, ours.data

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block the model has the averaged weights."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {} if self.averaged is None else {"average": self.averaged.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint kept; after one without an average begin with the model's weights as they are."""
        if self.averaged is not None:
            if "average" in state:
                self.averaged.load_state_dict(state["average"])
            else:
                self.averaged.module.load_state_dict(self.model.state_dict())
