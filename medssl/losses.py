"""Self-supervised losses: pure functions of tensors, computed in float32 (float64 stays), in log-sum-exp form.

Axis letters: b batch, e embedding.
"""

from math import log

import torch
from torch import Tensor
from torch.nn import functional


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two tensors of one shape."""
    return functional.l1_loss(at_least_float32(prediction), at_least_float32(target))


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of two views, each (b, ...), flattened to (b, e); row i of both is one pair.

    z = unit rows of [a; b], S = z z^T / temperature without its diagonal, the target of i is (i + b) mod 2b; mean
    cross-entropy. Equation 1 of Chen et al., SimCLR, 2020 (https://arxiv.org/abs/2002.05709). Raises ValueError for
    a temperature that is not positive or fewer than two pairs.
    """
    if temperature <= 0:
        raise ValueError(f"temperature: found {temperature}, expected more than 0")
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"views: found {list(a.shape)} and {list(b.shape)}, expected two of one shape and at least 2 pairs")
    with torch.autocast(a.device.type, enabled=False):
        z = functional.normalize(at_least_float32(torch.cat([a, b])).flatten(1))
        scores = (z @ z.T / temperature).fill_diagonal_(float("-inf"))
        target = torch.arange(len(z), device=z.device).roll(len(a))
        return functional.cross_entropy(scores, target)


def nt_xent_chance(pairs: int) -> float:
    """The value of `nt_xent` when it cannot tell the pairs apart: ln(2b - 1)."""
    return log(2 * pairs - 1)


def regularized_contrastive(reconstruction: Tensor, contrastive: Tensor) -> Tensor:
    """System A's total, r + c * r: the contrastive loss counts as much as the reconstruction is still wrong."""
    return reconstruction + contrastive * reconstruction


def at_least_float32(x: Tensor) -> Tensor:
    """Raise half precision to float32; float32 and float64 stay."""
    return x if x.dtype == torch.float64 else x.float()
