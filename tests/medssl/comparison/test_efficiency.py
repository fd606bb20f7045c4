"""How many labels are saved: read off by hand, at and beyond the ends, and its interval."""

import math
from dataclasses import replace

import numpy as np
import pytest

from medssl.comparison.efficiency import Saving, worth, worth_interval
from medssl.comparison.words import told_savings


def test_worth_by_hand() -> None:
    scores = np.array([[0.5, 0.7, 0.8]] * 6)
    target = np.array([0.6, 0.75, 0.5, 0.4, 0.8, 0.9])
    expected = [72**0.5, 288**0.5, 6, -math.inf, 24, math.inf]
    assert worth([6, 12, 24], scores, target) == pytest.approx(expected)
    assert worth([6, 12, 24], -scores, -target, sign=-1) == pytest.approx(expected)


def test_a_curve_that_falls_again_counts_where_it_first_gets_there() -> None:
    scores = np.array([[0.5, 0.7, 0.6]])
    assert worth([6, 12, 24], scores, np.array([0.65])) == pytest.approx([6 * 2**0.75])
    assert worth([6, 12, 24], scores, np.array([0.71])) == [math.inf]


def test_the_interval_is_paired_and_holds_the_truth() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(0, 0.3, (1, 1, 30))  # far more than the curve rises: it cancels
    cells = np.array([0.6, 0.5, 0.7, 0.8])[:, None, None] + shared + random.normal(0, 0.01, (4, 3, 30))
    middle, (low, high) = worth_interval(cells, [6, 12, 24], range(30))
    assert 8 < low < middle < high < 9
    assert middle == pytest.approx(72**0.5, abs=0.2)
    same = worth_interval(np.stack([cells[2], *cells[1:]]), [6, 12, 24], range(30))
    assert (same[0], *same[1]) == pytest.approx((12, 12, 12))


def test_words_beyond_the_ends() -> None:
    ends = (6, 24)
    told = str(Saving("mae", "random", 6, 11.2, (8.0, math.inf), ends))
    assert told == "mae at 6 labels equals random at about 11 (95% interval 8 to more than 24)."
    assert "more than 24. How many more is not known" in str(Saving("mae", "random", 24, math.inf, (math.inf, math.inf), ends))
    none = Saving("mae", "random", 6, -math.inf, (-math.inf, 7.0), ends)
    assert "equals random at fewer than 6 (95% interval fewer than 6 to 7). It saves none" in str(none)
    assert none.as_dict()["interval"] == [None, 7.0]
    several = [replace(none, labelled=k, worth=worth) for k, worth in ((6, -math.inf), (12, 9.0), (24, -math.inf))]
    [twice, once] = told_savings(several)
    assert twice == str(none).replace("6 labels", "6 and 24 labels")
    assert once == "mae at 12 labels equals random at about 9 (95% interval fewer than 6 to 7). It saves none."
