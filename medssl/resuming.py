"""Resuming: from the newest whole checkpoint, under the conditions that it was made with, or not at all.

What differs is refused, a line each with both values; `--resume-loose` makes it a warning in the log and in the summary.
"""

from itertools import chain
from typing import Any

import torch

from medssl import checkpoint
from medssl.average import Average
from medssl.conditions import differences
from medssl.config import Shared
from medssl.parallel import grouping, load_full
from medssl.problems import InputError, Problem, RunError
from medssl.processes import everyones, said_once
from medssl.progress import Progress
from medssl.run_folder import RunFolder
from medssl.training import Training


def resume(
    run: RunFolder, settings: Shared, conditions: dict[str, Any], training: Training, optimiser: torch.optim.Optimizer,
    average: Average,
) -> Progress:  # fmt: skip
    """Take up the newest checkpoint of the run, or start at step 0; metrics of steps to be done again are dropped.

    Raises InputError for other conditions than the checkpoint's, RunError where what is needed is damaged or of other
    weights; then nothing of the run is changed.
    """
    state, warnings = checkpoint.load_newest(run.folder)
    for warning in warnings:
        run.say(warning)
    step = 0 if state is None else state["progress"]["step"]
    if len(set(steps := everyones(step))) > 1:
        raise said_once(RunError(f"{run.folder}: ranks found checkpoints of steps {steps}, expected one folder that all share"))
    if state is None:
        if run.again:
            run.say("no checkpoint was written yet: starting at step 0 again")
        run.keep_metrics_until(0)
        return Progress()
    progress = Progress(**state["progress"])
    let_through(run, state["conditions"], conditions, progress)
    check_weights(run, state["model"], training.model.state_dict())
    check_best(run, settings, progress)
    check_remembered(run, state, conditions, optimiser, progress)
    load_full(training.model, optimiser, state)
    average.load(state)
    if warnings:
        checkpoint.replace_damaged(run.folder)
    run.keep_metrics_until(step)
    if run.loose:
        run.describe(settings.split)
    before, now = state["conditions"]["ranks"], conditions["ranks"]
    spread = f", ranks: {before} before, {now} now: the same run to rounding" if before != now else ""
    run.say(f"going on after step {progress.step}{spread}")
    return progress


def let_through(run: RunFolder, before: dict[str, Any], now: dict[str, Any], progress: Progress) -> None:
    """Raise InputError for conditions that differ on any rank; loosely, say and remember them."""
    found = dict.fromkeys(chain(*everyones(differences(before, now))))
    if found and not run.loose:
        expected = "as its checkpoint was made, or --resume-loose"
        raise said_once(InputError([Problem(str(run.folder), name, new, f"{old}, {expected}") for name, old, new in found]))
    for name, old, new in found:
        progress.warnings.append(f"warning: {name} was {old} until step {progress.step} and is {new} from there on")
        run.say(progress.warnings[-1])


def check_weights(run: RunFolder, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise RunError where the checkpoint's weights have other names or shapes than those that these settings make."""
    shapes = [{(name, getattr(value, "shape", None)) for name, value in weights.items()} for weights in (before, now)]
    if others := sorted({name for name, _ in shapes[0] ^ shapes[1]}):
        found = f"a checkpoint of other weights ({others[0]}{', ...' if others[1:] else ''})"
        raise said_once(RunError(f"{run.folder}: found {found}, expected one that fits the settings"))


def check_best(run: RunFolder, settings: Shared, progress: Progress) -> None:
    """Raise RunError where the best weights so far are lost; loosely, forget them, and those that belong to steps undone.

    Exactly resumed, a best that was found after the checkpoint is found again, and written over itself.
    """
    problem = everyones(lost_best(run, settings, progress))[0]
    if problem is None:
        return
    if not run.loose:
        remedy = "goes on with the best of the validations to come"
        remedy = remedy if progress.step < settings.steps else "checkpoint=latest takes the last weights"
        raise said_once(RunError(f"{problem}; --resume-loose {remedy}"))
    progress.forget_best()
    progress.warnings.append(f"warning: {problem}, so the best weights are of validations after step {progress.step} alone")
    run.say(progress.warnings[-1])


def lost_best(run: RunFolder, settings: Shared, progress: Progress) -> str | None:
    """What is wrong with the best weights so far, as rank 0 sees it."""
    if run.silent or settings.checkpoint != "best" or not progress.best_step:
        return None
    try:
        found = checkpoint.load(run.path(checkpoint.BEST))["step"]
    except RunError as error:
        return str(error)
    again = found > progress.step and not (run.loose and progress.warnings)
    return None if found == progress.best_step or again else f"{run.path(checkpoint.BEST)} is of step {found}"


def check_remembered(
    run: RunFolder, state: dict[str, Any], now: dict[str, Any], optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    """Loosely, drop what another optimiser remembers, or one that groups the weights otherwise, and say so."""
    made = optimiser.state_dict()
    same = state["conditions"]["optimiser"] == now["optimiser"] and grouping(state["optimiser"]) == grouping(made)
    if run.loose and not same:
        state["optimiser"] = made
        progress.warnings.append(f"warning: the optimiser begins anew after step {progress.step}, without what it remembered")
        run.say(progress.warnings[-1])
