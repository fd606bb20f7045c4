"""Pre-trained arms by what they were pre-trained with: method x data, the amount of unlabelled data, cost beside the gain."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from medssl.comparison.arms import Arm
from medssl.comparison.differences import Difference
from medssl.comparison.measures import Measure
from medssl.comparison.origins import Origin, samples_of


@dataclass(frozen=True)
class Grid:
    """Method x data at one number of labels: scores, and gains over the baseline where there is one; None for no arm."""

    labels: str
    methods: list[str]
    data: list[str]
    scores: list[list[float | None]]
    gains: list[list[float | None]]
    real: list[list[bool]]

    def as_dict(self) -> dict[str, Any]:
        """Give what summary.json holds."""
        return asdict(self)


@dataclass(frozen=True)
class AmountCurve:
    """Scores of one method and data at one number of labels, by the number of unlabelled cases."""

    name: str
    cases: list[int]
    means: list[float]
    sds: list[float | None]

    def as_dict(self) -> dict[str, Any]:
        """Give what summary.json holds."""
        return asdict(self)


@dataclass(frozen=True)
class Cost:
    """What an arm took and what it gained: seconds and samples (crops) of its pre-training, and of one fine-tuning."""

    arm: str
    reference: str
    labels: str
    gain: str
    relative: float | None
    pretraining_seconds: float
    pretraining_samples: int
    finetuning_seconds: float | None
    finetuning_samples: float

    def as_dict(self) -> dict[str, Any]:
        """Give what summary.json holds."""
        return asdict(self)


def grids(
    arms: Sequence[Arm], origins: Mapping[str, Origin], differences: Sequence[Difference], measure: Measure
) -> list[Grid]:
    """Give method x data at each number of labels that has two methods or more, and two kinds of data or more.

    Of arms with the same method and data the one with most unlabelled cases counts.
    """
    found = []
    for labels in dict.fromkeys(arm.labels for arm in arms):
        cells: dict[tuple[str, str], Arm] = {}
        known = [arm for arm in arms if arm.labels == labels and arm.title in origins]
        for arm in sorted(known, key=lambda arm: origins[arm.title].cases or 0):
            cells[origins[arm.title].method, origins[arm.title].data] = arm
        methods, data = (sorted({key[place] for key in cells}) for place in (0, 1))
        if len(methods) > 1 and len(data) > 1:
            found.append(_grid(labels, methods, data, cells, differences, measure))
    return found


def _grid(
    labels: str,
    methods: list[str],
    data: list[str],
    cells: Mapping[tuple[str, str], Arm],
    differences: Sequence[Difference],
    measure: Measure,
) -> Grid:
    gains = {(d.arm, d.labels): d for d in reversed(differences) if d.main and d.pretraining and d.measure == measure}
    rows = [[cells.get((method, of_data)) for of_data in data] for method in methods]
    found = [[gains.get((arm.name, arm.labels)) if arm else None for arm in row] for row in rows]
    return Grid(
        labels,
        methods,
        data,
        [[arm.figures[measure.key].mean if arm else None for arm in row] for row in rows],
        [[d.difference if d else None for d in row] for row in found],
        [[d.real if d else False for d in row] for row in found],
    )


def amounts(arms: Sequence[Arm], origins: Mapping[str, Origin], measure: Measure) -> list[AmountCurve]:
    """Give the score against the number of unlabelled cases where a method was pre-trained on several."""
    groups: dict[str, dict[int, Arm]] = {}
    for arm in arms:
        origin = origins.get(arm.title)
        if origin is not None and origin.cases:
            title = f"{arm.planned or arm.network}, {origin.method} on {origin.data}, {arm.labels} labels"
            groups.setdefault(title, {})[origin.cases] = arm
    curves = []
    for name, points in groups.items():
        if len(points) > 1:
            cases = sorted(points)
            figures = [points[count].figures[measure.key] for count in cases]
            curves.append(AmountCurve(name, cases, [f.mean or 0.0 for f in figures], [f.sd for f in figures]))
    return curves


def costs(
    arms: Sequence[Arm], origins: Mapping[str, Origin], differences: Sequence[Difference], measure: Measure
) -> list[Cost]:
    """Give the cost beside the gain of every compared arm whose pre-training is known."""
    by_key = {(arm.name, arm.labels): arm for arm in arms}
    found = []
    for one in (one for one in differences if one.main and one.measure == measure):
        arm = by_key[one.arm, one.labels]
        origin = origins.get(arm.title)
        if origin is not None:
            own = mean(samples_of(run) for run in arm.runs)
            spent = (origin.seconds, origin.samples, arm.seconds, own)
            found.append(Cost(one.arm, one.reference, one.labels, str(one), one.relative, *spent))
    return found
