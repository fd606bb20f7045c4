"""Signed ranks against scipy, and Holm's correction against the closed tests that it abbreviates."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from medssl.comparison.significance import holm, signed_rank


def closed(p: list[float]) -> list[float]:
    """The p of each hypothesis by closed testing with Bonferroni: the largest over all sets of hypotheses that have it."""
    sets = [chosen for size in range(1, len(p) + 1) for chosen in combinations(range(len(p)), size)]
    return [max(min(1.0, len(s) * min(p[k] for k in s)) for s in sets if one in s) for one in range(len(p))]


def test_holm_is_closed_bonferroni() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    random = np.random.default_rng(0)
    for size in range(1, 8):
        p = (random.random(size) ** 3).tolist()
        assert holm(p) == pytest.approx(closed(p))
    assert holm([0.02, 0.02, 1.0]) == pytest.approx([0.06, 0.06, 1.0])


def test_signed_rank_is_scipys() -> None:
    values = np.random.default_rng(1).normal(0.4, 1, 17)
    cases = {f"p{k}_1": float(value) for k, value in enumerate(values)}
    assert signed_rank(cases, {case: case for case in cases}) == pytest.approx(float(wilcoxon(values).pvalue))


def test_signed_rank_is_of_patients() -> None:
    cases = {"a_1": 0.2, "a_2": -0.1, "b_1": 0.3, "c_1": -0.4, "d_1": 0.6}
    patients = {case: case[0] for case in cases}
    assert signed_rank(cases, patients) == pytest.approx(float(wilcoxon([0.05, 0.3, -0.4, 0.6]).pvalue))
    ties = {"a": 0.3 - 0.2, "b": -(0.2 - 0.1), "c": 0.7, "d": 0.9, "e": 0.0}
    assert signed_rank(ties, {case: case for case in ties}) == pytest.approx(float(wilcoxon([1, -1, 7, 9, 0]).pvalue))


def test_no_difference_is_no_evidence() -> None:
    assert signed_rank({"a": 0.0, "b": 1e-17}, {"a": "a", "b": "b"}) == 1
    assert signed_rank({}, {}) == 1
