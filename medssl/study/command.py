"""`medssl study STUDY --out DIR`: plan, check, run and report; or list, or estimate, or make single runs."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.problems import InputError, Problem, RunError, nearest
from medssl.stopping import Stopped
from medssl.study.checks import data_problems, missing_data, notes
from medssl.study.plan import Plan, Run, plan
from medssl.study.schema import read_study

if TYPE_CHECKING:  # it comes with torch, which a study that is refused does not wait for
    from medssl.study.folder import StudyFolder


class StudyStopped(Stopped):
    """A signal asked the study to stop; the checkpoints of its runs are written."""

    def __init__(self, number: int, done: int, runs: int) -> None:
        super().__init__(number)
        name = signal.Signals(number).name
        self.args = (f"stopped by {name} after {done} of {runs} runs; the same command goes on",)


def run(options: argparse.Namespace) -> None:
    """Do what the arguments say; raises RunError where a run failed, Stopped after a signal."""
    if options.jobs < 1:
        raise InputError([Problem("--jobs", "runs", str(options.jobs), "at least 1")])
    file, study = read_study(options.study, options.words)
    planned = plan(file, study, placed(options.out or Path("runs") / file.stem))
    chosen = chosen_runs(planned, options)
    missing, problems = missing_data(planned), data_problems(planned)
    if problems or (missing and not (options.dry_run or options.list)):
        raise InputError(missing + problems)

    from medssl.study.folder import StudyFolder

    folder, launcher = StudyFolder(planned), shlex.split(options.launcher or "") or [sys.executable]
    folder.check()
    for line in [*(f"data is missing: {problem}" for problem in missing), *notes(planned)]:
        print(f"note: {line}", file=sys.stderr)
    if options.list:
        list_runs(folder, chosen, launcher)
    elif options.dry_run:
        estimate(folder, chosen, launcher, options.jobs)
    else:
        make(folder, chosen, launcher, options.jobs)


def chosen_runs(planned: Plan, options: argparse.Namespace) -> list[Run]:
    """The runs that the arguments name, in order of their stages; raises InputError for a name that is none."""
    stages = planned.stages()
    runs = [run for stage in stages for run in stage]
    for name, count in (("stage", len(stages)), ("task", len(runs))):
        number = getattr(options, name)
        if number is not None and not 1 <= number <= count:
            raise InputError([Problem(f"--{name}", name, str(number), f"1 to {count}")])
    if options.stage is not None:
        runs = [run for run in runs if run in stages[options.stage - 1]]
    if options.task is not None:
        runs = [run for stage in stages for run in stage][options.task - 1 : options.task]
    if options.only is not None:
        arms = {member.run for member in planned.members if member.arm == options.only}
        named = [run for run in runs if options.only in (run.name, run.name.partition("/")[2], run.of) or run.name in arms]
        if not named:
            names = [run.name.partition("/")[2] for run in runs]
            near = nearest(options.only, names)
            raise InputError([Problem("--only", "run", options.only, f"{near!r}?" if near else f"one of {', '.join(names)}")])
        runs = named
    return runs


def list_runs(folder: "StudyFolder", runs: Sequence[Run], launcher: Sequence[str]) -> None:
    """Print a command for each run, those of a stage under its heading with their numbers for --task."""
    from medssl.study.runner import command_of

    number = 0
    for k, stage in enumerate(folder.plan.stages(), start=1):
        first, number = number + 1, number + len(stage)
        if here := [run for run in stage if run in runs]:
            print(f"# stage {k}: tasks {first} to {number}")
            print("\n".join(shlex.join(command_of(run, folder, launcher)) for run in here))


def estimate(folder: "StudyFolder", runs: Sequence[Run], launcher: Sequence[str], jobs: int) -> None:
    """Print the runs with what they need, and what all will take."""
    from medssl.launch import cores
    from medssl.markdown import markdown_table
    from medssl.study.costs import measured, told

    number = {run.name: k for k, run in enumerate((run for stage in folder.plan.stages() for run in stage), start=1)}
    state = {True: "done", False: "to do"}
    rows = [
        [str(number[run.name]), run.name, str(run.settings.steps), ", ".join(run.needs) or "-", state[folder.done(run)]]
        for run in runs
    ]
    print(markdown_table(["task", "run", "steps", "needs", "state"], rows, words=2))
    rest = [run for run in runs if not folder.done(run)]
    kinds = measured(folder.plan.out, rest, launcher, max(cores() // jobs, 1), lambda line: print(line, file=sys.stderr))
    print(f"\n{told(kinds, jobs)}" if kinds else "\nall done")


def make(folder: "StudyFolder", runs: Sequence[Run], launcher: Sequence[str], jobs: int) -> None:
    """Make the runs, then report what all of the study have reached."""
    from medssl.study.progress import Progress
    from medssl.study.runner import Runner

    whole = len(runs) == len(folder.plan.runs)
    needed = [folder.plan.runs[name] for name in dict.fromkeys(name for run in runs for name in run.needs)]
    if lacking := [run for run in needed if run not in runs and not folder.done(run)]:
        raise InputError([Problem(str(folder.path(run)), "run", "not done", "it first: others need it") for run in lacking])
    folder.open(alone=whole)
    progress = Progress(folder, runs, jobs)
    runner = Runner(folder, runs, jobs, launcher, progress.told)
    runner.run(progress.watch)
    progress.close()
    if runner.stopped:
        raise StudyStopped(runner.stopped, len(progress.ended), len(runs))
    if whole and any(run.kind == "finetune" and folder.done(run) for run in runs):
        from medssl.cli import run_report

        run_report(argparse.Namespace(folder=folder.out))
    if runner.failures:
        names = ", ".join(runner.failures)
        raise RunError(f"{len(runner.failures)} of {len(runs)} runs failed, see {folder.out / 'failures.json'}: {names}")


def placed(out: Path) -> Path:
    """The folder as runs name it: from the present one where it is in that, so that the same study finds itself again."""
    whole, here = Path(os.path.abspath(out)), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) and whole != here else whole
