"""Autoencoders: any encoder and a decoder that restores the image from its last feature map alone.

No skip connections: all that the decoder knows came through the encoder, as in Pathak et al., "Context Encoders", 2016
(https://arxiv.org/abs/1604.07379). For a ViT the decoder is that of MONAI's `ViTAutoEnc`.
"""

from itertools import pairwise
from math import isqrt

from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from networks.features import Encoder, refuse_partial_positions
from networks.products import lay, lift
from networks.vit import ViT


class ViTAutoEncoder(nn.Module):
    """A ViT and two transposed convolutions, tokens back to voxels: (b, c, *space) -> (b, out, *space).

    As MONAI's `ViTAutoEnc` (16 = 4x4), for any patch size, also anisotropic, and any image size divisible by it.
    """

    def __init__(self, encoder: ViT, out_channels: int | None = None, decoder_channels: int = 16) -> None:
        super().__init__()
        self.encoder = encoder
        factors = [two_factors(size) for size in encoder.patch_size]
        first, second = self.factors = [[pair[k] for pair in factors] for k in (0, 1)]
        transposed = Conv[Conv.CONVTRANS, len(factors)]
        self.decoder = nn.Sequential(
            transposed(encoder.hidden_size, decoder_channels, kernel_size=first, stride=first),
            transposed(decoder_channels, out_channels or encoder.in_channels, kernel_size=second, stride=second),
        )

    def forward(self, x: Tensor) -> Tensor:
        restored, _ = self.encoder(x)
        for layer in self.decoder:
            restored = lift(layer, restored)
        return lay(restored, self.encoder.grid_of(x), *self.factors)


class ConvAutoEncoder(nn.Module):
    """A convolutional encoder and one doubling step for each halving of it: (b, c, *space) -> (b, out, *space).

    A step is a transposed convolution and a residual block; the widths halve down to `decoder_channels` at full
    resolution. Every axis of the image must be a multiple of the encoder's stride.
    """

    def __init__(self, encoder: Encoder, out_channels: int | None = None, decoder_channels: int = 16) -> None:
        super().__init__()
        self.encoder = encoder
        dims, steps = encoder.spatial_dims, encoder.stride[0].bit_length() - 1
        if set(encoder.stride) != {2**steps}:
            raise ValueError(f"encoder: found strides of {list(encoder.stride)}, expected one power of two")
        widths = [encoder.width, *(decoder_channels * 2**step for step in reversed(range(steps)))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            # what the residual block adds to is not normalised, so that the level of the grey values comes through
            layers += [
                Conv[Conv.CONVTRANS, dims](before, after, kernel_size=2, stride=2),
                UnetResBlock(dims, after, after, kernel_size=3, stride=1, norm_name="instance"),
            ]
        self.decoder = nn.Sequential(*layers, Conv[Conv.CONV, dims](widths[-1], out_channels or encoder.in_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        refuse_partial_positions(x, self.encoder)
        reconstruction: Tensor = self.decoder(self.encoder.features(x).maps[-1])
        return reconstruction


def autoencoder(encoder: Encoder, out_channels: int | None = None, decoder_channels: int = 16) -> nn.Module:
    """Put the decoder on `encoder` that suits it; the network has it as `.encoder`: (b, c, *space) -> (b, out, *space).

    `out_channels` are by default the encoder's input channels. Raises ValueError where an image does not fit.
    """
    if isinstance(encoder, ViT):
        return ViTAutoEncoder(encoder, out_channels, decoder_channels)
    return ConvAutoEncoder(encoder, out_channels, decoder_channels)


def two_factors(size: int) -> tuple[int, int]:
    """Split a patch size into the two strides of the decoder, the larger first: 16 -> 4, 4; 8 -> 4, 2; 7 -> 7, 1."""
    small = next(factor for factor in range(isqrt(size), 0, -1) if size % factor == 0)
    return size // small, small
