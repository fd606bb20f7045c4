"""What the cases of a finished run say, by task: the measures that arms average and compare.

A measure with a value for each case is compared case by case; the others, such as balanced accuracy, are only averaged.
"""

import math
from dataclasses import dataclass
from typing import Any

from medssl.runs import Run
from medssl.scores.classes import confusion, quick_figures, rates
from medssl.scores.voxels import class_scores, mean_or_none, score_by_case


@dataclass(frozen=True)
class Measure:
    """A measure with a value for each case; `phrase` is what a sentence calls it, `flat` what a curve may still gain."""

    key: str
    title: str
    phrase: str
    watched: str  # the validation figure of metrics.jsonl that is nearest to it
    sign: int  # 1: higher is better
    flat: float


MEASURES = {
    "segmentation": (Measure("dice", "Dice", "mean Dice", "val_dice", 1, 0.005),),
    "classification": (
        Measure("accuracy", "accuracy", "accuracy", "val_accuracy", 1, 0.02),
        Measure("log_loss", "log loss", "log loss (lower is better)", "val_log_loss", -1, 0.02),
    ),
}
BESIDE = {
    "segmentation": ("surface_dice", "hd95"),
    "classification": ("balanced_accuracy",),
}  # averaged over runs, no value a case
BY_CLASS = {  # the first is drawn
    "segmentation": ("dice", "surface_dice", "hd95", "volume_error", "relative_volume_error"),
    "classification": ("sensitivity", "specificity"),
}


@dataclass(frozen=True)
class Outcome:
    """What a run's predictions.csv says: values by measure and case, its other means, and the figures of each class."""

    values: dict[str, dict[str, float]]
    beside: dict[str, float | None]
    classes: dict[str, dict[str, Any]]
    patients: dict[str, str]


def outcome_of(run: Run) -> Outcome:
    """Read the predictions of a run; raises InputError where they can't be read."""
    return _of_classes(run) if run.task == "classification" else _of_voxels(run)


def _of_voxels(run: Run) -> Outcome:
    """Dice by case without those that the policy excludes; the surface Dice is None in runs that were judged without."""
    rows = run.scores()
    values = {case: score for case, score in score_by_case(rows).items() if not math.isnan(score)}
    beside = {figure: mean_or_none(score_by_case(rows, figure).values()) for figure in BESIDE["segmentation"]}
    return Outcome({"dice": values}, beside, class_scores(rows), {row.case: row.patient for row in rows})


def _of_classes(run: Run) -> Outcome:
    """Right or wrong and log loss by case, and balanced accuracy."""
    labels, rows = run.predictions()
    values = {
        "accuracy": {row.case: float(row.correct) for row in rows},
        "log_loss": {row.case: row.log_loss for row in rows},
    }
    counts = confusion(rows, len(labels))
    found = rates(counts)
    classes = {
        name: {"n": int(counts[k].sum())} | {key: mean_or_none([found[key][k]]) for key in BY_CLASS["classification"]}
        for k, name in labels.items()
    }
    balanced = quick_figures(rows)["balanced_accuracy"] if rows else None
    return Outcome(values, {"balanced_accuracy": balanced}, classes, {row.case: row.patient for row in rows})
