"""Reconstruction with a regularising contrast: MONAI's self-supervised ViT autoencoder.

https://github.com/Project-MONAI/tutorials, self_supervised_pretraining. A crop is corrupted twice; both views are
restored; r is the L1 distance of the first restoration to the crop, c the NT-Xent loss between the flattened
restorations of both, and the loss is r + c * r. Axis letters: b batch, c channel, then space.
"""

from typing import Any

import torch
from torch import Tensor

from medssl.config import Pretrain, ReconContrastSettings
from medssl.losses import at_least_float32, l1, nt_xent_chance, nt_xent_of_products, products, regularized_contrastive
from medssl.methods.method import Restoring
from medssl.ranks import columns, summed
from networks.autoencoder import autoencoder
from networks.features import Encoder
from transforms.in_batches import BatchViews
from transforms.views import recon_contrast_views

VIEWS = ("view_0", "view_1")


class ReconContrast(Restoring):
    """Restores two corrupted views of every crop; the first against the crop, both against each other."""

    VALIDATION = "val_l1"

    def __init__(self, encoder: Encoder, settings: Pretrain) -> None:
        super().__init__()
        assert isinstance(settings.method, ReconContrastSettings)
        self.settings = settings.method
        self.autoencoder = autoencoder(encoder, decoder_channels=settings.network.decoder_channels)  # type: ignore[union-attr]

    @staticmethod
    def views(settings: Pretrain) -> BatchViews:
        """The transform that adds both views to a crop."""
        return recon_contrast_views(**settings.method.model_dump(exclude={"name", "temperature", "contrast", "restored_views"}))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss and parts of a batch with "image" and both views, each (b, c, *crop_size)."""
        first, second = self.reconstruct(batch)
        reconstruction = l1(first, batch["image"])
        if self.settings.restored_views == 2:
            reconstruction = (reconstruction + l1(second, batch["image"])) / 2
        rows = torch.cat([columns(first), columns(second)])  # too long to be gathered
        contrast = nt_xent_of_products(summed(products(at_least_float32(rows))), self.settings.temperature)
        loss = regularized_contrastive(reconstruction, self.settings.contrast * contrast)
        return {"loss": loss, "l1": reconstruction, "nt_xent": contrast}

    def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """L1 of the first view's restoration; the views are the same at every validation."""
        return {"val_l1": l1(self.autoencoder(batch[VIEWS[0]]), batch["image"])}

    def reconstruct(self, batch: dict[str, Any]) -> list[Tensor]:
        """Restore both views in one forward pass: two tensors (b, c, *crop_size)."""
        restored: Tensor = self.autoencoder(torch.cat([batch[name] for name in VIEWS]))
        return list(restored.chunk(2))

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The crop, its views and their restorations."""
        views = {f"view {k}": batch[name] for k, name in enumerate(VIEWS)}
        restored = {f"reconstruction {k}": view for k, view in enumerate(self.reconstruct(batch))}
        return {"image": batch["image"]} | views | restored

    @staticmethod
    def chance(settings: Pretrain) -> dict[str, float]:
        """The contrastive loss of a network that cannot tell the pairs apart."""
        return {"nt_xent": nt_xent_chance(settings.part_size)}
