"""The fully convolutional network: class scores of a classifier's last three maps, summed from coarse to fine.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2015
(https://arxiv.org/abs/1411.4038), FCN-8s, over a residual encoder. All upsampling is linear, which in the paper is
where two of the three steps start and learn from.
"""

from collections.abc import Sequence

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from networks.resnet import ResNet

MAPS = 3


class FCN(nn.Module):
    """A ResNet as `.encoder`, and a 1 x 1 convolution a map: (b, c, *space) -> logits (b, classes, *space), of any space.

    With the common stem the maps have strides of 8, 16 and 32. Nothing of the image is seen at a finer stride, so
    outlines are coarse: it is the baseline that a U-Net has to beat.
    """

    def __init__(self, encoder: ResNet, out_channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        convolution = Conv[Conv.CONV, encoder.spatial_dims]
        self.scores = nn.ModuleList(convolution(width, out_channels, kernel_size=1) for width in encoder.map_channels[-MAPS:])

    def forward(self, x: Tensor) -> Tensor:
        maps = self.encoder.features(x).maps[-MAPS:]
        *finer, total = [score(found) for score, found in zip(self.scores, maps, strict=True)]
        for scores in reversed(finer):
            total = scores + upsampled(total, scores.shape[2:])
        return upsampled(total, x.shape[2:])


def upsampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate a map (b, c, *grid) linearly to `size`: (b, c, *size)."""
    mode = "trilinear" if len(size) == 3 else "bilinear"
    return nn.functional.interpolate(x, size=tuple(size), mode=mode, align_corners=False)
