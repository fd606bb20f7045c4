"""The ViT autoencoder: tokens back to voxels by two transposed convolutions.

As MONAI's `ViTAutoEnc` (16 = 4x4), for any patch size, also anisotropic, and any image size divisible by it, in 2D and 3D.
"""

from math import isqrt

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from networks.vit import ViT


def two_factors(size: int) -> tuple[int, int]:
    """Split a patch size into the two strides of the decoder, the larger first: 16 -> 4, 4; 8 -> 4, 2; 7 -> 7, 1."""
    small = next(factor for factor in range(isqrt(size), 0, -1) if size % factor == 0)
    return size // small, small


class ViTAutoEncoder(nn.Module):
    """An encoder and the decoder that restores the image from its last tokens: (b, c, *image_size) -> the same shape."""

    def __init__(self, encoder: ViT, out_channels: int | None = None, decoder_channels: int = 16) -> None:
        super().__init__()
        self.encoder = encoder
        factors = [two_factors(size) for size in encoder.patch_size]
        first, second = ([pair[k] for pair in factors] for k in (0, 1))
        transposed = Conv[Conv.CONVTRANS, len(factors)]
        self.decoder = nn.Sequential(
            transposed(encoder.hidden_size, decoder_channels, kernel_size=first, stride=first),
            transposed(decoder_channels, out_channels or encoder.in_channels, kernel_size=second, stride=second),
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens, _ = self.encoder(x)
        reconstruction: Tensor = self.decoder(self.encoder.to_map(tokens))
        return reconstruction
