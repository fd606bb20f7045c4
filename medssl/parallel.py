"""A model on many ranks: its norms joined, its gradients averaged, its weights sharded where one device can't hold them.

`DistributedDataParallel` exchanges gradients while the backward pass still goes on, so that on a GPU the exchange costs
next to nothing; an `all_reduce` of our own after it would add all of it to the step. It wraps the loss and not the model,
whose keys and methods stay what they are. With `shard=true` every rank keeps a part of each weight, its gradient and what
the optimiser remembers of it: `fully_shard` (FSDP2; Zhao et al., 2023, https://arxiv.org/abs/2304.11277) gathers a block's
weights when it is their turn. Checkpoints are the same files either way, whatever the number of ranks.
"""

import gc
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from medssl.config import Shared
from medssl.rank_norm import join_norms
from medssl.ranks import world_size
from medssl.training import Batch, Training
from networks.features import Encoder

# Joined norms and gathered queues are the same on all ranks: not to send buffers around was renamed in torch 2.13.
RENAMED = ("forward_sync_buffers", "broadcast_buffers")
UNSENT: dict[str, Any] = {next(name for name in RENAMED if name in signature(DistributedDataParallel).parameters): False}


def spread(model: nn.Module, encoder: Encoder | None, settings: Shared) -> None:
    """Make a model ready for many ranks, in place; on its device, and before its parameters are grouped."""
    if world_size() == 1:
        return
    join_norms(model)
    if settings.shard:
        for tensor in [*model.parameters(), *model.buffers()]:
            distributed.broadcast(tensor.data, 0)
        mesh = init_device_mesh(next(model.parameters()).device.type, (world_size(),))
        blocks = encoder.layers()[1:-1] if encoder is not None else []  # these are called as they are, the ends are not
        wrapped = [fully_shard(block, mesh=mesh, reshard_after_forward=True) for block in blocks]
        whole = fully_shard(model, mesh=mesh, reshard_after_forward=False)
        # What the backward gathers ahead is said here: left to itself it follows the forward passes since the last one,
        # of which ranks that validate on different numbers of batches have different ones.
        for module, below in zip([*wrapped, whole], [whole, *wrapped], strict=True):
            module.set_modules_to_backward_prefetch([below])


class Exchange:
    """The loss of a training, whose gradients become means over all ranks with the last part of a batch."""

    def __init__(self, training: Training) -> None:
        self.model, self.module = training.model, _LossOf(training)
        self.trained = list[bool]()
        self.wrapped: DistributedDataParallel | None = None

    def follow(self) -> None:
        """Exchange the gradients of what is trained now: parts of a network are frozen and freed between steps.

        The wrapper waits for the gradient of each parameter that was to be trained when it was made. To be made anew
        costs a broadcast; to let it search each step for what got no gradient would cost every step of a run.
        """
        trained = [p.requires_grad for p in self.model.parameters()]
        if world_size() == 1 or isinstance(self.model, FSDPModule) or trained == self.trained:
            return
        self.trained, self.wrapped = trained, None
        gc.collect()  # it takes its hooks off the parameters when it is gone
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of an axis of length 1, where they mean nothing
        self.wrapped = DistributedDataParallel(self.module, gradient_as_bucket_view=True, **UNSENT)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of a batch and its parts."""
        losses: dict[str, Tensor] = (self.wrapped or self.module)(batch)
        return losses

    def at(self, last: bool) -> AbstractContextManager[None]:
        """The context of a part's forward and backward pass: all but the last only add up their gradients."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        return nullcontext() if self.wrapped is None or last else self.wrapped.no_sync()


class _LossOf(nn.Module):
    def __init__(self, training: Training) -> None:
        super().__init__()
        self.model, self.loss = training.model, training.loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.loss(batch)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Within the block a sharded model has all its weights on every rank, so that ranks may use it by turns of their own."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()


def full(state: Any) -> Any:
    """A state dict with its sharded tensors put together, on the CPU; all ranks must call it."""
    if isinstance(state, dict):
        return {key: full(value) for key, value in state.items()}
    if isinstance(state, list):
        return [full(value) for value in state]
    return state.full_tensor().cpu() if isinstance(state, DTensor) else state


def load_full(model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give model and optimiser what a checkpoint has of them, each rank its part of what is sharded.

    The optimiser takes up what it remembers of each weight; decay and all else of its groups stays as it was made with.
    Raises ValueError for other groups of weights.
    """
    ours, made = model.state_dict(), optimiser.state_dict()
    model.load_state_dict({name: sharded_as(ours.get(name), value) for name, value in state["model"].items()})
    if grouping(state["optimiser"]) != grouping(made):
        raise ValueError("other parameter groups")
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    remembered = {
        k: {name: sharded_as(parameters[k], value) for name, value in of_one.items()}
        for k, of_one in state["optimiser"]["state"].items()
    }
    optimiser.load_state_dict(made | {"state": remembered})


def grouping(optimiser: dict[str, Any]) -> list[list[int]]:
    """The numbers of the parameters in each group of an optimiser's state."""
    return [group["params"] for group in optimiser["param_groups"]]


def sharded_as(ours: Any, value: Any) -> Any:
    """A value from a checkpoint, sharded as a tensor of ours of the same shape is."""
    if isinstance(ours, DTensor) and isinstance(value, Tensor) and ours.shape == value.shape:
        return distribute_tensor(value.to(ours.device), ours.device_mesh, ours.placements, src_data_rank=None)
    return value
