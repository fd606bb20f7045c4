"""The cases of a segmentation as cards: label beside prediction, and each class's scores in words; the lowest Dice first."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medssl.problems import InputError
from medssl.reports.page import card, folded, grid, heading, paragraph
from medssl.reports.pictures import CONVENTION, prediction_figure
from medssl.reports.segmentation import spacing_of
from medssl.runs import Run
from medssl.scores.voxels import Score, score_by_case


def voxel_pictures(run: Run, arrays: Mapping[str, Any]) -> str:
    """Give the kept cases of predictions.npz: the lower half by Dice, worst first, and folded the others up to the best."""
    count = sum(name.startswith("image_") for name in arrays)
    if not count:
        return ""
    names = {int(index): str(name) for index, name in (run.split.get("labels") or {}).items()}
    rows = scores_of(run)
    cards = []
    for k in reversed(range(count)):  # they are kept best first
        name = str(arrays[f"name_{k}"])
        lines = [name, *said([row for row in rows if row.case == name])]
        cards.append(card(prediction_figure(arrays, k, names, spacing_of(run)), f"Label and prediction of {name}", lines))
    worst = -(-count // 2)
    volume = np.asarray(arrays["image_0"]).ndim == 4
    words = f"Label and prediction as outlines, cut to the region of the objects. {CONVENTION if volume else ''}"
    others = folded("Other cases, up to the highest Dice", grid(cards[worst:], "cards"))
    return heading("Worst cases: Dice lowest") + paragraph(words, "quiet") + grid(cards[:worst], "cards") + others


def said(rows: Sequence[Score]) -> list[str]:
    """Put a case's scores into words: the means over its classes, then each class's Dice."""
    if not rows:
        return []
    of = ", ".join(f"{row.name} {_number(row.dice, 3)}" for row in rows)
    case = rows[0].case
    means = [f"Dice {_number(score_by_case(rows)[case], 3)}", f"HD95 {_number(score_by_case(rows, 'hd95')[case], 1)} mm"]
    return [", ".join(means), f"Dice by class: {of}"]


def scores_of(run: Run) -> list[Score]:
    """Read predictions.csv; none where there is none."""
    try:
        return run.scores()
    except InputError:
        return []


def _number(value: float, digits: int) -> str:
    return "none" if math.isnan(value) else f"{value:.{digits}f}"
