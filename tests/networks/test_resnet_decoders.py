"""Segmentation over residual encoders: the U-Net and the fully convolutional network."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from networks import build_encoder
from networks.fcn import FCN
from networks.resnet import ResNet
from networks.resnet_unet import ResNetUNet
from networks.transfer import load_encoder

STEMS = list(product((1, 2), (False, True)))


def encoder(name: str = "resnet18", channels: int = 2, dims: int = 2, **sizes: Any) -> ResNet:
    built = build_encoder(name, channels, [64] * dims, **{"width": 4} | sizes)
    assert isinstance(built, ResNet)
    return built


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize(("stem_stride", "stem_pool"), STEMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_full_resolution_for_every_stem_and_gradients_for_every_stage(
    name: str, stem_stride: int, stem_pool: bool, dims: int
) -> None:
    found = encoder(name, dims=dims, stem_stride=stem_stride, stem_pool=stem_pool)
    x = torch.rand(2, 2, *[2 * found.stride[0], 3 * found.stride[0], found.stride[0]][:dims])
    for network in (ResNetUNet(found, 3, feature_size=2), FCN(found, 3)):
        network.zero_grad()
        logits = network(x)
        assert logits.shape == (2, 3, *x.shape[2:])
        functional.cross_entropy(logits, torch.randint(3, (2, *x.shape[2:]))).backward()
        used = {n: p.grad is not None and bool(p.grad.any()) for n, p in network.named_parameters()}
        assert [n for n, was in used.items() if not was] == []


@pytest.mark.parametrize(("stem_stride", "stem_pool"), STEMS)
def test_a_level_for_each_stride_with_doubling_channels(stem_stride: int, stem_pool: bool) -> None:
    found = encoder(stem_stride=stem_stride, stem_pool=stem_pool)
    network = ResNetUNet(found, 3, feature_size=2)
    assert network.levels == [2**k for k in range(found.stride[0].bit_length() - 1)]
    assert [bridge.out_channels for bridge in network.bridges] == [2 * stride for stride in network.levels]
    assert sum(bridge.in_channels for bridge in network.bridges) == 2 + sum(found.map_channels[:-1])  # with the image's


def test_the_image_itself_reaches_the_outlines() -> None:
    """With an encoder that is blind, the U-Net still tells neighbouring voxels apart and the FCN tells nothing."""
    found = encoder().eval()
    for parameter in found.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 2, 64, 64)
    seen, blind = ResNetUNet(found, 3, 4).eval()(x), FCN(found, 3).eval()(x)
    assert (seen[..., 1:] - seen[..., :-1]).abs().mean() > 0.1
    torch.testing.assert_close(blind, blind[..., :1, :1].expand_as(blind))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_fcn_is_a_sum_of_interpolated_scores(dims: int) -> None:
    """By hand: scores at strides 16, 8 and 4, each linear interpolation a product with a matrix an axis."""
    network = FCN(encoder(dims=dims, stem_stride=1), 3).eval()
    x = torch.rand(2, 2, *[48, 32, 16][:dims])
    maps = network.encoder.features(x).maps[2:]
    by_stride = []
    for score, found in zip(network.scores, maps, strict=True):
        weight = score.weight.flatten(1)
        bias = score.bias.view(-1, *[1] * dims)
        by_stride.append(torch.einsum("oc,bc...->bo...", weight, found) + bias)
    total = by_stride[2]
    for scores in (by_stride[1], by_stride[0]):
        total = scores + enlarged(total, 2)
    torch.testing.assert_close(network(x), enlarged(total, 4), atol=1e-5, rtol=1e-5)


def enlarged(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Linear interpolation between the centres of voxels, which beyond the outer centres go on as they are."""
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        weights = torch.zeros(size * factor, size)
        for i in range(size * factor):
            place = min(max((i + 0.5) / factor - 0.5, 0), size - 1)
            low = min(int(place), size - 2) if size > 1 else 0
            weights[i, low] += 1 - (place - low)
            if size > 1:
                weights[i, low + 1] += place - low
        x = torch.tensordot(x, weights, ([axis], [1])).movedim(-1, axis)
    return x


def test_the_fcn_takes_images_of_any_size_and_the_unet_says_which_it_takes() -> None:
    found = encoder()
    assert FCN(found, 3).eval()(torch.rand(1, 2, 50, 37)).shape == (1, 3, 50, 37)
    with pytest.raises(ValueError, match=r"image: found \[64, 48\] voxels, expected multiples of the stride \[32, 32\]"):
        ResNetUNet(found, 3)(torch.rand(1, 2, 64, 48))


@pytest.mark.parametrize("make", [lambda e: ResNetUNet(e, 3, 2), lambda e: FCN(e, 3)])
def test_the_encoder_stays_what_it_was(make) -> None:  # type: ignore[no-untyped-def]
    """Its keys are untouched, and it is found in the state dict of the whole."""
    plain = encoder()
    keys = list(plain.state_dict())
    network = make(plain)
    assert network.encoder is plain
    assert [name.removeprefix("encoder.") for name in network.state_dict() if name.startswith("encoder.")] == keys
    other = encoder()
    assert len(load_encoder(other, network.state_dict()).loaded) == len(keys)
    assert torch.equal(other.conv1.weight, plain.conv1.weight)  # type: ignore[arg-type]
