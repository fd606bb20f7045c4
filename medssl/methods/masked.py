"""Masked reconstruction: an image is restored that lies under boxes of random size.

The encoder-decoder of system B; Pathak et al., "Context Encoders: Feature Learning by Inpainting", 2016
(https://arxiv.org/abs/1604.07379).
"""

from typing import Any

import torch
from torch import Tensor

from medssl.config import MaskedSettings, Pretrain
from medssl.losses import masked_l1, masked_l2
from medssl.methods.method import Restoring
from medssl.ranks import share
from networks.autoencoder import autoencoder
from networks.features import Encoder
from transforms.in_batches import BatchViews
from transforms.masked import masked_views


class Masked(Restoring):
    """Restores the image from one that is partly hidden."""

    def __init__(self, encoder: Encoder, settings: Pretrain) -> None:
        super().__init__()
        assert isinstance(settings.method, MaskedSettings)
        self.settings = settings.method
        self.autoencoder = autoencoder(encoder, decoder_channels=settings.network.decoder_channels)  # type: ignore[union-attr]

    @staticmethod
    def views(settings: Pretrain) -> BatchViews:
        """The transform that adds the hidden image, `view_0`, and what is hidden, `mask`."""
        assert isinstance(settings.method, MaskedSettings)
        return masked_views(**settings.method.model_dump(exclude={"name", "loss", "hidden_only"}))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of a batch with "image" and "view_0" (b, c, *crop_size) and "mask" (b, 1, *crop_size)."""
        restored = self.autoencoder(batch["view_0"])
        distance = masked_l1 if self.settings.loss == "l1" else masked_l2
        mask = batch["mask"]
        hidden = distance(restored, batch["image"], mask) * share(mask.sum())
        whole = distance(restored, batch["image"], torch.ones_like(mask))
        return {"loss": hidden if self.settings.hidden_only else whole, "hidden": hidden}

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The image, what the network saw of it and what it made of that, only under the boxes where only they count."""
        image, restored = batch["image"], self.autoencoder(batch["view_0"]).float()
        if self.settings.hidden_only:
            restored = torch.where(batch["mask"], restored, image)
        return {"image": image, "hidden": batch["view_0"], "restored": restored}
