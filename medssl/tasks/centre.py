"""Cases judged as a whole, by the crop in the middle of their image: the crop, what a network says of it, and the truth.

Axis letters: b batch, c channel, then space.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medssl.config import Finetune, Shared
from medssl.device import Compute
from medssl.loaders import load, naming
from medssl.problems import RunError
from medssl.signals import give_way
from medssl.splits import Case
from medssl.store import Store


def centre_crop(store: Store, case: Case, settings: Shared) -> Tensor:
    """Read the crop in the middle of an image, (c, *crop_size) in 0..1, padded with 0 where it is smaller."""
    entry = store.entries[case.id]
    with naming(case):
        return load(store, entry, settings, centre_start(entry.shape, settings))


def centre_start(shape: Sequence[int], settings: Shared) -> NDArray[np.int64]:
    """The first voxel of the crop in the middle of an image (*shape); 0 along an axis where the image is smaller."""
    room: NDArray[np.int64] = np.maximum(np.subtract(shape, settings.read_size), 0)
    return room // 2


def outputs(
    network: nn.Module, store: Store, cases: Sequence[Case], settings: Finetune, compute: Compute, batch_size: int | None = None
) -> Iterator[tuple[Case, Tensor]]:
    """Give what a network says of each case in order, (outputs,) in float64; RunError where that is not finite.

    `batch_size` by default is that of the settings. With 1 the outputs are, bit for bit, those of a case alone.
    """
    most = batch_size or settings.batch_size
    was_training = network.training
    network.eval()
    for first in range(0, len(cases), most):
        give_way()
        some = cases[first : first + most]
        crops = torch.stack([centre_crop(store, case, settings) for case in some])
        yield from zip(some, output_of(network, crops, compute), strict=True)
    network.train(was_training)


def output_of(network: nn.Module, crops: Tensor, compute: Compute) -> Tensor:
    """Give what a network in eval mode says of crops (b, c, *space): (b, outputs) in float64, on the CPU; RunError as above."""
    with torch.inference_mode(), compute.context():
        told: Tensor = network(crops.to(compute.device)).double().cpu()
    if not torch.isfinite(told).all():
        raise RunError("the network's output is not finite: it can't be judged")
    return told


def class_of(case: Case) -> int:
    """The number of a case's class, which the checks of the split have made sure of."""
    assert isinstance(case.label, int)
    return case.label


def number_of(case: Case) -> float:
    """The number that a regression is to tell of a case, which the checks of the split have made sure of."""
    assert isinstance(case.label, float)
    return case.label
