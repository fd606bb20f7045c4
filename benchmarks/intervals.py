"""How often does a 95% interval of a difference hold the truth? Simulated studies, each way of making one beside the others.

    python benchmarks/intervals.py [--draws 200] [--json FILE]

Two arms are scored on the same patients by a few trainings each. Their difference is 0 + patient + seed + rest, with standard
deviations as found between runs of a segmentation. Beside the interval of the reports stand the bootstrap over patients
alone, the plain crossed bootstrap, the same stretched for small samples, and a t interval with no bootstrap. Below, how often
Wilcoxon's p is under 0.05 though there is no difference, how often the reports call one real, and how often the interval of
labels saved holds the number that is true.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from medssl.comparison.crossed import crossed_draws, crossed_interval, degrees_of_freedom
from medssl.comparison.efficiency import worth_interval
from medssl.comparison.significance import signed_rank
from medssl.markdown import markdown_table
from medssl.scores.bootstrap import bootstrap_interval

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
SIZES = ((3, 8), (3, 12), (3, 26), (3, 100), (5, 30), (2, 12))  # seeds, patients
SPREADS = ((0.03, 0.0, 0.03), (0.03, 0.005, 0.02), (0.03, 0.015, 0.02), (0.02, 0.03, 0.02))  # of patients, seeds, rest
RESAMPLED = 1000


def simulated(random: np.random.Generator, size: tuple[int, int], spread: tuple[float, float, float]) -> Floats:
    """Differences (seeds, patients) whose true mean is 0."""
    (seeds, patients), (of_patient, of_seed, rest) = size, spread
    drawn = random.normal(0, of_patient, patients) + random.normal(0, of_seed, (seeds, 1))
    values: Floats = drawn + random.normal(0, rest, (seeds, patients))
    return values


def patients_alone(values: Floats) -> Interval:
    return bootstrap_interval(values.mean(axis=0), draws=RESAMPLED)


def crossed(values: Floats) -> Interval:
    """Owen's: patients and seeds are resampled, and nothing else is done."""
    random, (seeds, patients) = np.random.default_rng(0), values.shape
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLED) / seeds
    of_patients = random.multinomial(patients, np.full(patients, 1 / patients), RESAMPLED) / patients
    low, high = np.quantile(((of_seeds @ values) * of_patients).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def stretched(values: Floats) -> Interval:
    """The interval of the reports without its t."""
    low, high = np.quantile(crossed_draws(values[None], range(values.shape[1]), RESAMPLED)[:, 0], [0.025, 0.975])
    return float(low), float(high)


def reported(values: Floats) -> Interval:
    return crossed_interval(values, range(values.shape[1]), RESAMPLED)


def t_alone(values: Floats) -> Interval:
    seeds, patients = values.shape
    error = np.sqrt(values.mean(axis=0).var(ddof=1) / patients + values.mean(axis=1).var(ddof=1) / seeds)
    half = t.ppf(0.975, degrees_of_freedom(values, range(patients))) * error
    return float(values.mean() - half), float(values.mean() + half)


WAYS: dict[str, Callable[[Floats], Interval]] = {
    "patients alone": patients_alone,
    "crossed": crossed,
    "stretched": stretched,
    "stretched, t (reported)": reported,
    "t, no bootstrap": t_alone,
}


def coverage(size: tuple[int, int], spread: tuple[float, float, float], draws: int) -> dict[str, float]:
    """The share of intervals that hold 0, their mean width, and how often a difference is seen where there is none."""
    random, found = np.random.default_rng(1), {name: np.zeros(2) for name in WAYS}
    seen = np.zeros(2)
    for _ in range(draws):
        values = simulated(random, size, spread)
        intervals = {name: way(values) for name, way in WAYS.items()}
        for name, (low, high) in intervals.items():
            found[name] += low <= 0 <= high, high - low
        cases = {str(k): float(value) for k, value in enumerate(values.mean(axis=0))}
        low, high = intervals["stretched, t (reported)"]
        p = signed_rank(cases, {case: case for case in cases})
        seen += p < 0.05, p < 0.05 and not low <= 0 <= high
    shares = {name: float(value[0] / draws) for name, value in found.items()}
    widths = {f"width, {name}": float(value[1] / draws) for name, value in found.items()}
    return shares | widths | {"p < 0.05": float(seen[0] / draws), "called real": float(seen[1] / draws)}


def labels_saved(draws: int, seeds: int = 3, patients: int = 26) -> float:
    """How often the interval of labels saved holds the truth: 6 labels are worth 12 ** 0.5 * 6 ** 0.5 = 8.49."""
    random, held = np.random.default_rng(1), 0
    for _ in range(draws):
        shared = random.normal(0, 0.05, patients)
        means = (0.75, 0.7, 0.8, 0.85)
        cells = np.stack([mean + shared + simulated(random, (seeds, patients), (0.01, 0.005, 0.01)) for mean in means])
        _, (low, high) = worth_interval(cells, (6, 12, 24), range(patients), draws=RESAMPLED)
        held += low <= 72**0.5 <= high
    return held / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="simulated studies of each kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {(size, spread): coverage(size, spread, options.draws) for size in SIZES for spread in SPREADS}
    header = ["seeds x patients", "sd of patients, seeds, rest", *WAYS, "p < 0.05", "called real"]
    rows = [
        [f"{size[0]} x {size[1]}", ", ".join(map(str, spread)), *(f"{shares[name]:.1%}" for name in header[2:])]
        for (size, spread), shares in results.items()
    ]
    saved = labels_saved(options.draws)
    error = 1.96 * (0.95 * 0.05 / options.draws) ** 0.5
    print(markdown_table(header, rows, words=2))
    print(f"\nshares of {options.draws} studies; a true 95% shows within {error:.1%} of it. Labels saved: {saved:.1%}.")
    if options.json:
        told = [{"size": size, "spread": spread} | shares for (size, spread), shares in results.items()]
        options.json.write_text(json.dumps({"coverage": told, "labels_saved": saved}, indent=1))


if __name__ == "__main__":
    main()
