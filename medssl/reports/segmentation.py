"""The parts of a run's report that a segmentation has of its own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medssl.problems import InputError
from medssl.reports.charts import CONVENTION, predictions_figure
from medssl.reports.page import folded, picture, table
from medssl.runs import Run
from medssl.scores.voxels import score_by_case

WORST = 8  # cases in the table of the lowest scores


def voxel_answer(run: Run) -> str:
    """Say in a few sentences how well the outlines agree."""
    s = run.summary
    if s.get("dice") is None:
        return "No case has a score: there is no result."
    low, high = s.get("dice_interval") or (None, None)
    interval = f" (95% interval {low:.3f} to {high:.3f} over patients)" if low is not None else ""
    far = f", mean HD95 {s['hd95']:.2f} mm" if s.get("hd95") is not None else ""
    return (
        f"Mean Dice {s['dice']:.3f}{interval}{far}, n = {s.get('n')}. "
        "One run does not say whether pre-training helps; a comparison with the other start, over several seeds, does."
    )


def voxel_tables(run: Run) -> list[str]:
    """Give the scores by class, and the cases with the lowest."""
    classes = run.summary.get("classes")
    if not isinstance(classes, Mapping):
        return []
    rows = [[name, _number(c.get("dice"), 3), _number(c.get("hd95"), 2), c.get("n", "")] for name, c in classes.items()]
    rows.append(
        [
            "mean over cases",
            _number(run.summary.get("dice"), 3),
            _number(run.summary.get("hd95"), 2),
            run.summary.get("n"),
        ]
    )
    parts = [table(["class", "Dice", "HD95 mm", "n"], rows, "Scores by class")]
    try:
        rows_of_cases = run.scores()
    except InputError:
        return parts
    far = score_by_case(rows_of_cases, "hd95")
    lowest = sorted((score, case) for case, score in score_by_case(rows_of_cases).items() if not math.isnan(score))[:WORST]
    worst = table(
        ["case", "Dice", "HD95 mm"], [[case, _number(d, 3), _number(far[case], 2)] for d, case in lowest], "Worst cases"
    )
    return [*parts, folded(f"The {len(lowest)} cases with the lowest Dice", worst)]


def voxel_pictures(run: Run, arrays: Mapping[str, Any]) -> str:
    """Give the picture of predictions beside labels, from predictions.npz."""
    if "image_0" not in arrays:
        return ""
    arrays = {**arrays, **_missing_scores(run, arrays)}
    names = {int(index): str(name) for index, name in (run.split.get("labels") or {}).items()}
    volume = np.asarray(arrays["image_0"]).ndim == 4
    png = predictions_figure(arrays, names, spacing_of(run))
    caption = f"Label and prediction as outlines, best case first. {CONVENTION if volume else ''}"
    return picture(png, f"Predictions beside labels, {run.name}", caption, wide=True)


def voxel_limits(run: Run) -> list[str]:
    """Say what the numbers do not cover."""
    policy = run.summary.get("policy")
    return [
        "The interval covers the choice of test patients, not the choice of training cases and seeds.",
        "Scores are measured on the prepared grid"
        + (f" of {' x '.join(f'{mm:g}' for mm in spacing_of(run) or [])} mm." if spacing_of(run) else "."),
        *([f"Empty classes: {policy}"] if policy else []),
    ]


def spacing_of(run: Run) -> Sequence[float] | None:
    """Give the spacing of the prepared grid in mm, where the run knows one."""
    spacing = run.summary.get("spacing") or run.config.get("spacing")
    return [float(mm) for mm in spacing] if spacing else None


def _missing_scores(run: Run, arrays: Mapping[str, Any]) -> dict[str, float]:
    """The Dice of the shown cases from predictions.csv, where predictions.npz does not hold it."""
    try:
        by_case = score_by_case(run.scores())
    except InputError:
        return {}
    count = sum(name.startswith("name_") for name in arrays)
    shown = {k: str(arrays[f"name_{k}"]) for k in range(count) if f"name_{k}" in arrays}
    return {f"dice_{k}": by_case[name] for k, name in shown.items() if f"dice_{k}" not in arrays and name in by_case}


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
