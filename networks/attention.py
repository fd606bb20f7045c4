"""Self-attention: on a CPU in pieces whose scores stay in the processor's cache, on a GPU torch's fused one.

The scores of a batch, tokens x tokens for each head of each image, are soon more than a cache holds, and six products and
two softmaxes pass over them. Taken a few images or heads at a time they are the same numbers (`benchmarks/attention.py`).
Axis letters: b batch, n tokens, l heads, d width of a head.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["attend"]

PIECE = 4 * 2**20  # bytes of scores taken at a time
Pieces = list[tuple[slice, slice]]  # images and heads


def attend(projected: Tensor, heads: int, scale: float) -> Tensor:
    """What tokens see of each other: queries, keys and values (b, n, 3 * l * d) to (b, n, l * d)."""
    if not projected.is_cuda:
        seen: Tensor = _InPieces.apply(projected, heads, scale)
        return seen
    q, k, v = split(projected, heads)
    return joined(functional.scaled_dot_product_attention(q, k, v, scale=scale))


def split(projected: Tensor, heads: int) -> Tensor:
    """Queries, keys and values of each head, a view: (b, n, 3 * l * d) to (3, b, l, n, d)."""
    apart: Tensor = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return apart


def joined(seen: Tensor) -> Tensor:
    """The heads side by side: (b, l, n, d) to (b, n, l * d), a view of what lies in that order."""
    return seen.transpose(1, 2).flatten(2)


class _InPieces(torch.autograd.Function):
    """softmax(scale Q K^T) V, of which the inputs and the softmax are kept."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, heads: int, scale: float) -> Tensor:
        q, k, v = split(projected, heads)
        pieces = pieces_of(q)
        seen = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        kept = []
        for piece in pieces:
            weights = torch.softmax((q[piece] * scale) @ k[piece].transpose(-1, -2), -1)
            seen[piece] = weights @ v[piece]
            if ctx.needs_input_grad[0]:
                kept.append(weights)
        ctx.save_for_backward(projected, *kept)
        ctx.heads, ctx.scale, ctx.pieces = heads, scale, pieces
        return joined(seen)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        projected, *kept = ctx.saved_tensors
        q, k, v = split(projected, ctx.heads)
        to_seen = gradients[0].unflatten(-1, (ctx.heads, -1)).transpose(1, 2)
        to_projected = torch.empty_like(projected)
        to_q, to_k, to_v = split(to_projected, ctx.heads)
        for piece, weights in zip(ctx.pieces, kept, strict=True):
            to_weights = to_seen[piece] @ v[piece].transpose(-1, -2)
            to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            to_q[piece] = to_scores @ k[piece] * ctx.scale
            to_k[piece] = to_scores.transpose(-1, -2) @ (q[piece] * ctx.scale)
            to_v[piece] = weights.transpose(-1, -2) @ to_seen[piece]
        return to_projected, None, None


def pieces_of(q: Tensor) -> Pieces:
    """Images and heads of queries (b, l, n, d), as many at a time as their scores fit in `PIECE`, one head at least."""
    images, heads, tokens, _ = q.shape
    of_head = tokens * tokens * q.element_size()
    some_images, some_heads = (max(1, PIECE // size) for size in (heads * of_head, of_head))
    return list(product(slices(images, some_images), slices(heads, some_heads)))


def slices(count: int, some: int) -> list[slice]:
    """The numbers below `count`, some at a time."""
    return [slice(start, start + some) for start in range(0, count, some)]
