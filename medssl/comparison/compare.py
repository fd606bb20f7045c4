"""Does pre-training help, by how much, and is it real: runs of one task grouped into arms and compared pair by pair.

The runs of a study are grouped and compared as its study.json says. Of any other folder of runs an arm is one network with
one kind of start (`vit_small, pre-trained`, `vit_small, random`) at one number of labelled cases.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl.comparison.arms import Arm, group_runs, planned_arms
from medssl.comparison.differences import Difference, guessed_differences, planned_differences, study_measures
from medssl.comparison.efficiency import Curve, Saving, label_curves, savings
from medssl.comparison.fairness import arm_warnings, run_warnings
from medssl.comparison.measures import MEASURES, Measure
from medssl.comparison.origins import Origin, leaks, origins_of
from medssl.comparison.planned import PlannedRun, Study, is_study, read_study
from medssl.problems import InputError, Problem
from medssl.runs import Run, find_runs, is_run, read_run, read_runs


@dataclass(frozen=True)
class Comparison:
    """All arms, the differences between them, and what to know before believing them."""

    arms: list[Arm]
    differences: list[Difference]
    warnings: list[str]
    skipped: list[str]
    pretraining: list[Run]
    measures: tuple[Measure, ...]  # what cases are compared by
    origins: dict[str, Origin] = field(default_factory=dict)  # by the title of a pre-trained arm whose run is at hand
    curves: list[Curve] = field(default_factory=list)
    savings: list[Saving] = field(default_factory=list)
    study: Study | None = None

    @property
    def task(self) -> str:
        return self.arms[0].task


def compare_runs(folders: Iterable[Path | str]) -> Comparison:
    """Compare the finished fine-tuning runs among `folders`; a folder that is no run stands for the runs inside it.

    Unfinished runs are named in `skipped`. InputError where a run can't be read, none is left, or tasks are mixed.
    """
    named = [Path(folder) for folder in folders]
    for folder in named:
        if not folder.is_dir():
            raise InputError([Problem(str(folder), "folder", "no such folder", "a run, or a folder of runs")])
    study = read_study(named[0]) if len(named) == 1 and is_study(named[0]) else None
    runs = planned_runs(study) if study else [run for folder in named for run in runs_in(folder)]
    usable, skipped = usable_runs(runs)
    where = ", ".join(map(str, named))
    if not usable:
        found = "; ".join(skipped) or f"{len(runs)} runs of pre-training"
        raise InputError([Problem(where, "runs", found, "a finished fine-tuning run")])
    tasks = sorted({run.task for run in usable})
    if len(tasks) > 1:
        found = " and ".join(f"{sum(run.task == task for run in usable)} of {task}" for task in tasks)
        raise InputError([Problem(where, "runs", found, "runs of one task")])
    pretraining = [run for run in runs if run.kind == "pretrain" and run.finished]
    return compared(usable, pretraining, missing(study) if study else skipped, study)


def compared(runs: Sequence[Run], pretraining: Sequence[Run], skipped: list[str], study: Study | None) -> Comparison:
    """Compare finished fine-tuning runs of one task; `skipped` says what is not among them."""
    arms = planned_arms(runs, study) if study else group_runs(runs)
    by_plan = study is not None and study.compare
    differences, notes = planned_differences(arms, study) if study and by_plan else guessed_differences(arms)
    measures = study_measures(arms[0].task, study) if study else MEASURES[arms[0].task]
    origins = origins_of(arms, pretraining, study)
    lost = len({run.folder for run in study.runs if run.state}) if study else 0
    lacking = [f"{lost} {'run is' if lost == 1 else 'runs are'} missing: see what was left out"] if lost else []
    warnings = dict.fromkeys(
        [*leaks(arms, origins), *lacking, *notes, *(note for arm in arms for note in arm_warnings(arm)), *run_warnings(arms)]
    )
    curves = label_curves(arms, measures[0])
    pairs = [(one.arm, one.reference) for one in differences if one.main]
    saved = savings(arms, dict.fromkeys(pairs), measures[0])
    return Comparison(arms, differences, list(warnings), skipped, list(pretraining), measures, origins, curves, saved, study)


def runs_in(folder: Path) -> list[Run]:
    """Read a run, or all runs of a folder."""
    return [read_run(folder)] if is_run(folder) else find_runs(folder)


def planned_runs(study: Study) -> list[Run]:
    """Read those runs of a study that are there; raises InputError with all that can't be read."""
    return read_runs(folder for folder in dict.fromkeys(planned.folder for planned in study.runs) if is_run(folder))


def usable_runs(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Give the finished fine-tuning runs, and why others can't be used."""
    usable, skipped = [], []
    for run in runs:
        reason = _unusable(run)
        if reason:
            skipped.append(f"{run.folder}: {reason}")
        elif run.kind == "finetune":
            usable.append(run)
    return usable, skipped


def missing(study: Study) -> list[str]:
    """Say of each arm which of the study's runs are not finished, and in what state they are."""
    lines: dict[tuple[str, str], list[str]] = {}
    for run in study.runs:
        state = run.state
        if state:
            lines.setdefault((_arm_in_words(run), state), []).append(str(run.axes.get("seed", run.folder.name)))
    return [f"{arm} lacks seed {', '.join(seeds)}: {state}" for (arm, state), seeds in lines.items()]


def _arm_in_words(run: PlannedRun) -> str:
    axes = ", ".join(f"{axis} {value}" for axis, value in run.axes.items() if axis not in ("seed", "draw"))
    return f"{run.arm}{' (pre-training)' if run.kind == 'pretrain' else ''}{f', {axes}' if axes else ''}"


def _unusable(run: Run) -> str | None:
    if not run.finished:
        return f"unfinished ({run.summary.get('status', 'no summary.json')})"
    if run.kind not in ("pretrain", "finetune"):
        return f"a run of an unknown kind, {run.kind}"
    return f"its task is {run.task}" if run.kind == "finetune" and run.task not in MEASURES else None
