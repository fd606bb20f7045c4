"""The residual encoders: MONAI's own `ResNet` without its last layer, in 2D and 3D.

He et al., "Deep Residual Learning for Image Recognition", 2016 (https://arxiv.org/abs/1512.03385). In 2D with three
channels the keys and outputs are those of the common ImageNet weights, which MONAI's defaults are not: they have
a first stride of 1 and biases in the shortcuts.
"""

from collections.abc import Sequence

from monai.networks.nets.resnet import ResNet as MonaiResNet
from torch import Tensor, nn

from networks.features import Encoder, Features, normaliser

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNet(MonaiResNet, Encoder):  # type: ignore[misc]
    """MONAI's ResNet with `features`: the maps of the stem and of the four stages, pooled by the mean over positions.

    Keys of `monai.networks.nets.resnet50(..., bias_downsample=False, feed_forward=False)`; images of any size.
    """

    family = "ResNets"
    landmark = "layer1.0.conv1.weight"
    first = "conv1.weight"
    conv1: nn.Module  # these are MONAI's, which has no types
    bn1: nn.Module
    act: nn.Module
    maxpool: nn.Module
    avgpool: nn.Module
    in_planes: int

    def __init__(
        self,
        in_channels: int,
        image_size: Sequence[int],
        block: str,
        layers: Sequence[int],
        *,
        stem_stride: int = 2,
        stem_pool: bool = True,
        width: int = 64,
        normalise: str = "none",
    ) -> None:
        """Build an encoder whose first stage has `width` planes; of `image_size` only the number of axes matters.

        Small images want `stem_stride` 1 and no `stem_pool`: neither has weights, so that the keys stay.
        """
        dims = len(image_size)
        super().__init__(
            block=block,
            layers=list(layers),
            block_inplanes=[width * 2**stage for stage in range(4)],
            spatial_dims=dims,
            n_input_channels=in_channels,
            conv1_t_stride=stem_stride,
            no_max_pool=not stem_pool,
            feed_forward=False,
            bias_downsample=False,
        )
        self.in_channels = in_channels
        self.spatial_dims = dims
        self.width = self.in_planes  # MONAI counts the channels up to the last stage
        first = stem_stride * (2 if stem_pool else 1)
        self.map_strides = [stem_stride, *(first * 2**stage for stage in range(4))]  # of the five maps
        self.map_channels = [width, *(self.in_planes // 2**stage for stage in reversed(range(4)))]
        self.stride = (self.map_strides[-1],) * dims
        self.halfway = 1 + layers[0] + layers[1]
        self.normalise = normaliser(normalise, in_channels, dims)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (b, c, *space) into the pooled vector (b, width), as MONAI's without its last layer."""
        return self.features(x).pooled

    def features(self, x: Tensor) -> Features:
        """Encode images (b, c, *space) into five maps, stem (before its pooling) and stages, and the pooled vector."""
        stem = self.act(self.bn1(self.conv1(self.normalise(x))))
        maps = [stem]
        x = stem if self.no_max_pool else self.maxpool(stem)
        for stage in STAGES:
            x = self.get_submodule(stage)(x)
            maps.append(x)
        return Features(maps, self.avgpool(x).flatten(1))

    def layers(self) -> list[nn.Module]:
        """The stem, every residual block, and nothing above them."""
        blocks = [block for stage in STAGES for block in self.get_submodule(stage).children()]
        return [nn.ModuleList([self.conv1, self.bn1]), *blocks, nn.ModuleList()]


def resnet18(in_channels: int, image_size: Sequence[int], **sizes: int | bool | str) -> ResNet:
    """Build the residual encoder of 18 layers; `sizes` are the keyword arguments of `ResNet`."""
    return ResNet(in_channels, image_size, "basic", [2, 2, 2, 2], **sizes)  # type: ignore[arg-type]


def resnet50(in_channels: int, image_size: Sequence[int], **sizes: int | bool | str) -> ResNet:
    """Build the residual encoder of 50 layers, in bottlenecks; `sizes` are the keyword arguments of `ResNet`."""
    return ResNet(in_channels, image_size, "bottleneck", [3, 4, 6, 3], **sizes)  # type: ignore[arg-type]
