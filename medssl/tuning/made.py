"""A search made from its folder: trials, tune.json after each, the recipe and the report at the end."""

import math
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from medssl.config import Finetune, Pretrain
from medssl.data import split_of
from medssl.forecast import hours
from medssl.methods import method_class
from medssl.problems import RunError
from medssl.runs import read_metrics
from medssl.stopping import Stopped
from medssl.tasks import task_class
from medssl.tuning.command import notes, told_space
from medssl.tuning.folder import SearchFolder, Wanted
from medssl.tuning.report import write_search
from medssl.tuning.search import Search
from medssl.tuning.space import Choice, value_of
from medssl.tuning.trials import Trials

STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "ended early", TrialState.FAIL: "failed"}
PARTS = ("data_s", "step_s", "validate_s", "checkpoint_s")  # of metrics.jsonl, whose sum is the time of a training


class SearchStopped(Stopped):
    """A signal asked the search to stop; the checkpoints of its trials are written."""

    def __init__(self, number: int, ended: int, count: int) -> None:
        super().__init__(number)
        name = signal.Signals(number).name
        self.args = (f"stopped by {name} after {ended} of {count} trials; the same command goes on",)


def make(folder: SearchFolder, count: int, jobs: int, launcher: Sequence[str] = (), told: bool = True) -> dict[str, Any]:
    """Make the trials that are wanted and not there yet, and print the choice if `told`; gives what tune.json says then.

    Raises RunError where none was finished, Stopped after a signal.
    """
    folder.open()
    with closing(folder):
        return made(folder, count, jobs, launcher, told)


def made(folder: SearchFolder, count: int, jobs: int, launcher: Sequence[str], told: bool) -> dict[str, Any]:
    """Do what `make` says in an open folder."""
    account = Account(folder, count, jobs)
    account.introduce()
    trials = Trials(folder, account.search, account.watched, account.own, count, jobs, launcher, account.told)
    try:
        trials.run()
    finally:
        content = account.content(importance=not trials.stopped and not trials.refusal)
        folder.write(content)
    if trials.stopped:
        raise SearchStopped(trials.stopped, account.ended, count)
    lines = account.conclude(content)
    if told:
        print("\n".join(lines))
    return content


class Account:
    """What a search has found so far, told to the user and to tune.json."""

    def __init__(self, folder: SearchFolder, count: int, jobs: int) -> None:
        self.folder, self.count, self.jobs, wanted = folder, count, jobs, folder.wanted
        self.watched, higher = watched_of(wanted)
        settings = wanted.settings
        self.search = Search(folder.database, wanted.space, higher, settings.steps, settings.seed)
        self.own = own_values(wanted)
        self.known: dict[int, dict[str, Any]] = {}

    @property
    def ended(self) -> int:
        return sum(trial.state in STATES for trial in self.search.trials)

    def introduce(self) -> None:
        """Say what is searched, by what, and how much of it is there."""
        wanted = self.folder.wanted
        rule = "highest" if self.search.direction == "maximize" else "lowest"
        own = {name: value_of(wanted.settings, name) for name in self.own}
        lines = [
            f"{self.count} trials of {wanted.recipe}, the {rule} {self.watched} of validation wins; the space:",
            *told_space(wanted.space, own),
            *(f"note: {line}" for line in notes(type(wanted.settings), wanted.space)),
        ]
        if self.ended:
            lines.append(f"{self.ended} are there")
        print("\n".join(lines), file=sys.stderr)

    def told(self, what: str, number: int, why: str) -> None:
        """Say what happened to a trial, and keep tune.json up to it."""
        if what == "began":
            return
        trial, count = self.search.trials[number], f"{self.ended:>{len(str(self.count))}} of {self.count}"
        row = self.row(trial)
        state = row["state"] if what == "ended" else what
        value = "" if row["value"] is None else f" {self.watched} {row['value']:.4g}"
        best = self.search.best()
        top = "" if best is None else f"; best {self.search.trials[best].value:.4g} of trial {best}"
        chosen = " ".join(f"{name}={value}" for name, value in row["settings"].items())
        text = f"{count}  trial {number} {state}{value}{f': {why}' if why else ''}{top}{self.left()}  ({chosen})"
        tqdm.write(text, file=sys.stderr)
        if what == "ended":
            self.folder.write(self.content())

    def left(self) -> str:
        """The time of the rest by that of the trials so far; empty while nothing is known of it."""
        seconds = [row["seconds"] for row in self.known.values()]
        rest = self.count - self.ended
        return f"; {hours(rest * sum(seconds) / len(seconds) / self.jobs)} left" if seconds and rest > 0 else ""

    def row(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial as tune.json has it; of one that was ended early the best of its validations."""
        if trial.number in self.known:
            return self.known[trial.number]
        lines = list(read_metrics(self.folder.trial(trial.number) / "metrics.jsonl"))
        values = dict(sorted(trial.intermediate_values.items()))
        best = max if self.search.direction == "maximize" else min
        early = best(values.values()) if values and trial.state != TrialState.FAIL else None
        row = {
            "number": trial.number,
            "state": STATES.get(trial.state, "not finished"),
            "value": trial.value if trial.state == TrialState.COMPLETE else early,
            "settings": self.search.settings(trial.number),
            "steps": max((line["step"] for line in lines if "step" in line), default=0),
            "seconds": round(sum(line.get(part) or 0.0 for line in lines for part in PARTS), 1),
            "validations": values,
            **({"reason": trial.user_attrs["reason"]} if "reason" in trial.user_attrs else {}),
        }
        if trial.state in STATES:
            self.known[trial.number] = row
        return row

    def content(self, importance: bool = False) -> dict[str, Any]:
        """What tune.json says."""
        return self.folder.wanted.content() | {
            "watched": self.watched,
            "higher_is_better": self.search.direction == "maximize",
            "steps": self.folder.wanted.settings.steps,
            "wanted": self.count,
            "own": self.own,
            "best": self.search.best(),
            "importance": self.search.importance() if importance else {},
            "trials": [self.row(trial) for trial in self.search.trials],
        }

    def conclude(self, content: dict[str, Any]) -> list[str]:
        """Write recipe and report; gives the choice and their paths in lines. Raises RunError where no trial was finished."""
        if content["best"] is None:
            reasons = list(dict.fromkeys(row["reason"] for row in content["trials"] if "reason" in row))
            raise RunError(f"none of {len(content['trials'])} trials was finished: {'; '.join(reasons[:3])}")
        best = content["trials"][content["best"]]
        recipe = self.folder.write_best(best["settings"], expectation(content))
        report = write_search(self.folder.out)
        return [*(f"{name}={value}" for name, value in best["settings"].items()), str(recipe), str(report)]


def watched_of(wanted: Wanted) -> tuple[str, bool]:
    """The validation figure that chooses, and whether more of it is better: that by which a run keeps its best weights."""
    settings = wanted.settings
    if isinstance(settings, Finetune):
        task = task_class(split_of(settings).task)
        return task.watched, task.higher_is_better
    assert isinstance(settings, Pretrain)
    return method_class(settings.method.name).VALIDATION, False  # type: ignore[attr-defined]


def own_values(wanted: Wanted) -> dict[str, Any]:
    """The recipe's own values that lie in the space, as the search knows them: of a choice its word."""
    found: dict[str, Any] = {}
    for name, values in wanted.space.items():
        value = value_of(wanted.settings, name)
        if values.holds(value):
            found[name] = values.words[values.index(value)] if isinstance(values, Choice) else value
    return found


def expectation(content: dict[str, Any]) -> str:
    """Where the chosen settings come from, in the words of a recipe's `expect`."""
    states = [row["state"] for row in content["trials"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    best = content["trials"][content["best"]]
    figure = f"{content['watched']} {best['value']:.4g}" if math.isfinite(best["value"]) else content["watched"]
    return f"{figure}, the best of {len(states)} trials ({counts}), on the validation cases that chose it: optimistic"
