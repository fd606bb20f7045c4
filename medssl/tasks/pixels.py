"""The baseline of a classification: logistic regression on a few pixels of the same crops.

A network that is not above it has learned nothing that brightness and place do not say. It sees the centre crops of
the same training cases, averaged to at most 32 x 32 pixels or 16 x 16 x 16 voxels; its strength of regularisation is
the best of seven by validation log loss.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from medssl.config import Finetune
from medssl.scores.classes import Judged, quick_figures
from medssl.splits import Case, Split
from medssl.store import Store
from medssl.tasks.centre import centre_crop, class_of

SIDE = {2: 32, 3: 16}
STRENGTHS = np.logspace(-4, 2, 7)  # scikit-learn's C: one over the weight of the penalty
Pixels = npt.NDArray[np.float64]


def judge_pixels(settings: Finetune, split: Split, store: Store) -> dict[str, Any]:
    """Fit on the training cases, choose on validation, judge on the reported part: name, C, and three figures."""
    training, validation, judged = (split.part(part) for part in ("training", "validation", settings.judge))
    pixels = pixels_of(store, training, settings)
    mean, deviation = pixels.mean(0), pixels.std() or 1.0  # one deviation, or a pixel that hardly changes would shout
    known = (pixels - mean) / deviation
    unseen = (pixels_of(store, validation, settings) - mean) / deviation
    classes = [class_of(case) for case in training]
    best = min((fit(known, classes, c, settings) for c in STRENGTHS), key=lambda one: _log_loss(one, validation, unseen, split))
    found = unseen if judged == validation else (pixels_of(store, judged, settings) - mean) / deviation
    sides = "x".join(str(side) for side in sides_of(settings))
    name = f"logistic regression on {sides} {'pixels' if settings.spatial_dims == 2 else 'voxels'}"
    return {"name": name, "C": float(best.C)} | quick_figures(predict(best, judged, found, len(split.labels)))


def pixels_of(store: Store, cases: Sequence[Case], settings: Finetune) -> Pixels:
    """Give the averaged centre crops of cases, one row each."""
    pool: Any = functional.adaptive_avg_pool2d if settings.spatial_dims == 2 else functional.adaptive_avg_pool3d
    crops = (centre_crop(store, case, settings) for case in cases)
    return np.stack([pool(crop, sides_of(settings)).flatten().double().numpy() for crop in crops])


def sides_of(settings: Finetune) -> list[int]:
    """The pixels along each axis that the regression sees."""
    return [min(side, SIDE[settings.spatial_dims]) for side in settings.crop_size]


def fit(pixels: Pixels, classes: Sequence[int], strength: float, settings: Finetune) -> LogisticRegression:
    """Fit a regression, its classes weighted as the network's."""
    weights = "balanced" if settings.class_weights == "balanced" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a little short of the optimum is good enough here
        return LogisticRegression(C=strength, class_weight=weights, max_iter=200).fit(pixels, classes)


def predict(model: LogisticRegression, cases: Sequence[Case], pixels: Pixels, classes: int) -> list[Judged]:
    """Give each case's probabilities; a class that was not in training has 0."""
    probabilities = np.zeros((len(cases), classes))
    probabilities[:, model.classes_] = model.predict_proba(pixels)
    return [Judged(c.id, c.patient, class_of(c), tuple(p)) for c, p in zip(cases, probabilities.tolist(), strict=True)]


def _log_loss(model: LogisticRegression, cases: Sequence[Case], pixels: Pixels, split: Split) -> float:
    return quick_figures(predict(model, cases, pixels, len(split.labels)))["log_loss"]
