"""Three classifiers on fixed features: a linear probe, nearest neighbours, logistic regression.

Each tries several values of its one setting, chooses by log loss on validation, and gives probabilities for the test
rows. The linear probe is the usual one of self-supervised learning, a linear layer by SGD at several rates; the
neighbours vote as in Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018,
section 3.4 (https://arxiv.org/abs/1805.01978). Axis letters: n rows, e features, k classes, r rates.
"""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATES = [10 ** (power / 2) for power in range(-8, 3)]  # 1e-4, where hardly anything is learned, to 10, where all of it is
STEPS, BATCH, MOMENTUM, EPOCHS = 1000, 256, 0.9, 20
NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07
STRENGTHS = [10.0**power for power in range(-2, 6)]  # C of the logistic regression
LEAST = 1e-15  # probability, in the log loss
CHUNK = 1024  # rows whose similarities to all training rows are held at once


class Labelled(NamedTuple):
    """Features (n, e) with the class of each row (n,)."""

    features: Floats
    classes: Ints


class Probe(NamedTuple):
    """What a classifier says of the test rows (n, k), with the value of its setting that was best on validation."""

    probabilities: Floats
    chosen: float
    tried: dict[float, float]  # value of the setting -> log loss on validation


def standardise(training: Floats, *others: Floats) -> list[Floats]:
    """Take off the training rows' mean and divide by their deviation, feature by feature, and by sqrt(e).

    So training rows have a length of 1 on average, and a rate or a strength means the same for any width. Features
    that are constant in training say nothing and become 0, also where other rows differ.
    """
    mean, deviation = training.mean(0), training.std(0)
    told = deviation > 1e-6 * np.maximum(np.abs(mean), np.finfo(np.float64).tiny)
    scale = np.where(told, 1 / np.where(told, deviation, 1), 0) / math.sqrt(training.shape[1])
    return [(rows - mean) * scale for rows in (training, *others)]


def linear_probe(training: Labelled, validation: Labelled, test: Floats, k: int, seed: int = 0) -> Probe:
    """Train a linear layer at all RATES at once, from zero, by SGD with momentum under a cosine; standardised features."""
    random = torch.Generator().manual_seed(seed)
    rows, target = _with_bias(training.features), torch.nn.functional.one_hot(torch.from_numpy(training.classes), k).float()
    n, batch = len(rows), min(BATCH, len(rows))
    rates = torch.tensor(RATES)[:, None, None]
    weights = torch.zeros(len(RATES), rows.shape[1], k)
    velocity = torch.zeros_like(weights)
    steps = max(STEPS, EPOCHS * n // batch)
    for step in range(steps):
        chosen = torch.randperm(n, generator=random)[:batch] if batch < n else slice(None)
        error = (rows[chosen] @ weights).softmax(-1) - target[chosen]  # (r, b, k): the gradient of cross-entropy
        velocity = MOMENTUM * velocity + rows[chosen].T @ error / batch
        weights -= rates * (0.5 + 0.5 * math.cos(math.pi * step / steps)) * velocity
    validated = (_with_bias(validation.features) @ weights).softmax(-1).double().numpy()
    best, tried = _best(RATES, list(validated), validation.classes)
    judged = (_with_bias(test) @ weights[best]).double().softmax(-1).numpy()
    return Probe(judged, RATES[best], tried)


def nearest_neighbours(training: Labelled, validation: Labelled, test: Floats, k: int) -> Probe:
    """Vote by the training rows of the largest cosine similarity s, each with the weight exp(s / TEMPERATURE).

    The numbers of neighbours tried are those of NEIGHBOURS that are no more than there are labels. One more vote goes
    to all classes alike, so that no probability is 0; it leaves the order of the classes as it is.
    """
    counts = [count for count in NEIGHBOURS if count <= len(training.classes)]
    votes = _votes(training, validation.features, k, counts)
    best, tried = _best(counts, votes, validation.classes)
    return Probe(_votes(training, test, k, [counts[best]])[0], counts[best], tried)


def logistic_regression(training: Labelled, validation: Labelled, test: Floats, k: int, balanced: bool = False) -> Probe:
    """Fit scikit-learn's logistic regression with each of STRENGTHS; standardised features, perhaps `balanced` classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weights = "balanced" if balanced else None
    models = [LogisticRegression(C=strength, class_weight=weights, max_iter=500) for strength in STRENGTHS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # hardly penalised fits of separable rows never end
        for model in models:
            model.fit(training.features, training.classes)
    known = models[0].classes_

    def probabilities(model: LogisticRegression, rows: Floats) -> Floats:
        found = np.zeros((len(rows), k))
        found[:, known] = model.predict_proba(rows)
        return found

    validated = [probabilities(model, validation.features) for model in models]
    best, tried = _best(STRENGTHS, validated, validation.classes)
    return Probe(probabilities(models[best], test), STRENGTHS[best], tried)


def class_shares(training: Labelled, rows: int, k: int) -> Floats:
    """The share of each class in training, for every row: what can be said without looking at an image."""
    return np.tile(np.bincount(training.classes, minlength=k) / len(training.classes), (rows, 1))


def log_loss(probabilities: Floats, classes: Ints) -> float:
    """The mean of -log p of each row's class."""
    found = probabilities[np.arange(len(classes)), classes]
    return float(-np.log(np.maximum(found, LEAST)).mean())


def _best(values: Sequence[float], probabilities: Sequence[Floats], classes: Ints) -> tuple[int, dict[float, float]]:
    """Find the place of the lowest log loss, the first of equals, and all of them by value."""
    losses = [log_loss(found, classes) for found in probabilities]
    return int(np.argmin(losses)), dict(zip(values, losses, strict=True))


def _with_bias(features: Floats) -> torch.Tensor:
    rows = torch.from_numpy(features).float()
    return torch.cat([rows, torch.ones(len(rows), 1)], 1)


def _votes(training: Labelled, rows: Floats, k: int, counts: Sequence[int]) -> list[Floats]:
    """Probabilities (n, k) of all rows for each number of neighbours."""
    labels, lengthened = _unit(training.features), _unit(rows)
    chunks = [_chunk_votes(labels, training.classes, part, k, counts) for part in _chunks(lengthened)]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def _chunk_votes(labels: Floats, classes: Ints, rows: Floats, k: int, counts: Sequence[int]) -> list[Floats]:
    similarity = rows @ labels.T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : max(counts)]
    weights = np.exp((np.take_along_axis(similarity, nearest, 1) - 1) / TEMPERATURE)
    ballots = weights[:, :, None] * np.eye(k)[classes[nearest]]
    sums = np.cumsum(ballots, axis=1)
    shares = [sums[:, count - 1] / sums[:, count - 1].sum(1, keepdims=True) for count in counts]
    return [(count * share + 1 / k) / (count + 1) for count, share in zip(counts, shares, strict=True)]


def _chunks(rows: Floats) -> list[Floats]:
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
