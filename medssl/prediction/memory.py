"""How much memory a prediction takes, told by the headers before a voxel is read.

Reading, resampling and the network come one after the other, and the largest of them counts. Measured, with the constants, by
benchmarks/predict.py.
"""

import math
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medssl.check import size_at
from medssl.prediction.model import Model
from medssl.prediction.predict import Limits, header_of
from medssl.problems import InputError
from medssl.readers import ReadError
from medssl.splits import Case
from medssl.windows import at_once

RESAMPLING = 40  # bytes a voxel of the new grid: its coordinates and values in float64, which MONAI asks for


class Estimate(NamedTuple):
    """Voxels of the input and of the prepared image, and bytes besides the network's weights."""

    shape: tuple[int, ...]
    prepared: tuple[int, ...]
    bytes: int

    def __str__(self) -> str:
        by = ("x".join(map(str, shape)) for shape in (self.shape, self.prepared))
        return "{} voxels, prepared {}, about {:.0f} MB besides the weights".format(*by, self.bytes / 1e6)


def estimate(models: Sequence[Model], case: Case, forward: int) -> Estimate:
    """Estimate the memory of a case, `forward` being `forward_bytes`; raises InputError for one that can't be used."""
    model = models[0]
    try:
        header = header_of(model, case, Limits())
    except ReadError as error:
        raise InputError([error.problem]) from None
    spacing, settings = model.settings.spacing, model.settings
    resampled = size_at(header, spacing) if spacing else header.shape
    prepared = tuple(settings.fit or resampled)
    voxels, new, channels = math.prod(header.shape), math.prod(prepared), model.split.channels
    stored = voxels * channels * min(header.dtype.itemsize, 4)
    reading = stored * 2 + 4 * voxels * channels
    resampling = stored + 4 * voxels * channels + math.prod(resampled) * (RESAMPLING * bool(spacing) + 8 * channels)
    resampling += 8 * channels * new if settings.fit else 0
    if model.task == "segmentation":
        window = np.minimum(settings.crop_size, prepared) / np.array(prepared)
        slab = 4 * (len(model.labels) + 1) * new * float(window.min())
        forward += int(stored + new * (8 * channels + 1) + slab + voxels)
    return Estimate(header.shape, prepared, max(reading, resampling, forward))


def forward_bytes(models: Sequence[Model]) -> int:
    """The most bytes of tensors that live at a time in a forward pass of the networks, besides their weights.

    Told by the shapes alone, without computing; what the library underneath borrows is not in it: with UNETR on ViT-B a
    window of 96^3 takes 201 MB by this and 305 resident in bfloat16, 390 and 491 in float32 (one CPU thread, torch 2.13, a
    script that was not kept).
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # 1 s

    most = 0
    for model in models:
        settings, device = model.settings, model.compute.device
        size = settings.crop_size if model.task == "segmentation" else settings.read_size
        many = at_once(settings.part_size, math.prod(size), device) if model.task == "segmentation" else 1
        with torch.inference_mode(), model.compute.context(), FakeTensorMode(allow_non_fake_inputs=True), _Living() as living:
            model.network(torch.empty(many, model.split.channels, *size, device=device))
        most = max(most, living.most)
    return most


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, int] = {}  # the bytes of each storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.meet(tensor.untyped_storage())
        return made

    def meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.known:
            self.known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.part_from, key)

    def part_from(self, key: int) -> None:
        self.now -= self.known.pop(key)
