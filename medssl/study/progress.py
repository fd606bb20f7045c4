"""What the user sees while a study runs: a line for every run that begins or ends, and a bar over all steps."""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medssl.comparison.measures import MEASURES
from medssl.forecast import hours
from medssl.study.folder import StudyFolder
from medssl.study.plan import Run

TAIL = 20_000  # bytes at the end of metrics.jsonl that hold its last line
OFTEN = 2.0  # seconds between looks at the steps


class Progress:
    """Counts runs, steps and time; `told` and `watch` are for a Runner."""

    def __init__(self, folder: StudyFolder, runs: Sequence[Run], jobs: int) -> None:
        self.folder, self.runs, self.jobs = folder, runs, jobs
        self.ended = {run.name for run in runs if folder.done(run)}
        self.began: dict[str, tuple[float, int]] = {}  # when this start of a run began, and at which step
        self.pace: dict[str, list[float]] = {}  # seconds of a step: of an arm or a pre-training, of a script
        for run in runs:
            if run.name in self.ended:
                self._learn(run, float(folder.summary(run).get("seconds") or 0.0), run.settings.steps)
        steps = sum(run.settings.steps for run in runs)
        self.bar = tqdm(total=steps, disable=None, bar_format="{desc} {bar} {percentage:.0f}%{postfix}", file=sys.stderr)
        self._next = 0.0

    def told(self, what: str, run: Run, why: str) -> None:
        """Say what happened to a run."""
        if what == "began":
            self.began[run.name] = (time.monotonic(), self._step(run))
            return
        if what == "stopped":
            why = f"at step {self._step(run)} of {run.settings.steps}"
        elif what != "waiting":
            self.ended.add(run.name)
        if what == "done":
            began, step = self.began.get(run.name, (time.monotonic(), run.settings.steps))
            self._learn(run, time.monotonic() - began, run.settings.steps - step)
            why = figure(self.folder.summary(run), self.folder.plan.study.measure)
        self.began.pop(run.name, None)
        count, width = f"{len(self.ended):>{len(str(len(self.runs)))}} of {len(self.runs)}", max(len(r.name) for r in self.runs)
        left = f"; {self.left()} left" if self.left() and what != "stopped" else ""
        tqdm.write(f"{count}  {run.name:<{width}}  {what}: {why}{left}", file=sys.stderr)

    def watch(self) -> None:
        """Draw the bar anew, now and then."""
        if self.bar.disable or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + OFTEN
        self.bar.n = sum(self._step(run) for run in self.runs)
        self.bar.set_description_str(f"{len(self.ended)} of {len(self.runs)} runs")
        now = [f"{Path(run.name).name} {self._step(run)}" for run in self.runs if run.name in self.began]
        self.bar.set_postfix_str(", ".join([*now, *([f"{self.left()} left"] if self.left() else [])]))

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()

    def left(self) -> str:
        """The time of the rest; empty while nothing is known of a part of it."""
        rests = []
        for run in self.runs:
            if run.name not in self.ended:
                step = self._step(run)
                pace = self._pace(run, step)
                if pace is None:
                    return ""
                rests.append((run.settings.steps - step) * pace)
        return hours(max(sum(rests) / self.jobs, *rests)) if rests else ""

    def _pace(self, run: Run, step: int) -> float | None:
        """Seconds of a step: what its own take if it is under way, else those of its like; None if there were none."""
        began, first = self.began.get(run.name, (0.0, step))
        if step > first:
            return (time.monotonic() - began) / (step - first)
        paces = self.pace.get(run.of) or self.pace.get(run.kind)
        return sum(paces) / len(paces) if paces else None

    def _learn(self, run: Run, seconds: float, steps: int) -> None:
        if steps > 0:
            for like in (run.of, run.kind):
                self.pace.setdefault(like, []).append(seconds / steps)

    def _step(self, run: Run) -> int:
        """The step that a run stands at: all of them where it has ended."""
        return run.settings.steps if run.name in self.ended else last_step(self.folder.path(run) / "metrics.jsonl")


def last_step(metrics: Path) -> int:
    """The last step that stands in metrics.jsonl."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL, 0))
            steps = re.findall(rb'^{"step": (\d+)', file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(steps[-1]) if steps else 0


def figure(summary: dict[str, Any], measure: str | None) -> str:
    """What a finished run reached: the study's measure, or what its script watched."""
    main = [one.key for one in MEASURES.get(str(summary.get("task")), ())]
    keys = [str(key) for key in (measure, *main, summary.get("watched"))]
    return next((f"{key} {summary[key]:.4g}" for key in keys if isinstance(summary.get(key), float | int)), "")
