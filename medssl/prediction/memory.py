"""How much memory a prediction takes, told by the headers before a voxel is read.

Reading, resampling and sweeping come one after the other, and the largest of them counts. What windows take inside the
network comes on top. Measured, with the constants, by benchmarks/predict.py.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medssl.check import size_at
from medssl.prediction.model import Model
from medssl.prediction.predict import Limits, header_of
from medssl.problems import InputError
from medssl.readers import ReadError
from medssl.splits import Case

RESAMPLING = 40  # bytes a voxel of the new grid: its coordinates and values in float64, which MONAI asks for


class Estimate(NamedTuple):
    """Voxels of the input and of the prepared image, windows, and bytes besides the network and its windows."""

    shape: tuple[int, ...]
    prepared: tuple[int, ...]
    bytes: int

    def __str__(self) -> str:
        by = ("x".join(map(str, shape)) for shape in (self.shape, self.prepared))
        return "{} voxels, prepared {}, about {:.0f} MB besides the network".format(*by, self.bytes / 1e6)


def estimate(models: Sequence[Model], case: Case) -> Estimate:
    """Estimate the memory of a case; raises InputError for one that can't be used, as `predict_case` does."""
    model = models[0]
    try:
        header = header_of(model, case, Limits())
    except ReadError as error:
        raise InputError([error.problem]) from None
    spacing, settings = model.settings.spacing, model.settings
    prepared = tuple(settings.fit) if settings.fit else size_at(header, spacing) if spacing else header.shape
    voxels, new, channels = math.prod(header.shape), math.prod(prepared), model.split.channels
    stored = voxels * channels * min(header.dtype.itemsize, 4)
    reading = stored * 2 + 4 * voxels * channels
    resampling = stored + 4 * voxels * channels + new * (RESAMPLING + 8 * channels if spacing else 8 * channels)
    most = float(max(reading, resampling))
    if model.task == "segmentation":
        window = np.minimum(settings.crop_size, prepared) / np.array(prepared)
        slab = 4 * (len(model.labels) + 1) * new * float(window.min())
        most = max(most, stored + new * (8 * channels + 1) + slab + voxels)
    return Estimate(header.shape, prepared, int(most))
