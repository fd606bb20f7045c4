"""Heads over any encoder."""

import pytest
import torch
from torch import nn

from networks import build_encoder
from networks.heads import Classifier, mlp

SMALL = {"vit_tiny": {"patch_size": (8, 8), "layers": 2}, "resnet18": {"width": 4}}


@pytest.mark.parametrize("name", SMALL)
def test_classifier_uses_the_pooled_vector(name: str) -> None:
    network = Classifier(build_encoder(name, 1, (32, 32), **SMALL[name]), 4).eval()
    x = torch.rand(3, 1, 32, 32)
    assert network(x).shape == (3, 4)
    torch.testing.assert_close(network(x), network.head(network.encoder.features(x).pooled))


@pytest.mark.parametrize("name", SMALL)
def test_the_mlp_head_is_fastais(name: str) -> None:
    """By hand: mean and maximum over positions, then norm, linear, ReLU, norm, linear; trained a little beforehand."""
    network, x = Classifier(build_encoder(name, 1, (64, 64), **SMALL[name]), 3, "mlp"), torch.rand(4, 1, 64, 64)
    for step in range(3):
        torch.manual_seed(step)
        network(x).square().sum().backward()
    network.eval()
    norm, _, first, _, second_norm, _, last = network.head
    positions = network.encoder.features(x).maps[-1].flatten(2).unbind(2)
    v = torch.cat([sum(positions) / len(positions), torch.stack(positions).amax(0)], 1)
    v = (v - norm.running_mean) / (norm.running_var + norm.eps).sqrt() @ first.weight.T
    v = (v.clamp(min=0) - second_norm.running_mean) / (second_norm.running_var + second_norm.eps).sqrt()
    torch.testing.assert_close(network(x), v @ last.weight.T + last.bias, atol=1e-5, rtol=1e-5)
    assert [layer.p for layer in network.head if isinstance(layer, nn.Dropout)] == [0.25, 0.5]
    assert (first.out_features, first.bias, network(x).shape) == (512, None, (4, 3))
    assert [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())] == []


def test_heads_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="head: found cosine, expected linear or mlp"):
        Classifier(build_encoder("resnet18", 1, (32, 32), width=4), 2, "cosine")


@pytest.mark.parametrize(
    ("norm", "last_norm", "kinds", "biases"),
    [
        (True, False, ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"], [False, False, True]),
        (True, True, ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"], [False, False, False]),
        (False, False, ["Linear", "ReLU"] * 2 + ["Linear"], [True, True, True]),
        (False, True, ["Linear", "ReLU"] * 2 + ["Linear", "BatchNorm1d"], [True, True, False]),
    ],
)
def test_the_layers_of_a_projector(norm: bool, last_norm: bool, kinds: list[str], biases: list[bool]) -> None:
    projector = mlp([6, 5, 4, 3], norm, last_norm)
    assert [type(layer).__name__ for layer in projector] == kinds
    linears = [layer for layer in projector if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [(6, 5), (5, 4), (4, 3)]
    assert [layer.bias is not None for layer in linears] == biases


def test_a_last_norm_standardises_and_learns_nothing() -> None:
    projector = mlp([6, 5, 3], last_norm=True)
    z = projector(torch.randn(64, 6) * 7 + 2)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3), atol=1e-2, rtol=0)
    assert not list(projector[-1].parameters())


def test_a_single_linear_layer_and_what_is_too_short() -> None:
    assert [type(layer) for layer in mlp([6, 3])] == [nn.Linear]
    for widths in ([6], [], [6, 0, 3]):
        with pytest.raises(ValueError, match=r"widths: found \[.*\], expected two or more positive numbers"):
            mlp(widths)
