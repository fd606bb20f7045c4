"""Does pre-training help, by how much, and is it real: runs grouped into arms and compared pair by pair.

An arm is one network with one kind of start (`vit_small, pre-trained`, `vit_small, random`) at one number of labelled
cases; its runs differ in seed and draw of labels only. Arms are compared on the runs with the same (seed, draw) and on
the same test cases: the differences are averaged over the pairs, case by case, then bootstrapped over test patients.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any

from medssl.arms import Arm, Key, group_runs, over_seeds
from medssl.bootstrap import bootstrap_interval, paired_bootstrap
from medssl.fairness import arm_warnings, pair_warnings
from medssl.problems import InputError, Problem
from medssl.runs import Run, find_runs, is_run, read_run

__all__ = ["Arm", "Comparison", "Difference", "bootstrap_interval", "compare_runs", "paired_bootstrap", "table"]


@dataclass(frozen=True)
class Difference:
    """Dice of `arm` minus Dice of `reference`, in pairs; `same_network` where only the start differs."""

    arm: str
    reference: str
    labelled: int | None
    same_network: bool
    pairs: list[Key]
    by_pair: list[float]
    dice: float  # of the arm, over the paired runs and cases
    reference_dice: float
    difference: float
    interval: tuple[float, float]
    relative: float | None
    n: int
    patients: int

    @property
    def labels(self) -> str:
        return "all" if self.labelled is None else str(self.labelled)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def __str__(self) -> str:
        return f"{self.difference:+.3f} [{self.interval[0]:+.3f}, {self.interval[1]:+.3f}]"


@dataclass(frozen=True)
class Comparison:
    """All arms, the differences between them, and what to know before believing them."""

    arms: list[Arm]
    differences: list[Difference]
    warnings: list[str]
    skipped: list[str]
    pretraining: list[Run]

    def as_dict(self) -> dict[str, Any]:
        """Give what the comparison's summary.json holds."""
        arms = [{f.name: getattr(arm, f.name) for f in fields(arm) if f.repr} for arm in self.arms]
        return {
            "kind": "comparison",
            "answer": answer(self),
            "arms": arms,
            "differences": [asdict(difference) | {"clear": difference.clear} for difference in self.differences],
            "warnings": self.warnings,
            "skipped": self.skipped,
        }


def compare_runs(folders: Iterable[Path | str]) -> Comparison:
    """Compare the finished fine-tuning runs among `folders`; a folder that is no run stands for the runs inside it.

    Unfinished runs are named in `skipped`. InputError where a run can't be read or none is left.
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
    arms = group_runs(usable)
    differences, notes = _differences(arms)
    pretraining = [run for run in runs if run.kind == "pretrain" and run.finished]
    warnings = dict.fromkeys([*notes, *(note for arm in arms for note in arm_warnings(arm))])
    return Comparison(arms, differences, list(warnings), skipped, pretraining)


def answer(comparison: Comparison) -> str:
    """Say in a sentence for each number of labels what pre-training did to Dice, and whether it is real."""
    main = [difference for difference in comparison.differences if difference.same_network]
    if not main:
        arms = "; ".join(f"{arm.name}, {arm.labels} labels: {arm.dice:.3f}" for arm in comparison.arms)
        return f"No pre-trained arm has a random arm of its network beside it: no word on pre-training. Dice: {arms}."
    beside = [difference for difference in comparison.differences if not difference.same_network]
    sentences = []
    for one in main:
        sentences.append(_sentence(one))
        sentences += [_beside(other) for other in beside if (other.arm, other.labelled) == (one.arm, one.labelled)]
    return " ".join(sentences)


def table(comparison: Comparison) -> str:
    """Give the comparison as Markdown tables that also read well in a terminal."""
    header, rows = table_cells(comparison)
    parts = [_markdown(header, rows)]
    if wide_classes(comparison):
        parts.append(_markdown(*class_cells(comparison)))
    parts += [f"{d.arm} against {d.reference}, {d.labels} labels: {d}" for d in comparison.differences]
    parts += [f"warning: {text}" for text in comparison.warnings]
    return "\n\n".join([*parts, *(f"left out: {text}" for text in comparison.skipped)])


def table_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Give the header and the rows of the table; the classes have columns here when they are few."""
    names = [] if wide_classes(comparison) else class_names(comparison)
    header = ["arm", "labels", "seeds", "n", "Dice", *names, "HD95 mm", "seconds", "against random [95%]"]
    rows = []
    for arm in comparison.arms:
        spread = f"{arm.dice:.3f}" + ("" if arm.sd is None else f" ± {arm.sd:.3f}")
        own = [d for d in comparison.differences if d.same_network and (d.arm, d.labelled) == (arm.name, arm.labelled)]
        classes = [_class_dice(arm, name) for name in names]
        ends = [_number(arm.hd95, 2), _number(arm.seconds, 0), "; ".join(map(str, own)) or "-"]
        rows.append([arm.name, arm.labels, str(len(arm.seeds)), str(arm.n), spread, *classes, *ends])
    return header, rows


def class_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Give Dice by class, a row for each class and a column for each arm."""
    header = ["class", *(f"{arm.name}, {arm.labels} labels" for arm in comparison.arms)]
    return header, [[name, *(_class_dice(arm, name) for arm in comparison.arms)] for name in class_names(comparison)]


def class_names(comparison: Comparison) -> list[str]:
    """List the classes of all arms in the order of their labels."""
    return list(dict.fromkeys(name for arm in comparison.arms for name in arm.classes))


def wide_classes(comparison: Comparison) -> bool:
    """Tell whether the classes need a table of their own."""
    return len(class_names(comparison)) > 4


def _unusable(run: Run) -> str | None:
    if not run.finished:
        return f"unfinished ({run.summary.get('status', 'no summary.json')})"
    if run.kind not in ("pretrain", "finetune"):
        return f"a run of an unknown kind, {run.kind}"
    task = run.summary.get("task", "segmentation")
    return f"its task is {task}" if run.kind == "finetune" and task != "segmentation" else None


def _differences(arms: Sequence[Arm]) -> tuple[list[Difference], list[str]]:
    """Compare each pre-trained arm with every random arm of as many labels, that of its own network first."""
    differences, notes = [], []
    for arm in (arm for arm in arms if arm.pretrained):
        others = [other for other in arms if not other.pretrained and other.labelled == arm.labelled]
        if arm.network not in {other.network for other in others}:
            notes.append(f"{arm.name}, {arm.labels} labels: no random arm of the same network to compare with")
        for other in sorted(others, key=lambda other: other.network != arm.network):
            difference = _difference(arm, other)
            notes += pair_warnings(arm, other, difference)
            differences += [difference] if difference else []
    return differences, notes


def _difference(arm: Arm, other: Arm) -> Difference | None:
    """Pair by (seed, draw) and case; None where nothing can be paired."""
    pairs = [key for key in arm.seeds if key in other.cases and arm.cases[key].keys() & other.cases[key].keys()]
    if not pairs:
        return None
    shared = {key: [case for case in arm.cases[key] if case in other.cases[key]] for key in pairs}
    ours = over_seeds([{case: arm.cases[key][case] for case in shared[key]} for key in pairs])
    theirs = over_seeds([{case: other.cases[key][case] for case in shared[key]} for key in pairs])
    patients = [arm.patients[case] for case in ours]
    result = paired_bootstrap(list(ours.values()), [theirs[case] for case in ours], patients)
    return Difference(
        arm=arm.name,
        reference=other.name,
        labelled=arm.labelled,
        same_network=arm.network == other.network,
        pairs=pairs,
        by_pair=[mean(arm.cases[key][case] - other.cases[key][case] for case in shared[key]) for key in pairs],
        dice=mean(ours.values()),
        reference_dice=mean(theirs.values()),
        difference=result.difference,
        interval=result.interval,
        relative=None if math.isnan(result.relative) else result.relative,
        n=result.n,
        patients=result.patients,
    )


def _sentence(difference: Difference) -> str:
    verb = "raises" if difference.difference > 0 else "lowers"
    claim = f"pre-training {verb} the mean Dice of {difference.arm.replace(', pre-trained', '')}"
    relative = "" if difference.relative is None else f" ({difference.relative:+.1%} relative)"
    low, high = difference.interval
    real = "which excludes 0." if difference.clear else "which covers 0."
    pairs = f"{len(difference.pairs)} seeds"
    if len(difference.pairs) == 1:
        pairs, real = "1 seed", f"{real[:-1]}, and one seed says nothing about other trainings."
    return (
        f"With {difference.labels} labels, {claim if difference.clear else f'no effect is shown: {claim}'} from "
        f"{difference.reference_dice:.3f} to {difference.dice:.3f}, by {difference.difference:+.3f}{relative}; the 95% "
        f"interval over {difference.patients} test patients and {pairs} is {low:+.3f} to {high:+.3f}, {real}"
    )


def _beside(difference: Difference) -> str:
    scores = f"{difference.reference} scores {difference.reference_dice:.3f}"
    return f"Beside it {scores}: {difference.arm} minus that is {difference}."


def _class_dice(arm: Arm, name: str) -> str:
    return _number(arm.classes.get(name, {}).get("dice"))


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Pad the columns so that the source lines up; numbers stand right, words left."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    pad = [str.ljust, *([str.rjust] * (len(header) - 1))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    body = [[put(cell, width) for put, cell, width in zip(pad, line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [body[0], rule, *body[1:]])
