"""The vision transformer encoder: MONAI's own `ViT`, key for key, so that its weights load into any MONAI network.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021 (https://arxiv.org/abs/2010.11929).
Axis letters: b batch, c channel, d h w space (two of them in 2D), n tokens, e embedding.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import torch
from monai.networks.nets import ViT as MonaiViT
from torch import Tensor

from networks.block import Block
from networks.features import Encoder, Features, normaliser
from networks.products import cut, embed

__all__ = ["Features", "ViT", "hidden_states", "prepare", "resize_positions"]


class ViT(MonaiViT, Encoder):  # type: ignore[misc]
    """MONAI's ViT with its grid remembered, its blocks computed by `Block`, and `features`.

    The keys are exactly those of `monai.networks.nets.ViT`. There is no class token: the pooled vector is the mean
    of the normalised tokens. Images of another size than `image_size` get interpolated position embeddings.
    """

    family = "vision transformers"
    landmark = first = "patch_embedding.patch_embeddings.weight"
    patch_embedding: Any  # these three are MONAI's, which has no types
    blocks: Any
    norm: Any

    def __init__(
        self,
        in_channels: int,
        image_size: Sequence[int],
        patch_size: Sequence[int],
        hidden_size: int = 768,
        mlp_size: int = 3072,
        layers: int = 12,
        heads: int = 12,
        *,
        normalise: str = "none",
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
        self.spatial_dims = len(image_size)
        self.image_size = tuple(image_size)
        self.patch_size = self.stride = tuple(patch_size)
        self.hidden_size = self.width = hidden_size
        self.grid = tuple(i // p for i, p in zip(image_size, patch_size, strict=True))
        self.halfway = 1 + layers // 2
        self.normalise = normaliser(normalise, in_channels, self.spatial_dims)
        prepare(self.blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode images (b, c, *space) into normalised tokens (b, n, e) and the hidden tokens of every block."""
        return self.encode(self.embed(x))

    def features(self, x: Tensor) -> Features:
        """Encode images (b, c, *space) into the feature maps of all blocks, the last one normalised, and the pooled vector."""
        tokens, hidden = self(x)
        grid = self.grid_of(x)
        return Features([self.to_map(h, grid) for h in [*hidden[:-1], tokens]], tokens.mean(1))

    def layers(self) -> list[torch.nn.Module]:
        """The patch and position embedding, every block, the last norm."""
        return [self.patch_embedding, *self.blocks, self.norm]

    def embed(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Cut images (b, c, *space) into tokens (b, n, e) with their positions added; space in multiples of the patch.

        With `kept` (b, k) only the patches of these numbers become tokens: (b, k, e).
        """
        grid, positions = self.grid_of(x), self.patch_embedding.position_embeddings
        if grid != self.grid:
            positions = resize_positions(positions, self.grid, grid)
        patches = cut(self.normalise(x), self.patch_size)
        if kept is not None:
            patches, positions = (chosen(rows, kept) for rows in (patches, positions.expand(len(x), -1, -1)))
        tokens: Tensor = embed(self.patch_embedding.patch_embeddings, patches) + positions
        return tokens

    def encode(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pass embedded tokens (b, n, e), all of an image's or some, through the blocks: the last ones normalised, and all."""
        hidden = hidden_states(self.blocks, tokens)
        last: Tensor = self.norm(hidden[-1])
        return last, hidden

    def grid_of(self, x: Tensor) -> tuple[int, ...]:
        """The patch grid of images (b, c, *space); raises ValueError where space is no multiple of the patch."""
        space = tuple(x.shape[2:])
        if len(space) != self.spatial_dims or any(i % p for i, p in zip(space, self.patch_size, strict=True)):
            raise ValueError(f"image: found {list(space)} voxels, expected multiples of patch_size {list(self.patch_size)}")
        return tuple(i // p for i, p in zip(space, self.patch_size, strict=True))

    def to_map(self, tokens: Tensor, grid: Sequence[int] | None = None) -> Tensor:
        """Lay tokens (b, n, e) out on a patch grid, by default that of `image_size`: (b, e, *grid)."""
        grid = tuple(grid or self.grid)
        if tokens.shape[1] != prod(grid):
            raise ValueError(f"tokens: found {tokens.shape[1]}, expected {prod(grid)} for the grid {grid}")
        laid_out: Tensor = tokens.transpose(1, 2).unflatten(2, grid)
        return laid_out


def hidden_states(blocks: Iterable[Any], tokens: Tensor) -> list[Tensor]:
    """Pass tokens (b, n, e) through transformer blocks and keep what each gives."""
    hidden = []
    for block in blocks:
        tokens = block(tokens)
        hidden.append(tokens)
    return hidden


def prepare(blocks: Iterable[Any]) -> None:
    """Have MONAI's blocks computed as `Block`, and freeze what they keep but never use.

    Distributed training stops on parameters without a gradient.
    """
    for block in blocks:
        block.__class__ = Block  # the same weights under the same names
        block.norm_cross_attn.requires_grad_(False)


def chosen(rows: Tensor, numbers: Tensor) -> Tensor:
    """Of rows (b, n, e) those of the numbers (b, k): (b, k, e)."""
    return rows.gather(1, numbers.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))


def resize_positions(positions: Tensor, old_grid: Sequence[int], new_grid: Sequence[int]) -> Tensor:
    """Interpolate position embeddings (1, n, e) from one patch grid to another, linearly over space."""
    mode = "trilinear" if len(old_grid) == 3 else "bilinear"
    laid_out = positions.float().transpose(1, 2).unflatten(2, tuple(old_grid))
    resized = torch.nn.functional.interpolate(laid_out, size=tuple(new_grid), mode=mode, align_corners=False)
    flat: Tensor = resized.flatten(2).transpose(1, 2)
    return flat.to(positions.dtype)
