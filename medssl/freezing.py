"""An encoder that stays as it is for the first steps, is freed part by part from the top, or stays for good: linear probing.

Not to train a parameter is not enough: batch norm goes on averaging the statistics of what it sees, so that a frozen
encoder drifts. Here its norms use the statistics that they came with, as in evaluation, unless `frozen_norm=train`.
Gradual unfreezing: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018
(https://arxiv.org/abs/1801.06146).
"""

import math
from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.config import Finetune
from medssl.depth import freed_in_order
from networks.features import Encoder


class Freezing:
    """Keeps the encoder, or what is left of it, frozen as long as the settings say; make it before parameters are grouped."""

    def __init__(self, encoder: Encoder | None, settings: Finetune) -> None:
        parts = [] if encoder is None else freed_in_order(encoder, settings)
        first = math.inf if settings.encoder_lr == 0 else settings.freeze_steps
        self.parts = [
            Part(part, first + k * settings.unfreeze_every, settings.frozen_norm == "eval") for k, part in enumerate(parts)
        ]
        for part in self.parts:
            part.set(part.steps == math.inf)

    def before_step(self, step: int) -> None:
        """Freeze or free each part for a step, counted from 1, of a network in training mode."""
        for part in self.parts:
            part.set(step <= part.steps)


class Part:
    """A part of the encoder that is frozen for its first `steps`."""

    def __init__(self, module: nn.Module, steps: float, quiet: bool) -> None:
        self.steps = steps
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.norms: Iterable[nn.Module] = [m for m in module.modules() if isinstance(m, _BatchNorm)] if quiet else []

    def set(self, frozen: bool) -> None:
        """Freeze or free it; what has no gradient is left alone by every optimiser, its decay and momentum included."""
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        for norm in self.norms if frozen else ():
            norm.eval()
