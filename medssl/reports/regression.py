"""The parts of a run's report that a regression has of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from medssl.problems import InputError
from medssl.reports.case_pictures import case_cards
from medssl.reports.number_pictures import residual_figure, scatter_figure, spread_sideways
from medssl.reports.page import folded, grid, heading, picture, table
from medssl.runs import Run
from medssl.scores.numbers import FIGURES, Estimate

WORST = 20  # cases in the table of the largest errors
TITLES = {
    "r2": "R2",
    "mae": "MAE",
    "rmse": "RMSE",
    "mean_error": "mean error",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}


def number_answer(run: Run) -> str:
    """Say in a few sentences how near the numbers came, and what is reached without a network."""
    s = run.summary
    if s.get("mae") is None:
        return "No case was judged: there is no result."
    explained = "There is no R2, as all true numbers are equal" if s.get("r2") is None else f"R2 {_with_interval(s, 'r2')}"
    others = [f"{one['name']} {_number(one.get('mae'))} and {_number(one.get('r2'))}" for one in s.get("baselines") or []]
    beside = f" Without a network, MAE and R2: {'; '.join(others)}." if others else ""
    return (
        f"{explained}; mean absolute error {_with_interval(s, 'mae')} in the target's unit; intervals over {run.units}, "
        f"n = {s.get('n')} cases of {s.get('patients')} {run.units}.{beside} "
        "One run does not say whether pre-training helps; a comparison with the other start, over several seeds, does."
    )


def number_tables(run: Run) -> list[str]:
    """Give all figures beside the baselines, predicted against true numbers, and the worst cases."""
    s = run.summary
    if s.get("mae") is None:
        return []
    baselines = s.get("baselines") or []
    header = ["figure", "value", "95% interval", *(str(one["name"]) for one in baselines)]
    cells = [
        [TITLES[name], _number(s.get(name)), _ends(s.get(f"{name}_interval")), *(_number(one.get(name)) for one in baselines)]
        for name in FIGURES
    ]
    try:
        rows = run.estimates()
    except InputError:
        rows = []
    return [table(header, cells, "Figures"), *(_plots(rows) if rows else [])]


def number_pictures(run: Run, arrays: Mapping[str, Any]) -> str:
    """Give the cards of the cases in predictions.npz: those with the largest error, typical and best ones."""
    if "truth_0" not in arrays:
        return ""

    def said(k: int) -> list[str]:
        truth, predicted = float(arrays[f"truth_{k}"]), float(arrays[f"predicted_{k}"])
        return [f"is {truth:.4g}, said {predicted:.4g}", f"error {predicted - truth:+.4g}"]

    return case_cards(run, arrays, said, "absolute error", "number")


def number_limits(run: Run) -> list[str]:
    """Say what the numbers do not cover."""
    policy = run.summary.get("policy")
    return [
        f"The intervals cover the choice of test {run.units}, not the choice of training cases and seeds.",
        "R2 and correlations grow with the spread of the judged cases: they are not those of patients picked otherwise.",
        "Each image is judged by one crop in its middle.",
        *([f"Figures: {policy}"] if policy else []),
    ]


def _plots(rows: list[Estimate]) -> list[str]:
    (against, against_dark), (left, left_dark) = (
        tuple(draw(rows, dark) for dark in (False, True)) for draw in (scatter_figure, residual_figure)
    )
    truth = np.array([row.truth for row in rows])
    apart = " Cases of one true number are spread sideways." if (spread_sideways(truth) != truth).any() else ""
    first = f"A point is a case; on the dashed line predicted and true are equal.{apart}"
    second = "What is left over; the coloured line is the mean error. A slope or a bend is what the network has not learned."
    return [
        heading("Predicted against true"),
        grid([
            picture(against, "Predicted against true numbers", first, dark=against_dark),
            picture(left, "Residuals", second, dark=left_dark),
        ]),
        _worst(rows),
    ]  # fmt: skip


def _worst(rows: list[Estimate]) -> str:
    worst = sorted(rows, key=lambda row: -abs(row.error))[:WORST]
    cells = [[row.case, _number(row.truth), _number(row.predicted), f"{row.error:+.4g}"] for row in worst]
    shown = table(["case", "true", "predicted", "error"], cells, "Worst cases")
    return folded(f"The {len(worst)} cases with the largest error", shown)


def _with_interval(s: Mapping[str, Any], name: str) -> str:
    ends = s.get(f"{name}_interval")
    return _number(s[name]) + (f" (95% interval {_ends(ends)})" if ends else "")


def _ends(ends: Any) -> str:
    return f"{_number(ends[0])} to {_number(ends[1])}" if ends else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
