"""Mixup: training images, and what is to be said of them, mixed with those of other images of the batch.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018 (https://arxiv.org/abs/1710.09412). Axis letter: b batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Beta


class Mix(NamedTuple):
    """How a batch is mixed: the share of each image itself, and the number of its partner (b) among `all_of` the images."""

    share: float
    partner: Tensor
    all_of: Callable[[Tensor], Tensor] = lambda x: x  # what the partners' numbers count

    def __call__(self, x: Tensor) -> Tensor:
        """Mix images or numbers (b, ...): share * x + (1 - share) * x[partner]."""
        return x if self.share == 1 else torch.lerp(self.all_of(x)[self.partner.to(x.device)], x, self.share)

    def loss(self, of: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
        """Mix what `of` gives for the targets (b, ...) and for those of the partners: the loss where classes can't be mixed."""
        if self.share == 1:
            return of(targets)
        return self.share * of(targets) + (1 - self.share) * of(self.all_of(targets)[self.partner.to(targets.device)])


def draw_mix(alpha: float, count: int) -> Mix:
    """Draw one share ~ Beta(alpha, alpha) and the partners of `count` images from torch's random state; alpha 0: no mixing."""
    if alpha == 0:
        return Mix(1.0, torch.arange(count))
    return Mix(Beta(alpha, alpha).sample().item(), torch.randperm(count))
