"""One loss over the batches of all ranks, with exactly the gradient that one process would get.

Losses that compare rows (NT-Xent, Barlow Twins, VICReg, SwAV) need the rows of every rank. Each of W ranks gathers them
and computes the same loss L of all rows X = [X_1; ...; X_W], X_r = f(images of r; weights). The derivative of a gather
is the sum of what all ranks send back: rank r receives the sum over W ranks of dL/dX_r, which is W dL/dX_r, and
its weights the gradient W (dX_r/dweights)^T dL/dX_r. `DistributedDataParallel` averages over the ranks,
1/W sum_r W (dX_r/dweights)^T dL/dX_r = dL/dweights, the gradient of one process. (A gather that sends nothing back, or
only a rank's own part, makes it W times too small.)

Where rows are long and a loss needs only their products (NT-Xent over whole restorations), each rank takes a share of the
columns of all rows instead, `columns`, and `summed` adds up the products of the shares. By the same reasoning: what every
rank sends back for its share is W times the derivative, or the sum over W equal derivatives.

Losses that are means over rows need no gather: the average of the ranks' gradients is the gradient of the mean, when
every rank has as many rows. Means over a mask do not; `share` weights them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional


def gathered(rows: Tensor) -> Tensor:
    """The rows (b, ...) of all ranks in the order of the ranks, (world * b, ...); gradients flow back to every rank.

    Any type, also numbers without gradient; the same b on every rank. Without torch.distributed, or with one rank, the
    rows themselves. All ranks must call it, and call it in the same order.
    """
    return _Gather.apply(rows) if world_size() > 1 else rows


def columns(rows: Tensor) -> Tensor:
    """This rank's share of the columns of the rows (b, ...) of all ranks, in the order of `gathered`: (world * b, e / world).

    Shares are filled up with zeros where e is no multiple of the world. A rank sends and keeps as much as its own rows
    are; `gathered` world times that. With one rank the rows themselves, (b, e). Called by all ranks, as `gathered`.
    """
    flat, world = rows.flatten(1), world_size()
    if world == 1:
        return flat
    shares = functional.pad(flat, (0, -flat.shape[1] % world)).view(len(flat), world, -1)
    received: Tensor = _Exchange.apply(shares.transpose(0, 1))
    return received.flatten(0, 1)


def summed(part: Tensor) -> Tensor:
    """The sum of a tensor over all ranks; gradients flow back to every rank. With one rank the tensor itself."""
    return _Sum.apply(part) if world_size() > 1 else part


def share(count: Tensor) -> Tensor:
    """What to multiply a mean over ``count`` elements with, so that the average over ranks is the mean over all elements.

    count / (mean of the counts of all ranks), since 1/W sum_r (sum_r / count_r) (count_r / mean count) is the sum over
    all ranks by the count over all ranks. A scalar without gradient; 1 with one rank.
    """
    counts = gathered(count.detach().float().view(1))
    return counts[rank()] / counts.mean() if counts.any() else torch.ones_like(counts[0])


def numbered(names: Sequence[str]) -> Tensor:
    """A number for each name (b,) int64, the same on every rank and in every run, as Python's hash is not."""
    digests = [blake2b(name.encode(), digest_size=8).digest() for name in names]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests])


def own(rows: Tensor) -> Tensor:
    """This rank's part of rows (world * b, ...) that every rank has, in the order of `gathered`: (b, ...)."""
    return rows.chunk(world_size())[rank()]


class _Alone:
    now = False


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this rank is the only one: it computes something that the others do not, such as a validation batch."""
    before, _Alone.now = _Alone.now, True
    try:
        yield
    finally:
        _Alone.now = before


def world_size() -> int:
    """How many ranks train together."""
    if _Alone.now or not distributed.is_available() or not distributed.is_initialized():
        return 1
    return distributed.get_world_size()


def rank() -> int:
    """The number of this rank, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        distributed.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _total(gradients[0]).chunk(world_size())[rank()]


class _Exchange(torch.autograd.Function):
    """Part k of each rank goes to rank k, (world, ...) to (world, ...); the way back is the same way."""

    @staticmethod
    def forward(_: Any, parts: Tensor) -> Tensor:
        return _exchanged(parts)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _exchanged(gradients[0])


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, part: Tensor) -> Tensor:
        return _total(part)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _total(gradients[0])


def _exchanged(parts: Tensor) -> Tensor:
    received = torch.empty_like(parts, memory_format=torch.contiguous_format)
    distributed.all_to_all_single(received, parts.contiguous())
    return received


def _total(part: Tensor) -> Tensor:
    total = part.clone(memory_format=torch.contiguous_format)  # reduced in place
    distributed.all_reduce(total)
    return total
