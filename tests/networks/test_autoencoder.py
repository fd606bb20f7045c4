"""Autoencoders of every family, 2D and 3D."""

from typing import Any

import pytest
import torch

from networks import build_encoder
from networks.autoencoder import ConvAutoEncoder, ViTAutoEncoder, autoencoder

CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("vit_tiny", (16, 24), {"patch_size": (8, 4), "layers": 2}),
    ("vit_tiny", (16, 16, 8), {"patch_size": (8, 8, 4), "layers": 2}),
    ("resnet18", (64, 32), {"width": 4}),
    ("resnet18", (32, 16, 16), {"width": 4, "stem_pool": False}),
    ("resnet50", (16, 32), {"width": 4, "stem_pool": False, "stem_stride": 1}),
    ("resnet50", (32, 32, 32), {"width": 4, "stem_stride": 1}),
]


@pytest.mark.parametrize(("name", "size", "sizes"), CASES)
@pytest.mark.parametrize("out_channels", [None, 3])
def test_shape_and_gradients(name: str, size: tuple[int, ...], sizes: dict[str, Any], out_channels: int | None) -> None:
    network = autoencoder(build_encoder(name, 2, size, **sizes), out_channels, decoder_channels=4)
    assert isinstance(network, ViTAutoEncoder if name.startswith("vit") else ConvAutoEncoder)
    x = torch.rand(2, 2, *size)
    restored = network(x)
    assert restored.shape == (2, out_channels or 2, *size)
    restored.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_decoder_knows_only_the_last_map() -> None:
    """No skip connections: with the last map at zero, two images are restored alike."""
    network = autoencoder(build_encoder("resnet18", 1, (64, 64), width=4), decoder_channels=4).eval()
    network.encoder.layer4.register_forward_hook(lambda *_: torch.zeros(2, 32, 2, 2))
    first, second = network(torch.rand(2, 1, 64, 64))
    assert torch.equal(first, second)


def test_the_level_of_the_grey_values_comes_through() -> None:
    """A constant added to the last map is not normalised away."""
    network = autoencoder(build_encoder("resnet18", 1, (64, 64), width=4), decoder_channels=4).eval()
    latent = torch.rand(1, 32, 2, 2).repeat(2, 1, 1, 1)
    latent[1] *= 2
    dim, bright = network.decoder(latent)
    assert (dim - bright).abs().mean() > 0.1 * dim.abs().mean()


def test_the_widths_halve_to_the_decoders_channels() -> None:
    network = autoencoder(build_encoder("resnet50", 1, (64, 64), width=4), decoder_channels=6)
    ups = [layer for layer in network.decoder if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [(up.in_channels, up.out_channels) for up in ups] == [(128, 96), (96, 48), (48, 24), (24, 12), (12, 6)]


@pytest.mark.parametrize(
    ("name", "size", "sizes", "message"),
    [
        ("resnet18", (64, 48), {"width": 4}, r"image: found \[64, 48\] voxels, expected multiples of the stride \[32, 32\]"),
        ("vit_tiny", (16, 20), {"patch_size": (8, 8), "layers": 2}, r"image: found \[16, 20\] voxels, .* patch_size \[8, 8\]"),
    ],
)
def test_images_that_do_not_fit_are_refused(name: str, size: tuple[int, ...], sizes: dict[str, Any], message: str) -> None:
    network = autoencoder(build_encoder(name, 1, (64, 64), **sizes))
    with pytest.raises(ValueError, match=message):
        network(torch.rand(1, 1, *size))
