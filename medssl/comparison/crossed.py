"""Intervals of a mean over test patients and trainings at once, made for the few of both that a study has.

The value d[s, c] of training (seed) s and case c is taken as mean + patient + seed + rest: every training is judged on the
same patients, so both are crossed, and both are samples: of the patients to come and of the trainings that might have been.
A draw takes patients with replacement, each with all its cases, and seeds with replacement, and adds up what both move the
mean by. Resampling as such is too narrow for few: a draw of n moves by (n - 1) / n of the variance and knows no t. So the
parts are stretched by sqrt(n / (n - 1)) each (Davison and Hinkley 1997, section 2.5), and the quantiles around the mean by
t / z, with the degrees of freedom of Satterthwaite (1946), as Hesterberg (2015) does for one sample. The crossed bootstrap
itself is Owen's (2007), which would count the rest three times; here it is counted twice at most, in both parts.
`benchmarks/intervals.py` shows how often intervals made so hold the truth, beside the alternatives.

With one seed only patients are resampled: such an interval says nothing about other trainings.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

Floats = npt.NDArray[np.float64]
CHUNK = 2_000_000  # numbers of one block of draws: 16 MB
DRAWS = 10_000


def crossed_interval(
    values: Floats, patients: Sequence[Hashable], draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Give the bootstrap interval of the mean of `values` (seeds, cases), resampling patients and seeds.

    `patients` names the patient of each case. With one patient it covers the seeds alone. ValueError for no values, a NaN
    or another number of patients.
    """
    middle = float(values.mean()) if values.size else 0.0
    moved = crossed_draws(values[None], patients, draws, seed)[:, 0] - middle
    tail = (1 - level) / 2
    low, high = middle + wider_by_t(values, patients, level) * np.quantile(moved, [tail, 1 - tail])
    return float(low), float(high)


def crossed_draws(cells: Floats, patients: Sequence[Hashable], draws: int = DRAWS, seed: int = 0) -> Floats:
    """Give `draws` bootstrap means (draws, k) of `cells` (k, seeds, cases), which all see the same patients and seeds."""
    if cells.ndim != 3 or not cells.size or np.isnan(cells).any() or len(patients) != cells.shape[2]:
        raise ValueError(f"found values of shape {cells.shape}, expected numbers for each cell, seed and case of a patient")
    by_patient, sizes, by_seed = _parts(cells, patients)
    count, seeds = sizes.size, cells.shape[1]
    moved = np.empty((draws, cells.shape[0]))
    block = max(1, CHUNK // count)
    for start in range(0, draws, block):
        part = slice(start, start + block)
        times = _times(count, draws, (seed, 0))[part].astype(np.float64)
        moved[part] = _spread(count) * (times @ by_patient.T) / (times @ sizes)[:, None]
    moved += _spread(seeds) * (_times(seeds, draws, (seed, 1)) @ by_seed.T) / seeds
    moved += cells.mean(axis=(1, 2))
    return moved


def wider_by_t(values: Floats, patients: Sequence[Hashable], level: float = 0.95) -> float:
    """Give Student's quantile over the normal one for the mean of `values` (seeds, cases)."""
    free, tail = degrees_of_freedom(values, patients), (1 - level) / 2
    return float(stdtrit(free, tail) / ndtri(tail)) if math.isfinite(free) else 1.0


def degrees_of_freedom(values: Floats, patients: Sequence[Hashable]) -> float:
    """Give Satterthwaite's degrees of freedom of the mean of `values` (seeds, cases); infinite where nothing varies."""
    by_patient, sizes, by_seed = _parts(values[None], patients)
    parts = [(by_patient[0] / sizes.sum(), sizes.size), (by_seed[0] / by_seed.shape[1], by_seed.shape[1])]
    variances = [(float((part**2).sum()) * n / (n - 1), n - 1) for part, n in parts if n > 1]
    total = sum(variance for variance, _ in variances)
    if total <= 1e-24 * max(1.0, float(np.abs(values).max()) ** 2):  # rounding is no variance
        return math.inf
    return float(total**2 / sum(variance**2 / free for variance, free in variances))


def matrix(by_seed: Sequence[Mapping[str, float]]) -> tuple[Floats, list[str]]:
    """Put the values of each seed by case into a matrix (seeds, cases), beside the cases.

    A case that a seed lacks has its mean over the others there, so that the mean over all is that of the cases' means.
    """
    cases = list(dict.fromkeys(case for values in by_seed for case in values))
    found = np.array([[values.get(case, math.nan) for case in cases] for values in by_seed], dtype=np.float64)
    return (np.where(np.isnan(found), np.nanmean(found, axis=0), found) if cases else found), cases


def _parts(cells: Floats, patients: Sequence[Hashable]) -> tuple[Floats, Floats, Floats]:
    """What each patient (k, p) and each seed (k, s) adds to the mean, and the number of cases of each patient (p)."""
    numbers: dict[Hashable, int] = {}
    member = np.array([numbers.setdefault(patient, len(numbers)) for patient in patients])
    around = cells - cells.mean(axis=(1, 2), keepdims=True)
    of_cases = around.mean(axis=1)
    by_patient: Floats = np.stack([np.bincount(member, of_cell).astype(np.float64) for of_cell in of_cases])
    by_seed: Floats = around.mean(axis=2)
    return by_patient, np.bincount(member).astype(np.float64), by_seed


@lru_cache(maxsize=4)
def _times(count: int, draws: int, seed: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """How often each of `count` comes in each draw of as many; kept, for all comparisons of a study draw the same."""
    random = np.random.default_rng(seed)
    blocks = [min(CHUNK // count + 1, draws - start) for start in range(0, draws, CHUNK // count + 1)]
    even = np.full(count, 1 / count)
    return np.concatenate([random.multinomial(count, even, size=size).astype(np.uint8) for size in blocks])


def _spread(count: int) -> float:
    """By how much a sample of so many varies more than draws from it do; nothing is known from one."""
    return math.sqrt(count / (count - 1)) if count > 1 else 0.0
