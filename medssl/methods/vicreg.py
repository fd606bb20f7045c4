"""VICReg: equal features of two views, kept from collapse by their variance and covariance.

Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", 2022
(https://arxiv.org/abs/2105.04906).
"""

from typing import Any

from torch import Tensor

from medssl.losses import vicreg
from medssl.methods.joint import TwoViews


class VICReg(TwoViews):
    """Invariance, variance and covariance of the projected views of a batch."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of a batch with two views, each (b, c, *crop_size)."""
        s = self.settings
        return {"loss": vicreg(*self.projected(batch), s.similarity, s.variance, s.covariance)}
