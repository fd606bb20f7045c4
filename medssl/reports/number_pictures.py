"""Pictures of a regression: predicted against true numbers, and what is left over. PNG bytes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from medssl.reports.canvas import DARK, LIGHT, PALETTE, new_figure, png
from medssl.scores.numbers import Estimate

STEPS = 12  # at most so many true numbers are the steps of a scale, whose cases are spread sideways
Numbers = npt.NDArray[np.float64]


def scatter_figure(rows: Sequence[Estimate], dark: bool = False) -> bytes:
    """Draw predicted against true numbers, with the line of equal ones; both axes have one scale."""
    truth, predicted = _columns(rows)
    figure = new_figure(4.6, 4.4, fitted=False)
    ax = figure.add_subplot()
    places = spread_sideways(truth)
    low, high = min(places.min(), predicted.min()), max(places.max(), predicted.max())
    margin = 0.06 * (high - low) or 1.0
    ends = [low - margin, high + margin]
    ax.plot(ends, ends, color=_ink(dark), linestyle="dashed", linewidth=0.9, zorder=1)
    _points(ax, places, predicted)
    ax.set(xlim=ends, ylim=ends, xlabel="true", ylabel="predicted", aspect="equal")
    ax.grid(True)
    return png(figure, dark)


def residual_figure(rows: Sequence[Estimate], dark: bool = False) -> bytes:
    """Draw predicted minus true against predicted numbers, with lines at 0 and, in colour, at the mean error."""
    truth, predicted = _columns(rows)
    errors = predicted - truth
    figure = new_figure(4.6, 4.4, fitted=False)
    ax = figure.add_subplot()
    ax.axhline(0, color=_ink(dark), linestyle="dashed", linewidth=0.9, zorder=1)
    ax.axhline(float(errors.mean()), color=PALETTE[4], linewidth=1.2, zorder=3)
    _points(ax, predicted, errors)
    ax.set(xlabel="predicted", ylabel="predicted - true")
    ax.grid(True)
    return png(figure, dark)


def spread_sideways(truth: Numbers) -> Numbers:
    """Move cases of one true number apart where there are few such numbers, by up to 0.3 of the way to the next.

    They move in the order in which they come, to fixed places that fill that width evenly for any count of cases.
    """
    steps = np.unique(truth)
    if not 1 < steps.size <= STEPS or truth.size <= 2 * steps.size:
        return truth
    places = truth.copy()
    for step in steps:
        here = np.flatnonzero(truth == step)
        # multiples of the golden ratio, modulo 1
        places[here] += 0.6 * np.diff(steps).min() * ((np.arange(here.size) + 0.5) * 0.6180339887 % 1 - 0.5)
    return places


def _points(ax: Axes, x: Numbers, y: Numbers) -> None:
    dense = x.size > 300
    ax.scatter(x, y, s=9 if dense else 22, color=PALETTE[1], alpha=0.45 if dense else 0.8, linewidths=0, zorder=2)


def _columns(rows: Sequence[Estimate]) -> tuple[Numbers, Numbers]:
    return np.array([row.truth for row in rows]), np.array([row.predicted for row in rows])


def _ink(dark: bool) -> str:
    return (DARK if dark else LIGHT)["ink"]
