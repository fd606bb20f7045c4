"""Bootstrap intervals over test cases, resampling whole patients (Efron and Tibshirani 1993, chapter 13).

Cases of one patient are not independent, so a draw takes patients with replacement, each with all its cases.
The intervals are percentile intervals: they say how far the mean would move with other test patients, and nothing
about other training seeds.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CHUNK = 2_000_000  # numbers of one block of draws: 16 MB


class PairedDifference(NamedTuple):
    """Mean of a minus mean of b over the same cases."""

    difference: float
    interval: tuple[float, float]
    relative: float  # difference / mean of b; NaN where that mean is 0
    n: int  # cases
    patients: int


def bootstrap_interval(
    values: Sequence[float] | Floats,
    groups: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Give the percentile bootstrap interval of the mean of `values`, resampling whole `groups` (patients).

    Without `groups` each value is its own group. ValueError for no values, a NaN or lengths that differ.
    """
    numbers = np.asarray(values, dtype=np.float64)
    sums, counts = _by_group(numbers, groups)
    means = _resampled_means(sums, counts, draws, np.random.default_rng(seed))
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    groups: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Compare two arms on the same cases: value i of `a` and of `b` belong to case i of patient `groups[i]`."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired values differ in number: {first.size} and {second.size}")
    differences = first - second
    interval = bootstrap_interval(differences, groups, draws, seed, level)
    difference, reference = float(differences.mean()), float(second.mean())
    relative = difference / reference if reference else float("nan")
    return PairedDifference(difference, interval, relative, first.size, len(set(groups or range(first.size))))


def mean_intervals(
    values: Floats, groups: Sequence[Hashable], draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Floats:
    """Give the percentile bootstrap intervals (m, 2) of the means of `values` (n, m), resampling whole `groups`.

    All columns see the same draws. A NaN is left out of its column's mean, and so is a draw that has nothing else; the
    interval of a column without a number is NaN.
    """
    found = np.isfinite(values)
    known = np.where(found, values, 0.0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is a draw without a value
        means = np.concatenate([(w @ known) / (w @ found) for w in case_weights(groups, draws, seed)])
    tail = (1 - level) / 2
    return np.stack([_quantiles(column[np.isfinite(column)], [tail, 1 - tail]) for column in means.T])


def _quantiles(values: Floats, places: list[float]) -> Floats:
    return np.quantile(values, places) if values.size else np.full(len(places), np.nan)


def case_weights(groups: Sequence[Hashable], draws: int = 10_000, seed: int = 0) -> Iterator[Floats]:
    """Give how often each case comes in each draw of whole groups, in blocks (draws of the block, cases).

    For figures that are no mean over cases, such as balanced accuracy: computed with these weights, they are those of
    the resampled cases.
    """
    member = _members(groups)
    count, random = int(member.max()) + 1, np.random.default_rng(seed)
    block = max(1, CHUNK // member.size)
    for start in range(0, draws, block):
        times = random.multinomial(count, np.full(count, 1 / count), size=min(block, draws - start))
        yield times[:, member].astype(np.float64)


def _members(groups: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    """The number of each case's group, in the order in which groups come first."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def _by_group(values: Floats, groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and number of the values of each group."""
    if values.ndim != 1 or not values.size:
        raise ValueError("a bootstrap needs a list of at least one value")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {values.size} values are NaN: leave excluded cases out first")
    if groups is None:
        return values, np.ones_like(values)
    if len(groups) != values.size:
        raise ValueError(f"{values.size} values but {len(groups)} groups")
    member = _members(groups)
    return np.bincount(member, values).astype(np.float64), np.bincount(member).astype(np.float64)


def _resampled_means(sums: Floats, counts: Floats, draws: int, random: np.random.Generator) -> Floats:
    """Mean of every draw of as many groups as there are, with replacement; in blocks, so that memory stays bounded."""
    groups = sums.size
    block = max(1, CHUNK // groups)
    means = []
    for start in range(0, draws, block):
        # how often each group was drawn: the same as drawing indices, without the gather
        times = random.multinomial(groups, np.full(groups, 1 / groups), size=min(block, draws - start)).astype(np.float64)
        means.append(times @ sums / (times @ counts))
    return np.concatenate(means)
