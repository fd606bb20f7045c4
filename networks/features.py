"""What every encoder is and gives, so that heads, decoders and methods work with any of them.

Axis letters: b batch, c channel, e embedding.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """What an encoder gives: feature maps from the image down, (b, e, *grid) each, and the pooled vector (b, width).

    The pooled vector is the mean of the last map over its positions.
    """

    maps: list[Tensor]
    pooled: Tensor


class Encoder(nn.Module):
    """The network that is kept. `family` to `renamed` say how its weights are known in a file (see transfer)."""

    family: ClassVar[str]  # its name in messages
    landmark: ClassVar[str]  # a tensor's name that tells where in a file the encoder stands
    first: ClassVar[str]  # the weight of its first convolution
    renamed: ClassVar[tuple[tuple[str, str], ...]] = ()  # parts of names in files of other projects, and ours
    in_channels: int
    spatial_dims: int
    width: int  # the length of the pooled vector
    stride: tuple[int, ...]  # voxels of the image, an axis each, for one position of the last feature map
    halfway: int  # how many of `layers` are its lower half

    def features(self, x: Tensor) -> Features:
        """Encode images (b, c, *space) into feature maps and the pooled vector."""
        raise NotImplementedError

    def layers(self) -> list[nn.Module]:
        """All that has weights, from the image up: what comes before the blocks, every block, what comes after (or nothing)."""
        raise NotImplementedError


def refuse_partial_positions(x: Tensor, encoder: Encoder) -> None:
    """Raise ValueError for images (b, c, *space) whose sides are no multiples of the encoder's stride."""
    stride = encoder.stride
    if any(size % step for size, step in zip(x.shape[2:], stride, strict=True)):
        raise ValueError(f"image: found {list(x.shape[2:])} voxels, expected multiples of the stride {list(stride)}")


class Normalise(nn.Module):
    """Images of 0..1 on the scale that weights trained on ImageNet expect; grey images with the mean of the three channels.

    Nothing of it is in the state dict, so that an encoder keeps the keys that it has without it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, spatial_dims: int) -> None:
        super().__init__()
        if channels not in {1, 3}:
            raise ValueError(f"normalise: found imagenet with {channels} channels, expected 1 or 3")
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            a_channel = torch.tensor(values) if channels == 3 else torch.tensor(values).mean(0, keepdim=True)
            self.register_buffer(name, a_channel.reshape(1, -1, *[1] * spatial_dims), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def normaliser(normalise: str, channels: int, spatial_dims: int) -> nn.Module:
    """The layer in front of an encoder that the setting `normalise` names: none or imagenet. Raises ValueError."""
    if normalise not in {"none", "imagenet"}:
        raise ValueError(f"normalise: found {normalise}, expected none or imagenet")
    return Normalise(channels, spatial_dims) if normalise == "imagenet" else nn.Identity()
