"""The from-scratch baseline: MONAI's residual U-Net, 2D and 3D.

Ronneberger et al., 2015 (https://arxiv.org/abs/1505.04597), with the residual units of Kerfoot et al., 2018.
"""

from collections.abc import Sequence

from monai.networks.nets import UNet


def unet(spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int]) -> UNet:
    """Build a U-Net: (b, c, *space) -> logits (b, classes, *space); every level halves the space.

    Each axis of the input must be a multiple of 2^(levels - 1).
    """
    return UNet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=tuple(channels),
        strides=(2,) * (len(channels) - 1),
        num_res_units=2,
        norm="instance",
    )
