"""The arms of a study searched alike: the same space, as many trials each, at one point of the axes.

Pre-trainings are made first, once each, in the folder in which the study itself is made afterwards, so that it takes them
from there. What comes out is the study with the chosen settings in its arms, and a table.

    DIR/arms/NAME/   the search of an arm, a folder as that of a single recipe
    DIR/NAME.json    the study with the chosen settings, by its own name
    DIR/study/       for `medssl study DIR/NAME.json --out DIR/study`
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssl.atomic import write_atomically
from medssl.markdown import markdown_table
from medssl.problems import Gathering, InputError, Problem, RunError, nearest
from medssl.study.checks import data_problems, missing_data
from medssl.study.command import make as make_runs
from medssl.study.folder import StudyFolder
from medssl.study.plan import Plan, Run, plan
from medssl.study.schema import Study, read_study
from medssl.tuning.command import check_data, estimate
from medssl.tuning.folder import SearchFolder, Wanted
from medssl.tuning.made import make
from medssl.tuning.space import Space, default_space, read_words, space_of, unused


def tune_arms(options: argparse.Namespace, out: Path) -> None:
    """Search every arm of a study; raises InputError before anything runs, RunError where an arm has found nothing."""
    file, study = read_study(options.recipe, options.settings)
    planned = plan(file, study, out / "study")
    if problems := missing_data(planned) + data_problems(planned):
        raise InputError(problems)
    runs = runs_at(planned, options.at)
    searches = searches_of(planned, runs, options.space, out)
    for folder in searches.values():
        folder.check()
    needed = [run for stage in planned.stages() for run in stage if run.name in _needs(planned, runs.values())]
    study_folder = StudyFolder(planned)
    study_folder.check(needed)  # the others may be there already, with the settings that were found

    launcher = shlex.split(options.launcher or "")
    if options.dry_run:
        estimate(out / "study", needed, list(runs.values()), options)
        return
    if lacking := [run for run in needed if not study_folder.done(run)]:
        print(f"pre-trainings, once each: {', '.join(run.name for run in lacking)}", file=sys.stderr)
        make_runs(study_folder, lacking, launcher or [sys.executable], options.jobs)
    found, lost = dict[str, dict[str, Any]](), list[str]()
    for arm, folder in searches.items():
        print(f"arm {arm}, {runs[arm].name}", file=sys.stderr)
        try:
            found[arm] = make(folder, options.trials, options.jobs, launcher, told=False)
        except RunError as error:
            lost.append(f"{arm}: {error}")
    conclude(out / file.name, study, found)
    if lost:
        raise RunError(f"{len(lost)} of {len(searches)} arms have found nothing: {'; '.join(lost)}")


def runs_at(planned: Plan, at: Sequence[str]) -> dict[str, Run]:
    """The run of each arm at a point of the axes, by default their first values; raises InputError for a point that is none."""
    wanted, problems = dict[str, str](), list[Problem]()
    for word in at:
        axis, _, label = word.partition("=")
        labels = list(dict.fromkeys(m.axes[axis] for m in planned.members if axis in m.axes))
        axes = dict.fromkeys(name for member in planned.members for name in member.axes)
        if not labels:
            near = nearest(axis, axes)
            problems.append(
                Problem("--at", axis, "no axis of the study", f"{near!r}?" if near else f"one of {', '.join(axes)}")
            )
        elif label not in labels:
            problems.append(Problem("--at", axis, label or "nothing", f"one of {', '.join(labels)}"))
        wanted[axis] = label
    found: dict[str, Run] = {}
    for arm in planned.study.arms:
        here = [m for m in planned.of_arm(arm) if all(m.axes.get(axis, label) == label for axis, label in wanted.items())]
        if here:
            found[arm] = planned.runs[here[0].run]
        elif not problems:
            problems.append(Problem("--at", "point", " ".join(at), f"one that the arm {arm} has"))
    if problems:
        raise InputError(problems)
    return found


def searches_of(planned: Plan, runs: Mapping[str, Run], words: Sequence[str], out: Path) -> dict[str, SearchFolder]:
    """The search of each arm, all over the same space, without what has no effect on an arm; raises InputError."""
    wanted = read_words(words) if words else default_space([run.settings for run in runs.values()])
    gathering = Gathering()
    gathering.problems += [
        Problem("space", key, "an axis of the study", "a setting that arms leave open")
        for key in wanted
        if key in _varied(planned)
    ]
    found: dict[str, SearchFolder] = {}
    for arm, run in runs.items():
        idle = unused(run.settings) & wanted.keys() if any(not unused(r.settings) for r in runs.values()) else set()
        with gathering:
            base = [*run.words, f"out={out / 'arms' / arm / 'best'}"]
            space: Space = space_of(type(run.settings), run.recipe, base, {k: v for k, v in wanted.items() if k not in idle})
            check_data(run.settings, space)
            found[arm] = SearchFolder(out / "arms" / arm, Wanted(run.recipe, run.words, run.settings, space))
    gathering.problems = list(dict.fromkeys(gathering.problems))
    gathering.raise_any()
    return found


def conclude(file: Path, study: Study, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the study with what the arms have found, and print it."""
    content = study.model_dump(mode="json", exclude_unset=True)
    rows = []
    for arm, search in found.items():
        best = search["trials"][search["best"]]
        content["arms"][arm]["settings"] = content["arms"][arm].get("settings", {}) | best["settings"]
        states = [trial["state"] for trial in search["trials"]]
        chosen = " ".join(f"{name}={value}" for name, value in best["settings"].items())
        rows.append([arm, chosen, search["watched"], f"{best['value']:.4g}", f"{states.count('done')} of {len(states)}"])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())
    print(markdown_table(["arm", "chosen", "figure", "of validation", "finished"], rows, words=3))
    print(f"\n{file}\nmake it with: medssl study {file} --out {file.parent / 'study'}")


def _varied(planned: Plan) -> set[str]:
    """The settings that some axis varies."""
    all_axes = [planned.study.axes, *(arm.axes for arm in planned.study.arms.values())]
    names = {key.strip() for axes in all_axes for name in axes for key in name.split(",")}
    tables = [table for axes in all_axes for values in axes.values() if isinstance(values, dict) for table in values.values()]
    return names | {key for table in tables for key in table}


def _needs(planned: Plan, runs: Any) -> set[str]:
    """The names of all runs that others start from."""
    names = {name for run in runs for name in run.needs}
    return names | (_needs(planned, [planned.runs[name] for name in names]) if names else set())
