"""Barlow Twins: the cross-correlation between the features of two views is made the identity.

Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021
(https://arxiv.org/abs/2103.03230).
"""

from typing import Any

from torch import Tensor

from medssl.losses import barlow_twins
from medssl.methods.joint import TwoViews


class Barlow(TwoViews):
    """Redundancy reduction between the projected views of a batch."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of a batch with two views, each (b, c, *crop_size)."""
        return {"loss": barlow_twins(*self.projected(batch), self.settings.off_diagonal)}
