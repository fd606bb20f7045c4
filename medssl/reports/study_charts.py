"""Charts of a study as PNG bytes: scores against the number of labels or of unlabelled cases, and method x data."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize

from medssl.reports.canvas import DARK, LIGHT, PALETTE, literal, new_figure, png

# Lines lie on paper, not on images: those of the palette that stand out there, for light and for dark.
LINES = {False: [PALETTE[k] for k in (6, 4, 2, 5, 0, 1)], True: [PALETTE[k] for k in (1, 0, 2, 5, 4, 3)]}
MARKERS = "osD^vPX"
LEGEND = 0.2  # inches of a line of the legend


class Series(NamedTuple):
    """A line of a chart: its places, means, and standard deviations, None where there is one run."""

    places: Sequence[float]
    means: Sequence[float]
    sds: Sequence[float | None]


def bands(series: Mapping[str, Series], across: str, up: str, dark: bool = False) -> bytes:
    """Draw lines with a band of one standard deviation each, on a logarithmic axis whose ticks are the places."""
    figure = new_figure(6.8, 3.6 + LEGEND * len(series))
    ax = figure.add_subplot()
    colours = LINES[dark]
    for position, (name, line) in enumerate(series.items()):
        colour, marker = colours[position % len(colours)], MARKERS[position % len(MARKERS)]
        style = "solid" if position < len(colours) else "dashed"
        means, sds = np.array(line.means), np.array([sd or 0.0 for sd in line.sds])
        ax.fill_between(line.places, means - sds, means + sds, color=colour, alpha=0.16, linewidth=0)
        ax.plot(line.places, means, color=colour, marker=marker, markersize=5, linestyle=style, label=literal(name))
    places = sorted({place for line in series.values() for place in line.places})
    ax.set_xscale("log")
    ax.set_xticks(_apart(places), [f"{place:g}" for place in _apart(places)])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(across, fontsize=9)
    ax.set_ylabel(literal(up), fontsize=9)
    ax.grid(True)
    figure.legend(loc="outside upper left", ncols=1, frameon=False, fontsize=9)
    return png(figure, dark)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    words: Sequence[Sequence[str]],
    title: str,
    centred: bool,
    good: int = 1,
    dark: bool = False,
) -> bytes:
    """Draw a table of coloured cells with words in them; `centred` values have 0 in the middle of the colours.

    `good` is the sign of what is better, which is blue; worse is orange.
    """
    paper = DARK if dark else LIGHT
    numbers = np.array([[np.nan if value is None else value for value in row] for row in values])
    figure = new_figure(1.9 + 1.35 * len(columns), 0.9 + 0.62 * len(rows))
    ax = figure.add_subplot()
    ends = (PALETTE[4], paper["back"], PALETTE[6] if not dark else "#3a8fd0")
    colours = LinearSegmentedColormap.from_list("better", ends if centred else ends[1:])
    low, high = float(np.nanmin(good * numbers)), float(np.nanmax(good * numbers))
    most = max(abs(low), abs(high)) or 1.0
    margin = (high - low) or 1.0
    scale = Normalize(-1.6 * most, 1.6 * most) if centred else Normalize(low - 0.3 * margin, high + 0.6 * margin)
    ax.pcolormesh(np.ma.masked_invalid(good * numbers), cmap=colours, norm=scale, edgecolors=paper["back"], linewidth=2)
    for row, cells in enumerate(words):
        for column, text in enumerate(cells):
            lines = "\n".join(map(literal, text.splitlines()))
            ax.text(column + 0.5, row + 0.5, lines, ha="center", va="center", fontsize=9)
    ax.set_xticks(np.arange(len(columns)) + 0.5, [_folded(name) for name in columns])
    ax.set_yticks(np.arange(len(rows)) + 0.5, [literal(name) for name in rows])
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.set_title(literal(title), fontsize=10, loc="left")
    return png(figure, dark)


def _apart(places: Sequence[float]) -> list[float]:
    """Those places whose ticks do not run into each other."""
    kept: list[float] = []
    width = np.log(places[-1] / places[0]) if len(places) > 1 and places[0] > 0 else 1.0
    for place in places:
        if not kept or np.log(place / kept[-1]) > 0.06 * width:
            kept.append(place)
    return kept


def _folded(name: str) -> str:
    """A name on as many lines as it has parts."""
    return literal(name).replace(", then ", ",\nthen ")
