"""Dice, surface distances and volume errors for each case and class, and their means: numpy and scipy only.

Label maps are integer arrays (*spatial) in 2D or 3D. Class 0, the background, is never scored.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medssl.scores.bootstrap import mean_intervals
from medssl.scores.surfaces import LabelMap, SurfaceScores, surface_scores

EMPTY_CLASS_POLICY = (
    "A class that neither the label nor the prediction of a case contains is left out of that case's mean and of "
    "the class's mean, whose n counts the cases that are left. A class that only one of the two contains scores "
    "Dice 0, surface Dice 0 and, as HD95, the diagonal of the image in mm. A volume error is prediction minus label; a "
    "missed object is an error of its whole volume, and an invented one has no relative error, for its label has no "
    "volume. A case's score is the mean over its classes that are left; "
    "the Dice of the data set is the mean over cases. A case without any class in label and prediction has no score "
    "and is counted as unscored."
)
MEASURES = ("dice", "surface_dice", "hd95", "volume_error", "absolute_volume_error", "relative_volume_error")
OVER_CASES = ("dice", "surface_dice", "hd95")  # a mean of volumes over the classes of a case says nothing
CLASS_DRAWS = 2_000  # of each class, of which there can be many
FIELDS = (
    "case", "patient", "class", "dice", "hd95", "label_voxels", "predicted_voxels",
    "surface_dice", "volume_error", "relative_volume_error",
)  # fmt: skip
NAN = float("nan")


class Score(NamedTuple):
    """One class of one case; measures are NaN where the policy excludes them, those of surfaces also where not asked.

    `volume_error` is in mm3, of 2D images in mm2: predicted minus labelled.
    """

    case: str
    patient: str
    name: str
    dice: float
    hd95: float
    label_voxels: int
    predicted_voxels: int
    surface_dice: float = NAN
    volume_error: float = NAN

    @property
    def absolute_volume_error(self) -> float:
        """The size of the error, whose mean does not cancel."""
        return abs(self.volume_error)

    @property
    def relative_volume_error(self) -> float:
        """The error as a share of the label's volume; NaN where the label is empty."""
        return self.predicted_voxels / self.label_voxels - 1 if self.label_voxels else NAN


def dice(prediction: Any, label: Any, classes: Sequence[int]) -> npt.NDArray[np.float64]:
    """Give 2|P and L| / (|P| + |L|) of each class; NaN where both are empty. Arrays or tensors of equal shape."""
    predicted, labelled, common = _voxels(*_label_maps(prediction, label), classes)
    total = predicted + labelled
    return np.where(total > 0, 2 * common / np.maximum(total, 1), np.nan)


def case_scores(
    case: str,
    patient: str,
    prediction: Any,
    label: Any,
    labels: Mapping[int, str],
    spacing: Sequence[float],
    tolerance: float | None = 2.0,
) -> list[Score]:
    """Score every class of `labels` (index -> name) but the background in one case.

    `tolerance` of the surface Dice and `spacing` are in mm; None leaves out the surfaces, which take the time.
    """
    classes = [index for index in sorted(labels) if index != 0]
    pair = _label_maps(prediction, label)
    predicted, labelled, _ = _voxels(*pair, classes)
    overlap, none = dice(*pair, classes), np.full(len(classes), np.nan)
    surface = SurfaceScores(none, none) if tolerance is None else surface_scores(*pair, spacing, tolerance, classes)
    errors = np.where(predicted + labelled > 0, (predicted - labelled) * math.prod(spacing), np.nan)
    return [
        Score(case, patient, labels[c], float(overlap[i]), float(surface.hd95[i]), int(labelled[i]), int(predicted[i]),
              float(surface.dice[i]), float(errors[i]))
        for i, c in enumerate(classes)
    ]  # fmt: skip


def summarise(rows: Iterable[Score], draws: int = 10_000) -> dict[str, Any]:
    """Give what summary.json says about the rows: n, patients, OVER_CASES with intervals, classes and the policy.

    `n` counts the scored cases, `unscored` names the others; a mean over nothing is None, never 0, as is its interval.
    Intervals are 95% and bootstrapped over patients.
    """
    rows = list(rows)
    by_case = {measure: score_by_case(rows, measure) for measure in OVER_CASES}
    patients = {row.case: row.patient for row in rows}
    scored = [case for case, score in by_case["dice"].items() if not math.isnan(score)]
    return {
        "n": len(scored),
        "patients": len({patients[case] for case in scored}),
        "unscored": [case for case in patients if case not in scored],
        **_with_intervals({measure: list(scores.values()) for measure, scores in by_case.items()}, patients.values(), draws),
        "classes": class_scores(rows, min(draws, CLASS_DRAWS)),
        "policy": EMPTY_CLASS_POLICY,
    }


def class_scores(rows: Iterable[Score], draws: int = 0) -> dict[str, dict[str, Any]]:
    """Give each class's mean of MEASURES over the n cases that the policy leaves; with `draws` also their intervals.

    `missed` counts the cases with a label and no prediction of the class, `invented` the reverse.
    """
    by_class: dict[str, list[Score]] = {}
    for row in rows:
        by_class.setdefault(row.name, []).append(row)
    return {
        name: {
            **_with_intervals(
                {measure: [getattr(row, measure) for row in of_class] for measure in MEASURES},
                [row.patient for row in of_class],
                draws,
            ),
            "n": sum(not math.isnan(row.dice) for row in of_class),
            "missed": sum(row.label_voxels > 0 and not row.predicted_voxels for row in of_class),
            "invented": sum(row.predicted_voxels > 0 and not row.label_voxels for row in of_class),
        }
        for name, of_class in by_class.items()
    }


def _with_intervals(values: Mapping[str, Sequence[float]], patients: Iterable[str], draws: int) -> dict[str, Any]:
    """The mean of each measure over cases, and with `draws` its interval; None where there is no value."""
    means: dict[str, Any] = {measure: mean_or_none(of_cases) for measure, of_cases in values.items()}
    if draws and any(mean is not None for mean in means.values()):
        ends = mean_intervals(np.array(list(values.values())).T, list(patients), draws)
        for measure, interval in zip(values, ends.tolist(), strict=True):
            means[f"{measure}_interval"] = None if means[measure] is None else interval
    return means


def score_by_case(rows: Iterable[Score], measure: str = "dice") -> dict[str, float]:
    """Give each case's mean over its classes that are not excluded, in the rows' order; NaN where none is left."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.case, []).append(getattr(row, measure))
    means = {case: mean_or_none(scores) for case, scores in values.items()}
    return {case: NAN if mean is None else mean for case, mean in means.items()}


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """Give the mean of the values that are not excluded (NaN), and None where there is none."""
    kept = [value for value in values if value is not None and not math.isnan(value)]
    return sum(kept) / len(kept) if kept else None


def scores_csv(rows: Iterable[Score]) -> bytes:
    """Write the rows as predictions.csv, one line a case and class; excluded values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    cells = ([*row, row.relative_volume_error] for row in rows)
    writer.writerows([("" if isinstance(value, float) and math.isnan(value) else value) for value in row] for row in cells)
    return text.getvalue().encode()


def read_scores(path: Path) -> list[Score]:
    """Read a predictions.csv, also one without surface Dice and volume errors; ValueError, KeyError or OSError otherwise."""
    with open(path, newline="", encoding="utf-8") as file:
        return [_score_of(line) for line in csv.DictReader(file)]


def _score_of(line: Mapping[str, str]) -> Score:
    case, patient, name, overlap, far, labelled, predicted = (line[field] for field in FIELDS[:7])
    near, error = (float(line.get(field) or NAN) for field in ("surface_dice", "volume_error"))
    return Score(case, patient, name, float(overlap or NAN), float(far or NAN), int(labelled), int(predicted), near, error)


def _label_maps(prediction: Any, label: Any) -> tuple[LabelMap, LabelMap]:
    """Both as integer numpy arrays; ValueError for other types or shapes that differ."""
    p, g = (np.asarray(value.detach().cpu() if hasattr(value, "detach") else value) for value in (prediction, label))
    if p.shape != g.shape:
        raise ValueError(f"prediction of shape {p.shape} and label of shape {g.shape}")
    p, g = (array.astype(np.uint8) if array.dtype == bool else array for array in (p, g))
    if not (np.issubdtype(p.dtype, np.integer) and np.issubdtype(g.dtype, np.integer)):
        raise ValueError(f"label maps hold integers, found {p.dtype} and {g.dtype}")
    return p, g


def _voxels(prediction: LabelMap, label: LabelMap, classes: Sequence[int]) -> tuple[npt.NDArray[np.int64], ...]:
    """Voxels of each class in the prediction, in the label and in both."""
    same = prediction[prediction == label]
    return tuple(np.array([np.count_nonzero(array == index) for index in classes], int) for array in (prediction, label, same))
