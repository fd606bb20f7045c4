"""Makes the runs of a study: each a process of the ordinary script with --resume, one after another or some side by side.

A run that fails is noted and those that need it are left out; the others go on. A signal is handed to the processes,
whose checkpoints are waited for. They stand in process groups of their own, so that Ctrl-C reaches them once.
"""

import glob
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medssl.launch import cores
from medssl.study.folder import StudyFolder, open_log, threads_of
from medssl.study.plan import Run, word

ROOT = Path(__file__).parents[2]  # where the scripts are
PAUSE = 0.2  # seconds between looks at the processes
ELSEWHERE = 5.0  # seconds between looks at a run that another process has


@dataclass
class Started:
    """A run's process, in one of the places side by side."""

    run: Run
    process: subprocess.Popen[bytes]
    place: int
    began: float


def command_of(run: Run, folder: StudyFolder, launcher: Sequence[str], threads: int | None = None) -> list[str]:
    """The command that makes a run, or goes on with it; a started one keeps its threads."""
    before = folder.started(run)
    kept = threads_of(run, before) if before else {}
    kept = kept or ({"threads": threads} if threads and run.settings.threads is None else {})
    words = [*run.words, *(word(key, value) for key, value in kept.items()), f"out={folder.path(run)}", "--resume"]
    return [*launcher, str(ROOT / f"ssl_{run.kind}.py"), run.recipe, *words]


class Runner:
    """Makes runs in their order, up to `jobs` at a time; `told` hears of every run that begins, ends or is left out."""

    def __init__(
        self,
        folder: StudyFolder,
        runs: Sequence[Run],
        jobs: int,
        launcher: Sequence[str],
        told: Callable[[str, Run, str], None],
    ) -> None:
        self.folder, self.jobs, self.launcher, self.told = folder, jobs, launcher, told
        self.names = [run.name for run in runs]
        self.waiting = [run for run in runs if not folder.done(run)]
        self.running: list[Started] = []
        self.failures: dict[str, str] = {}
        self.stopped = 0  # the signal that asked to end
        self._looked: dict[str, float] = {}

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Make all runs; on return `failures` and `stopped` say how it went. `watch` is called between looks."""
        self.folder.write_failures({}, self.names)
        with catching(self._stop):
            while self.running or (self.waiting and not self.stopped):
                self._collect()
                if not self.stopped:
                    self._start()
                watch()
                time.sleep(PAUSE)

    def _start(self) -> None:
        """Start what can be started; leave out what needs a failed run."""
        for run in list(self.waiting):
            if lost := [name for name in run.needs if name in self.failures]:
                self.waiting.remove(run)
                self._fail(run, f"left out: it needs {lost[0]}", "left out")
            elif len(self.running) < self.jobs and self._ready(run):
                self._begin(run)

    def _ready(self, run: Run) -> bool:
        """Whether all that a run needs is done and no other process has it."""
        if not all(self.folder.done(self.folder.plan.runs[name]) for name in run.needs):
            return False
        if time.monotonic() < self._looked.get(run.name, 0.0) + ELSEWHERE:
            return False
        if user := self.folder.user(run):
            self._wait(run, user)
            return False
        if self.folder.done(run):  # by whom we waited for
            self.waiting.remove(run)
            self.told("done", run, "")
            return False
        return True

    def _wait(self, run: Run, user: str) -> None:
        """Let a run be for a while, which another process has."""
        if run.name not in self._looked:
            self.told("waiting", run, f"process {user} has it")
        self._looked[run.name] = time.monotonic()

    def _begin(self, run: Run) -> None:
        """Start the process of a run, unless one of another start is about to take the run's folder."""
        log = open_log(self.folder.log(run))
        if log is None:
            self._wait(run, "unknown")
            return
        place = min(set(range(self.jobs)) - {started.place for started in self.running})
        command = command_of(run, self.folder, self.launcher, max(cores() // self.jobs, 1))
        with log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(place, self.jobs), process_group=0
            )
        self.waiting.remove(run)
        self.running.append(Started(run, process, place, time.monotonic()))
        if self.stopped:  # by a signal that came before the process stood in the list
            process.send_signal(signal.SIGTERM)
        self.told("began", run, "")

    def _collect(self) -> None:
        """Take note of processes that have ended."""
        for started in [started for started in self.running if started.process.poll() is not None]:
            self.running.remove(started)
            if self.folder.done(started.run):
                self.told("done", started.run, "")
            elif self.stopped:
                self.told("stopped", started.run, "")
            else:
                self._fail(started.run, reason(self.folder.log(started.run), started.process.returncode), "failed")

    def _fail(self, run: Run, why: str, what: str) -> None:
        self.failures[run.name] = why
        self.folder.write_failures(self.failures, self.names)
        self.told(what, run, why)

    def _stop(self, number: int) -> None:
        self.stopped = number
        for started in self.running:
            started.process.send_signal(handed_on(number))


@contextmanager
def catching(told: Callable[[int], None]) -> Iterator[None]:
    """Tell of SIGINT, SIGTERM and the SIGHUP of a closed terminal instead of dying of them."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, frame: told(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def handed_on(number: int) -> int:
    """The signal that a process gets for one that reached us: scripts know no SIGHUP."""
    return signal.SIGTERM if number == signal.SIGHUP else number


def environment(place: int, jobs: int) -> dict[str, str]:
    """The environment of a process: side by side on a machine of several GPUs each place has its own in turn."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(k) for k in range(len(glob.glob("/proc/driver/nvidia/gpus/*")))] if listed is None else listed.split(",")
    own = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if jobs > 1 and len(gpus) > 1 else {}
    return dict(os.environ) | own


def reason(log: Path, code: int) -> str:
    """Why a process ended: its own error line, or what it was killed by."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    more = f" (and {len(errors) - 1} more: {log})" if len(errors) > 1 else ""
    if errors:
        return errors[0] + more
    if code < 0:
        memory = "; memory may be short" if code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{memory}"
    last = [line for line in lines if line.strip()][-1:]
    return f"exit code {code}: {last[0] if last else log}"
