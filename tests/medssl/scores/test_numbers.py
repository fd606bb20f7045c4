"""Figures of a regression by hand, against scikit-learn and scipy, and their bootstrap against a slow loop."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from medssl.scores.bootstrap import case_weights
from medssl.scores.numbers import (
    FIGURES,
    Estimate,
    estimates_csv,
    figures,
    quick_numbers,
    read_estimates,
    summarise_numbers,
)


def guesses(n: int = 60, seed: int = 0, offset: float = 0.0) -> list[Estimate]:
    """Cases of n / 3 patients whose numbers have ties, as scores of a scale do."""
    random = np.random.default_rng(seed)
    truth = offset + random.choice([0, 0.5, 1, 2], n, p=[0.5, 0.3, 0.15, 0.05])
    predicted = np.round(0.2 + 0.7 * truth + random.normal(0, 0.4, n), 1)
    return [Estimate(f"c{i}", f"p{i // 3}", float(truth[i]), float(predicted[i])) for i in range(n)]


def theirs(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The same by scikit-learn and scipy."""
    return {
        "r2": metrics.r2_score(truth, predicted),
        "mae": metrics.mean_absolute_error(truth, predicted),
        "rmse": metrics.root_mean_squared_error(truth, predicted),
        "mean_error": float(np.mean(predicted) - np.mean(truth)),
        "pearson": float(stats.pearsonr(truth, predicted).statistic),
        "spearman": float(stats.spearmanr(truth, predicted).statistic),
    }


def columns(rows: list[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row.truth for row in rows]), np.array([row.predicted for row in rows])


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_figures_are_those_of_scikit_learn_and_scipy(offset: float) -> None:
    rows = guesses(offset=offset)
    expected = theirs(*columns(rows))
    assert tuple(expected) == FIGURES
    assert quick_numbers(rows) == pytest.approx(expected, rel=1e-7)


def test_figures_of_a_draw_are_those_of_the_repeated_cases() -> None:
    rows = guesses()
    truth, predicted = columns(rows)
    weights = next(case_weights([row.patient for row in rows], draws=20))
    found = figures(truth, predicted, weights)
    for draw, times in enumerate(weights.astype(int)):
        assert {key: found[key][draw] for key in FIGURES} == pytest.approx(
            theirs(np.repeat(truth, times), np.repeat(predicted, times))
        )


def test_intervals_resample_whole_patients() -> None:
    rows = guesses(90, seed=1)
    summary = summarise_numbers(rows, draws=4000)
    random, patients, drawn = np.random.default_rng(7), sorted({row.patient for row in rows}), []
    for _ in range(1000):
        again = [row for patient in random.choice(patients, len(patients)) for row in rows if row.patient == patient]
        drawn.append(theirs(*columns(again)))
    for name in FIGURES:
        slowly = np.quantile([one[name] for one in drawn], [0.025, 0.975])
        width = slowly[1] - slowly[0]
        np.testing.assert_allclose(summary[f"{name}_interval"], slowly, atol=0.12 * width)
        assert summary[f"{name}_interval"][0] < summary[name] < summary[f"{name}_interval"][1]
    assert (summary["n"], summary["patients"]) == (90, 30)


def test_there_is_no_figure_of_equal_numbers() -> None:
    """By hand: a constant guess scores 0, equal truths have no R2, and 0.1 summed in any order is no spread."""
    third = [Estimate(f"c{i}", f"p{i}", float(i), 1.0) for i in range(3)]
    assert quick_numbers(third) == pytest.approx(
        {"r2": 0, "mae": 2 / 3, "rmse": (2 / 3) ** 0.5, "mean_error": 0, "pearson": None, "spearman": None}
    )
    equal = summarise_numbers([Estimate(f"c{i}", f"p{i}", 0.1, 0.1 * i) for i in range(7)], draws=100)
    assert [equal[name] for name in ("r2", "pearson", "spearman", "r2_interval")] == [None] * 4
    assert equal["mean_error"] == pytest.approx(0.2)
    two = summarise_numbers([Estimate("a", "p", 0, 0.5), Estimate("b", "q", 1, 0.5)], draws=100)
    assert (two["r2"], two["r2_interval"]) == (0, [0, 0])  # half of the draws have none
    with pytest.raises(ValueError, match="rows: found none"):
        quick_numbers([])


def test_predictions_are_read_as_written(tmp_path: Path) -> None:
    rows = [Estimate('a, "b"', "p", 0.1 + 0.2, -1e-17), *guesses(4)]
    file = tmp_path / "predictions.csv"
    file.write_bytes(estimates_csv(rows))
    assert read_estimates(file) == rows
    for text in (
        "case,patient,truth\na,p,1\n",
        "case,patient,truth,predicted\na,p,1,nan\n",
        "",
        "case,patient,truth,predicted\na,p,1\n",
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"."):
            read_estimates(file)
