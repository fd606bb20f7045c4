"""Makes the trials of a search: each a process of the ordinary script with --resume, its validations watched as they come.

The search decides after each validation whether a trial goes on; one that does not gets SIGTERM, and its checkpoint stays.
A trial that was being made when the search was stopped or killed goes on where it was. Fine-tunings are judged on
validation, so that nothing of the test part is read.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

from optuna.trial import TrialState

from medssl.launch import cores
from medssl.problems import RunError
from medssl.run_folder import finished
from medssl.runs import is_run, read_run
from medssl.study.folder import open_log
from medssl.study.plan import word
from medssl.study.runner import ROOT, catching, environment, handed_on, reason
from medssl.tuning.folder import SearchFolder
from medssl.tuning.search import Search
from medssl.tuning.validations import Validations

PAUSE = 0.2  # seconds between looks at the processes
JUDGED = ("judge=validation", "saliency=none")  # of a fine-tuning
REFUSED = 2  # exit code of a script that finds settings or data wrong


@dataclass
class Trial:
    """A trial that is being made, or is to be gone on with."""

    number: int
    validations: Validations
    process: subprocess.Popen[bytes] | None = None
    place: int = 0
    poor: bool = False  # it is to be ended early
    waiting: bool = False  # for a process that is not ours


class Trials:
    """Makes trials until there are `count`, up to `jobs` at a time; `told` hears of every trial that begins or ends."""

    def __init__(
        self, folder: SearchFolder, search: Search, watched: str, own: Mapping[str, Any], count: int, jobs: int,
        launcher: Sequence[str], told: Callable[[str, int, str], None],
    ) -> None:  # fmt: skip
        self.folder, self.search, self.watched, self.own = folder, search, watched, own
        self.count, self.jobs, self.launcher, self.told = count, jobs, launcher or [sys.executable], told
        self.left = [self._known(number) for number in search.running()]
        self.trials: list[Trial] = []
        self.stopped = 0  # the signal that asked to end
        self.refusal = ""  # why the script refused the first trial, which is then still to be made

    def run(self) -> None:
        """Make the trials; raises RunError where the first one's settings or data are refused."""
        with catching(self._stop):
            while self.trials or (not self._ending and (self.left or len(self.search.trials) < self.count)):
                for trial in list(self.trials):
                    self._look(trial)
                if not self._ending and len(self.trials) < self.jobs:
                    self._next()
                time.sleep(PAUSE)
        if self.refusal:
            raise RunError(self.refusal)

    @property
    def _ending(self) -> bool:
        return bool(self.stopped or self.refusal)

    def _known(self, number: int) -> Trial:
        return Trial(number, Validations(self.folder.trial(number) / "metrics.jsonl", self.watched))

    def _next(self) -> None:
        """Go on with a trial, or begin another one."""
        if self.left:
            trial = self.left.pop(0)
        elif len(self.search.trials) < self.count:
            trial = self._known(self.search.begin(self.own))
        else:
            return
        trial.place = min(set(range(self.jobs)) - {other.place for other in self.trials})
        self.trials.append(trial)
        self._look(trial)

    def _look(self, trial: Trial) -> None:
        """See how far a trial is, and do what follows: start its process, end it, take note of its end."""
        code = trial.process.poll() if trial.process else None  # before its lines are read, so that none comes later
        for step, figure in () if trial.poor else trial.validations.new():
            if self.search.report(trial.number, step, figure):
                trial.poor = True
                if trial.process and code is None:
                    trial.process.send_signal(SIGTERM)
                break
        alive = trial.process is not None and code is None
        if alive or (trial.process is None and self.folder.user(trial.number)):
            if not alive:
                self._wait(trial)
        elif trial.poor:
            self._end(trial, TrialState.PRUNED)
        elif finished(self.folder.trial(trial.number)):
            value = self.value(trial.number)
            done = TrialState.FAIL if value is None else TrialState.COMPLETE
            self._end(trial, done, "no validation whose figure is a number" if value is None else "")
        elif self._ending:
            self._leave(trial)
        elif code is None:
            self._start(trial)
        elif code == REFUSED and trial.number == 0:
            self.refusal = f"trial 0 was refused: {reason(self.folder.log(0), code)}"
            self._leave(trial)
        else:
            self._end(trial, TrialState.FAIL, reason(self.folder.log(trial.number), code))

    def _start(self, trial: Trial) -> None:
        """Start the process of a trial, unless one of a killed search is about to take its folder."""
        log = open_log(self.folder.log(trial.number))
        if log is None:
            self._wait(trial)
            return
        with log:
            trial.process = subprocess.Popen(
                self.command(trial.number),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment(trial.place, self.jobs), process_group=0,
            )  # fmt: skip
        if self.stopped:  # by a signal that came before there was a process to hand it to
            trial.process.send_signal(SIGTERM)
        self.told("began", trial.number, "")

    def command(self, number: int) -> list[str]:
        """The command that makes a trial, or goes on with it; a started one keeps its threads."""
        wanted, folder = self.folder.wanted, self.folder.trial(number)
        words = [*wanted.words, *(word(name, value) for name, value in self.search.settings(number).items())]
        words += JUDGED if wanted.kind == "finetune" else ()
        if wanted.settings.threads is None and (known := threads_of(folder, self.jobs)):
            words.append(known)
        return [*self.launcher, str(ROOT / f"ssl_{wanted.kind}.py"), wanted.recipe, *words, f"out={folder}", "--resume"]

    def value(self, number: int) -> float | None:
        """The figure of the weights that a run keeps: of its best validation, or its last one; None while there is none."""
        figures = [value for _, value in Validations(self.folder.trial(number) / "metrics.jsonl", self.watched).new()]
        if not figures:
            return None
        if self.folder.wanted.settings.checkpoint == "latest":
            return figures[-1]
        return max(figures) if self.search.direction == "maximize" else min(figures)

    def _end(self, trial: Trial, state: TrialState, why: str = "") -> None:
        self.trials.remove(trial)
        value = self.value(trial.number) if state == TrialState.COMPLETE else None
        self.search.end(trial.number, state, value, why)
        self.told("ended", trial.number, why)

    def _wait(self, trial: Trial) -> None:
        """Wait for the process that a killed search has left at work."""
        if self._ending:
            self._leave(trial)
        elif not trial.waiting:
            trial.waiting = True
            self.told("waiting", trial.number, f"process {self.folder.user(trial.number) or 'unknown'} makes it")

    def _leave(self, trial: Trial) -> None:
        self.trials.remove(trial)
        self.told("stopped", trial.number, "")

    def _stop(self, number: int) -> None:
        self.stopped = number
        for trial in self.trials:
            if trial.process:
                trial.process.send_signal(handed_on(number))


def threads_of(folder: Path, jobs: int) -> str:
    """The word for the threads of a trial whose settings leave them open: those it was started with, or its share of cores."""
    if is_run(folder):
        return word("threads", read_run(folder).config.get("threads"))
    return f"threads={max(cores() // jobs, 1)}" if jobs > 1 else ""
