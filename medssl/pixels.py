"""The rows that the simplest baselines see: a few pixels of the crops that a network sees, for tasks and probes alike.

A network that is not above a linear model on them has learned nothing that brightness and place do not say.
Axis letters: b batch, c channel, n cases, e pixels of all channels.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medssl.config import Finetune
from medssl.splits import Case, Split
from medssl.store import Store
from medssl.tasks.centre import centre_crop

SIDE = {2: 32, 3: 16}  # the most pixels along an axis
Rows = NDArray[np.float64]


def small_pixels(images: Tensor) -> Tensor:
    """Shrink images (b, c, *spatial) to at most SIDE pixels along each axis, each the mean of its box, as rows (b, e)."""
    return functional.interpolate(images, small_size(images.shape[2:]), mode="area").flatten(1)


def small_size(size: Sequence[int]) -> list[int]:
    """The pixels along each axis that are left of so many."""
    return [min(side, SIDE[len(size)]) for side in size]


def pixels_name(size: Sequence[int]) -> str:
    """What is left of a crop in words, as `32x32 pixels`."""
    return f"{'x'.join(map(str, small_size(size)))} {'pixels' if len(size) == 2 else 'voxels'}"


def standardise_pixels(training: Rows, *others: Rows) -> list[Rows]:
    """Take off each pixel's mean in training and divide by one deviation, and by sqrt(e).

    One deviation for all, or a pixel that hardly changes would shout. So training rows have a length of 1 on average,
    and a strength of regularisation means the same for any number of pixels.
    """
    mean = training.mean(0)
    scale = ((training - mean).std() or 1.0) * math.sqrt(training.shape[1])
    return [(rows - mean) / scale for rows in (training, *others)]


def pixel_rows(store: Store, split: Split, settings: Finetune) -> list[Rows]:
    """Give the standardised pixels (n, e) of the training, the validation and the judged cases."""
    parts = {
        part: _rows(store, split.part(part), settings) for part in dict.fromkeys(("training", "validation", settings.judge))
    }
    standard = dict(zip(parts, standardise_pixels(*parts.values()), strict=True))
    return [standard[part] for part in ("training", "validation", settings.judge)]


def _rows(store: Store, cases: Sequence[Case], settings: Finetune) -> Rows:
    crops = (centre_crop(store, case, settings) for case in cases)
    return torch.cat([small_pixels(crop[None]) for crop in crops]).double().numpy()
