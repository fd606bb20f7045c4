"""MONAI's transformer block, weights and keys, computed so that a training step keeps less for its backward.

Under autocast every layer would keep a bfloat16 copy of its weights from its forward to its backward; these cast them
again, which takes 1% of a step's time and a fifth of what it keeps. The GELU's output is computed again too. Outputs and
gradients are MONAI's to rounding.
Axis letters: b batch, n tokens, e embedding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor
from torch.nn import functional

from networks.attention import attend

__all__ = ["Block"]


class Block(TransformerBlock):  # type: ignore[misc]
    """Self-attention and a perceptron, each on normalised tokens and added to them; without masks, dropout or context."""

    def forward(self, x: Tensor, context: None = None, attn_mask: None = None) -> Tensor:
        """Transform tokens (b, n, e)."""
        x = x + self.attend(self.norm1(x))
        first, second = self.mlp.linear1, self.mlp.linear2
        perceived: Tensor = _Perceptron.apply(
            self.norm2(x), first.weight, first.bias, second.weight, second.bias, products_type(x)
        )
        return x + perceived

    def attend(self, x: Tensor) -> Tensor:
        """Let normalised tokens (b, n, e) look at each other."""
        attention, kind = self.attn, products_type(x)
        projected = _Linear.apply(x, attention.qkv.weight, attention.qkv.bias, kind)
        seen = attend(projected, attention.num_heads, attention.scale)
        mixed: Tensor = _Linear.apply(seen, attention.out_proj.weight, attention.out_proj.bias, kind)
        return mixed


def products_type(x: Tensor) -> torch.dtype:
    """The type that autocast gives matrix products of `x`; its own without autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _Linear(torch.autograd.Function):
    """x W^T + bias in a given type, of which the input alone is kept; W is cast again for the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
        ctx.given, x = x.dtype, x.to(kind)
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        gradient, wanted = gradients[0].to(x.dtype), ctx.needs_input_grad
        to_input = (gradient @ weight.to(x.dtype)).to(ctx.given) if wanted[0] else None
        return to_input, *to_layer(gradient, x, weight, wanted[1:3]), None


class _Perceptron(torch.autograd.Function):
    """W2 GELU(W1 x + bias1) + bias2 in a given type, of which x and what enters the GELU are kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, kind: torch.dtype
    ) -> Tensor:
        ctx.given, x = x.dtype, x.to(kind)
        hidden = product(x, weight1, bias1)
        ctx.save_for_backward(x, hidden, weight1, weight2)
        return product(functional.gelu(hidden), weight2, bias2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, hidden, weight1, weight2 = ctx.saved_tensors
        gradient, wanted = gradients[0].to(x.dtype), ctx.needs_input_grad
        to_second = to_layer(gradient, functional.gelu(hidden) if wanted[3] else hidden, weight2, wanted[3:5])
        to_hidden = torch.ops.aten.gelu_backward(gradient @ weight2.to(x.dtype), hidden)
        to_input = (to_hidden @ weight1.to(x.dtype)).to(ctx.given) if wanted[0] else None
        return to_input, *to_layer(to_hidden, x, weight1, wanted[1:3]), *to_second, None


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias in the type of x."""
    return functional.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def to_layer(gradient: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of weight (o, i) and bias (o,), where wanted, from that of a layer's outputs and its inputs (b, n, i)."""
    rows = gradient.flatten(0, -2)
    return (
        (rows.t() @ x.flatten(0, -2)).to(weight.dtype) if wanted[0] else None,
        rows.sum(0).to(weight.dtype) if wanted[1] else None,
    )
