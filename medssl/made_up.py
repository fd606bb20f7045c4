"""A store of noise, for estimates before there is a store: every case is the same image, in the size of a real one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medssl.config import Finetune, Shared
from medssl.readers import read_header
from medssl.splits import Case, Split
from medssl.store import Entry, Extent, Geometry, Store

STEPS = 1000  # of intensity, from 0 to 1


class MadeUp(Store):
    """Holds every case of a split: in pre-training a crop of noise, in fine-tuning an image as large as the first judged."""

    def __init__(self, settings: Shared, split: Split, geometry: Geometry) -> None:
        fine = isinstance(settings, Finetune)
        shape = prepared_shape(split.part("validation")[0], geometry) if fine else tuple(settings.read_size)
        random = np.random.default_rng(0)
        voxels: dict[str, NDArray[Any]] = {"image": random.integers(0, STEPS, (split.channels, *shape), np.int16)}
        if fine and split.task == "segmentation":
            voxels["label"] = random.integers(0, max(len(split.labels), 2), (1, *shape), np.uint8)
        arrays = {name: Extent(0, 0, array.dtype.str, array.shape) for name, array in voxels.items()}
        self.voxels = {extent: voxels[name] for name, extent in arrays.items()}
        levels = np.linspace(0, 1, 201, dtype=np.float32)[None].repeat(split.channels, 0)
        entry = Entry("", "", 1 / STEPS, 0, np.eye(4), (1.0,) * len(shape), levels, "", 0, (), arrays)
        super().__init__([], [])
        self.entries = {case.id: entry for cases in split.parts.values() for case in cases}

    def array(self, extent: Extent) -> NDArray[Any]:
        return self.voxels[extent]

    def view(self, extent: Extent, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        window = tuple(slice(max(a, 0), max(a + n, 0)) for a, n in zip(start, size, strict=True))
        return torch.from_numpy(self.array(extent)[:, *window])


def prepared_shape(case: Case, geometry: Geometry) -> tuple[int, ...]:
    """The spatial shape that a case will have in the store, before the foreground or an object is cut out."""
    header = read_header(case.image[0])
    shape = np.array(header.shape[: geometry.spatial_dims], float)
    if geometry.spacing is not None:
        shape *= np.divide(header.spacing, geometry.spacing)
    if geometry.fit is not None:
        axes = len(geometry.fit)
        shape[:axes] *= np.min(np.divide(geometry.fit, shape[:axes]))
    return tuple(int(n) for n in shape.round().clip(min=1))
