"""Segmentation judged case by case: sliding windows over the whole image, then the scores of each class.

The scores themselves are in `medssl.scores.voxels`, which knows no torch; this file joins them to a network.
Axis letters: c channel, then the spatial axes (2 or 3).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from medssl.processes import collected
from medssl.scores.voxels import (
    EMPTY_CLASS_POLICY,
    NAN,
    Score,
    case_scores,
    dice,
    mean_or_none,
    score_by_case,
    summarise,
)
from medssl.signals import give_way
from medssl.windows import Labels, label_map

__all__ = [
    "EMPTY_CLASS_POLICY",
    "Evaluation",
    "LabelledImage",
    "Prediction",
    "Score",
    "case_scores",
    "dice",
    "evaluate_segmentation",
    "mean_dice",
    "predict_volume",
    "prediction_arrays",
    "summarise",
]


class LabelledImage(NamedTuple):
    """A prepared case: image (c, *spatial), label (*spatial) or (1, *spatial) of class indices, spacing in mm."""

    case: str
    patient: str
    image: torch.Tensor
    label: torch.Tensor
    spacing: Sequence[float]


class Prediction(NamedTuple):
    """One case to look at: image (c, *spatial), both label maps (*spatial) and the case's Dice."""

    case: str
    dice: float
    image: npt.NDArray[np.float16]
    label: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]


class Evaluation(NamedTuple):
    """Scores of every case and class, and a few predictions from the best case to the worst."""

    rows: list[Score]
    kept: list[Prediction]


def predict_volume(
    network: torch.nn.Module,
    image: torch.Tensor,
    window: Sequence[int],
    overlap: float = 0.25,
    batch_size: int = 4,
    autocast: torch.dtype | None = None,
    blend: str = "gaussian",
    progress: Callable[[int, int], None] | None = None,
    labels: Labels | None = None,
) -> torch.Tensor:
    """Predict the label map (*spatial, on the CPU) of an image (c, *spatial) of any size; see `medssl.windows.label_map`.

    Windows overlap and are blended with "gaussian" or "constant" weights; an image smaller than the window is padded with
    zeros, one of exactly its size takes a single forward. RunError where the network's output is not finite.
    """
    if image.ndim != len(window) + 1:
        raise ValueError(f"image of shape {tuple(image.shape)}, expected (c, *spatial) with {len(window)} spatial axes")
    device = next(network.parameters(), image).device

    def forward(crops: torch.Tensor) -> torch.Tensor:
        give_way()
        # A forward uses each weight once: its bfloat16 copy need not outlive the layer.
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None, cache_enabled=False):
            logits: torch.Tensor = network(crops)
        return logits

    was_training = network.training
    network.eval()
    try:
        inputs = image.as_subclass(torch.Tensor).to(device, torch.float32)
        return label_map(forward, inputs, window, overlap, batch_size, blend, progress, labels)
    finally:
        network.train(was_training)


def evaluate_segmentation(
    network: torch.nn.Module,
    cases: Iterable[LabelledImage | tuple[str, str, torch.Tensor, torch.Tensor, Sequence[float]]],
    labels: Mapping[int, str],
    window: Sequence[int],
    overlap: float = 0.25,
    batch_size: int = 4,
    autocast: torch.dtype | None = None,
    tolerance: float | None = 2.0,
    keep: int = 6,
    progress: Callable[[str, float], None] | None = None,
) -> Evaluation:
    """Predict and score each case; `progress(case, its Dice)` is called after each.

    `tolerance` in mm is that of the surface Dice; None leaves out all distances between surfaces.

    The kept predictions are the lower half of `keep` that are worst, the best, and between them cases spread over the
    scores: at most `keep` images are held at a time, whatever the number of cases.
    """
    rows: list[Score] = []
    kept: list[Prediction] = []
    for case, patient, image, label, spacing in cases:
        truth = label[0] if label.ndim == image.ndim else label
        predicted = predict_volume(network, image, window, overlap, batch_size, autocast)
        scores = case_scores(case, patient, predicted, truth.to(torch.int16), labels, spacing, tolerance)
        rows += scores
        score = score_by_case(scores).get(case, NAN)
        if keep and not math.isnan(score):
            kept = _spread([*kept, Prediction(case, score, *_arrays(image, truth, predicted))], keep)
        if progress:
            progress(case, score)
    return Evaluation(rows, kept)


def mean_dice(
    network: torch.nn.Module,
    cases: Iterable[LabelledImage | tuple[str, str, torch.Tensor, torch.Tensor, Sequence[float]]],
    labels: Mapping[int, str],
    window: Sequence[int],
    overlap: float = 0.25,
    batch_size: int = 4,
    autocast: torch.dtype | None = None,
) -> float:
    """Give the data set's Dice alone, for validation while training; NaN where no case could be scored.

    `cases` are those dealt to this rank; the Dice is that of all.
    """
    words = (labels, window, overlap, batch_size, autocast)
    own = [evaluate_segmentation(network, [case], *words, tolerance=None, keep=0).rows for case in cases]
    rows = chain.from_iterable(collected(own))
    mean = mean_or_none(score_by_case(rows).values())
    return NAN if mean is None else mean


def prediction_arrays(kept: Sequence[Prediction]) -> dict[str, Any]:
    """Name the arrays of predictions.npz: image_k, label_k, prediction_k, name_k and dice_k for k = 0 (best), 1, ..."""
    return {f"{'name' if f == 'case' else f}_{k}": np.asarray(getattr(p, f)) for k, p in enumerate(kept) for f in p._fields}


def _arrays(*tensors: torch.Tensor) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    image, label, predicted = (tensor.detach().cpu().numpy() for tensor in tensors)
    return image.astype(np.float16), label.astype(np.uint8), predicted.astype(np.uint8)


def _spread(kept: list[Prediction], most: int) -> list[Prediction]:
    """Best first, at most so many: half of them are the worst, and of those between these and the best, spread over the
    scores, leaves the one closest to its neighbours."""
    kept = sorted(kept, key=lambda prediction: -prediction.dice)
    if len(kept) <= most:
        return kept
    if most < 3:
        return [kept[0], kept[-1]][:most]
    gaps = [kept[i - 1].dice - kept[i + 1].dice for i in range(1, len(kept) - most // 2)]
    crowded = 1 + int(np.argmin(gaps))
    return kept[:crowded] + kept[crowded + 1 :]
