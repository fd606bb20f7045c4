"""What is read of a case that is judged as a whole: the crop in the middle of its image, and its class."""

import numpy as np
from torch import Tensor

from medssl.config import Finetune
from medssl.loaders import load
from medssl.splits import Case
from medssl.store import Store


def centre_crop(store: Store, case: Case, settings: Finetune) -> Tensor:
    """Read the crop in the middle of an image, (c, *crop_size) in 0..1."""
    entry = store.entries[case.id]
    room = np.maximum(np.subtract(entry.shape, settings.read_size), 0)
    return load(store, entry, settings, room // 2)


def class_of(case: Case) -> int:
    """The number of a case's class, which the checks of the split have made sure of."""
    assert isinstance(case.label, int)
    return case.label
