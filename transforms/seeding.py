"""Random states that are cheap to seed again for every sample.

A loader that promises the same data for any number of workers seeds its transforms anew for each sample.
MONAI's ``set_random_state(seed)`` builds a Mersenne twister each time, about 90 us for every transform of a
composition; SFC64 behind the same ``numpy.random.RandomState`` takes a tenth, and a composition here seeds only once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from monai.transforms import Randomizable, Transform
from monai.utils import get_seed


def random_state(seed: int) -> np.random.RandomState:
    """A ``RandomState`` for a seed of up to 64 bits; equal seeds give equal draws."""
    return np.random.RandomState(np.random.SFC64(int(seed) % 2**64))


class Seeded(Randomizable):  # type: ignore[misc]
    """A ``Randomizable`` whose ``set_random_state(seed)`` costs microseconds."""

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        """Draw from a new stream for ``seed``, or from ``state``, or (with neither) from an unpredictable stream."""
        super().set_random_state(state=state if seed is None else random_state(seed))
        return self


class Chain(Seeded, Transform):  # type: ignore[misc]
    """Apply ``transforms`` one after the other; all draw, in turn, from one random state.

    So seeding it fixes everything inside, whatever was called before, at the price of one seeding. It is MONAI's
    ``Compose`` for a single item, without lazy resampling and inverse, and may stand inside one.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = tuple(transforms)
        self.set_random_state(get_seed())

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        super().set_random_state(seed, state)
        _share(self.R, self.transforms)
        return self

    def __call__(self, data: Mapping[Any, Any]) -> Any:
        for transform in self.transforms:
            data = transform(data)
        return data


def _share(state: np.random.RandomState, transforms: Sequence[Any]) -> None:
    for transform in transforms:
        if isinstance(transform, Randomizable):
            transform.set_random_state(state=state)
