"""Looks for NaN and infinity in what is about to be saved: a finite loss does not prove the weights after it finite."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from medssl.problems import NotFiniteError
from medssl.processes import collected, everyones, said_once


def refuse_non_finite(state: dict[str, Any], step: int, ids: Sequence[str] = ()) -> None:
    """Raise NotFiniteError naming the first tensor of a checkpoint that is not finite, and this rank's cases of the step."""
    found = everyones(next(non_finite(state), None))[0]
    if found is not None:
        cases = f"; cases of the batch: {', '.join(collected(ids))}" if ids else ""
        words = f"step {step}: found {found} not finite, expected a checkpoint of finite numbers{cases}"
        raise said_once(NotFiniteError(words))


def non_finite(tree: Any, name: str = "") -> Iterator[str]:
    """The names of the tensors in nested dictionaries and lists that hold a number that is not finite."""
    if isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from non_finite(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, Tensor) and tree.is_floating_point() and not is_finite(tree):
        yield name


@torch.no_grad()
def is_finite(x: Tensor) -> bool:
    """Whether all numbers are; their sum, read once, says so but where it overflows."""
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())
