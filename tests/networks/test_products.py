"""Matrix products in place of convolutions: the same outputs and gradients as torch's convolutions."""

import pytest
import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from networks.products import cut, embed, lay, lift

PATCHES = [(4, 2), (2, 3, 4)]  # unequal, so that a swapped axis shows


def image(patch: tuple[int, ...], channels: int) -> Tensor:
    space = [side * (k + 2) for k, side in enumerate(patch)]
    torch.manual_seed(1)
    return torch.randn(2, channels, *space, dtype=torch.float64, requires_grad=True)


def same(ours: Tensor, theirs: Tensor, of: list[Tensor]) -> None:
    """Values and gradients agree."""
    torch.testing.assert_close(ours, theirs)
    weights = torch.cos(torch.arange(theirs.numel(), dtype=torch.float64)).reshape(theirs.shape)
    gradients = [torch.autograd.grad((y * weights).sum(), of, retain_graph=True) for y in (ours, theirs)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("patch", PATCHES)
def test_an_embedding_of_patches_is_the_convolution(patch: tuple[int, ...]) -> None:
    x, layer = image(patch, 3), Conv[Conv.CONV, len(patch)](3, 5, patch, patch).double()
    same(embed(layer, cut(x, patch)), layer(x).flatten(2).transpose(1, 2), [x, *layer.parameters()])


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("bias", [True, False])
def test_lifted_positions_are_the_transposed_convolutions(patch: tuple[int, ...], bias: bool) -> None:
    """Two of them, one inside the other."""
    first, second = (Conv[Conv.CONVTRANS, len(patch)](i, o, patch, patch, bias=bias).double() for i, o in ((3, 4), (4, 2)))
    x = image(patch, 3)
    ours = lay(lift(second, lift(first, x.flatten(2).transpose(1, 2))), x.shape[2:], patch, patch)
    same(ours, nn.Sequential(first, second)(x), [x, *first.parameters(), *second.parameters()])
