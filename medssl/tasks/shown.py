"""The cases that the report of a classification or regression shows, worst, typical and best, each with its saliency.

They are kept in predictions.npz as arrays by name and place: image_k (c, *space), name_k, group_k and error_k, what the task
tells of them, and saliency_k (*space) from 0 to 255, its peak in peak_k. Of a volume a few axial slices stand for the
whole, along the last axis: their numbers in the crop are slices_k (s,), of depth_k.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from tqdm import tqdm

from medssl.config import Finetune
from medssl.splits import Case
from medssl.store import Store
from medssl.tasks.centre import centre_crop
from networks.features import Encoder
from networks.saliency import Saliency, Score, grad_cam, occlusion

MOST = {"worst": 9, "typical": 3, "best": 3}  # rows of three
SLICES = 3
Arrays = dict[str, Any]
Look = Callable[[Tensor, float], Saliency | None]  # of an image and what was predicted


def shown_cases(
    store: Store,
    cases: Sequence[Case],
    errors: Sequence[float],
    told: Sequence[Mapping[str, Any]],
    look: Look,
    settings: Finetune,
) -> Arrays:
    """Give the arrays of predictions.npz, the highest error first; `told` is what the task keeps of each case.

    Its "predicted" is the class whose saliency is shown, or the predicted number.
    """
    arrays: Arrays = {}
    for k, (i, group) in enumerate(tqdm(pick(errors), desc="saliency", unit="case", disable=None, leave=False)):
        image = centre_crop(store, cases[i], settings)
        kept = {"name": cases[i].id, "group": group, "error": errors[i], **told[i]}
        kept |= pictures(image, look(image, told[i]["predicted"]))
        arrays |= {f"{name}_{k}": np.asarray(value) for name, value in kept.items()}
    return arrays


def pick(errors: Sequence[float]) -> list[tuple[int, str]]:
    """Choose cases by their error, each once: (place, group), the worst first, some from the middle, the best last."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    worst = order[: min(MOST["worst"], -(-len(order) // 2))]
    rest = order[len(worst) :]
    best = rest[max(0, len(rest) - MOST["best"]) :]
    rest = rest[: len(rest) - len(best)]
    first = max(0, min((len(order) - MOST["typical"]) // 2 - len(worst), len(rest) - MOST["typical"]))  # about the median
    groups = {"worst": worst, "typical": rest[first : first + MOST["typical"]], "best": best[::-1]}
    return [(i, group) for group, chosen in groups.items() for i in chosen]


def looker(network: nn.Module, encoder: Encoder, settings: Finetune, explained: Callable[[Any], Score]) -> Look:
    """Make what gives the saliency of an image (c, *space): of the score that stands for what was predicted."""

    def look(image: Tensor, predicted: float) -> Saliency | None:
        if settings.saliency == "none":
            return None
        if settings.saliency == "grad_cam":
            return grad_cam(network, encoder, image, explained(predicted))
        return occlusion(network, image, explained(predicted), batch_size=settings.batch_size)

    return look


def pictures(image: Tensor, found: Saliency | None) -> dict[str, Any]:
    """What is kept of an image (c, *space) and its saliency: all of it in 2D, of a volume its most salient slices."""
    shares = None if found is None else np.round(255 * found.map.numpy()).astype(np.uint8)
    array, kept = image.numpy().astype(np.float16), {}
    if image.ndim == 4:
        depth = image.shape[-1]
        chosen = slices_of(depth, None if shares is None else shares.sum((0, 1)))
        array, shares = array[..., chosen], None if shares is None else shares[..., chosen]
        kept = {"slices": chosen, "depth": depth}
    return kept | {"image": array} | ({} if found is None else {"saliency": shares, "peak": found.peak})


def slices_of(depth: int, weights: npt.NDArray[Any] | None, count: int = SLICES) -> list[int]:
    """Choose axial slices, in order: those of most weight and an eighth of the depth apart, or evenly spread ones."""
    count = min(count, depth)
    if weights is None or not weights.any():
        return [int((2 * k + 1) * depth / (2 * count)) for k in range(count)]
    left, apart = weights.astype(float), max(1, depth // 8)
    chosen: list[int] = []
    for _ in range(count):
        best = int(left.argmax())
        chosen.append(best)
        left[max(0, best - apart + 1) : best + apart] = -1
    return sorted(chosen)
