"""Do probabilities mean what they say: reliability curve, calibration error, Brier score, temperature; numpy and scipy.

The confidence of a case is the highest of its probabilities. Reliability compares it with the share of cases that are
right, in bins of equal width; their mean distance, weighted by cases, is the expected calibration error (ECE). One
temperature T that divides the logits, fitted by log loss on other cases, often removes most of it: both after Guo et
al. 2017. The Brier score is the squared distance between probabilities and truth, summed over classes: 0 to 2 (Brier
1950). Axis letters: n cases, k classes, r draws, m bins.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from medssl.scores.bootstrap import case_weights
from medssl.scores.classes import LEAST, Floats, Ints, Judged, arrays_of, percentile_ends

POLICY = (
    "Confidence is the highest probability of a case. The calibration error (ECE) is the mean distance between confidence "
    "and share of right answers in 15 bins of equal width, weighted by their cases; of few cases it is too high, even of "
    "perfect probabilities. The Brier score is summed over classes, 0 to 2. The temperature is fitted on validation by log "
    "loss and changes no answer. The probabilities in predictions.csv are those before it: p to the power of 1 / T, made "
    "to sum to 1 again, gives those after it."
)
BINS = 15
FEWEST = 10  # validation cases that a temperature is fitted on
RANGE = (0.05, 20.0)  # of temperatures; an optimum at an end is none
TINY = 1e-300  # least probability whose logarithm is taken
MEASURES = ("log_loss", "ece", "brier", "overconfidence")
DRAWS = 2_000


class Reliability(NamedTuple):
    """Bins of confidence: their upper ends, cases, mean confidence and share that is right (m,), NaN in empty ones."""

    ends: Floats
    cases: Ints
    confidence: Floats
    right: Floats


def reliability(truth: Ints, probabilities: Floats, bins: int = BINS) -> Reliability:
    """Sort cases, truth (n,) and probabilities (n, k), into bins that include their upper end."""
    confidence, right = _confidence(truth, probabilities)
    place = _bin_of(confidence, bins)
    cases = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is an empty bin
        means = [np.bincount(place, values, minlength=bins) / cases for values in (confidence, right)]
    return Reliability(np.arange(1, bins + 1) / bins, cases, *means)


def calibration_figures(truth: Ints, probabilities: Floats, weights: Floats, bins: int = BINS) -> dict[str, Floats]:
    """Give each of MEASURES as (r,): log loss, ECE, Brier score, and mean confidence minus accuracy; `weights` are (r, n)."""
    confidence, right = _confidence(truth, probabilities)
    sorted_in = np.eye(bins)[_bin_of(confidence, bins)]
    wrong_by = np.square(probabilities - np.eye(probabilities.shape[1])[truth]).sum(1)
    losses = -np.log(np.maximum(probabilities[np.arange(truth.size), truth], LEAST))
    total = weights.sum(1)
    return {
        "log_loss": weights @ losses / total,
        "ece": np.abs((weights * (confidence - right)) @ sorted_in).sum(1) / total,
        "brier": weights @ wrong_by / total,
        "overconfidence": weights @ (confidence - right) / total,
    }


def fit_temperature(truth: Ints, probabilities: Floats) -> float | None:
    """Give the temperature of the least log loss; None where none in RANGE is best, as when every case is right.

    The log loss is convex in 1 / T, so the search on log T finds the one minimum.
    """
    logits, cases = np.log(np.maximum(probabilities, TINY)), np.arange(truth.size)

    def log_loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[cases, truth].mean())

    low, high = np.log(RANGE)
    found = float(minimize_scalar(log_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    return float(np.exp(found)) if low + 1e-3 < found < high - 1e-3 else None


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """Give the probabilities that logits divided by the temperature would have."""
    calibrated: Floats = softmax(np.log(np.maximum(probabilities, TINY)) / temperature, axis=-1)
    return calibrated


def summarise_calibration(
    judged: Sequence[Judged], validation: Sequence[Judged], draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Give what summary.json says about probabilities before and after a temperature fitted on `validation`.

    MEASURES with 95% intervals over patients, the `reliability` bins, `temperature` with the number of cases it was
    fitted on, `after` with the same figures; without a temperature it and `after` are None and `reason` says why.
    Without validation cases the judged ones are taken to be them, on which nothing is fitted.
    """
    truth, probabilities = arrays_of(judged)
    groups = [row.patient for row in judged]
    temperature, reason = _temperature(validation)
    after = None
    if temperature is not None:
        after = _figures(truth, tempered(probabilities, temperature), groups, draws, seed)
    return {
        **_figures(truth, probabilities, groups, draws, seed),
        "temperature": temperature,
        "temperature_cases": len(validation),
        "reason": reason,
        "after": after,
        "policy": POLICY,
    }


def _temperature(validation: Sequence[Judged]) -> tuple[float | None, str | None]:
    """A temperature, or why there is none."""
    if not validation:
        return None, "the judged cases are the validation cases, and one fitted on them would flatter itself"
    if len(validation) < FEWEST:
        return None, f"{len(validation)} validation cases are too few to fit one, which takes {FEWEST}"
    found = fit_temperature(*arrays_of(validation))
    if found is not None:
        return found, None
    return None, f"none from {RANGE[0]:g} to {RANGE[1]:g} is best on validation, as where all or no answers are right"


def _figures(truth: Ints, probabilities: Floats, groups: Sequence[str], draws: int, seed: int) -> dict[str, Any]:
    """The measures with their intervals, and the bins that have cases."""
    now = calibration_figures(truth, probabilities, np.ones((1, truth.size)))
    blocks = [calibration_figures(truth, probabilities, weights) for weights in case_weights(groups, draws, seed)]
    told: dict[str, Any] = {}
    for name in MEASURES:
        ends = percentile_ends(np.concatenate([block[name] for block in blocks]))
        told |= {name: float(now[name][0]), f"{name}_interval": ends.tolist()}
    bins = reliability(truth, probabilities)
    told["reliability"] = [
        {"end": float(end), "n": int(n), "confidence": float(confidence), "right": float(right)}
        for end, n, confidence, right in zip(*bins, strict=True)
        if n
    ]
    return told


def _confidence(truth: Ints, probabilities: Floats) -> tuple[Floats, Floats]:
    """The highest probability of each case, and 1 where its class is the true one, else 0."""
    return probabilities.max(1), (probabilities.argmax(1) == truth).astype(np.float64)


def _bin_of(confidence: Floats, bins: int) -> Ints:
    """The number of the bin (low, high] that each confidence lies in."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
