"""Classification judged: confusion matrix, the figures that follow from it, AUC and log loss; numpy only.

Every figure is a function of weights of the cases: ones give the figure itself, and how often a bootstrap drew each
case gives the figure of that draw, for all draws at once. AUC is that of each class against all others: the chance
that a case of the class has a higher probability of it than a case of another (Mann and Whitney 1947), ties half.
Axis letters: n cases, k classes (of the truth before of the prediction), r draws.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medssl.scores.bootstrap import case_weights

POLICY = (
    "The class with the highest probability is the prediction. Balanced accuracy is the mean sensitivity over classes; "
    "this and the other means over classes leave out classes without a case. Such a class has no sensitivity, precision, "
    "F1 and AUC, and a class that was never predicted has no precision: none, not 0. Matthews' correlation is 0 for chance, "
    "and none where truth or prediction is one class alone. Probabilities below 1e-15 count "
    "as 1e-15 in the log loss (natural logarithm)."
)
LEAST = 1e-15  # probability, in the log loss
DRAWS = 2_000
FIELDS = ("case", "patient", "truth", "predicted")
PREFIX = "p_"  # of a class's column of probabilities
OF_CLASS = ("sensitivity", "specificity", "precision", "f1", "auc")
OVER_ALL = ("accuracy", "balanced_accuracy", "mcc", "log_loss", "specificity", "precision", "f1", "auc")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Judged(NamedTuple):
    """One case: the number of its true class, and a probability for each class."""

    case: str
    patient: str
    truth: int
    probabilities: tuple[float, ...]

    @property
    def predicted(self) -> int:
        """The class of the highest probability, the first of equals."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def correct(self) -> bool:
        return self.predicted == self.truth

    @property
    def log_loss(self) -> float:
        return -math.log(max(self.probabilities[self.truth], LEAST))


def figures(truth: Ints, probabilities: Floats, weights: Floats) -> dict[str, Floats]:
    """Give every figure of OVER_ALL as (r,) and of OF_CLASS as "class_..." (r, k); NaN where the policy has none.

    `truth` (n,) are classes, `probabilities` (n, k), `weights` (r, n) of each case in each draw.
    """
    classes = probabilities.shape[1]
    places = truth * classes + probabilities.argmax(1)
    counts = (weights @ np.eye(classes**2)[places]).reshape(-1, classes, classes)
    losses = -np.log(np.maximum(probabilities[np.arange(truth.size), truth], LEAST))
    of_class = rates(counts) | {"auc": auc(truth, probabilities, weights)}
    some = counts.sum(2) > 0
    total = weights.sum(1)
    over_all = {name: _mean(values, some & np.isfinite(values)) for name, values in of_class.items()}
    over_all["balanced_accuracy"] = over_all.pop("sensitivity")
    over_all |= {"accuracy": np.trace(counts, axis1=1, axis2=2) / total, "log_loss": weights @ losses / total}
    over_all["mcc"] = correlation(counts)
    return over_all | {f"class_{name}": values for name, values in of_class.items()}


def rates(counts: npt.NDArray[Any]) -> dict[str, Floats]:
    """Give sensitivity, specificity, precision and F1 (..., k) of confusion matrices (..., k of the truth, k predicted)."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    cases, predicted = counts.sum(-1), counts.sum(-2)
    others = counts.sum((-2, -1))[..., None] - cases
    some = cases > 0
    return {
        "sensitivity": _ratio(hits, cases),
        "specificity": _ratio(others - predicted + hits, others),
        "precision": np.where(some, _ratio(hits, predicted), np.nan),
        "f1": np.where(some, _ratio(2 * hits, cases + predicted), np.nan),
    }


def correlation(counts: npt.NDArray[Any]) -> Floats:
    """Give Matthews' correlation (...) of confusion matrices (..., k of the truth, k predicted), after Gorodkin 2004.

    1 for perfect answers, 0 for chance whatever the classes' shares; NaN where truth or prediction is one class alone.
    """
    cases, predicted, total = counts.sum(-1), counts.sum(-2), counts.sum((-2, -1))
    hits = np.trace(counts, axis1=-2, axis2=-1)
    spread = (total**2 - np.square(cases).sum(-1)) * (total**2 - np.square(predicted).sum(-1))
    return _ratio(hits * total - (cases * predicted).sum(-1), np.sqrt(spread))


def auc(truth: Ints, scores: Floats, weights: Floats) -> Floats:
    """Give the area under the ROC curve (r, k) of each class against the others; NaN where one side is empty."""
    areas = []
    for k in range(scores.shape[1]):
        order = np.argsort(scores[:, k], kind="stable")
        ordered = scores[order, k]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of equal scores
        inside = (truth[order] == k).astype(float)
        of_class = np.add.reduceat(weights[:, order] * inside, starts, axis=1)
        others = np.add.reduceat(weights[:, order] * (1 - inside), starts, axis=1)
        below = np.cumsum(others, 1) - others / 2
        areas.append(_ratio((of_class * below).sum(1), of_class.sum(1) * others.sum(1)))
    return np.stack(areas, 1)


def confusion(rows: Sequence[Judged], classes: int) -> Ints:
    """Count the cases of each true class (first axis) that were predicted as each class."""
    counts = np.zeros((classes, classes), np.int64)
    for row in rows:
        counts[row.truth, row.predicted] += 1
    return counts


def summarise_classes(rows: Iterable[Judged], labels: Mapping[int, str], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Give what summary.json says about the judged cases, each figure with its 95% bootstrap interval over patients.

    n, patients, the figures of OVER_ALL, `classes` with those of OF_CLASS, `confusion` and the policy; a figure that
    the policy has none for is None, never 0. ValueError for no rows.
    """
    rows = list(rows)
    names = [labels[k] for k in sorted(labels)]
    now, intervals = _with_intervals(rows, draws, seed)
    counts = confusion(rows, len(names))

    def told(name: str, k: int | None = None) -> dict[str, Any]:
        key, place = (name, 0) if k is None else (f"class_{name}", (0, k))
        low, high = (_or_none(end if k is None else end[k]) for end in intervals[key])
        return {name: _or_none(now[key][place]), f"{name}_interval": None if low is None else [low, high]}

    classes = {
        name: {"n": int(counts[k].sum()), "predicted": int(counts[:, k].sum())}
        | {key: value for measure in OF_CLASS for key, value in told(measure, k).items()}
        for k, name in enumerate(names)
    }
    shares = _ratio(counts, counts.sum(1, keepdims=True))
    return {
        "n": len(rows),
        "patients": len({row.patient for row in rows}),
        **{key: value for measure in OVER_ALL for key, value in told(measure).items()},
        "classes": classes,
        "confusion": {
            "labels": names,
            "counts": counts.tolist(),
            "rates": [[_or_none(share) for share in of_class] for of_class in shares],
        },
        "policy": POLICY,
    }


def quick_figures(rows: Sequence[Judged]) -> dict[str, float]:
    """Give log_loss, accuracy and balanced_accuracy alone, for validation while training."""
    truth, probabilities = arrays_of(rows)
    found = figures(truth, probabilities, np.ones((1, len(rows))))
    return {name: float(found[name][0]) for name in ("log_loss", "accuracy", "balanced_accuracy")}


def predictions_csv(rows: Iterable[Judged], labels: Mapping[int, str]) -> bytes:
    """Write predictions.csv: a line a case, classes by name, and a column of probabilities for each class."""
    names = [labels[k] for k in sorted(labels)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FIELDS, *(PREFIX + name for name in names)])
    writer.writerows([r.case, r.patient, names[r.truth], names[r.predicted], *r.probabilities] for r in rows)
    return text.getvalue().encode()


def read_predictions(path: Path) -> tuple[dict[int, str], list[Judged]]:
    """Read a predictions.csv: the classes and the cases; ValueError or OSError where it is none."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        names = [name.removeprefix(PREFIX) for name in header[len(FIELDS) :]]
        if tuple(header[: len(FIELDS)]) != FIELDS or not names:
            raise ValueError(f"columns {', '.join(header)}")
        rows = [Judged(c, p, names.index(truth), tuple(map(float, rest))) for c, p, truth, _, *rest in lines]
    if any(len(row.probabilities) != len(names) for row in rows):
        raise ValueError("a line with another number of probabilities than classes")
    return dict(enumerate(names)), rows


def _with_intervals(rows: Sequence[Judged], draws: int, seed: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """All figures of the cases, and the ends (2,) or (2, k) of their percentile intervals."""
    truth, probabilities = arrays_of(rows)
    now = figures(truth, probabilities, np.ones((1, len(rows))))
    blocks = [figures(truth, probabilities, w) for w in case_weights([row.patient for row in rows], draws, seed)]
    drawn = {name: np.concatenate([block[name] for block in blocks]) for name in now}
    return now, {name: percentile_ends(values) for name, values in drawn.items()}


def percentile_ends(values: Floats) -> Floats:
    """Give the 2.5th and 97.5th percentile (2, ...) over draws (r, ...) in which a figure exists; NaN where it never does."""
    ends = np.full((2, *values.shape[1:]), np.nan)
    columns = values.reshape(len(values), -1)
    flat = ends.reshape(2, -1)
    for column in range(columns.shape[1]):
        found = columns[np.isfinite(columns[:, column]), column]
        if found.size:
            flat[:, column] = np.quantile(found, [0.025, 0.975])
    return ends


def arrays_of(rows: Sequence[Judged]) -> tuple[Ints, Floats]:
    """Give the true classes (n,) and the probabilities (n, k) of cases; ValueError for none."""
    if not rows:
        raise ValueError("rows: found none, expected at least one case")
    return np.array([row.truth for row in rows], np.int64), np.array([row.probabilities for row in rows], np.float64)


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """part / whole, NaN where whole is 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _mean(values: Floats, kept: npt.NDArray[np.bool_]) -> Floats:
    """The mean over the last axis of what is kept, NaN where nothing is."""
    return _ratio(np.where(kept, values, 0).sum(-1), kept.sum(-1))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
