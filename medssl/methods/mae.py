"""The masked autoencoder: an encoder that sees a quarter of the patches, a small decoder that restores the others.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021 (https://arxiv.org/abs/2111.06377). Patches of empty
background are left out of the loss: standardised, they are noise.
"""

from typing import Any

import torch
from torch import Tensor

from medssl.config import MAESettings, Pretrain
from medssl.losses import masked_patches, patch_foreground
from medssl.methods.method import Restoring
from medssl.ranks import own, share, world_size
from networks.masked_autoencoder import MaskedAutoEncoder
from networks.vit import ViT
from transforms.in_batches import BatchViews
from transforms.joint_views import joint_views


class MAE(Restoring):
    """Restores hidden patches from the visible ones."""

    autoencoder: MaskedAutoEncoder

    def __init__(self, encoder: ViT, settings: Pretrain) -> None:
        super().__init__()
        s = settings.method
        assert isinstance(s, MAESettings)
        self.settings = s
        self.autoencoder = MaskedAutoEncoder(encoder, s.mask_ratio, s.decoder_width, s.decoder_layers, s.decoder_heads)

    @staticmethod
    def views(settings: Pretrain) -> BatchViews:
        """The transform that adds one view: a resized crop, flipped, with its intensities as they are."""
        s = settings.method
        assert isinstance(s, MAESettings)
        still: dict[str, Any] = dict.fromkeys(
            ("gamma_prob", "contrast_prob", "brightness_prob", "noise_prob", "blur_prob"), 0.0
        )
        return joint_views(views=1, size=settings.crop_size, scale=s.scale, flip_prob=s.flip_prob, **still)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of a batch with "view_0" (b, c, *crop_size); which patches are hidden comes from torch's random state.

        Each rank draws for the images of all ranks and takes its own.
        """
        x = batch["view_0"]
        return {"loss": self.loss(x, own(torch.rand(world_size() * len(x), self.autoencoder.patches, device=x.device)))}

    def loss(self, x: Tensor, noise: Tensor) -> Tensor:
        """Loss of images (b, c, *space) whose patches are hidden by `noise` (b, n)."""
        prediction, hidden = self.autoencoder(x, noise)
        patches = self.autoencoder.patchify(x)
        foreground = patch_foreground(patches, self.settings.background)
        weight = share((hidden & foreground).sum())
        return masked_patches(prediction, patches, hidden, foreground, self.settings.normalise) * weight

    def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The same loss with the same patches hidden at every validation."""
        return {"val_loss": self.loss(batch["view_0"], self.fixed_noise(batch["view_0"]))}

    def fixed_noise(self, x: Tensor) -> Tensor:
        """Noise (b, n) that is always the same."""
        return torch.rand(len(x), self.autoencoder.patches, generator=torch.Generator().manual_seed(0)).to(x.device)

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The image, its visible patches and the image restored, with the mean and deviation of each patch given back."""
        x = batch["view_0"]
        prediction, hidden = self.autoencoder(x, self.fixed_noise(x))
        patches = self.autoencoder.patchify(x)
        restored = prediction.float()
        if self.settings.normalise:
            restored = restored * (patches.var(-1, keepdim=True) + 1e-6).sqrt() + patches.mean(-1, keepdim=True)
        gone = hidden[..., None]
        return {
            "image": x,
            "visible": self.autoencoder.unpatchify(torch.where(gone, 0.0, patches)),
            "restored": self.autoencoder.unpatchify(torch.where(gone, restored, patches)),
        }

    @staticmethod
    def chance(settings: Pretrain) -> dict[str, float]:
        """With standardised patches the answer 0 costs their variance, which is 1."""
        assert isinstance(settings.method, MAESettings)
        return {"loss": 1.0} if settings.method.normalise else {}
