"""Regression judged: R2, errors in the target's own unit, and correlations; numpy only.

Every figure is a function of weights of the cases, as in `medssl.scores.classes`: ones give the figure itself, and how
often a bootstrap drew each case gives the figure of that draw, for all draws at once. R2 is one minus the squared error
over that of the mean of the judged cases; Spearman's correlation is Pearson's of the ranks, equal values sharing the
mean of theirs. Axis letters: n cases, r draws.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medssl.scores.bootstrap import case_weights

POLICY = (
    "R2 is against the mean of the judged cases, so that always saying it scores 0 and a worse guess less than 0. "
    "The mean error is predicted minus true. Where all true numbers are equal there is no R2 and no correlation, and where "
    "all predicted ones are equal no correlation: none, not 0. Draws of the bootstrap without a figure are left out of its "
    "interval."
)
DRAWS = 2_000
FIELDS = ("case", "patient", "truth", "predicted")
FIGURES = ("r2", "mae", "rmse", "mean_error", "pearson", "spearman")
Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """One case: its true number and the predicted one."""

    case: str
    patient: str
    truth: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted minus true."""
        return self.predicted - self.truth


def figures(truth: Floats, predicted: Floats, weights: Floats) -> dict[str, Floats]:
    """Give every one of FIGURES as (r,); NaN where the policy has none.

    `truth` and `predicted` are (n,), `weights` (r, n) of each case in each draw.
    """
    errors, total = predicted - truth, weights.sum(1)
    squared = weights @ errors**2
    spread = _products(truth, truth, weights)
    varied = _varied(truth, weights) & (spread > 0)
    both = varied & _varied(predicted, weights)
    ranks = _ranks(truth, weights), _ranks(predicted, weights)
    return {
        "r2": np.where(varied, 1 - squared / np.where(varied, spread, 1), np.nan),
        "mae": weights @ np.abs(errors) / total,
        "rmse": np.sqrt(squared / total),
        "mean_error": weights @ errors / total,
        "pearson": np.where(both, _correlation(truth, predicted, weights), np.nan),
        "spearman": np.where(both, _correlation(*ranks, weights), np.nan),
    }


def summarise_numbers(rows: Iterable[Estimate], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Give what summary.json says about the judged cases, each figure with its 95% bootstrap interval over patients.

    n, patients, FIGURES and the policy; a figure that the policy has none for is None. ValueError for no rows.
    """
    rows = list(rows)
    truth, predicted = _arrays(rows)
    now = figures(truth, predicted, np.ones((1, len(rows))))
    blocks = [figures(truth, predicted, w) for w in case_weights([row.patient for row in rows], draws, seed)]
    told: dict[str, Any] = {"n": len(rows), "patients": len({row.patient for row in rows})}
    for name in FIGURES:
        drawn = np.concatenate([block[name] for block in blocks])
        told[name] = _or_none(now[name][0])
        told[f"{name}_interval"] = None if told[name] is None else np.nanquantile(drawn, [0.025, 0.975]).tolist()
    return told | {"policy": POLICY}


def quick_numbers(rows: Sequence[Estimate]) -> dict[str, float | None]:
    """Give FIGURES without intervals, for validation while training and for baselines; None where the policy has none."""
    truth, predicted = _arrays(rows)
    return {name: _or_none(value[0]) for name, value in figures(truth, predicted, np.ones((1, len(rows)))).items()}


def estimates_csv(rows: Iterable[Estimate]) -> bytes:
    """Write predictions.csv: a line a case."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows(rows)
    return text.getvalue().encode()


def read_estimates(path: Path) -> list[Estimate]:
    """Read a predictions.csv; ValueError or OSError where it is none."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if tuple(lines.fieldnames or ()) != FIELDS:
            raise ValueError(f"columns {', '.join(lines.fieldnames or ())}")
        return [_estimate(line) for line in lines]


def _estimate(line: Mapping[str, str | None]) -> Estimate:
    case, patient, *numbers = (line[field] or "" for field in FIELDS)
    truth, predicted = map(float, numbers)
    if not math.isfinite(truth + predicted):
        raise ValueError(f"{truth} and {predicted} of case {case}")
    return Estimate(case, patient, truth, predicted)


def _correlation(a: Floats, b: Floats, weights: Floats) -> Floats:
    """Pearson's correlation (r,) of values (n,), or of those of each draw (r, n)."""
    size = np.sqrt(_products(a, a, weights) * _products(b, b, weights))
    return np.clip(_products(a, b, weights) / np.where(size > 0, size, 1), -1, 1)


def _products(a: Floats, b: Floats, weights: Floats) -> Floats:
    """The sum (r,) over cases of the products of what a and b differ from their means."""
    found: Floats = (weights * _centred(a, weights) * _centred(b, weights)).sum(1)
    return found


def _centred(values: Floats, weights: Floats) -> Floats:
    mean: Floats = (weights * values).sum(1) / weights.sum(1)
    return values - mean[:, None]


def _ranks(values: Floats, weights: Floats) -> Floats:
    """The rank (r, n) of each case among those of each draw, up to a constant; equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    _, starts, places = np.unique(values[order], return_index=True, return_inverse=True)
    counts = np.add.reduceat(weights[:, order], starts, axis=1)  # of each value
    ranks = np.empty_like(weights)
    ranks[:, order] = (np.cumsum(counts, 1) - counts / 2)[:, places]
    return ranks


def _varied(values: Floats, weights: Floats) -> npt.NDArray[np.bool_]:
    """Whether each draw (r,) has two values that differ; a variance near 0 would not tell."""
    drawn = weights > 0
    return np.asarray(np.where(drawn, values, -np.inf).max(1) > np.where(drawn, values, np.inf).min(1))


def _arrays(rows: Sequence[Estimate]) -> tuple[Floats, Floats]:
    if not rows:
        raise ValueError("rows: found none, expected at least one case")
    return np.array([row.truth for row in rows], np.float64), np.array([row.predicted for row in rows], np.float64)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
