"""Cases judged as a whole, by the crop in the middle of their image: the crop, what a network says of it, and the truth."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from medssl.config import Finetune, Shared
from medssl.device import Compute
from medssl.loaders import load
from medssl.problems import RunError
from medssl.splits import Case
from medssl.store import Store


def centre_crop(store: Store, case: Case, settings: Shared) -> Tensor:
    """Read the crop in the middle of an image, (c, *crop_size) in 0..1, padded with 0 where it is smaller."""
    entry = store.entries[case.id]
    room = np.maximum(np.subtract(entry.shape, settings.read_size), 0)
    return load(store, entry, settings, room // 2)


def outputs(
    network: nn.Module, store: Store, cases: Sequence[Case], settings: Finetune, compute: Compute
) -> Iterator[tuple[Case, Tensor]]:
    """Give what a network says of each case in order, (outputs,) in float64; RunError where that is not finite."""
    was_training = network.training
    network.eval()
    for first in range(0, len(cases), settings.batch_size):
        some = cases[first : first + settings.batch_size]
        crops = torch.stack([centre_crop(store, case, settings) for case in some])
        with torch.inference_mode(), compute.context():
            told = network(crops.to(compute.device)).double().cpu()
        if not torch.isfinite(told).all():
            raise RunError("the network's output is not finite: it can't be judged")
        yield from zip(some, told, strict=True)
    network.train(was_training)


def class_of(case: Case) -> int:
    """The number of a case's class, which the checks of the split have made sure of."""
    assert isinstance(case.label, int)
    return case.label


def number_of(case: Case) -> float:
    """The number that a regression is to tell of a case, which the checks of the split have made sure of."""
    assert isinstance(case.label, float)
    return case.label
