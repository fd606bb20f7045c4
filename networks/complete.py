"""Whole networks of a task, from the plain words and numbers that stand in a JSON file.

What `medssl export` writes for a network that is none of MONAI's own is this function and its arguments.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from networks import build_encoder, builder
from networks.fcn import FCN
from networks.features import Encoder
from networks.heads import Classifier
from networks.resnet import ResNet
from networks.resnet_unet import ResNetUNet
from networks.swin import Swin, swin_unetr
from networks.unetr import unetr
from networks.vit import ViT


def build(
    name: str,
    in_channels: int,
    image_size: Sequence[int],
    outputs: int,
    *,
    head: str | None = None,
    decoder: str = "unet",
    feature_size: int = 16,
    any_size: bool = False,
    **sizes: Any,
) -> nn.Module:
    """Build a network for images (b, in_channels, *image_size): a class a voxel, or with `head` numbers an image.

    `name` is one of NETWORKS, `sizes` those of its encoder; `head` is "linear" or "mlp" and gives (b, outputs), without it
    the network gives (b, outputs, *image_size) by the decoder that `segmenter` chooses. ValueError for what does not fit.
    """
    if name == "unet":
        built: nn.Module = builder(name)(len(image_size), in_channels, outputs, **sizes)
        return built
    encoder = build_encoder(name, in_channels, image_size, **sizes)
    if head is not None:
        return Classifier(encoder, outputs, head)
    return segmenter(encoder, outputs, feature_size, decoder, any_size)


def segmenter(
    encoder: Encoder, outputs: int, feature_size: int = 16, decoder: str = "unet", any_size: bool = False
) -> nn.Module:
    """Put a decoder on an encoder: UNETR's, Swin UNETR's or a U-Net's, which see the image too, or one that does not.

    These are, by `decoder`, "tokens" on a ViT (UNETR's without its image branch) and "fcn" on a ResNet (linear scores).
    """
    if isinstance(encoder, ViT):
        return unetr(encoder, outputs, feature_size, any_size=any_size, image_branch=decoder != "tokens")
    if isinstance(encoder, Swin):
        return swin_unetr(encoder, outputs)
    assert isinstance(encoder, ResNet)
    return FCN(encoder, outputs) if decoder == "fcn" else ResNetUNet(encoder, outputs, feature_size)
