"""An encoder that stays as it is for the first steps, or for all of them: linear probing.

Not to train a parameter is not enough: batch norm goes on averaging the statistics of what it sees, so that a frozen
encoder drifts. Here its norms use the statistics that they came with, as in evaluation, unless `frozen_norm=train`.
"""

import math

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.config import Finetune


class Freezing:
    """Keeps the encoder for `freeze_steps`, and for good where its rate is 0; make it before parameters are grouped."""

    def __init__(self, encoder: nn.Module | None, settings: Finetune) -> None:
        modules = [] if encoder is None else list(encoder.modules())
        self.steps = math.inf if settings.encoder_lr == 0 else settings.freeze_steps
        self.frozen = self.steps == math.inf
        self.parameters = [p for module in modules for p in module.parameters(recurse=False) if p.requires_grad]
        self.norms = [m for m in modules if isinstance(m, _BatchNorm)] if settings.frozen_norm == "eval" else []
        for parameter in self.parameters:
            parameter.requires_grad_(not self.frozen)

    def before_step(self, step: int) -> None:
        """Freeze or free the encoder for a step, counted from 1, of a network in training mode."""
        self.frozen = step <= self.steps
        for parameter in self.parameters:
            parameter.requires_grad_(not self.frozen)
        for norm in self.norms if self.frozen else ():
            norm.eval()
