"""SimCLR: two views of a crop are told from the views of all other crops.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020
(https://arxiv.org/abs/2002.05709): encoder, a projector of two layers that is thrown away, NT-Xent over all ranks.
"""

from typing import Any

from torch import Tensor

from medssl.config import Pretrain
from medssl.losses import nt_xent, nt_xent_chance
from medssl.methods.joint import TwoViews
from medssl.ranks import gathered, numbered


class SimCLR(TwoViews):
    """NT-Xent between the projected views of a batch."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of a batch with two views, each (b, c, *crop_size)."""
        a, b = self.projected(batch)
        groups = gathered(numbered(batch["patient"]).to(a.device)) if self.settings.spare_same_patient else None
        return {"loss": nt_xent(a, b, self.settings.temperature, groups)}

    @staticmethod
    def chance(settings: Pretrain) -> dict[str, float]:
        """The loss of a network that cannot tell the pairs apart."""
        return {"loss": nt_xent_chance(settings.part_size)}
