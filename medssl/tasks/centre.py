"""What is read of a case that is judged as a whole: the crop in the middle of its image, and its class or number."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medssl.config import Finetune, Shared
from medssl.loaders import load
from medssl.splits import Case
from medssl.store import Store


def centre_crop(store: Store, case: Case, settings: Shared) -> Tensor:
    """Read the crop in the middle of an image, (c, *crop_size) in 0..1, padded with 0 where it is smaller."""
    entry = store.entries[case.id]
    room = np.maximum(np.subtract(entry.shape, settings.read_size), 0)
    return load(store, entry, settings, room // 2)


def shown_crop(store: Store, case: Case, settings: Finetune) -> npt.NDArray[Any]:
    """Give that crop for a picture, half precision; of a volume its middle slice, (c, x, y, 1)."""
    image = centre_crop(store, case, settings)
    image = image if settings.spatial_dims == 2 else image[..., image.shape[-1] // 2, None]
    return image.numpy().astype(np.float16)


def class_of(case: Case) -> int:
    """The number of a case's class, which the checks of the split have made sure of."""
    assert isinstance(case.label, int)
    return case.label


def number_of(case: Case) -> float:
    """The number that a regression is to tell of a case, which the checks of the split have made sure of."""
    assert isinstance(case.label, float)
    return case.label
