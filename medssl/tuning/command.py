"""`medssl tune RECIPE [key=value ...] --out DIR`: search a recipe's settings on validation; of a study, those of every arm."""

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medssl.config import Finetune, Pretrain, Shared
from medssl.problems import Gathering, InputError, Problem
from medssl.recipes import find_recipe, read_either, read_recipe
from medssl.splits import read_split
from medssl.study.command import placed
from medssl.study.plan import Run
from medssl.study.schema import STUDIES
from medssl.subsets import take_fold, take_labelled
from medssl.tuning.space import Space, default_space, read_words, space_of

NEEDED = ("optuna", "sqlalchemy", "alembic")


def run(options: argparse.Namespace) -> None:
    """Do what the arguments say; raises RunError where no trial was finished, Stopped after a signal."""
    check_arguments(options)
    out = placed(options.out)
    if is_study(options.recipe):
        from medssl.tuning.arms import tune_arms

        tune_arms(options, out)
    else:
        tune_recipe(options, out)


def tune_recipe(options: argparse.Namespace, out: Path) -> None:
    """Search one recipe; raises as `run`."""
    if options.at:
        raise InputError([Problem("--at", "recipe", options.recipe, "a study, whose axes it is about")])
    kind, words = type(read_either(options.recipe, options.settings)), list(options.settings)
    settings = settings_of(kind, options.recipe, words, out)
    wanted = read_words(options.space) if options.space else default_space([settings])
    space = space_of(kind, options.recipe, words, wanted)
    check_data(settings, space)

    if options.dry_run:
        script = "pretrain" if kind is Pretrain else "finetune"
        estimate(out, [], [Run("trials", script, "", options.recipe, tuple(words), settings, (), {})], options)
        return

    from medssl.tuning.folder import SearchFolder, Wanted
    from medssl.tuning.made import make

    folder = SearchFolder(out, Wanted(options.recipe, tuple(words), settings, space))
    make(folder, options.trials, options.jobs, shlex.split(options.launcher or ""))


def estimate(out: Path, once: Sequence[Run], searched: Sequence[Run], options: argparse.Namespace) -> None:
    """Print what runs that are made once and the trials of others will take, by their dry runs; none is made."""
    from medssl.launch import cores
    from medssl.study.costs import measured, told

    launcher, threads = shlex.split(options.launcher or "") or [sys.executable], max(cores() // options.jobs, 1)
    kinds = measured(out, [*once, *searched], launcher, threads, lambda line: print(line, file=sys.stderr))
    times = {run.name: options.trials for run in searched}
    kinds = [replace(kind, runs=[run for run in kind.runs for _ in range(times.get(run.name, 1))]) for kind in kinds]
    print(f"{told(kinds, options.jobs)}\ntrials that are ended early take less")


def check_arguments(options: argparse.Namespace) -> None:
    """Raise InputError for numbers that are none, settings that a search sees to itself, and where optuna is missing."""
    problems = [
        Problem(f"--{name}", name, str(getattr(options, name)), "at least 1")
        for name in ("trials", "jobs")
        if getattr(options, name) < 1
    ]
    problems += [
        Problem("command line", key, "a setting of single runs", "none: --out names the folder of all")
        for key in (word.partition("=")[0] for word in options.settings)
        if key in ("out", "overwrite")
    ]
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        problems.append(Problem("medssl tune", "packages", f"no {missing[0]}", "it: pip install -e '.[tune]'"))
    if problems:
        raise InputError(problems)


def is_study(name: str) -> bool:
    """Whether a name is that of a study: a JSON file with arms."""
    try:
        return "arms" in read_recipe(find_recipe(name))
    except InputError:
        return (STUDIES / f"{name}.json").is_file()


def settings_of(kind: type[Shared], recipe: str, words: Sequence[str], out: Path) -> Shared:
    """The recipe's own settings, as they are without a search."""
    from medssl.recipes import read_settings

    return read_settings(kind, recipe, [*words, f"out={out / 'best'}"])


def check_data(settings: Shared, space: Space) -> None:
    """Read the split and raise InputError for what would end every trial; opens no image."""
    if not settings.split.is_file():
        expected = "a split: medssl split makes one"
        raise InputError([Problem(str(settings.split), "split", "no such file", expected)])
    split = read_split(settings.split, settings.data_root)
    split = split if settings.fold is None else take_fold(split, settings.fold)
    found = Gathering()
    if not split.part("validation"):
        found.problems.append(Problem(str(split.file), "validation", "no cases", "at least one, to choose by"))
    if isinstance(settings, Finetune):
        with found:
            take_labelled(split, settings.labelled, settings.draw)
        found.problems += foreign(space, split.task)
    found.raise_any()


def foreign(space: Space, task: str) -> list[Problem]:
    """The settings of a space that another task has."""
    from medssl.tasks import ONLY_FOR

    names = [name for name in space if task not in ONLY_FOR.get(name.split(".")[0], (task,))]
    return [Problem("space", name, f"a setting without effect on {task}", "one that has some") for name in names]


def notes(kind: type[Shared], space: Space) -> list[str]:
    """What somebody should know before the search."""
    moved = [name for name in space if name.split(".")[0] == "method"] if kind is Pretrain else []
    found = (
        [f"{', '.join(moved)}: may change what the validation figure measures; then its values compare badly"] if moved else []
    )
    if kind is Pretrain:
        found.append("the figure is that of the pretext, and no task's: a search of the fine-tuning says what helps it")
    return found


def told_space(space: Space, own: dict[str, Any]) -> list[str]:
    """The space in lines, with the recipe's own values, which the first trial has."""
    width = max(map(len, space))
    return [
        f"  {name:<{width}}  {values}; " + (f"first {own[name]}" if name in own else "not the recipe's own")
        for name, values in space.items()
    ]
