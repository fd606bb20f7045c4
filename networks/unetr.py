"""UNETR: a convolutional decoder over the tokens of a ViT. MONAI's own at patch 16, the same design at other patches.

Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation", 2022 (https://arxiv.org/abs/2103.10504).
"""

from collections.abc import Sequence

from monai.networks.blocks.dynunet_block import UnetOutBlock, UnetResBlock, get_conv_layer
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from monai.networks.nets import UNETR as MonaiUNETR
from torch import Tensor, nn

from networks.vit import ViT


def unetr(
    encoder: ViT, out_channels: int, feature_size: int = 16, any_size: bool = False, image_branch: bool = True
) -> nn.Module:
    """Put a UNETR decoder on `encoder`, which becomes the network's `.vit`: (b, c, *image_size) -> (b, classes, *image_size).

    With 12 layers and patches of 16 this is `monai.networks.nets.UNETR`, otherwise `PatchUNETR`, which also takes images
    of other sizes; `any_size` asks for it. Only `PatchUNETR` can do without the branch that sees the image itself.
    """
    if any_size or not image_branch or len(encoder.blocks) != 12 or set(encoder.patch_size) != {16}:
        return PatchUNETR(encoder, out_channels, feature_size, image_branch)
    network: nn.Module = MonaiUNETR(
        in_channels=encoder.in_channels,
        out_channels=out_channels,
        img_size=encoder.image_size,
        feature_size=feature_size,
        hidden_size=encoder.hidden_size,
        mlp_dim=encoder.blocks[0].mlp.linear1.out_features,
        num_heads=encoder.blocks[0].attn.num_heads,
        spatial_dims=len(encoder.image_size),
    )
    network.vit = encoder
    return network


class PatchUNETR(nn.Module):
    """UNETR's decoder for patches of any power of two an axis, such as 8, or 16 x 16 x 4.

    Level k has strides min(2^k, patch) and feature_size * 2^k channels. Level 0 sees the image itself; level k > 0
    sees the hidden states of block layers * k / levels, brought up from the patch grid; the last tokens are the bottom.
    At patch 16 with 12 layers this is MONAI's UNETR, parameter for parameter.

    Without `image_branch` there is no level 0: a transposed convolution makes the logits of level 1, and all that the
    decoder knows came through the encoder, as in SETR (Zheng et al., 2021, https://arxiv.org/abs/2012.15840).
    """

    def __init__(self, encoder: ViT, out_channels: int, feature_size: int = 16, image_branch: bool = True) -> None:
        super().__init__()
        dims, patch = len(encoder.patch_size), encoder.patch_size
        if any(size & (size - 1) for size in patch) or max(patch) < 2:
            raise ValueError(f"patch_size: found {list(patch)}, expected powers of two for a UNETR decoder")
        levels = max(patch).bit_length() - 1
        strides = [[min(2**k, size) for size in patch] for k in range(levels + 1)]
        # rises[k] brings level k + 1 up to level k
        rises = [[below // here for below, here in zip(strides[k + 1], strides[k], strict=True)] for k in range(levels)]
        widths = [feature_size * 2**k for k in range(levels)] + [encoder.hidden_size]
        self.vit = encoder
        self.taps = [len(encoder.blocks) * k // levels for k in range(1, levels)]
        self.image_branch = (
            UnetrBasicBlock(dims, encoder.in_channels, feature_size, 3, 1, "instance", res_block=True) if image_branch else None
        )
        self.token_branches = nn.ModuleList(
            rise(dims, encoder.hidden_size, widths[k], rises[k:][::-1]) for k in range(1, levels)
        )
        self.decoders = nn.ModuleList(
            UnetrUpBlock(dims, widths[k + 1], widths[k], 3, rises[k], "instance", res_block=True)
            for k in range(0 if image_branch else 1, levels)
        )
        self.out = (
            UnetOutBlock(dims, feature_size, out_channels) if image_branch else up(dims, widths[1], out_channels, rises[0])
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens, hidden = self.vit(x)
        grid = self.vit.grid_of(x)
        skips = [self.image_branch(x)] if self.image_branch is not None else []
        for tap, branch in zip(self.taps, self.token_branches, strict=True):
            skips.append(branch(self.vit.to_map(hidden[tap], grid)))
        x = self.vit.to_map(tokens, grid)
        for decoder, skip in zip(reversed(self.decoders), reversed(skips), strict=True):
            x = decoder(x, skip)
        logits: Tensor = self.out(x)
        return logits


def rise(dims: int, in_channels: int, out_channels: int, factors: Sequence[Sequence[int]]) -> nn.Sequential:
    """Bring tokens up from the patch grid: a transposed convolution, then one with a residual block for each further level."""
    layers = [up(dims, in_channels, out_channels, factors[0])]
    for factor in factors[1:]:
        layers += [
            up(dims, out_channels, out_channels, factor),
            UnetResBlock(dims, out_channels, out_channels, 3, 1, "instance"),
        ]
    return nn.Sequential(*layers)


def up(dims: int, in_channels: int, out_channels: int, factor: Sequence[int]) -> nn.Module:
    """A transposed convolution whose stride is its kernel."""
    layer: nn.Module = get_conv_layer(
        dims, in_channels, out_channels, kernel_size=factor, stride=factor, conv_only=True, is_transposed=True
    )
    return layer
