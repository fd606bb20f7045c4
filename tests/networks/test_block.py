"""The transformer block against MONAI's own: the same outputs, the same gradients, less kept."""

import copy

import pytest
import torch
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor

from networks import attention
from networks.vit import prepare

TOKENS = (2, 10, 48)


def pair() -> tuple[TransformerBlock, TransformerBlock]:
    """MONAI's block and ours, of equal weights."""
    torch.manual_seed(0)
    theirs = TransformerBlock(48, 96, 4)
    ours = copy.deepcopy(theirs)
    prepare([ours])
    return theirs, ours


def outputs_and_gradients(block: TransformerBlock, autocast: bool) -> tuple[list[Tensor], int]:
    """The output, the gradient of the input and of every weight, and the bytes kept between forward and backward."""
    x = torch.sin(torch.arange(960.0)).reshape(TOKENS).requires_grad_()
    weights, kept = {p.data_ptr() for p in block.parameters()}, {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = block(x)
    (y.float() ** 3).sum().backward()
    gradients = [p.grad for p in block.parameters() if p.grad is not None]
    return [y.float(), x.grad, *gradients], sum(kept.values())


@pytest.mark.parametrize(("autocast", "apart", "share"), [(False, 1e-5, 0.85), (True, 2e-2, 0.6)])
def test_the_block_is_monais_and_keeps_less(autocast: bool, apart: float, share: float) -> None:
    """To rounding in float32; in bfloat16, with its 8 bits, relative to the largest."""
    (theirs, much), (ours, less) = (outputs_and_gradients(block, autocast) for block in pair())
    assert len(theirs) == len(ours) == 13  # output, input, and 11 weights, none of the unused norm
    for a, b in zip(theirs, ours, strict=True):
        assert (a - b).abs().max() < apart * a.abs().max()
    assert less < share * much  # without the output of the GELU and, in bfloat16, without copies of the weights


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("heads", [1, 3, 4, 7])
def test_attention_is_the_same_in_pieces(heads: int, autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of a head, of three and one, of an image, and, with two images of four heads, of no more than an image."""
    _, block = pair()
    other = copy.deepcopy(block)
    whole, much = outputs_and_gradients(block, autocast)
    monkeypatch.setattr(attention, "PIECE", heads * 10 * 10 * (2 if autocast else 4))
    taken = list[torch.Size]()
    softmax = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda x, axis: taken.append(x.shape) or softmax(x, axis))
    parts, kept = outputs_and_gradients(other, autocast)
    assert [tuple(shape[:2]) for shape in taken] == {1: [(1, 1)] * 8, 3: [(1, 3), (1, 1)] * 2}.get(heads, [(1, 4)] * 2)
    assert kept == much
    for a, b in zip(whole, parts, strict=True):
        assert (a - b).abs().max() <= 2e-6 * a.abs().max()


def test_frozen_weights_get_no_gradient_and_their_input_does() -> None:
    _, block = pair()
    reference = copy.deepcopy(block)
    for name, p in block.named_parameters():
        p.requires_grad_("linear2" in name)
    frozen, whole = (outputs_and_gradients(b, False)[0] for b in (block, reference))
    assert len(frozen) == 4
    assert torch.equal(frozen[1], whole[1])
    assert block.mlp.linear2.weight.grad is not None
    assert torch.equal(block.mlp.linear2.weight.grad, reference.mlp.linear2.weight.grad)
