"""Batch norm over the batches of all ranks, so that many ranks normalise as one process does.

Ioffe and Szegedy, "Batch Normalization", 2015 (https://arxiv.org/abs/1502.03167), with the sums of all ranks. On GPUs
torch's `SyncBatchNorm` does it; it has no CPU path, so there two sums of our own do the same. Axis letters: b batch,
c channel.
"""

from itertools import chain
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.ranks import world_size


class RankNorm(_BatchNorm):
    """Batch norm of (b, c, ...) by the statistics of all ranks, which may have any b each."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any axes after the channels will do."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            alike: Tensor = super().forward(input)
            return alike
        x = input.transpose(0, 1)
        rows = x.float().flatten(1)  # (c, n)
        count, total = summed(torch.cat([rows.new_tensor([rows.shape[1]]), rows.sum(1)])).split([1, len(rows)])
        centred = rows - (mean := total / count)[:, None]
        variance = summed(centred.square().sum(1)) / count
        self.remember(mean.detach(), variance.detach(), count.detach())
        scale = (variance + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        normal = centred * scale[:, None] + (0 if self.bias is None else self.bias[:, None])
        result: Tensor = normal.view(x.shape).transpose(0, 1).to(input.dtype)
        return result

    @torch.no_grad()
    def remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Average the statistics for evaluation, with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def join_norms(module: nn.Module) -> None:
    """Give all batch norms within a module the statistics of all ranks; parameters, buffers and keys stay what they are."""
    kind = nn.SyncBatchNorm if next(chain(module.parameters(), module.buffers())).is_cuda else RankNorm
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                norm = kind(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
                norm._parameters, norm._buffers, norm.training = child._parameters, child._buffers, child.training
                setattr(parent, name, norm)


def summed(x: Tensor) -> Tensor:
    """The sum over all ranks, through which gradients flow back to every rank."""
    total: Tensor = _Sum.apply(x)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
