"""Charts as PNG bytes: training curves and bars by arm. The pictures of images are in `medssl.reports.pictures`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from medssl.reports.canvas import DARK, LIGHT, PALETTE, literal, new_figure, png
from medssl.reports.pictures import CONVENTION, prediction_figure, views_figure

__all__ = [
    "CONVENTION",
    "bars_by_arm",
    "curve",
    "curve_series",
    "curve_title",
    "curves",
    "prediction_figure",
    "rate_curve",
    "views_figure",
]

NOT_CURVES = ("step", "grad_norm", "epoch")
PACE = ("lr", "momentum")  # drawn as they are
Numbers = npt.NDArray[np.float64]


def curves(lines: Iterable[Mapping[str, Any]], dark: bool = False) -> bytes:
    """Draw all curves of metrics.jsonl in one picture: loss and its parts, validation, learning rate."""
    series = curve_series(lines)
    columns = min(3, max(1, len(series)))
    rows = max(1, -(-len(series) // columns))
    figure = new_figure(3.6 * columns, 2.6 * rows)
    for position, (name, (steps, values)) in enumerate(series.items()):
        _curve(figure.add_subplot(rows, columns, position + 1), name, steps, values, dark)
    return png(figure, dark)


def curve(lines: Iterable[Mapping[str, Any]], name: str, chance: float | None = None, dark: bool = False) -> bytes:
    """Draw one curve of metrics.jsonl alone, for pages that arrange pictures by their width.

    `chance`, the value where nothing is learned, is a dashed line.
    """
    figure = new_figure(3.9, 2.6, fitted=False)
    ax = figure.add_subplot()
    _curve(ax, name, *curve_series(lines)[name], dark)
    if chance is not None:
        ax.axhline(chance, color=(DARK if dark else LIGHT)["ink"], linestyle="dashed", linewidth=0.9)
        ax.annotate("chance", (0.99, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    return png(figure, dark)


def curve_series(lines: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Numbers, Numbers]]:
    """Give (steps, values) of each number in metrics.jsonl, loss first, then its parts, validation, learning rate.

    A step that a resumed run wrote twice counts once, as written last. Times and the gradient norm are left out.
    """
    points: dict[str, dict[int, float]] = {}
    for line in lines:
        for name, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and "step" in line and name not in NOT_CURVES and not name.endswith("_s"):
                points.setdefault(name, {})[int(line["step"])] = float(value)
    order = sorted(points, key=lambda name: (name in PACE, name.startswith("val_"), name != "loss"))
    return {name: (np.array(sorted(points[name])), np.array([points[name][s] for s in sorted(points[name])])) for name in order}


def rate_curve(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestions: Mapping[str, float],
    dark: bool = False,
) -> bytes:
    """Draw the loss over the learning rate of a rate search, both raw and smoothed, with the suggested rates marked."""
    figure = new_figure(6.4, 4.0, fitted=False)
    ax = figure.add_subplot()
    colour = PALETTE[1] if dark else PALETTE[6]
    ax.plot(rates, losses, color=colour, alpha=0.3, linewidth=0.7)
    ax.plot(rates, smoothed, color=colour, linewidth=1.6)
    for position, (name, rate) in enumerate(suggestions.items()):
        height = float(np.interp(np.log(rate), np.log(rates), smoothed))
        label = literal(f"{name}: {rate:.2g}")
        ax.plot(rate, height, marker="o", markersize=8, linestyle="none", color=PALETTE[(4, 2)[position % 2]], label=label)
    until = int(np.argmin(smoothed)) + 1  # the end, where the loss diverges, would flatten all else
    low, high = min(*losses[:until], *smoothed), max(*losses[:until], *smoothed[:until])
    margin = 0.1 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + 2 * margin)
    ax.set_xscale("log")
    ax.set_xlabel("learning rate", fontsize=9)
    ax.set_ylabel("training loss", fontsize=9)
    ax.grid(True)
    ax.legend(frameon=False, fontsize=9)
    return png(figure, dark)


def bars_by_arm(
    groups: Sequence[str],
    arms: Mapping[str, Sequence[float | None]],
    spread: Mapping[str, Sequence[float | None]],
    title: str,
    top: float | None,
    dark: bool = False,
) -> bytes:
    """Draw groups of bars, a bar for each arm, with thin lines for `spread`; the axis ends at `top`, or where bars do."""
    width = 0.8 / max(1, len(arms))
    figure = new_figure(max(6.0, 0.9 + len(groups) * (0.5 + 0.28 * len(arms))), 3.4)
    ax = figure.add_subplot()
    ink = (DARK if dark else LIGHT)["ink"]
    for position, (name, values) in enumerate(arms.items()):
        places = np.arange(len(groups)) + (position - (len(arms) - 1) / 2) * width
        heights = [np.nan if value is None else value for value in values]
        errors = [0 if value is None else value for value in spread[name]]
        colour = PALETTE[position % len(PALETTE)]
        hatch = "//" if position >= len(PALETTE) else None  # colours come again
        ax.bar(
            places, heights, 0.92 * width, yerr=errors, color=colour, label=literal(name), ecolor=ink, capsize=2, hatch=hatch
        )
    few = len(groups) < 7
    ax.set_xticks(
        range(len(groups)),
        [literal(name) for name in groups],
        rotation=0 if few else 35,
        ha="center" if few else "right",
    )
    lowest = min((value for values in arms.values() for value in values if value is not None), default=0.0)
    ax.set_ylim(min(0.0, 1.1 * lowest), top)
    ax.set_ylabel(title)
    ax.set_axisbelow(True)
    ax.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=min(2, len(arms)), frameon=False)
    return png(figure, dark)


def curve_title(name: str) -> str:
    """Say in words what a key of metrics.jsonl is."""
    known = {"lr": "learning rate", "loss": "training loss", "accuracy": "training accuracy", "mae": "training MAE"}
    known |= {"val_mae": "validation MAE", "val_rmse": "validation RMSE", "val_r2": "validation R2"}
    return known.get(name, name.replace("val_", "validation ").replace("_", " "))


def _curve(ax: Axes, name: str, steps: Numbers, values: Numbers, dark: bool) -> None:
    """Raw values thin, their moving mean thick; validation points as measured."""
    colour = PALETTE[2] if name.startswith("val_") else PALETTE[1] if dark else PALETTE[6]
    ax.set_title(literal(curve_title(name)), fontsize=10)
    if name in PACE:
        ax.plot(steps, values, color=colour)
    elif name.startswith("val_"):
        ax.plot(steps, values, color=colour, marker="o", markersize=2.5)
    else:
        window = max(1, len(values) // 40)
        ax.plot(steps, values, color=colour, alpha=0.3, linewidth=0.7)
        ax.plot(steps, _moving_mean(values, window), color=colour, linewidth=1.6)
    finite = values[np.isfinite(values)]
    if name not in PACE and finite.size and finite.min() > 0 and finite.max() > 50 * finite.min():
        ax.set_yscale("log")
    ax.set_xlabel("step", fontsize=9)
    ax.grid(True)


def _moving_mean(values: Numbers, window: int) -> Numbers:
    """Mean of the last `window` values; of as many as there are at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    mean: Numbers = (sums[ends] - sums[starts]) / (ends - starts)
    return mean
