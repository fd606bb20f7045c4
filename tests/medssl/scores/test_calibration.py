"""Calibration by hand and against scikit-learn; a temperature that is known beforehand, and what it leaves alone."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss

from medssl.scores.calibration import (
    calibration_figures,
    fit_temperature,
    reliability,
    summarise_calibration,
    tempered,
)
from medssl.scores.classes import Judged, predictions_csv, read_predictions


def guesses(n: int, seed: int, sharpness: float = 3.0, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Classes drawn from the probabilities of logits, and probabilities of logits that are `sharpness` times too large."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.2, (n, classes)) + np.arange(classes) / 2
    truth = np.array([random.choice(classes, p=p) for p in softmax(logits, axis=1)])
    return truth, softmax(sharpness * logits, axis=1)


def judged(truth: np.ndarray, probabilities: np.ndarray) -> list[Judged]:
    """Two cases a patient."""
    return [Judged(f"c{i}", f"p{i // 2}", int(k), tuple(p)) for i, (k, p) in enumerate(zip(truth, probabilities, strict=True))]


def test_calibration_by_hand() -> None:
    truth = np.array([0, 0, 1, 1])
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.8, 0.2], [0.0, 1.0]])
    found = reliability(truth, p, bins=5)  # (0.6, 0.8]: 0.7 right, 0.8 wrong; (0.8, 1]: 0.9 and 1.0 right
    assert found.cases.tolist() == [0, 0, 0, 2, 2]
    assert found.confidence[3:] == pytest.approx([0.75, 0.95])
    assert found.right[3:].tolist() == [0.5, 1.0]
    assert np.isnan(found.right[:3]).all()
    figures = calibration_figures(truth, p, np.array([[1.0, 1, 1, 1], [2, 0, 0, 1]]), bins=5)
    assert figures["ece"] == pytest.approx([(2 * 0.25 + 2 * 0.05) / 4, 3 * (2.8 / 3 - 1) / -3])
    assert figures["brier"] == pytest.approx([(0.02 + 0.18 + 1.28) / 4, 0.04 / 3])
    assert figures["overconfidence"] == pytest.approx([0.85 - 0.75, 2.8 / 3 - 1])


def test_calibration_is_scikit_learns() -> None:
    truth, p = guesses(200, seed=0)
    found = reliability(truth, p)
    right = p.argmax(1) == truth
    theirs = calibration_curve(right, p.max(1), n_bins=15, strategy="uniform")
    some = found.cases > 0
    np.testing.assert_allclose([found.right[some], found.confidence[some]], theirs)
    weights = np.random.default_rng(1).integers(0, 4, (3, 200)).astype(float)
    figures = calibration_figures(truth, p, weights)
    for w, brier, loss, ece in zip(weights, figures["brier"], figures["log_loss"], figures["ece"], strict=True):
        assert brier == pytest.approx(brier_score_loss(truth, p, sample_weight=w, scale_by_half=False))
        assert loss == pytest.approx(log_loss(truth, p, sample_weight=w))
        again = np.repeat(np.arange(200), w.astype(int))  # the cases of this draw, one by one
        bins = reliability(truth[again], p[again])
        assert ece == pytest.approx(np.nansum(bins.cases * abs(bins.confidence - bins.right)) / again.size)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose logits are its input."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[x.argmax(1)]


def test_the_temperature_is_the_one_that_was_put_in_and_scikit_learns() -> None:
    for sharpness in (3.0, 0.4):
        truth, p = guesses(3000, seed=2, sharpness=sharpness)
        found = fit_temperature(truth, p)
        assert found == pytest.approx(sharpness, rel=0.08)
        model = CalibratedClassifierCV(FrozenEstimator(Given().fit(p, truth)), method="temperature").fit(np.log(p), truth)
        np.testing.assert_allclose(tempered(p, found or 0), model.predict_proba(np.log(p)), atol=2e-4)
    losses = [log_loss(truth, tempered(p, t)) for t in ((found or 0) * 0.98, found or 0, (found or 0) * 1.02)]
    assert losses[1] < min(losses[0], losses[2])
    truth, p = guesses(50, seed=3)
    assert fit_temperature(p.argmax(1), p) is None  # all right: ever smaller is ever better
    assert fit_temperature(p.argmin(1), p) is None


def test_a_temperature_changes_no_answer_and_is_exact() -> None:
    logits = np.random.default_rng(4).normal(0, 80, (200, 4))  # probabilities down to 1e-200
    p = softmax(logits, axis=1)
    for temperature in (0.7, 1.0, 5.0):
        q = tempered(p, temperature)
        np.testing.assert_allclose(q, softmax(logits / temperature, axis=1), rtol=1e-9, atol=1e-60)
        assert (q.argmax(1) == p.argmax(1)).all()


def test_the_summary_fits_on_validation_and_tells_why_not(tmp_path: Path) -> None:
    known, rows = judged(*guesses(400, seed=5)), judged(*guesses(300, seed=6))
    found = summarise_calibration(rows, known, draws=300)
    assert found["temperature"] == pytest.approx(3, rel=0.25)
    assert (found["temperature_cases"], found["reason"]) == (400, None)
    after = found["after"]
    assert found["overconfidence_interval"][0] > 0.1 > after["overconfidence_interval"][1]
    assert found["log_loss_interval"][0] > after["log_loss_interval"][1]
    assert found["ece_interval"][0] > after["ece_interval"][1]
    assert after["brier"] < found["brier"]
    assert sum(one["n"] for one in after["reliability"]) == 300

    path = tmp_path / "predictions.csv"
    path.write_bytes(predictions_csv(rows, dict(enumerate("abc"))))
    stored = np.array([row.probabilities for row in read_predictions(path)[1]]) ** (1 / found["temperature"])
    stored /= stored.sum(1, keepdims=True)  # the rule that the policy states
    truth = np.array([row.truth for row in rows])
    assert log_loss(truth, stored) == pytest.approx(after["log_loss"])

    for validation, reason in (([], "would flatter itself"), (known[:9], "9 validation cases are too few")):
        found = summarise_calibration(rows, validation, draws=10)
        assert reason in found["reason"]
        assert found["temperature"] is found["after"] is None
        assert math.isfinite(found["ece"])
