"""Runs grouped into arms: one network, one kind of start, one number of labels; seeds and draws differ inside."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from medssl.bootstrap import bootstrap_interval
from medssl.problems import InputError, Problem
from medssl.runs import Run
from medssl.scores import Score, class_scores, mean_or_none, score_by_case

Key = tuple[int, int]  # (seed, draw)
# What tells runs of one name apart when two of them have the same seed and draw, most telling first.
APART: tuple[Callable[[Run], str], ...] = (
    lambda run: f"from {run.encoder_name}",
    lambda run: f"network {run.config.get('network')}",
    lambda run: f"lr {run.summary.get('lr', run.config.get('lr'))}",
    lambda run: f"{run.summary.get('steps')} steps",
    lambda run: run.name,
)


@dataclass(frozen=True)
class Arm:
    """Runs that differ in seed and draw only. Means are over seeds; `sd` is None for a single one."""

    name: str
    network: str
    pretrained: bool
    labelled: int | None
    seeds: list[Key]  # (seed, draw)
    n: int  # test cases with a score in any run
    dice: float
    sd: float | None
    by_seed: list[float]
    interval: list[float]  # bootstrap over test patients of the scores averaged over seeds
    hd95: float | None
    classes: dict[str, dict[str, Any]]
    steps: list[int]
    seconds: float | None  # mean of a run
    folders: list[str]
    runs: list[Run] = field(repr=False, compare=False)
    cases: dict[Key, dict[str, float]] = field(repr=False, compare=False)
    patients: dict[str, str] = field(repr=False, compare=False)

    @property
    def labels(self) -> str:
        return "all" if self.labelled is None else str(self.labelled)


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


def _apart(name: str, runs: list[Run], by: Sequence[Callable[[Run], str]] = APART) -> dict[str, list[Run]]:
    """Split runs until no two of an arm have the same seed and draw."""
    if len({run.key for run in runs}) == len(runs) or not by:
        return {name: runs}
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(by[0](run), []).append(run)
    names = {value: name if len(parts) == 1 else f"{name}, {value}" for value in parts}
    return {part: same for value, group in parts.items() for part, same in _apart(names[value], group, by[1:]).items()}


def _arm(name: str, runs: list[Run]) -> Arm:
    runs = sorted(runs, key=lambda run: run.key)
    rows = {run.key: run.scores() for run in runs}
    cases = {key: _without_excluded(score_by_case(scores)) for key, scores in rows.items()}
    empty = [str(run.folder) for run in runs if not cases[run.key]]
    if empty:
        raise InputError([Problem(folder, "predictions.csv", "no case with a score", "at least one") for folder in empty])
    by_seed = [mean(scores.values()) for scores in cases.values()]
    patients = {row.case: row.patient for scores in rows.values() for row in scores}
    averaged = over_seeds(list(cases.values()))
    seconds = [float(run.summary["seconds"]) for run in runs if run.summary.get("seconds") is not None]
    return Arm(
        name=name,
        network=runs[0].network,
        pretrained=runs[0].pretrained,
        labelled=runs[0].labelled,
        seeds=[run.key for run in runs],
        n=len(averaged),
        dice=mean(by_seed),
        sd=stdev(by_seed) if len(by_seed) > 1 else None,
        by_seed=by_seed,
        interval=list(bootstrap_interval(list(averaged.values()), [patients[case] for case in averaged])),
        hd95=mean_or_none(mean_or_none(score_by_case(scores, "hd95").values()) for scores in rows.values()),
        classes=_classes(list(rows.values())),
        steps=[int(run.summary.get("steps") or 0) for run in runs],
        seconds=mean(seconds) if seconds else None,
        folders=[str(run.folder) for run in runs],
        runs=runs,
        cases=cases,
        patients=patients,
    )


def over_seeds(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Give each case's mean over the runs that scored it."""
    values: dict[str, list[float]] = {}
    for of_run in scores:
        for case, score in of_run.items():
            values.setdefault(case, []).append(score)
    return {case: mean(of_case) for case, of_case in values.items()}


def _without_excluded(scores: dict[str, float]) -> dict[str, float]:
    return {case: score for case, score in scores.items() if not math.isnan(score)}


def _classes(rows: Sequence[list[Score]]) -> dict[str, dict[str, Any]]:
    """Mean over seeds of each class's Dice and HD95, the sd of its Dice, and the smallest n of the seeds."""
    of_runs = [class_scores(scores) for scores in rows]
    empty: dict[str, Any] = {"dice": None, "hd95": None, "n": 0}
    merged = {}
    for name in dict.fromkeys(name for of_run in of_runs for name in of_run):
        found = [of_run.get(name, empty) for of_run in of_runs]
        means = {measure: mean_or_none(one[measure] for one in found) for measure in ("dice", "hd95")}
        overlaps = [one["dice"] for one in found if one["dice"] is not None]
        means["sd"] = stdev(overlaps) if len(overlaps) > 1 else None
        merged[name] = {**means, "n": min(one["n"] for one in found)}
    return merged
