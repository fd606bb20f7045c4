"""Intervals over patients and seeds: against scipy and by theory, and how often they hold the truth of simulated studies."""

from statistics import NormalDist

import numpy as np
import pytest
from fabricated_studies import crossed_values
from scipy import stats

from medssl.comparison.crossed import crossed_draws, crossed_interval, degrees_of_freedom, matrix

Z = NormalDist().inv_cdf(0.975)


def test_one_seed_is_scipys_bootstrap_stretched() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=15)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2))
    middle, stretch = values.mean(), (15 / 14) ** 0.5 * stats.t.ppf(0.975, 14) / Z
    ours = crossed_interval(values[None], range(15), draws=20_000)
    expected = middle + stretch * (np.array(theirs.confidence_interval) - middle)
    np.testing.assert_allclose(ours, expected, atol=0.02 * np.ptp(expected))
    assert ours == crossed_interval(values[None], range(15), draws=20_000)


def test_either_source_of_variance_alone_gives_its_t_interval() -> None:
    random = np.random.default_rng(3)
    for axis, n in ((0, 40), (1, 30)):
        numbers = random.standard_normal(n)
        values = np.repeat(np.expand_dims(numbers, axis), 6, axis)
        half = stats.t.ppf(0.975, n - 1) * numbers.std(ddof=1) / n**0.5
        low, high = crossed_interval(values, range(values.shape[1]))
        assert degrees_of_freedom(values, range(values.shape[1])) == pytest.approx(n - 1)
        assert (low, high) == pytest.approx((numbers.mean() - half, numbers.mean() + half), abs=0.06 * half)


def test_patients_are_drawn_with_all_their_cases() -> None:
    values, patients = np.array([[0.0, 1.0, 1.0, 1.0]]), ["a", "b", "b", "b"]
    draws = crossed_draws(values[None], patients, 4000)[:, 0]
    found, counts = np.unique(np.round((draws - 0.75) / 2**0.5 + 0.75, 9), return_counts=True)
    assert found.tolist() == [0, 0.75, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_nothing_varies_and_nothing_is_there() -> None:
    assert crossed_interval(np.zeros((3, 9)), range(9)) == (0, 0)
    assert crossed_interval(np.full((1, 1), 0.4), ["a"]) == (0.4, 0.4)
    one = crossed_interval(np.array([[0.1], [0.2], [0.4]]), ["a"])
    assert (one[0] < 0.1, one[1] > 0.4) == (True, True)
    for wrong in (np.zeros((2, 0)), np.full((2, 3), np.nan), np.zeros((2, 4))):
        with pytest.raises(ValueError, match="expected numbers"):
            crossed_interval(wrong, range(3))


def test_a_case_that_a_seed_lacks_keeps_the_mean_of_cases() -> None:
    values, cases = matrix([{"a": 1.0, "b": 2.0}, {"b": 4.0, "c": 6.0}])
    assert cases == ["a", "b", "c"]
    assert values.tolist() == [[1, 2, 6], [1, 4, 6]]


@pytest.mark.parametrize(("seeds", "patients", "of_seed"), [(3, 12, 0.0), (3, 26, 0.015), (5, 30, 0.015), (2, 12, 0.005)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, patients: int, of_seed: float) -> None:
    """200 studies: a 95% interval holds 184 to 196 of them (binomial, 99%), and those of this design are a bit wide."""
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        values = crossed_values(random, seeds, patients, 0.03, of_seed, 0.02, mean=0.04)
        low, high = crossed_interval(values, range(patients), draws=500)
        held += low <= 0.04 <= high
    assert 182 <= held <= 199


def test_an_effect_is_found_as_often_as_theory_says() -> None:
    """A difference of 3.2 standard errors is found by a t test of 19 degrees of freedom in 86% of studies."""
    random, found = np.random.default_rng(0), 0
    error = (0.03**2 / 20 + 0.01**2 / 60) ** 0.5
    power = stats.nct.sf(stats.t.ppf(0.975, 19), 19, 3.2)
    for _ in range(200):
        low, _ = crossed_interval(crossed_values(random, 3, 20, 0.03, 0.0, 0.01, mean=3.2 * error), range(20), draws=500)
        found += low > 0
    assert found / 200 == pytest.approx(power, abs=2.6 * (power * (1 - power) / 200) ** 0.5)
