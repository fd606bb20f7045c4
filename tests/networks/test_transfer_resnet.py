"""Weights of residual networks load or refuse."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import resnet18 as monai_resnet18
from monai.networks.nets import resnet50 as monai_resnet50
from torch import Tensor, nn

from networks.autoencoder import autoencoder
from networks.heads import Classifier
from networks.resnet import ResNet, resnet18, resnet50
from networks.transfer import TransferError, load_encoder, read_weights, write_weights
from networks.vit import ViT

SMALL: dict[str, Any] = {"width": 8}


def encoder(channels: int = 3, dims: int = 2, **sizes: Any) -> ResNet:
    return resnet18(channels, [32] * dims, **SMALL | sizes).eval()


def disturb(network: nn.Module) -> nn.Module:
    """Give the batch norms statistics and affine parameters of their own."""
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape) + 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def imagenet() -> nn.Module:
    """A network with the keys and shapes of the common ImageNet weights: 320 with the last layer."""
    torch.manual_seed(0)
    theirs = monai_resnet50(spatial_dims=2, n_input_channels=3, num_classes=1000, bias_downsample=False, conv1_t_stride=2)
    return disturb(theirs)


def test_imagenet_weights_load_whole_and_answer_alike(imagenet: nn.Module, tmp_path: Path) -> None:
    state = imagenet.state_dict()
    assert len(state) == 320
    torch.save(state, tmp_path / "resnet50.pth")
    target = resnet50(3, (64, 64)).eval()
    report = load_encoder(target, *read_weights(tmp_path / "resnet50.pth"))
    assert (len(report.loaded), report.adapted, report.missing) == (318, (), ())
    assert report.skipped == ("fc.bias", "fc.weight")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(imagenet.fc(target(x)), imagenet(x))


def test_old_files_lack_the_batch_counters(imagenet: nn.Module) -> None:
    state = {name: value for name, value in imagenet.state_dict().items() if "num_batches_tracked" not in name}
    report = load_encoder(resnet50(3, (64, 64)), state)
    assert (len(report.loaded), len(report.missing)) == (265, 53)
    assert all("num_batches_tracked" in name for name in report.missing)


def test_one_channel_answers_as_grey_repeated_over_three(imagenet: nn.Module) -> None:
    grey, colour = resnet50(1, (64, 64)).double().eval(), deepcopy(imagenet).double()
    assert load_encoder(grey, colour.state_dict()).adapted == ("conv1.weight",)
    x = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(colour.fc(grey(x)), colour(x.expand(-1, 3, -1, -1)))
    rgb = colour.state_dict()["conv1.weight"]
    assert torch.equal(grey.conv1.weight, rgb.sum(1, keepdim=True))


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "backbone.", "net.", "model.student.backbone."])
def test_an_encoder_is_found_under_any_prefix(prefix: str) -> None:
    source, target = disturb(encoder()), encoder()
    state = {prefix + name: value for name, value in source.state_dict().items()}
    report = load_encoder(target, {**state, "head.weight": torch.zeros(2, 2), "other.conv1.weight": torch.zeros(1)})
    assert len(report.loaded) == len(source.state_dict())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(target(x), source(x))


@pytest.mark.parametrize("make", [lambda e: Classifier(e, 4), autoencoder])
def test_an_encoder_is_found_inside_other_networks(make) -> None:  # type: ignore[no-untyped-def]
    source, target = encoder(dims=3), encoder(dims=3)
    assert len(load_encoder(target, make(source).state_dict()).loaded) == len(target.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))


@pytest.mark.parametrize("dims", [2, 3])
def test_written_weights_load_whole_and_into_monai(tmp_path: Path, dims: int) -> None:
    source = resnet18(1, [32] * dims)
    write_weights(tmp_path / "e.safetensors", source, {"network": {"name": "resnet18"}})
    tensors, plan = read_weights(tmp_path / "e.safetensors")
    assert plan == {"network": {"name": "resnet18"}}
    arguments = {"n_input_channels": 1, "feed_forward": False, "bias_downsample": False, "conv1_t_stride": 2}
    assert not any(monai_resnet18(spatial_dims=dims, **arguments).load_state_dict(tensors, strict=True))
    report = load_encoder(resnet18(1, [32] * dims), tensors, plan)
    assert set(report.loaded) == set(source.state_dict())
    assert (report.resized, report.adapted, report.skipped, report.missing) == ((), (), (), ())


def test_monais_shortcut_biases_are_folded_into_the_running_means() -> None:
    """MONAI's default has biases there; the encoder has not, and answers the same."""
    theirs = disturb(monai_resnet18(spatial_dims=3, n_input_channels=1, num_classes=4, conv1_t_stride=2))
    target = resnet18(1, (32, 32, 32)).eval()
    report = load_encoder(target, theirs.state_dict())
    assert report.adapted == tuple(f"layer{stage}.0.downsample.1.running_mean" for stage in (2, 3, 4))
    assert report.skipped == ("fc.bias", "fc.weight")
    x = torch.rand(2, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(theirs.fc(target(x)), theirs(x), atol=1e-4, rtol=1e-4)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


def deeper() -> dict[str, Tensor]:
    """A ResNet of 34 layers has all the tensors of one of 18, and more."""
    return ResNet(3, (32, 32), "basic", [3, 4, 6, 3], **SMALL).state_dict()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: resnet50(3, (32, 32), **SMALL).state_dict(), r"found another architecture \(\d+ misfits: layer1.0.conv1"),
        (lambda: encoder(width=4).state_dict(), r"found another architecture \(\d+ misfits"),
        (deeper, r"found another architecture \(\d+ tensors more: layer1.2.bn1.bias"),
        (lambda: encoder(dims=3).state_dict(), r"found first kernels of \[7, 7, 7\], expected \[7, 7\]"),
        (lambda: without(encoder().state_dict(), "layer4.1.bn2.running_var"), "found 119 of 120 tensors .missing layer4.1.bn2"),
        (lambda: without(encoder().state_dict(), "conv1.weight"), "found no conv1.weight, expected the first convolution"),
        (lambda: ViT(3, (32, 32), (8, 8), 24, 48, 2, 3).state_dict(), "found 0 ResNets among .* tensors, expected one"),
        (lambda: {f"net{k}.{n}": v for k in (1, 2) for n, v in encoder().state_dict().items()}, "found 2 ResNets"),
        (dict, "found 0 ResNets among 0 tensors"),
    ],
)
def test_anything_less_than_the_encoder_is_refused(state, message: str) -> None:  # type: ignore[no-untyped-def]
    target = encoder()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(TransferError, match=message):
        load_encoder(target, state())
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())


def test_2d_weights_are_refused_for_3d_images() -> None:
    with pytest.raises(TransferError, match=r"found first kernels of \[7, 7\], expected \[7, 7, 7\]"):
        load_encoder(encoder(dims=3), encoder().state_dict())
