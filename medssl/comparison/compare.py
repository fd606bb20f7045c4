"""Does pre-training help, by how much, and is it real: runs of one task grouped into arms and compared pair by pair.

An arm is one network with one kind of start (`vit_small, pre-trained`, `vit_small, random`) at one number of labelled
cases; its runs differ in seed and draw of labels only. Arms are compared on the runs with the same (seed, draw) and on
the same test cases: the differences are averaged over the pairs, case by case, then bootstrapped over test patients.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from medssl.comparison.arms import Arm, Key, group_runs, over_seeds
from medssl.comparison.fairness import arm_warnings, pair_warnings
from medssl.comparison.measures import BY_CLASS, MEASURES, Measure
from medssl.markdown import markdown_table
from medssl.problems import InputError, Problem
from medssl.runs import Run, find_runs, is_run, read_run
from medssl.scores.bootstrap import bootstrap_interval, paired_bootstrap

__all__ = ["Arm", "Comparison", "Difference", "bootstrap_interval", "compare_runs", "paired_bootstrap", "table"]


# The columns of the table, by title, where they are not Dice and its classes.
FIGURES = {  # with a column in the table of arms
    "segmentation": {"dice": "Dice", "surface_dice": "surface Dice", "hd95": "HD95 mm"},
    "classification": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "log_loss": "log loss"},
    "regression": {"mae": "MAE", "r2": "R2"},
}


@dataclass(frozen=True)
class Difference:
    """A measure of `arm` minus that of `reference`, in pairs; `same_network` where only the start differs."""

    measure: Measure
    arm: str
    reference: str
    labelled: int | None
    same_network: bool
    pairs: list[Key]
    by_pair: list[float]
    value: float  # of the arm, over the paired runs and cases
    reference_value: float
    difference: float
    interval: tuple[float, float]
    relative: float | None
    n: int
    patients: int
    units: str  # patients, or images where the split divides those

    @property
    def labels(self) -> str:
        return "all" if self.labelled is None else str(self.labelled)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def as_dict(self) -> dict[str, Any]:
        """Give what the comparison's summary.json holds, the measure by its name."""
        told, key = asdict(self), self.measure.key
        return told | {
            "measure": key,
            key: told.pop("value"),
            f"reference_{key}": told.pop("reference_value"),
            "clear": self.clear,
        }

    def __str__(self) -> str:
        difference, low, high = (f"{value:+{self.measure.form}}" for value in (self.difference, *self.interval))
        return f"{difference} [{low}, {high}]"


@dataclass(frozen=True)
class Comparison:
    """All arms, the differences between them, and what to know before believing them."""

    arms: list[Arm]
    differences: list[Difference]
    warnings: list[str]
    skipped: list[str]
    pretraining: list[Run]

    @property
    def task(self) -> str:
        return self.arms[0].task

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What cases are compared by."""
        return MEASURES[self.task]

    def as_dict(self) -> dict[str, Any]:
        """Give what the comparison's summary.json holds."""
        return {
            "kind": "comparison",
            "answer": answer(self),
            "task": self.task,
            "arms": [arm.as_dict() for arm in self.arms],
            "differences": [difference.as_dict() for difference in self.differences],
            "warnings": self.warnings,
            "skipped": self.skipped,
        }


def compare_runs(folders: Iterable[Path | str]) -> Comparison:
    """Compare the finished fine-tuning runs among `folders`; a folder that is no run stands for the runs inside it.

    Unfinished runs are named in `skipped`. InputError where a run can't be read, none is left, or tasks are mixed.
    """
    runs: list[Run] = []
    named = [Path(folder) for folder in folders]
    for folder in named:
        if not folder.is_dir():
            raise InputError([Problem(str(folder), "folder", "no such folder", "a run, or a folder of runs")])
        runs += [read_run(folder)] if is_run(folder) else find_runs(folder)
    usable, skipped = [], []
    for run in runs:
        reason = _unusable(run)
        if reason:
            skipped.append(f"{run.folder}: {reason}")
        elif run.kind == "finetune":
            usable.append(run)
    if not usable:
        found = "; ".join(skipped) or f"{len(runs)} runs of pre-training"
        raise InputError([Problem(", ".join(map(str, named)), "runs", found, "a finished fine-tuning run")])
    tasks = sorted({run.task for run in usable})
    if len(tasks) > 1:
        found = " and ".join(f"{sum(run.task == task for run in usable)} of {task}" for task in tasks)
        raise InputError([Problem(", ".join(map(str, named)), "runs", found, "runs of one task")])
    arms = group_runs(usable)
    differences, notes = _differences(arms)
    pretraining = [run for run in runs if run.kind == "pretrain" and run.finished]
    warnings = dict.fromkeys([*notes, *(note for arm in arms for note in arm_warnings(arm))])
    return Comparison(arms, differences, list(warnings), skipped, pretraining)


def answer(comparison: Comparison) -> str:
    """Say what pre-training did, and whether it is real: a line for each arm and number of labels."""
    main = [difference for difference in comparison.differences if difference.same_network]
    if not main:
        arms = "; ".join(
            f"{arm.name}, {arm.labels} labels: {_number(arm.mean(arm.main.key), arm.main.form)}" for arm in comparison.arms
        )
        title = capitalised(comparison.measures[0].title)
        return f"No pre-trained arm has a random arm of its network beside it: no word on pre-training. {title}: {arms}."
    beside = [difference for difference in comparison.differences if not difference.same_network]
    lines: dict[Any, list[str]] = {}
    for one in main:
        same = (one.arm, one.labelled, one.measure)
        sentences = [_beside(other) for other in beside if (other.arm, other.labelled, other.measure) == same]
        lines.setdefault((one.arm, one.labelled), []).extend([_sentence(one), *sentences])
    return "\n".join(" ".join(line) for line in lines.values())


def table(comparison: Comparison) -> str:
    """Give the comparison as Markdown tables that also read well in a terminal."""
    header, rows = table_cells(comparison)
    parts = [markdown_table(header, rows)]
    if wide_classes(comparison):
        parts.append(markdown_table(*class_cells(comparison)))
    parts += [f"{in_measure(d)}{d.arm} against {d.reference}, {d.labels} labels: {d}" for d in comparison.differences]
    parts += [f"warning: {text}" for text in comparison.warnings]
    return "\n\n".join([*parts, *(f"left out: {text}" for text in comparison.skipped)])


def table_cells(comparison: Comparison, against: bool = True) -> tuple[list[str], list[list[str]]]:
    """Give the header and the rows of the table; the classes have columns here when they are few.

    `against` adds the differences to the random arm, a column for each measure that cases are compared by.
    """
    figures = _figure_titles(comparison)
    names = [] if wide_classes(comparison) else class_names(comparison)
    measures = comparison.measures if against else ()
    several = len(measures) > 1
    differences = [f"{f'{measure.title} ' if several else ''}against random [95%]" for measure in measures]
    header = ["arm", "labels", "seeds", "n", *figures.values(), *names, "seconds", *differences]
    rows = [
        [arm.name, arm.labels, str(len(arm.seeds)), str(arm.n)]
        + [_spread(arm, figure) for figure in figures]
        + [class_figure(arm, name) for name in names]
        + [_number(arm.seconds, ".0f"), *(_against(comparison, arm, measure) for measure in measures)]
        for arm in comparison.arms
    ]
    return header, rows


def _figure_titles(comparison: Comparison) -> dict[str, str]:
    """The figures over all cases that have a column; without the surface Dice where no run has one."""
    titles = FIGURES[comparison.task]
    return {
        figure: title for figure, title in titles.items() if any(not math.isnan(arm.mean(figure)) for arm in comparison.arms)
    }


def class_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Give Dice or sensitivity by class, a row for each class and a column for each arm."""
    header = ["class", *(f"{arm.name}, {arm.labels} labels" for arm in comparison.arms)]
    return header, [[name, *(class_figure(arm, name) for arm in comparison.arms)] for name in class_names(comparison)]


def class_names(comparison: Comparison) -> list[str]:
    """List the classes of all arms in the order of their labels."""
    return list(dict.fromkeys(name for arm in comparison.arms for name in arm.classes))


def wide_classes(comparison: Comparison) -> bool:
    """Tell whether the classes need a table of their own."""
    return len(class_names(comparison)) > 4 or comparison.task == "classification"


def in_measure(difference: Difference) -> str:
    """Name the measure of a difference where its task has several; nothing for Dice."""
    return f"{difference.measure.title}, " if difference.measure.key != "dice" else ""


def capitalised(text: str) -> str:
    """The text with its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def _unusable(run: Run) -> str | None:
    if not run.finished:
        return f"unfinished ({run.summary.get('status', 'no summary.json')})"
    if run.kind not in ("pretrain", "finetune"):
        return f"a run of an unknown kind, {run.kind}"
    return f"its task is {run.task}" if run.kind == "finetune" and run.task not in MEASURES else None


def _differences(arms: Sequence[Arm]) -> tuple[list[Difference], list[str]]:
    """Compare each pre-trained arm with every random arm of as many labels, that of its own network first."""
    differences, notes = [], []
    for arm in (arm for arm in arms if arm.pretrained):
        others = [other for other in arms if not other.pretrained and other.labelled == arm.labelled]
        if arm.network not in {other.network for other in others}:
            notes.append(f"{arm.name}, {arm.labels} labels: no random arm of the same network to compare with")
        for other in sorted(others, key=lambda other: other.network != arm.network):
            for measure in MEASURES[arm.task]:
                difference = _difference(arm, other, measure)
                notes += pair_warnings(arm, other, difference)
                differences += [difference] if difference else []
    return differences, notes


def _difference(arm: Arm, other: Arm, measure: Measure) -> Difference | None:
    """Pair by (seed, draw) and case; None where nothing can be paired."""
    mine, its = arm.values[measure.key], other.values[measure.key]
    pairs = [key for key in arm.seeds if key in its and mine[key].keys() & its[key].keys()]
    if not pairs:
        return None
    shared = {key: [case for case in mine[key] if case in its[key]] for key in pairs}
    ours = over_seeds([{case: mine[key][case] for case in shared[key]} for key in pairs])
    theirs = over_seeds([{case: its[key][case] for case in shared[key]} for key in pairs])
    patients = [arm.patients[case] for case in ours]
    result = paired_bootstrap(list(ours.values()), [theirs[case] for case in ours], patients)
    return Difference(
        measure=measure,
        arm=arm.name,
        reference=other.name,
        labelled=arm.labelled,
        same_network=arm.network == other.network,
        pairs=pairs,
        by_pair=[mean(mine[key][case] - its[key][case] for case in shared[key]) for key in pairs],
        value=mean(ours.values()),
        reference_value=mean(theirs.values()),
        difference=result.difference,
        interval=result.interval,
        relative=None if math.isnan(result.relative) else result.relative,
        n=result.n,
        patients=result.patients,
        units=arm.runs[0].units,
    )


def _sentence(difference: Difference) -> str:
    verb = "raises" if difference.difference > 0 else "lowers"
    claim = f"pre-training {verb} the {difference.measure.phrase} of {difference.arm.replace(', pre-trained', '')}"
    relative = "" if difference.relative is None else f" ({difference.relative:+.1%} relative)"
    low, high = (f"{end:+{difference.measure.form}}" for end in difference.interval)
    before, after = (_number(value, difference.measure.form) for value in (difference.reference_value, difference.value))
    by = f"{difference.difference:+{difference.measure.form}}"
    real = "which excludes 0." if difference.clear else "which covers 0."
    pairs = f"{len(difference.pairs)} seeds"
    if len(difference.pairs) == 1:
        pairs, real = "1 seed", f"{real[:-1]}, and one seed says nothing about other trainings."
    return (
        f"With {difference.labels} labels, {claim if difference.clear else f'no effect is shown: {claim}'} from "
        f"{before} to {after}, by {by}{relative}; the 95% "
        f"interval over {difference.patients} test {difference.units} and {pairs} is {low} to {high}, {real}"
    )


def _beside(difference: Difference) -> str:
    of = f" in {difference.measure.title}" if in_measure(difference) else ""
    scores = f"{difference.reference} scores {_number(difference.reference_value, difference.measure.form)}{of}"
    return f"Beside it {scores}: {difference.arm} minus that is {difference}."


def class_figure(arm: Arm, name: str) -> str:
    """Write the figure of a class that is drawn: its Dice or sensitivity."""
    return _number(arm.classes.get(name, {}).get(BY_CLASS[arm.task][0]))


def _spread(arm: Arm, figure: str) -> str:
    form, sd = _form(arm, figure), arm.figures[figure].sd
    return _number(arm.mean(figure), form) + ("" if sd is None else f" ± {sd:{form}}")


def _form(arm: Arm, figure: str) -> str:
    """How many digits a figure is written with."""
    return arm.main.form if figure == arm.main.key else ".2f" if figure == "hd95" else ".3f"


def _against(comparison: Comparison, arm: Arm, measure: Measure) -> str:
    """The differences of a pre-trained arm to the random one of its network."""
    own = [d for d in comparison.differences if d.same_network and (d.arm, d.labelled) == (arm.name, arm.labelled)]
    return "; ".join(str(d) for d in own if d.measure == measure) or "-"


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None or math.isnan(value) else f"{value:{form}}"
