"""The blocks of a network, found by their type, and what can be done to all of them: recomputed, or compiled.

Recomputed, their insides are computed again in the backward instead of being kept: less memory, more time. Chen et al.,
"Training Deep Nets with Sublinear Memory Cost", 2016 (https://arxiv.org/abs/1604.06174), by `torch.utils.checkpoint`; losses
and gradients stay the same to the last bit. Compiled by `torch.compile`, they are the same to rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from monai.networks.blocks.convolutions import Convolution, ResidualUnit
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.blocks.transformerblock import TransformerBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from monai.networks.nets.resnet import ResNetBlock, ResNetBottleneck
from monai.networks.nets.swin_unetr import SwinTransformerBlock
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

BLOCKS = (
    TransformerBlock, ResNetBlock, ResNetBottleneck, UnetResBlock, UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock, ResidualUnit,
    Convolution, SwinTransformerBlock,
)  # fmt: skip


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost blocks of a network, those that keep most of what a training step keeps."""
    for child in network.children():
        if isinstance(child, BLOCKS):
            yield child
        else:
            yield from blocks_of(child)


def recompute(network: nn.Module) -> None:
    """Have every block of a network computed again in the backward."""
    for block in blocks_of(network):
        block.forward = partial(_again, block, block.forward)


def compile_blocks(network: nn.Module) -> None:
    """Have every block of a network compiled when it is first called, which takes a while."""
    for block in blocks_of(network):
        block.compile()


def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` finds what it needs on this machine, a C++ compiler for one; tried on a sum."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(2, device=device))
    except Exception:  # whatever is missing: the network runs without
        return False
    return True


def _again(block: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _counted_once(block)))


@contextmanager
def _counted_once(block: nn.Module) -> Iterator[None]:
    """Batch norms took the batch into their statistics when it came the first time."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training and m.num_batches_tracked is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.sub_(1)  # type: ignore[union-attr]
