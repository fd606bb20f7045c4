"""Runs grouped into arms: those of a study as it names them, others by network, kind of start and number of labels.

Seeds and draws differ inside an arm, nothing else shall.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any, NamedTuple

from medssl.comparison.crossed import crossed_interval, matrix
from medssl.comparison.measures import BESIDE, BY_CLASS, MEASURES, Measure, outcome_of
from medssl.comparison.planned import Study
from medssl.problems import InputError, Problem
from medssl.runs import Run
from medssl.scores.voxels import mean_or_none

Key = tuple[int, int]  # (seed, draw)
# What tells runs of one name apart when two of them have the same seed and draw, most telling first.
APART: tuple[Callable[[Run], str], ...] = (
    lambda run: f"from {run.encoder_name}",
    lambda run: f"network {run.config.get('network')}",
    lambda run: f"lr {run.summary.get('lr', run.config.get('lr'))}",
    lambda run: f"{run.summary.get('steps')} steps",
    lambda run: run.name,
)


class Spread(NamedTuple):
    """A figure over the runs of an arm: `sd` is None for a single one, `interval` a bootstrap over patients and seeds."""

    mean: float | None
    sd: float | None
    by_seed: list[float | None]
    interval: list[float] | None = None  # None where cases have no value


@dataclass(frozen=True)
class Arm:
    """Runs that differ in seed and draw only. Means are over seeds."""

    name: str
    network: str
    pretrained: bool
    task: str
    labelled: int | None
    seeds: list[Key]  # (seed, draw)
    n: int  # test cases with a score in any run
    figures: dict[str, Spread]  # the task's measures, and those beside them
    classes: dict[str, dict[str, Any]]
    steps: list[int]
    seconds: float | None  # mean of a run
    folders: list[str]
    runs: list[Run]
    values: dict[str, dict[Key, dict[str, float]]]  # by measure, run and case
    patients: dict[str, str]
    axes: dict[str, Any] = field(default_factory=dict)  # of a study, those of which it plans several values for this name
    planned: str = ""  # what the study calls it

    @property
    def title(self) -> str:
        """The name with the number of labels."""
        return f"{self.name}, {self.labels} labels"

    @property
    def labels(self) -> str:
        return "all" if self.labelled is None else str(self.labelled)

    @property
    def main(self) -> Measure:
        """The task's first measure."""
        return MEASURES[self.task][0]

    @property
    def cases(self) -> dict[Key, dict[str, float]]:
        """The values of the main measure by run and case."""
        return self.values[self.main.key]

    @property
    def tested(self) -> set[str]:
        """The test patients with a score in any run."""
        return {self.patients[case] for of_run in self.cases.values() for case in of_run}

    def mean(self, figure: str) -> float:
        """The mean of a figure over seeds, NaN where there is none."""
        found = self.figures[figure].mean
        return math.nan if found is None else found

    def as_dict(self) -> dict[str, Any]:
        """Give what a comparison's summary.json holds of the arm."""
        told: dict[str, Any] = {
            name: getattr(self, name) for name in ("name", "network", "pretrained", "labelled", "seeds", "n")
        }
        told["patients"] = len(self.tested)
        for name, spread in self.figures.items():
            before = "" if name == "dice" else f"{name}_"
            told[name] = spread.mean
            told |= {f"{before}{key}": value for key, value in spread._asdict().items() if key != "mean" and name != "hd95"}
        told |= {name: getattr(self, name) for name in ("classes", "steps", "seconds", "folders")}
        return told | ({"axes": self.axes} if self.axes else {})


def group_runs(runs: Sequence[Run]) -> list[Arm]:
    """Group the runs; within a number of labels random stands before pre-trained and baselines come last."""
    groups: dict[tuple[str, int | None], list[Run]] = {}
    for run in runs:
        start = "pre-trained" if run.pretrained else "random"
        groups.setdefault((f"{run.network}, {start}", run.labelled), []).append(run)
    arms = [_arm(part, same) for (name, _), group in groups.items() for part, same in _apart(name, group).items()]
    main = {arm.network for arm in arms if arm.pretrained}
    many = float("inf")
    return sorted(arms, key=lambda arm: (arm.labelled or many, arm.network not in main, arm.network, arm.pretrained, arm.name))


def planned_arms(runs: Sequence[Run], study: Study) -> list[Arm]:
    """Group the runs of a study by its arms, numbers of labels and other axes; InputError for two of one seed and draw.

    They stand in the order of labels, and within those as the study lists them.
    """
    groups: dict[tuple[str, int | None, str], list[tuple[Run, dict[str, Any]]]] = {}
    for run, entry in ((each, entry) for each in runs for entry in study.planned(each)):
        axes = {name: value for name, value in entry.axes.items() if not inside(name)}
        key = (entry.arm, run.labelled, json.dumps(axes, sort_keys=True))
        groups.setdefault(key, []).append((run, axes))
    values: dict[tuple[str, str], set[str]] = {}  # of each axis of an arm, as planned: a run that is missing alters no arm
    for entry in (entry for entry in study.runs if entry.kind == "finetune"):  # a pre-training may have an arm's name
        for axis, value in entry.axes.items():
            values.setdefault((entry.arm, axis), set()).add(json.dumps(value))
    arms = []
    for (name, _, _), group in groups.items():
        axes = {axis: value for axis, value in group[0][1].items() if len(values[name, axis]) > 1}
        same = [run for run, _ in group]
        if len({run.key for run in same}) < len(same):
            twice = ", ".join(run.name for run in same)
            raise InputError([Problem(str(study.folder), f"arm {name}", f"{twice} of equal seed and draw", "a run for each")])
        title = ", ".join([name, *(f"{axis} {_plain(value)}" for axis, value in axes.items())])
        arms.append(_arm(title, same, axes, name))
    return sorted(arms, key=lambda arm: arm.labelled or math.inf)  # which keeps the order among equals


def inside(axis: str) -> bool:
    """Whether an axis is one that an arm has a column for, or averages over."""
    return axis in ("seed", "draw", "labelled")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _apart(name: str, runs: list[Run], by: Sequence[Callable[[Run], str]] = APART) -> dict[str, list[Run]]:
    """Split runs until no two of an arm have the same seed and draw."""
    if len({run.key for run in runs}) == len(runs) or not by:
        return {name: runs}
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(by[0](run), []).append(run)
    names = {value: name if len(parts) == 1 else f"{name}, {value}" for value in parts}
    return {part: same for value, group in parts.items() for part, same in _apart(names[value], group, by[1:]).items()}


def _arm(name: str, runs: list[Run], axes: dict[str, Any] | None = None, planned: str = "") -> Arm:
    runs = sorted(runs, key=lambda run: run.key)
    task = runs[0].task
    outcomes = {run.key: outcome_of(run) for run in runs}
    values = {m.key: {key: outcome.values[m.key] for key, outcome in outcomes.items()} for m in MEASURES[task]}
    cases = values[MEASURES[task][0].key]
    empty = [str(run.folder) for run in runs if not cases[run.key]]
    if empty:
        raise InputError([Problem(folder, "predictions.csv", "no case with a score", "at least one") for folder in empty])
    patients = {case: patient for outcome in outcomes.values() for case, patient in outcome.patients.items()}
    figures = {measure: _spread(list(of_runs.values()), patients) for measure, of_runs in values.items()}
    figures |= {figure: _beside([outcome.beside[figure] for outcome in outcomes.values()]) for figure in BESIDE[task]}
    seconds = [float(run.summary["seconds"]) for run in runs if run.summary.get("seconds") is not None]
    return Arm(
        name=name,
        network=runs[0].network,
        pretrained=runs[0].pretrained,
        task=task,
        labelled=runs[0].labelled,
        seeds=[run.key for run in runs],
        n=len({case for of_run in cases.values() for case in of_run}),
        figures=figures,
        classes=_classes([outcome.classes for outcome in outcomes.values()], BY_CLASS[task]),
        steps=[int(run.summary.get("steps") or 0) for run in runs],
        seconds=mean(seconds) if seconds else None,
        folders=[str(run.folder) for run in runs],
        runs=runs,
        values=values,
        patients=patients,
        axes=axes or {},
        planned=planned,
    )


def _spread(of_runs: Sequence[dict[str, float]], patients: dict[str, str]) -> Spread:
    """A measure over the runs of an arm, each with a value for every case."""
    values, cases = matrix(of_runs)
    interval = crossed_interval(values, [patients[case] for case in cases])
    return _beside([mean(values.values()) for values in of_runs])._replace(interval=list(interval))


def _beside(by_seed: Sequence[float | None]) -> Spread:
    """A figure that a run has as a whole; a run without one is left out of the mean."""
    found = [value for value in by_seed if value is not None]
    return Spread(mean_or_none(by_seed), stdev(found) if len(found) > 1 else None, list(by_seed))


def _classes(of_runs: Sequence[dict[str, dict[str, Any]]], figures: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Mean over seeds of each class's figures, the sd of the first, which is drawn, and the smallest n of the seeds."""
    empty: dict[str, Any] = {"n": 0}
    merged = {}
    for name in dict.fromkeys(name for of_run in of_runs for name in of_run):
        found = [of_run.get(name, empty) for of_run in of_runs]
        means = {figure: mean_or_none(one.get(figure) for one in found) for figure in figures}
        values = [one[figures[0]] for one in found if one.get(figures[0]) is not None]
        means["sd"] = stdev(values) if len(values) > 1 else None
        merged[name] = {**means, "n": min(one["n"] for one in found)}
    return merged
