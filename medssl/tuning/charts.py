"""The pictures of a search as PNG bytes: the best value so far, and values over each setting."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medssl.reports.canvas import PALETTE, literal, new_figure, png

MARKS = {"done": ("o", PALETTE[2], 5), "ended early": ("x", PALETTE[4], 5)}  # a failed trial has no value
NAMES = {"ended early": "ended early, its best so far"}
CLEAR = 1.5  # times the height of what was finished, that the axis shows at least


def best_so_far(content: Mapping[str, Any], dark: bool = False) -> bytes:
    """Draw the value of every trial in its order, and the best of those finished until then."""
    figure = new_figure(6.4, 3.0, fitted=False)
    ax = figure.add_subplot()
    trials = [trial for trial in content["trials"] if trial["value"] is not None]
    _points(ax, trials, [trial["number"] for trial in trials], label=True)
    best = max if content["higher_is_better"] else min
    numbers, values = list[int](), list[float]()
    for trial in trials:
        if trial["state"] == "done":
            numbers.append(trial["number"])
            values.append(best(trial["value"], values[-1]) if values else trial["value"])
    last = max(trial["number"] for trial in content["trials"])
    ax.step(
        [*numbers, last], [*values, *values[-1:]], where="post", color=PALETTE[1] if dark else PALETTE[6], label="best so far"
    )
    _limits(ax, content)
    ax.set_xlabel("trial", fontsize=9)
    ax.set_ylabel(literal(content["watched"]), fontsize=9)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(True)
    ax.legend(frameon=False, fontsize=8, loc="best")
    return png(figure, dark)


def by_setting(content: Mapping[str, Any], name: str, dark: bool = False) -> bytes:
    """Draw the value of every trial over one of its settings; the best trial has a ring."""
    figure = new_figure(3.9, 2.7, fitted=False)
    ax = figure.add_subplot()
    trials = [trial for trial in content["trials"] if trial["value"] is not None]
    axis = content["ranges"][name]
    words = [_word(value) for value in axis.get("of", [])]
    places = [words.index(_word(t["settings"][name])) if words else t["settings"][name] for t in trials]
    _points(ax, trials, places)
    for trial, place in zip(trials, places, strict=True):
        if trial["number"] == content["best"]:
            ax.plot(place, trial["value"], "o", markersize=11, fillstyle="none", color=PALETTE[1] if dark else PALETTE[6])
    if words:
        ax.set_xticks(range(len(words)), [literal(word) for word in words])
        ax.set_xlim(-0.5, len(words) - 0.5)
    elif axis["log"]:
        ax.set_xscale("log")
        margin = (axis["to"] / axis["from"]) ** 0.05
        ax.set_xlim(axis["from"] / margin, axis["to"] * margin)
    else:
        margin = 0.05 * (axis["to"] - axis["from"])
        ax.set_xlim(axis["from"] - margin, axis["to"] + margin)
    _limits(ax, content)
    ax.set_title(literal(name), fontsize=10)
    ax.set_ylabel(literal(content["watched"]), fontsize=9)
    ax.grid(True)
    return png(figure, dark)


def _points(ax: Axes, trials: Sequence[Mapping[str, Any]], places: Sequence[float], label: bool = False) -> None:
    for state, (mark, colour, size) in MARKS.items():
        here = [(place, trial["value"]) for place, trial in zip(places, trials, strict=True) if trial["state"] == state]
        if here:
            name = NAMES.get(state, state) if label else None
            ax.plot(*zip(*here, strict=True), mark, color=colour, markersize=size, label=name, linestyle="none")


def _limits(ax: Axes, content: Mapping[str, Any]) -> None:
    """Show what was finished at full height; trials that ended far below hang at the edge rather than flatten it."""
    values = [trial["value"] for trial in content["trials"] if trial["value"] is not None]
    done = [trial["value"] for trial in content["trials"] if trial["state"] == "done"]
    if not done:
        return
    height = max(max(done) - min(done), 1e-3 * max(map(abs, done)), 1e-12)
    low, high = max(min(values), min(done) - CLEAR * height), min(max(values), max(done) + CLEAR * height)
    margin = 0.06 * max(high - low, height)
    ax.set_ylim(low - margin, high + margin)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
