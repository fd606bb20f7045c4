"""The Swin transformer of Swin UNETR: MONAI's own `SwinTransformer`, key for key, and MONAI's `SwinUNETR` over it.

Liu et al., "Swin Transformer", 2021 (https://arxiv.org/abs/2103.14030); Tang et al., "Self-Supervised Pre-Training of Swin
Transformers for 3D Medical Image Analysis", 2022 (https://arxiv.org/abs/2111.14791), whose weights load as they are.
"""

from collections.abc import Sequence
from typing import Any

from monai.networks.nets.swin_unetr import SwinTransformer
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import Tensor, nn

from networks.features import Encoder, Features, normaliser, refuse_partial_positions

STRIDE = 32  # patches of 2, halved by each of four stages


class Swin(SwinTransformer, Encoder):  # type: ignore[misc]
    """MONAI's SwinTransformer with `features`: five maps of strides 2 to 32, normalised, pooled by the mean over positions."""

    family = "Swin transformers"
    landmark = "layers1.0.blocks.0.attn.relative_position_bias_table"
    first = "patch_embed.proj.weight"
    renamed = (("mlp.fc1.", "mlp.linear1."), ("mlp.fc2.", "mlp.linear2."))  # as Tang et al. named the perceptron's layers
    patch_embed: nn.Module  # these are MONAI's, which has no types
    layers1: Any
    layers2: Any
    layers3: Any
    layers4: Any

    def __init__(
        self,
        in_channels: int,
        image_size: Sequence[int],
        *,
        width: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        normalise: str = "none",
    ) -> None:
        """Build an encoder of four stages; `width` channels after the patches, doubled by each stage."""
        dims = len(image_size)
        super().__init__(
            in_chans=in_channels,
            embed_dim=width,
            window_size=(window,) * dims,
            patch_size=(2,) * dims,
            depths=tuple(depths),
            num_heads=tuple(heads),
            spatial_dims=dims,
        )
        self.in_channels, self.spatial_dims = in_channels, dims
        self.width = 16 * width
        self.stride = (STRIDE,) * dims
        self.halfway = 3
        self.normalise = normaliser(normalise, in_channels, dims)
        self.sizes = {"feature_size": width, "depths": tuple(depths), "num_heads": tuple(heads), "window_size": window}

    def forward(self, x: Tensor, normalize: bool = True) -> list[Tensor]:
        """Encode images (b, c, *space) into five maps (b, e, *grid), as MONAI's."""
        maps: list[Tensor] = super().forward(self.normalise(x), normalize)
        return maps

    def features(self, x: Tensor) -> Features:
        """Encode images (b, c, *space), space in multiples of 32; raises ValueError for others."""
        refuse_partial_positions(x, self)
        maps = self(x)
        return Features(maps, maps[-1].flatten(2).mean(2))

    def layers(self) -> list[nn.Module]:
        """The patches, every stage, and nothing above them."""
        stages = [self.layers1, self.layers2, self.layers3, self.layers4]
        return [self.patch_embed, *(stage[0] for stage in stages), nn.ModuleList()]


def swin_unetr(encoder: Swin, out_channels: int) -> nn.Module:
    """Put MONAI's SwinUNETR on `encoder`, which becomes the network's `.swinViT`: (b, c, *space) -> (b, classes, *space)."""
    network: nn.Module = MonaiSwinUNETR(
        in_channels=encoder.in_channels, out_channels=out_channels, spatial_dims=encoder.spatial_dims, **encoder.sizes
    )
    network.swinViT = encoder
    return network
