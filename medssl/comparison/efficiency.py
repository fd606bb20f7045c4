"""Label efficiency: the score against the number of labels, and how many labels one arm saves against another.

An arm's score at n labels is looked up on the other arm's curve, straight between its numbers of labels on a logarithmic
axis: the number where that curve first gets there is what the arm's n labels are worth. Nothing is said beyond the ends of
the curve but that the number lies there. The interval repeats this in bootstrap draws of test patients and seeds, the same
for all points (`crossed_draws`), each stretched by the t of the arm's mean difference to the curve. Its ends may lie beyond
the curve too.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.comparison.arms import Arm
from medssl.comparison.crossed import DRAWS, crossed_draws, matrix, wider_by_t
from medssl.comparison.measures import Measure

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Mean and standard deviation over seeds (None for one seed) of an arm at its numbers of labels."""

    name: str
    labelled: list[int]
    means: list[float]
    sds: list[float | None]

    def as_dict(self) -> dict[str, Any]:
        """Give what summary.json holds."""
        return {"name": self.name, "labelled": self.labelled, "means": self.means, "sds": self.sds}


@dataclass(frozen=True)
class Saving:
    """`labelled` labels of `arm` are worth `worth` labels of `reference`; -inf and inf lie beyond its `ends`."""

    arm: str
    reference: str
    labelled: int
    worth: float
    interval: tuple[float, float]
    ends: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Give what summary.json holds: null where a number lies beyond the ends, which `text` says."""
        numbers = [value if math.isfinite(value) else None for value in (self.worth, *self.interval)]
        told = {"arm": self.arm, "reference": self.reference, "labelled": self.labelled, "worth": numbers[0]}
        return told | {"interval": numbers[1:], "ends": list(self.ends), "text": str(self)}

    def __str__(self) -> str:
        return f"{self.arm} at {self.labelled} labels {self.finding}"

    @property
    def finding(self) -> str:
        """What these labels are worth, in words."""
        low, high = (self._number(value) for value in self.interval)
        about = "about " if math.isfinite(self.worth) else ""
        same = low == high and low == self._number(self.worth)
        sure = "" if same else f" (95% interval {low} to {high})"
        return f"equals {self.reference} at {about}{self._number(self.worth)}{sure}.{self._beyond()}"

    def _number(self, value: float) -> str:
        if math.isfinite(value):
            return f"{value:.0f}"
        return f"more than {self.ends[1]}" if value > 0 else f"fewer than {self.ends[0]}"

    def _beyond(self) -> str:
        """What can't be read off."""
        if self.worth == math.inf:
            return f" How many more is not known: {self.reference} was not trained with more labels."
        if self.worth == -math.inf:
            return f" It saves none: {self.reference} scores better with its fewest labels."
        return " It saves none." if self.worth < self.labelled else ""


def label_curves(arms: Sequence[Arm], measure: Measure) -> list[Curve]:
    """Give the curve of each arm that was trained with several numbers of labels."""
    curves = []
    for name, points in _by_name(arms).items():
        if len(points) > 1:
            figures = [arm.figures[measure.key] for arm in points.values()]
            curves.append(Curve(name, list(points), [figure.mean or 0.0 for figure in figures], [f.sd for f in figures]))
    return curves


def savings(arms: Sequence[Arm], pairs: Iterable[tuple[str, str]], measure: Measure) -> list[Saving]:
    """Give what the labels of each arm are worth in those of its reference, where the reference has a curve."""
    by_name = _by_name(arms)
    found = []
    for name, reference in pairs:
        points, curve = by_name.get(name, {}), by_name.get(reference, {})
        if len(curve) > 1:
            found += [one for arm in points.values() if (one := _saving(arm, list(curve.values()), measure)) is not None]
    return found


def worth(labelled: Sequence[int], scores: Floats, target: Floats, sign: int = 1) -> Floats:
    """Give the number of labels at which each curve of `scores` (draws, k) first reaches `target` (draws).

    `labelled` (k) rises. A curve that starts beyond its target gives -inf, unless at just the target, one that never reaches
    it inf.
    """
    places = np.log(np.asarray(labelled, dtype=np.float64))
    short = sign * (target[:, None] - scores)  # what each point lacks
    found = np.where(short[:, 0] < 0, -math.inf, math.inf)
    found = np.where(short[:, 0] == 0, float(labelled[0]), found)
    for left in range(len(labelled) - 1):
        before, after = short[:, left], short[:, left + 1]
        first = (found == math.inf) & (after <= 0)
        share = np.divide(before, before - after, out=np.zeros_like(before), where=first)
        found = np.where(first, np.exp(places[left] + share * (places[left + 1] - places[left])), found)
    return found


def _saving(arm: Arm, curve: Sequence[Arm], measure: Measure) -> Saving | None:
    """Read off one arm; None where it shares no seed or case with the whole curve."""
    cells = [arm, *curve]
    values = [cell.values[measure.key] for cell in cells]
    keys = [key for key in arm.seeds if all(key in of_cell for of_cell in values)]
    cases = [case for case in arm.patients if all(any(case in of_cell[key] for key in keys) for of_cell in values)]
    if not keys or not cases:
        return None
    shared = set(cases)
    stack = []
    for of_cell in values:
        numbers, names = matrix([{c: v for c, v in of_cell[key].items() if c in shared} for key in keys])
        stack.append(numbers[:, [names.index(case) for case in cases]])
    stacked, labelled = np.stack(stack), [cell.labelled or 0 for cell in curve]
    middle, interval = worth_interval(stacked, labelled, [arm.patients[case] for case in cases], measure.sign)
    return Saving(arm.name, curve[0].name, arm.labelled or 0, middle, interval, (labelled[0], labelled[-1]))


def worth_interval(
    cells: Floats, labelled: Sequence[int], patients: Sequence[Hashable], sign: int = 1, draws: int = DRAWS
) -> tuple[float, tuple[float, float]]:
    """Give the number of labels that `cells[0]` is worth on the curve `cells[1:]` (k, seeds, cases), and its 95% interval."""
    means = cells.mean(axis=(1, 2))[None]
    wider = wider_by_t(cells[0] - cells[1:].mean(axis=0), patients)
    drawn = means + wider * (crossed_draws(cells, patients, draws) - means)
    [middle] = worth(labelled, means[:, 1:], means[:, 0], sign)
    low, high = np.quantile(worth(labelled, drawn[:, 1:], drawn[:, 0], sign), [0.025, 0.975], method="inverted_cdf")
    return float(middle), (float(low), float(high))


def _by_name(arms: Sequence[Arm]) -> dict[str, dict[int, Arm]]:
    """The arms of each name by their number of labels, rising."""
    found: dict[str, dict[int, Arm]] = {}
    for arm in sorted(arms, key=lambda arm: arm.labelled or 0):
        if arm.labelled is not None:
            found.setdefault(arm.name, {})[arm.labelled] = arm
    return found
