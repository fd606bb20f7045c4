"""What is read of a case that is judged as a whole: the crop in the middle of its image, and its class or number."""

import numpy as np
from torch import Tensor

from medssl.config import Shared
from medssl.loaders import load
from medssl.splits import Case
from medssl.store import Store


def centre_crop(store: Store, case: Case, settings: Shared) -> Tensor:
    """Read the crop in the middle of an image, (c, *crop_size) in 0..1, padded with 0 where it is smaller."""
    entry = store.entries[case.id]
    room = np.maximum(np.subtract(entry.shape, settings.read_size), 0)
    return load(store, entry, settings, room // 2)


def class_of(case: Case) -> int:
    """The number of a case's class, which the checks of the split have made sure of."""
    assert isinstance(case.label, int)
    return case.label


def number_of(case: Case) -> float:
    """The number that a regression is to tell of a case, which the checks of the split have made sure of."""
    assert isinstance(case.label, float)
    return case.label
