"""What a script tells the engine of what it trains, and what passes between loaders, step and engine: batches."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Any]  # tensors (b, ...) and lists of b things


@dataclass
class Training:
    """What the engine needs to know of a task."""

    model: nn.Module
    groups: list[dict[str, Any]]  # parameter groups of the optimiser, each with its `scale` of the rate
    loss: Callable[[Batch], dict[str, Tensor]]  # "loss" and its parts
    batches: Callable[[int], Iterable[Batch]]  # the batches from a step on
    validate: Callable[[], dict[str, float]] | None
    watched: str  # the validation figure that selects the best checkpoint
    higher_is_better: bool
    transform: Callable[[Batch], Batch] | None = None  # views or augmentation of one crop
    views: Callable[[Batch], Batch] = lambda batch: batch  # makes those of a batch on the device, where the loader did not
    warnings: Callable[[dict[str, Any]], list[str]] = lambda figures: []  # of a step and its validation
    check: Callable[[Batch], None] = lambda batch: None  # raises for a batch that nothing can be learned from
    before_step: Callable[[int], None] = lambda step: None
    epoch: int = 1  # crops after which every case was seen once
    data: Callable[[], dict[str, str]] = dict  # what it reads, as `data_of` tells it


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def parts_of(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into `count` parts of as many items each, one after the other."""
    size = len(batch["id"]) // count
    for start in range(0, size * count, size):
        yield {key: value[start : start + size] for key, value in batch.items()}
