"""Dice and 95% Hausdorff distance for each case and class, and their means: numpy and scipy only.

Label maps are integer arrays (*spatial) in 2D or 3D. Class 0, the background, is never scored. HD95 follows
`monai.metrics.compute_hausdorff_distance(percentile=95)`: surface voxels are those that an erosion by one (face
neighbours) takes away; the directed distance is the 95th percentile (linear interpolation) of the distances from the
surface voxels of one object to the nearest of the other; the larger of the two directions counts.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medssl.scores.bootstrap import bootstrap_interval

EMPTY_CLASS_POLICY = (
    "A class that neither the label nor the prediction of a case contains is left out of that case's mean and of "
    "the class's mean, whose n counts the cases that are left. A class that only one of the two contains scores "
    "Dice 0 and, as HD95, the diagonal of the image in mm. A case's score is the mean over its classes that are left; "
    "the Dice of the data set is the mean over cases. A case without any class in label and prediction has no score "
    "and is counted as unscored."
)
FIELDS = ("case", "patient", "class", "dice", "hd95", "label_voxels", "predicted_voxels")
NAN = float("nan")
LabelMap = npt.NDArray[np.integer[Any]]


class Score(NamedTuple):
    """One class of one case; `dice` and `hd95` are NaN where the policy excludes it, `hd95` also where not asked."""

    case: str
    patient: str
    name: str
    dice: float
    hd95: float
    label_voxels: int
    predicted_voxels: int


def dice(prediction: Any, label: Any, classes: Sequence[int]) -> npt.NDArray[np.float64]:
    """Give 2|P and L| / (|P| + |L|) of each class; NaN where both are empty. Arrays or tensors of equal shape."""
    predicted, labelled, common = _voxels(*_label_maps(prediction, label), classes)
    total = predicted + labelled
    return np.where(total > 0, 2 * common / np.maximum(total, 1), np.nan)


def hd95(prediction: Any, label: Any, spacing: Sequence[float], classes: Sequence[int] = (1,)) -> npt.NDArray[np.float64]:
    """Give each class's HD95 in mm; NaN where both are empty, the image's diagonal where one is.

    `spacing` is in mm, one number an axis.
    """
    pair = _label_maps(prediction, label)
    if len(spacing) != pair[0].ndim:
        raise ValueError(f"{len(spacing)} numbers of spacing for label maps with {pair[0].ndim} axes")
    diagonal = math.hypot(*(size * mm for size, mm in zip(pair[0].shape, spacing, strict=True)))
    boxes = [ndimage.find_objects(array, max_label=max(classes, default=0)) for array in pair]
    distances = np.full(len(classes), diagonal)
    for position, index in enumerate(classes):
        found = [box[index - 1] for box in boxes if box[index - 1] is not None]
        if not found:
            distances[position] = np.nan
        elif len(found) == 2:
            # Nothing nearest lies outside the box of both, and a distance transform costs by the voxel.
            both = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*found, strict=True))
            distances[position] = _symmetric(pair[0][both] == index, pair[1][both] == index, spacing)
    return distances


def case_scores(
    case: str,
    patient: str,
    prediction: Any,
    label: Any,
    labels: Mapping[int, str],
    spacing: Sequence[float],
    distances: bool = True,
) -> list[Score]:
    """Score every class of `labels` (index -> name) but the background in one case; HD95 only with `distances`."""
    classes = [index for index in sorted(labels) if index != 0]
    pair = _label_maps(prediction, label)
    predicted, labelled, _ = _voxels(*pair, classes)
    overlap = dice(*pair, classes)
    far = hd95(*pair, spacing, classes) if distances else np.full(len(classes), np.nan)
    return [
        Score(case, patient, labels[c], float(overlap[i]), float(far[i]), int(labelled[i]), int(predicted[i]))
        for i, c in enumerate(classes)
    ]


def summarise(rows: Iterable[Score]) -> dict[str, Any]:
    """Give what summary.json says about the rows: n, dice, dice_interval, hd95, classes and the policy.

    `n` counts the scored cases, `unscored` names the others; a mean over nothing is None, never 0.
    """
    rows = list(rows)
    scores = score_by_case(rows)
    scored = {case: score for case, score in scores.items() if not math.isnan(score)}
    patients = {row.case: row.patient for row in rows}
    interval = bootstrap_interval(list(scored.values()), [patients[case] for case in scored]) if scored else None
    return {
        "n": len(scored),
        "unscored": [case for case in scores if case not in scored],
        "dice": mean_or_none(scored.values()),
        "dice_interval": list(interval) if interval else None,
        "hd95": mean_or_none(score_by_case(rows, "hd95").values()),
        "classes": class_scores(rows),
        "policy": EMPTY_CLASS_POLICY,
    }


def class_scores(rows: Iterable[Score]) -> dict[str, dict[str, Any]]:
    """Give each class's mean Dice and HD95 over the n cases that the policy leaves.

    `missed` counts the cases with a label and no prediction of the class, `invented` the reverse.
    """
    by_class: dict[str, list[Score]] = {}
    for row in rows:
        by_class.setdefault(row.name, []).append(row)
    return {
        name: {
            "dice": mean_or_none(row.dice for row in of_class),
            "hd95": mean_or_none(row.hd95 for row in of_class),
            "n": sum(not math.isnan(row.dice) for row in of_class),
            "missed": sum(row.label_voxels > 0 and not row.predicted_voxels for row in of_class),
            "invented": sum(row.predicted_voxels > 0 and not row.label_voxels for row in of_class),
        }
        for name, of_class in by_class.items()
    }


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
    writer.writerows([("" if isinstance(value, float) and math.isnan(value) else value) for value in row] for row in rows)
    return text.getvalue().encode()


def read_scores(path: Path) -> list[Score]:
    """Read a predictions.csv; ValueError, KeyError or OSError where it is none."""
    with open(path, newline="", encoding="utf-8") as file:
        return [_score_of(line) for line in csv.DictReader(file)]


def _score_of(line: Mapping[str, str]) -> Score:
    case, patient, name, overlap, far, labelled, predicted = (line[field] for field in FIELDS)
    return Score(case, patient, name, float(overlap or NAN), float(far or NAN), int(labelled), int(predicted))


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


def _symmetric(p: npt.NDArray[np.bool_], g: npt.NDArray[np.bool_], spacing: Sequence[float]) -> float:
    p_surface, g_surface = (array ^ ndimage.binary_erosion(array) for array in (p, g))
    to_g = ndimage.distance_transform_edt(~g_surface, sampling=spacing)[p_surface]
    to_p = ndimage.distance_transform_edt(~p_surface, sampling=spacing)[g_surface]
    return float(max(np.percentile(to_g, 95), np.percentile(to_p, 95)))
