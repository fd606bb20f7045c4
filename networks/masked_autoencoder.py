"""The masked autoencoder: the encoder sees only the kept patches, a small decoder restores the others.

He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021 (https://arxiv.org/abs/2111.06377), in 2D and 3D and
without a class token. Axis letters: b batch, c channel, n tokens, e embedding, k kept tokens, p voxels of a patch.
"""

from collections.abc import Sequence
from math import prod

import torch
from einops import rearrange
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor, nn

from networks.vit import ViT, hidden_states, prepare


class MaskedAutoEncoder(nn.Module):
    """A ViT on int(n * (1 - mask_ratio)) of an image's n patches, and a narrower transformer that predicts all of them.

    Images are (b, c, *image_size) of the encoder. Raises ValueError for a ratio that masks no patch or all of them.
    """

    positions: Tensor

    def __init__(
        self,
        encoder: ViT,
        mask_ratio: float = 0.75,
        decoder_width: int = 512,
        decoder_layers: int = 8,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__()
        self.patches = patches = prod(encoder.grid)
        self.kept = int(patches * (1 - mask_ratio) + 1e-9)  # without rounding 10 * (1 - 0.9) down to 0
        if not 0 < self.kept < patches:
            raise ValueError(f"mask_ratio: found {mask_ratio}, expected one that keeps and masks some of {patches} patches")
        if decoder_width % decoder_heads:
            raise ValueError(f"decoder_width: found {decoder_width}, expected a multiple of decoder_heads {decoder_heads}")
        self.encoder = encoder
        self.to_decoder = nn.Linear(encoder.width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("positions", sincos_positions(encoder.grid, decoder_width), persistent=False)
        blocks = [TransformerBlock(decoder_width, 4 * decoder_width, decoder_heads) for _ in range(decoder_layers)]
        self.blocks = nn.ModuleList(blocks)
        prepare(self.blocks)
        self.norm = nn.LayerNorm(decoder_width)
        self.head = nn.Linear(decoder_width, prod(encoder.patch_size) * encoder.in_channels)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict the patches of images: (b, n, p * c) as `patchify` cuts them, and which were masked, (b, n) bool.

        The patches with the least `noise` (b, n) are kept; without it, it is drawn from torch's random state.
        """
        if tuple(x.shape[2:]) != self.encoder.image_size:
            raise ValueError(f"image: found {list(x.shape[2:])} voxels, expected {list(self.encoder.image_size)}")
        if noise is None:
            noise = torch.rand(len(x), prod(self.encoder.grid), device=x.device)
        kept = noise.argsort(1)[:, : self.kept]
        masked = torch.ones_like(noise, dtype=torch.bool).scatter(1, kept, False)
        return self.decode(self.encode_kept(x, kept), kept), masked

    def encode_kept(self, x: Tensor, kept: Tensor) -> Tensor:
        """Encode the patches number `kept` (b, k) of images, all others unseen: (b, k, e)."""
        return self.encoder.encode(self.encoder.embed(x, kept))[0]

    def decode(self, latent: Tensor, kept: Tensor) -> Tensor:
        """Predict all patches (b, n, p * c) from the encoded ones (b, k, e) and their numbers (b, k)."""
        visible = self.to_decoder(latent)
        tokens = self.mask_token.to(visible.dtype).expand(len(visible), prod(self.encoder.grid), -1)
        tokens = tokens.scatter(1, kept.unsqueeze(-1).expand_as(visible), visible) + self.positions
        prediction: Tensor = self.head(self.norm(hidden_states(self.blocks, tokens)[-1]))
        return prediction

    def patchify(self, x: Tensor) -> Tensor:
        """Cut images (b, c, *image_size) into patches (b, n, p * c), in the order of the encoder's tokens."""
        image, patches, sizes = patch_patterns(self.encoder.grid, self.encoder.patch_size)
        cut: Tensor = rearrange(x, f"{image} -> {patches}", **sizes)
        return cut

    def unpatchify(self, x: Tensor) -> Tensor:
        """Put patches (b, n, p * c) together again: (b, c, *image_size)."""
        image, patches, sizes = patch_patterns(self.encoder.grid, self.encoder.patch_size)
        whole: Tensor = rearrange(x, f"{patches} -> {image}", **sizes)
        return whole


def patch_patterns(grid: Sequence[int], patch_size: Sequence[int]) -> tuple[str, str, dict[str, int]]:
    """The two sides of an einops pattern, image and patches, and its sizes; in 2D (h p0) (w p1) and (h w) (p0 p1 c)."""
    cells = ["h", "w", "d"][: len(grid)]
    voxels = [f"p{axis}" for axis in range(len(grid))]
    image = " ".join(f"({cell} {voxel})" for cell, voxel in zip(cells, voxels, strict=True))
    sizes = dict(zip([*cells, *voxels], [*grid, *patch_size], strict=True))
    return f"b c {image}", f"b ({' '.join(cells)}) ({' '.join(voxels)} c)", sizes


def sincos_positions(grid: Sequence[int], width: int) -> Tensor:
    """Fixed position embeddings (1, n, width) for a patch grid of two or three axes, after Vaswani et al., 2017.

    Each axis has an equal part of the width: sin(i * w), then cos(i * w), of a patch's index i on it, with the frequencies
    w = 10000^(-j / J), j = 0..J-1, J = width // (2 * axes). What is left of the width is zero.
    """
    count = width // (2 * len(grid))
    if count == 0:
        raise ValueError(f"decoder_width: found {width}, expected {2 * len(grid)} or more for {len(grid)} axes")
    frequencies = 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)
    indices = torch.cartesian_prod(*(torch.arange(size, dtype=torch.float64) for size in grid))  # (n, axes)
    angles = indices.unsqueeze(-1) * frequencies
    embedding = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return nn.functional.pad(embedding, (0, width - embedding.shape[1])).float().unsqueeze(0)
