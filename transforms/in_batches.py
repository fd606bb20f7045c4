"""Views in two steps: drawn crop by crop where the crops are loaded, made of a whole batch on the device that it is on.

Drawing costs microseconds on a CPU, and the draws are small tensors, of one shape for every crop, that travel with the
crop. Making the views of all crops at once costs a GPU as many kernels as those of one. What was drawn is the same
either way; noise is equal in distribution. A crop's noise depends on its seed alone, not on the crops beside it.

Axes: v view, b crop, c channel, then space.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from monai.transforms import Transform
from torch import Tensor

from transforms.seeding import Seeded

DRAW = "draw_"  # how the keys of draws begin


class BatchViews(Seeded, Transform):  # type: ignore[misc]
    """Views that can be made of a crop by a call, or of a batch in two steps."""

    def drawn(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add to a crop what its views would be made from: tensors ``draw_...`` on the CPU."""
        raise NotImplementedError

    def of_batch(self, batch: Mapping[Any, Any], seeds: Sequence[int]) -> dict[Any, Any]:
        """Put the views in the place of the draws: (b, c, *spatial) each, on the device of both.

        ``batch`` holds crops (b, c, *spatial) and their draws, stacked; ``seeds`` are those of each crop's noise.
        """
        raise NotImplementedError


class Drawn(Seeded, Transform):  # type: ignore[misc]
    """The first step alone, as a transform of a crop; ``views`` makes the second."""

    def __init__(self, views: BatchViews) -> None:
        self.views = views

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        self.views.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return self.views.drawn(data)


def without_draws(batch: Mapping[Any, Any]) -> dict[Any, Any]:
    """A batch, or an item, without what was drawn."""
    return {key: value for key, value in batch.items() if not str(key).startswith(DRAW)}


def views_first(draws: Tensor) -> Tensor:
    """Draws (b, v, ...) of a batch as (v, b, ...), so that every view is one piece of memory."""
    return draws.transpose(0, 1)


def fill(out: Tensor, seeds: Sequence[int], noise: Callable[..., Tensor]) -> Tensor:
    """Fill ``out`` (v, b, ...) by ``noise``, such as ``Tensor.normal_``, a crop after the other, each from its own seed."""
    generator = torch.Generator(out.device)
    for crop, seed in zip(out.unbind(1), seeds, strict=True):
        noise(crop, generator=generator.manual_seed(seed % 2**64))
    return out


def beside(values: Tensor, x: Tensor) -> Tensor:
    """``values`` (v, b), (b,) or so with axes of length 1 added, to go with ``x``, whose first axes are the same."""
    return values.view(*values.shape, *[1] * (x.ndim - values.ndim))
