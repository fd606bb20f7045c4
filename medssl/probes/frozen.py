"""From a split to features: every image once through frozen encoders, and as small pixels beside them.

An image is prepared as the encoder's plan says and seen once: its centre, as large as the images of pre-training,
padded with 0 where it is smaller. Axis letters: b batch, c channel, n images, e features.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from medssl.config import Shared
from medssl.device import Compute
from medssl.pixels import small_pixels
from medssl.problems import RunError
from medssl.splits import Case
from medssl.store import Store
from medssl.tasks.centre import centre_crop
from networks.features import Encoder

PIXELS = "pixels"


class Embedded(NamedTuple):
    """The images of one part: features (n, e) by the name of what gave them, and whose they are."""

    features: dict[str, NDArray[np.float64]]
    classes: NDArray[np.int64]
    cases: list[str]
    patients: list[str]


def embed(
    encoders: Mapping[str, Encoder], store: Store, cases: Sequence[Case], settings: Shared, compute: Compute, part: str = ""
) -> Embedded:
    """Give the pooled features of every case under each encoder, and its small pixels; RunError where they are not finite."""
    for encoder in encoders.values():
        encoder.to(compute.device).eval()
    found: dict[str, list[Tensor]] = {name: [] for name in (*encoders, PIXELS)}
    with torch.inference_mode(), tqdm(total=len(cases), desc=f"embedding {part}", unit="image", disable=None) as bar:
        for batch in batches(store, cases, settings):
            found[PIXELS].append(small_pixels(batch))
            images = batch.to(compute.device)
            with compute.context():
                for name, encoder in encoders.items():
                    found[name].append(encoder.features(images).pooled.float().cpu())
            bar.update(len(batch))
    features = {name: torch.cat(parts).double().numpy() for name, parts in found.items()}
    for name, rows in features.items():
        if not np.isfinite(rows).all():
            case = cases[int(np.flatnonzero(~np.isfinite(rows).all(1))[0])].id
            raise RunError(f"{name}: found NaN or infinite features of case {case}, expected finite ones")
    classes = np.array([case.label for case in cases], np.int64)
    return Embedded(features, classes, [case.id for case in cases], [case.patient for case in cases])


def batches(store: Store, cases: Sequence[Case], settings: Shared) -> Iterator[Tensor]:
    """Give the centres of the cases' images, (b, c, *crop_size) in 0..1."""
    for start in range(0, len(cases), settings.batch_size):
        yield torch.stack([centre_crop(store, case, settings) for case in cases[start : start + settings.batch_size]])


def share_seen(store: Store, cases: Sequence[Case], settings: Shared) -> float:
    """Tell which share of an image its centre holds, mean over the cases."""
    shapes = [store.entries[case.id].shape for case in cases]
    return float(np.mean([prod(np.minimum(shape, settings.read_size) / shape) for shape in shapes]))
