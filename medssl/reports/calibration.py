"""The part of a classification's report that says whether its probabilities can be believed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medssl.reports.canvas import DARK, LIGHT, PALETTE, new_figure, png
from medssl.reports.page import heading, paragraph, picture, table
from medssl.runs import Run
from medssl.scores.calibration import BINS

TITLES = {"log_loss": "log loss", "ece": "calibration error (ECE)", "brier": "Brier score", "overconfidence": "overconfidence"}
Bins = Sequence[Mapping[str, float]]  # of summary.json: end, n, confidence, right


def calibration_parts(run: Run) -> list[str]:
    """Give the reliability curve, what it means, and the figures before and after the temperature; older runs have none."""
    found = run.summary.get("calibration")
    if not isinstance(found, Mapping):
        return []
    after: Mapping[str, Any] = found.get("after") or {}
    light, dark = (reliability_figure(found["reliability"], after.get("reliability"), dark) for dark in (False, True))
    caption = (
        f"Cases sorted by the probability of their chosen class into {BINS} bins. Points on the dashed line mean what they "
        "say; below it the network is too sure. Bars: cases in each bin. Bins of few cases move a lot by chance."
    )
    rows = [[title, _cell(found, name), _cell(after, name)] for name, title in TITLES.items()]
    return [
        heading("Calibration"),
        paragraph(_in_words(found)),
        picture(light, "Reliability curve", caption, dark=dark),
        table(["figure", "as predicted [95%]", "after the temperature [95%]"], rows, "Calibration"),
        paragraph("Overconfidence is the mean probability of the chosen class minus the accuracy.", "quiet"),
    ]


def reliability_figure(before: Bins, after: Bins | None, dark: bool = False) -> bytes:
    """Draw the share of right answers over confidence, before and after a temperature, and the cases below."""
    figure = new_figure(4.6, 4.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    ink = (DARK if dark else LIGHT)["ink"]
    top.plot([0, 1], [0, 1], color=ink, linestyle="dashed", linewidth=0.9)
    curves = [("as predicted", before, PALETTE[4], "o"), ("after the temperature", after, PALETTE[1], "s")]
    shown = [curve for curve in curves if curve[1]]
    for place, (name, bins, colour, marker) in enumerate(shown):
        assert bins is not None
        columns = {key: np.array([one[key] for one in bins], float) for key in ("end", "n", "confidence", "right")}
        top.plot(columns["confidence"], columns["right"], color=colour, marker=marker, markersize=4, label=name)
        width = 0.9 / BINS / len(shown)
        starts = columns["end"] - 0.95 / BINS + place * width
        below.bar(starts, columns["n"], width, align="edge", color=colour)
    top.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share that is right")
    below.set_xlabel("probability of the chosen class")
    below.set_ylabel("cases")
    for ax in (top, below):
        ax.set_axisbelow(True)
        ax.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return png(figure, dark)


def _in_words(found: Mapping[str, Any]) -> str:
    """What the curve says to a reader who does not know it."""
    bins = found["reliability"]
    cases = sum(one["n"] for one in bins)
    confidence, right = (sum(one["n"] * one[key] for one in bins) / cases for key in ("confidence", "right"))
    low, high = found["overconfidence_interval"]
    verdict = (
        "too sure of itself" if low > 0 else "less sure than it could be" if high < 0 else "not clearly too sure or unsure"
    )
    said = (
        f"On average the network gives its answer a probability of {confidence:.0%} and is right in {right:.0%} of the "
        f"cases: it is {verdict}."
    )
    if not found.get("after"):
        return f"{said} There is no temperature: {found.get('reason')}."
    loss, error = (f"{found['after'][key]:.3f} instead of {found[key]:.3f}" for key in ("log_loss", "ece"))
    return (
        f"{said} A temperature of {found['temperature']:.2f}, fitted on the {found['temperature_cases']} validation cases, "
        f"changes no answer; with it the log loss is {loss} and the calibration error {error}. The probabilities in "
        "predictions.csv are those before it."
    )


def _cell(figures: Mapping[str, Any], name: str) -> str:
    if figures.get(name) is None:
        return "-"
    low, high = figures[f"{name}_interval"]
    sign = "+" if name == "overconfidence" else ""
    return f"{figures[name]:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
