"""The residual encoders against MONAI's own, whose 2D form has the keys and outputs of the common ImageNet weights."""

import pytest
import torch
from monai.networks.nets import resnet18 as monai_resnet18
from monai.networks.nets import resnet50 as monai_resnet50
from torch import Tensor, nn

from networks import ENCODERS, build_encoder
from networks.features import IMAGENET_MEAN, IMAGENET_STD, Normalise
from networks.resnet import ResNet, resnet18, resnet50

PUBLISHED = {"bias_downsample": False, "conv1_t_stride": 2}


def trained_a_little(network: nn.Module) -> nn.Module:
    """Give every batch norm its own mean, deviation, scale and shift, so that none of them can be missed."""
    generator = torch.Generator().manual_seed(3)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
            value.copy_(torch.rand(value.shape, generator=generator) + low)
    return network.eval()


@pytest.mark.parametrize(("ours", "theirs"), [(resnet18, monai_resnet18), (resnet50, monai_resnet50)])
@pytest.mark.parametrize(("dims", "channels"), [(2, 3), (3, 1)])
def test_outputs_are_exactly_monais(ours, theirs, dims: int, channels: int) -> None:  # type: ignore[no-untyped-def]
    reference = trained_a_little(theirs(spatial_dims=dims, n_input_channels=channels, num_classes=5, **PUBLISHED))
    encoder = ours(channels, [64] * dims).eval()
    encoder.load_state_dict({name: value for name, value in reference.state_dict().items() if not name.startswith("fc.")})
    x = torch.rand(2, channels, *[64, 48, 40][:dims])
    with torch.no_grad():
        features = encoder.features(x)
        assert torch.equal(reference.fc(features.pooled), reference(x))
        assert torch.equal(encoder(x), features.pooled)
    assert features.pooled.shape == (2, encoder.width)
    torch.testing.assert_close(features.maps[-1].flatten(2).mean(2), features.pooled)


def test_the_keys_are_those_of_the_common_imagenet_weights() -> None:
    """318 tensors and the last layer: counted in the published files; a name of every kind is written out."""
    keys = list(resnet50(3, (64, 64)).state_dict())
    assert len(keys) == 318
    assert len(resnet18(3, (64, 64)).state_dict()) == 120
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.num_batches_tracked",
        "layer3.5.conv3.weight",
        "layer4.2.bn3.bias",
    } <= set(keys)
    assert keys == [k for k in monai_resnet50(spatial_dims=2, num_classes=1000, **PUBLISHED).state_dict() if "fc." not in k]


@pytest.mark.parametrize(("stem_stride", "stem_pool"), [(2, True), (2, False), (1, True), (1, False)])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_stride_is_that_of_the_last_map(stem_stride: int, stem_pool: bool, dims: int) -> None:
    size = [64, 32, 32][:dims]
    encoder = resnet18(1, size, stem_stride=stem_stride, stem_pool=stem_pool, width=4).eval()
    maps = encoder.features(torch.rand(1, 1, *size)).maps
    assert [s // step for s, step in zip(size, encoder.stride, strict=True)] == list(maps[-1].shape[2:])
    assert list(maps[0].shape[2:]) == [s // stem_stride for s in size]  # the stem's, before its pooling
    assert [m.shape[1] for m in maps] == encoder.map_channels == [4, 4, 8, 16, 32]
    assert [size[0] // m.shape[2] for m in maps] == encoder.map_strides
    assert encoder.width == 32


def shift_and_scale(x: Tensor, mean: list[float], std: list[float]) -> Tensor:
    return torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(x.shape[1])], 1)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny"])
@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [(3, IMAGENET_MEAN, IMAGENET_STD), (1, [(0.485 + 0.456 + 0.406) / 3], [(0.229 + 0.224 + 0.225) / 3])],
)
def test_normalised_input_and_no_more_keys(name: str, channels: int, mean: list[float], std: list[float]) -> None:
    sizes = {"layers": 2, "patch_size": [8, 8]} if name == "vit_tiny" else {"width": 4}
    plain = build_encoder(name, channels, (32, 32), **sizes).eval()
    normalising = build_encoder(name, channels, (32, 32), normalise="imagenet", **sizes).eval()
    normalising.load_state_dict(plain.state_dict(), strict=True)
    x = torch.rand(2, channels, 32, 32)
    expected = plain.features(shift_and_scale(x, mean, std)).pooled
    torch.testing.assert_close(normalising.features(x).pooled, expected, atol=1e-5, rtol=1e-5)
    if name == "vit_tiny":
        torch.testing.assert_close(normalising(x)[0].mean(1), expected, atol=1e-5, rtol=1e-5)


def test_normalise_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="normalise: found imagenet with 2 channels, expected 1 or 3"):
        resnet18(2, (32, 32), normalise="imagenet")
    with pytest.raises(ValueError, match="normalise: found zscore, expected none or imagenet"):
        resnet18(1, (32, 32), normalise="zscore")
    torch.testing.assert_close(Normalise(3, 3)(torch.full((1, 3, 1, 1, 1), 0.5))[0, 0, 0, 0, 0].item(), 0.015 / 0.229)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_encoder_keeps_the_contract(name: str, dims: int) -> None:
    small = {"resnet": {"width": 4}, "swin_u": {"width": 24}}.get(name[:6], {"patch_size": [8] * dims, "layers": 2})
    encoder = build_encoder(name, 2, [32] * dims, **small)
    features = encoder.features(torch.rand(2, 2, *[32] * dims))
    assert (encoder.in_channels, encoder.spatial_dims) == (2, dims)
    assert features.pooled.shape == (2, encoder.width)
    assert list(features.maps[-1].shape) == [2, encoder.width, *(32 // step for step in encoder.stride)]
    torch.testing.assert_close(features.maps[-1].flatten(2).mean(2), features.pooled, atol=1e-5, rtol=1e-5)


def test_sizes_not_given_are_those_of_the_name() -> None:
    assert build_encoder("vit_small", 1, (32, 32), patch_size=(16, 16)).width == 384
    encoder = build_encoder("resnet50", 1, (32, 32))
    assert isinstance(encoder, ResNet)
    assert (encoder.width, encoder.stride) == (2048, (32, 32))
    with pytest.raises(ValueError, match=r"network: found unet, expected one of vit_tiny, .*resnet50"):
        build_encoder("unet", 1, (32, 32))
