"""The parts of a run's report that a segmentation has of its own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medssl.problems import InputError
from medssl.reports.page import folded, heading, paragraph, table
from medssl.runs import Run
from medssl.scores.voxels import score_by_case

WORST = 8  # cases in the table of the lowest scores
FORMATS = {"hd95": ".2f", "volume_error": "+.1f", "absolute_volume_error": ".1f", "relative_volume_error": "+.1%"}


def voxel_answer(run: Run) -> str:
    """Say in a few sentences how well the outlines agree."""
    s = run.summary
    if s.get("dice") is None:
        return "No case has a score: there is no result."
    near = f", {surface_title(run)} {s['surface_dice']:.3f}" if s.get("surface_dice") is not None else ""
    far = f", mean HD95 {s['hd95']:.2f} mm" if s.get("hd95") is not None else ""
    return (
        f"Mean Dice {s['dice']:.3f}{_interval(run)}{near}{far}, n = {s.get('n')}. "
        "One run does not say whether pre-training helps; a comparison with the other start, over several seeds, does."
    )


def voxel_tables(run: Run) -> list[str]:
    """Give the scores of all cases, of each class, the volumes, and the cases with the lowest Dice."""
    classes = run.summary.get("classes")
    if not isinstance(classes, Mapping):
        return []
    titles = {"dice": "Dice", "surface_dice": surface_title(run), "hd95": "HD95 mm"}
    if run.summary.get("surface_dice") is None:
        titles.pop("surface_dice")  # of a run that was judged before there was one
    cells = [[name, *(cell(of, key) for key in titles), of.get("n", "")] for name, of in classes.items()]
    mean = ["mean over cases", *(cell(run.summary, key) for key in titles), run.summary.get("n", "")]
    ends = f"In brackets: 95% interval, bootstrap over {run.units}. n counts the cases that have a score."
    return [
        table(["class", *titles.values(), "n"], [*cells, mean], "Scores by class"),
        paragraph(ends if run.summary.get("dice_interval") else "", "quiet"),
        *_volumes(run, classes),
        *_worst(run, titles),
    ]


def surface_title(run: Run) -> str:
    """Name the surface Dice with its tolerance."""
    tolerance = run.summary.get("tolerance")
    return "surface Dice" + ("" if tolerance is None else f" at {tolerance:g} mm")


def cell(figures: Mapping[str, Any], key: str) -> str:
    """Write a measure of a summary with its interval."""
    ends = figures.get(f"{key}_interval")
    return _number(figures.get(key), key) + (f" [{_number(ends[0], key)}, {_number(ends[1], key)}]" if ends else "")


def _volumes(run: Run, classes: Mapping[str, Any]) -> list[str]:
    """Whether classes come out too large or too small, and objects that were missed or invented."""
    if not any(of.get("volume_error") is not None for of in classes.values()):
        return []
    unit = {"mm2": "mm²"}.get(str(run.summary.get("volume_unit")), "mm³")
    header = ["class", f"error {unit}", f"size of the error {unit}", "relative error", "missed", "invented"]
    keys = ("volume_error", "absolute_volume_error", "relative_volume_error")
    rows = [[name, *(cell(of, key) for key in keys), of.get("missed"), of.get("invented")] for name, of in classes.items()]
    about = (
        "Volumes of the prediction minus those of the label, mean over cases: below 0 a class comes out too small. "
        "In the size of the error too much and too little do not cancel. Missed and invented count cases with the class "
        "in the label alone and in the prediction alone; the relative error leaves out invented ones."
    )
    return [heading("Volume of each class"), table(header, rows, "Volume of each class"), paragraph(about, "quiet")]


def _worst(run: Run, titles: Mapping[str, str]) -> list[str]:
    try:
        rows = run.scores()
    except InputError:
        return []
    by_case = {key: score_by_case(rows, key) for key in titles}
    lowest = sorted((score, case) for case, score in by_case["dice"].items() if not math.isnan(score))[:WORST]
    cells = [[case, *(_number(by_case[key][case], key) for key in titles)] for _, case in lowest]
    worst = table(["case", *titles.values()], cells, "Worst cases")
    return [folded(f"The {len(lowest)} cases with the lowest Dice", worst)]


def voxel_limits(run: Run) -> list[str]:
    """Say what the numbers do not cover."""
    policy, spacing = run.summary.get("policy"), spacing_of(run)
    found = [
        f"The intervals cover the choice of test {run.units}, not the choice of training cases and seeds.",
        "Scores are measured on the prepared grid" + (f" of {' x '.join(f'{mm:g}' for mm in spacing)} mm." if spacing else "."),
    ]
    if run.summary.get("surface_dice") is not None:
        found.append("A surface Dice counts voxels of surfaces: compare it at equal tolerance and spacing only.")
    return [*found, *([f"Empty classes: {policy}"] if policy else [])]


def spacing_of(run: Run) -> Sequence[float] | None:
    """Give the spacing of the prepared grid in mm, where the run knows one."""
    spacing = run.summary.get("spacing") or run.config.get("spacing")
    return [float(mm) for mm in spacing] if spacing else None


def _interval(run: Run) -> str:
    low, high = run.summary.get("dice_interval") or (None, None)
    return "" if low is None else f" (95% interval {low:.3f} to {high:.3f} over {run.units})"


def _number(value: float | None, key: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, FORMATS.get(key, ".3f"))
