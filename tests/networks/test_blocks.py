"""Recomputed blocks are the same to the last bit, statistics of batch norms too, and keep less; compiled ones are the same."""

import copy

import pytest
import torch
from torch import Tensor, nn

from networks import builder
from networks.autoencoder import autoencoder
from networks.blocks import can_compile, compile_blocks, recompute
from networks.resnet import resnet18
from networks.resnet_unet import ResNetUNet
from networks.unetr import unetr
from networks.vit import ViT

VIT = {"hidden_size": 24, "mlp_size": 48, "heads": 3}
NETWORKS = {
    "autoencoder of a ViT": lambda: autoencoder(ViT(1, (16, 16), (4, 4), layers=3, **VIT)),
    "MONAI's UNETR": lambda: unetr(ViT(1, (16, 16, 16), (16, 16, 16), layers=12, **VIT), 2, 4),
    "UNETR": lambda: unetr(ViT(1, (16, 16), (4, 4), layers=4, **VIT), 2, 4),
    "U-Net over a ResNet": lambda: ResNetUNet(resnet18(1, (32, 32), width=8), 2, 4),
    "U-Net": lambda: builder("unet")(2, 1, 2, [4, 8, 16]),
}


def step(network: nn.Module, dims: int) -> tuple[dict[str, Tensor], int]:
    """Weights, buffers and gradients after a step, and the bytes kept for the backward."""
    torch.manual_seed(0)
    x, kept = torch.rand(2, 1, *[32 if dims == 2 else 16] * dims), {}

    def keep(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = (network.train()(x) ** 2).sum()
    bytes_kept = sum(size for place, size in kept.items() if place not in weights)
    loss.backward()
    gradients = {f"{name}'s gradient": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return network.state_dict() | gradients, bytes_kept


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_computed_again_is_the_same(name: str) -> None:
    torch.manual_seed(1)
    plain = NETWORKS[name]()
    again = copy.deepcopy(plain)
    recompute(again)
    dims = 3 if name == "MONAI's UNETR" else 2
    (before, much), (after, less) = step(plain, dims), step(copy.deepcopy(again), dims)
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert less < 0.7 * much


@pytest.mark.slow
def test_compiled_blocks_are_the_same_to_rounding() -> None:
    if not can_compile(torch.device("cpu")):
        pytest.skip("torch.compile finds no compiler here")
    torch.manual_seed(1)
    plain = NETWORKS["autoencoder of a ViT"]()
    compiled = copy.deepcopy(plain)
    compile_blocks(compiled)
    before, after = step(plain, 2)[0], step(compiled, 2)[0]
    assert list(before) == list(after)
    for key in before:
        torch.testing.assert_close(before[key], after[key], rtol=1e-4, atol=1e-4 * float(before[key].abs().max()))


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: object) -> object:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", fail)
    assert not can_compile(torch.device("cpu"))
