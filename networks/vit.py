"""The vision transformer encoder: MONAI's own `ViT`, key for key, so that its weights load into any MONAI network.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021 (https://arxiv.org/abs/2010.11929).
Axis letters: b batch, c channel, d h w space (two of them in 2D), n tokens, e embedding.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from monai.networks.nets import ViT as MonaiViT
from torch import Tensor


class Features(NamedTuple):
    """What every encoder gives: one feature map a block, (b, e, *grid) each, and the pooled vector (b, e)."""

    maps: list[Tensor]
    pooled: Tensor


class ViT(MonaiViT):  # type: ignore[misc]
    """MONAI's ViT with its grid remembered, fused attention where it is faster, and `features`.

    The keys are exactly those of `monai.networks.nets.ViT`. There is no class token: the pooled vector is the mean
    of the normalised tokens. `norm_cross_attn`, which MONAI keeps but never uses, is frozen, since distributed
    training stops on parameters without a gradient.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: Sequence[int],
        patch_size: Sequence[int],
        hidden_size: int = 768,
        mlp_size: int = 3072,
        layers: int = 12,
        heads: int = 12,
    ) -> None:
        """Build an encoder for images of `image_size` voxels; every axis must be a multiple of its patch."""
        if len(image_size) != len(patch_size) or any(i % p for i, p in zip(image_size, patch_size, strict=True)):
            raise ValueError(f"image_size: found {list(image_size)}, expected multiples of patch_size {list(patch_size)}")
        super().__init__(
            in_channels=in_channels,
            img_size=tuple(image_size),
            patch_size=tuple(patch_size),
            hidden_size=hidden_size,
            mlp_dim=mlp_size,
            num_layers=layers,
            num_heads=heads,
            spatial_dims=len(image_size),
        )
        self.in_channels = in_channels
        self.image_size = tuple(image_size)
        self.patch_size = tuple(patch_size)
        self.hidden_size = hidden_size
        self.grid = tuple(i // p for i, p in zip(image_size, patch_size, strict=True))
        for block in self.blocks:
            block.norm_cross_attn.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode images (b, c, *image_size) into normalised tokens (b, n, e) and the hidden tokens of every block.

        Attention is fused on a GPU only: on a CPU it took 1.5 to 1.8 times as long, forward and backward. (There is no
        dropout, so that MONAI's dropout of fused attention in eval mode has nothing to drop.)
        """
        for block in self.blocks:
            block.attn.use_flash_attention = x.is_cuda
        tokens, hidden = super().forward(x)
        return tokens, hidden

    def features(self, x: Tensor) -> Features:
        """Encode images (b, c, *image_size) into the feature maps of all blocks and the pooled vector."""
        tokens, hidden = self(x)
        return Features([self.to_map(h) for h in hidden], tokens.mean(1))

    def to_map(self, tokens: Tensor) -> Tensor:
        """Lay tokens (b, n, e) out on the patch grid: (b, e, *grid)."""
        if tokens.shape[1] != prod(self.grid):
            raise ValueError(f"tokens: found {tokens.shape[1]}, expected {prod(self.grid)} for the grid {self.grid}")
        laid_out: Tensor = tokens.transpose(1, 2).unflatten(2, self.grid)
        return laid_out


def resize_positions(positions: Tensor, old_grid: Sequence[int], new_grid: Sequence[int]) -> Tensor:
    """Interpolate position embeddings (1, n, e) from one patch grid to another, linearly over space."""
    mode = "trilinear" if len(old_grid) == 3 else "bilinear"
    laid_out = positions.float().transpose(1, 2).unflatten(2, tuple(old_grid))
    resized = torch.nn.functional.interpolate(laid_out, size=tuple(new_grid), mode=mode, align_corners=False)
    flat: Tensor = resized.flatten(2).transpose(1, 2)
    return flat.to(positions.dtype)
