"""What the cases of a finished run say, by task: the measures that arms average and compare.

A measure with a value for each case is compared case by case; the others, such as balanced accuracy, are only averaged.
"""

import math
from dataclasses import dataclass
from typing import Any

from medssl.runs import Run
from medssl.scores.classes import confusion, quick_figures, rates
from medssl.scores.numbers import quick_numbers
from medssl.scores.voxels import class_scores, mean_or_none, score_by_case


@dataclass(frozen=True)
class Measure:
    """A measure with a value for each case; `phrase` is what a sentence calls it, `flat` what a curve may still gain.

    One that has the unit of its target, `own_unit`, is told in four digits, and that gain as a share of the curve's best.
    """

    key: str
    title: str
    phrase: str
    watched: str  # the validation figure of metrics.jsonl that is nearest to it
    sign: int  # 1: higher is better
    flat: float
    own_unit: bool = False

    @property
    def form(self) -> str:
        """How its values are written."""
        return ".4g" if self.own_unit else ".3f"


MEASURES = {
    "segmentation": (Measure("dice", "Dice", "mean Dice", "val_dice", 1, 0.005),),
    "classification": (
        Measure("accuracy", "accuracy", "accuracy", "val_accuracy", 1, 0.02),
        Measure("log_loss", "log loss", "log loss (lower is better)", "val_log_loss", -1, 0.02),
    ),
    "regression": (Measure("mae", "MAE", "mean absolute error (lower is better)", "val_mae", -1, 0.02, own_unit=True),),
}
# averaged over runs, no value a case
BESIDE = {"segmentation": ("surface_dice", "hd95"), "classification": ("balanced_accuracy",), "regression": ("r2",)}
# of each class, first the one that is drawn; a regression has no classes
BY_CLASS: dict[str, tuple[str, ...]] = {
    "segmentation": ("dice", "surface_dice", "hd95", "volume_error", "relative_volume_error"),
    "classification": ("sensitivity", "specificity"),
    "regression": (),
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
    of_task = {"segmentation": _of_voxels, "classification": _of_classes, "regression": _of_numbers}
    return of_task[run.task](run)


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


def _of_numbers(run: Run) -> Outcome:
    """The absolute error by case, and R2."""
    rows = run.estimates()
    values = {"mae": {row.case: abs(row.error) for row in rows}}
    r2 = quick_numbers(rows)["r2"] if rows else None
    return Outcome(values, {"r2": r2}, {}, {row.case: row.patient for row in rows})
