"""The pieces of a run, each done in small and timed: some steps, a validation, checkpoints, the end."""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, count
from typing import Any, NamedTuple

from medssl import checkpoint
from medssl.average import Average
from medssl.config import Finetune, Shared
from medssl.device import Compute
from medssl.engine import loading_times
from medssl.loop import state_of, write_line
from medssl.memory import workers_memory
from medssl.optimisers import optimiser_of
from medssl.progress import Progress
from medssl.rehearsal import Quiet, Rehearsal
from medssl.reports.charts import curves
from medssl.step import Step

TIMED = 3  # steps at least
LEAST, MOST = 2.0, 10.0  # seconds of timed steps that are enough, where those are short
SHARE = 0.02  # of what all steps will take, between these two: the speed of shared machines wanders
SETTLED = 3.0  # times the seconds of a batch's making, after which workers have their batches in stock
STAGES = 4  # moments of a training that changes on its way
LONG = 10.0  # seconds of a validation after which no more cases are taken
LINES = 1000  # of metrics, for the curves


class Stepping(NamedTuple):
    """Seconds of the first step and from step to step, lines of timed steps, parts of a checkpoint, workers' bytes, weights."""

    first: float
    pace: float
    lines: list[dict[str, Any]]
    state: dict[str, Any]
    workers: float
    parameters: int


def time_steps(settings: Shared, compute: Compute, rehearsal: Rehearsal) -> Stepping:
    """Take steps with the run's own loader, its workers beside, as on few cores they slow each other in ways of their own.

    The mean of a few once the loader has settled; where the training changes on its way, the mean of such means.
    """
    training = rehearsal.training
    optimiser, average = optimiser_of(settings, training.groups), Average(training.model, settings.ema)
    step = Step(settings, compute, training, optimiser)
    batches = chain.from_iterable(training.batches(0) for _ in count())  # a short run's are soon used up

    def take(number: int) -> dict[str, Any]:
        began = time.perf_counter()
        batch = next(batches)
        told = loading_times(time.perf_counter() - began, batch) | step(number, batch)
        average.update()
        return told | {"whole_s": time.perf_counter() - began}

    first = settle(take, settings)
    workers = workers_memory()
    stages = moments(settings)
    lines = [timed_steps(partial(take, number), settings.steps // len(stages)) for number in stages]
    pace = statistics.mean(statistics.mean(line["whole_s"] for line in moment) for moment in lines)
    state = state_of(training, optimiser, Progress()) | average.state()
    return Stepping(first, pace, [*chain(*lines)], state, workers, sum(p.numel() for p in training.model.parameters()))


def settle(take: Callable[[int], dict[str, Any]], settings: Shared) -> float:
    """Take a first step, which is slow, and with workers more until they have made what they keep in stock.

    Gives the seconds of the first, in which workers start and torch prepares what later steps find ready.
    """
    line, passed = take(settings.steps), 0.0
    first: float = line["whole_s"]
    while settings.workers and passed < SETTLED * (line["read_s"] + line["views_s"]):
        line = take(settings.steps)
        passed += line["whole_s"]
    return first


def timed_steps(take: Callable[[], dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """What some steps told, after one that warms up; so many `steps` of a run they stand for."""
    take()
    lines = list[dict[str, Any]]()
    passed = enough = 0.0
    while len(lines) < TIMED or passed < enough:
        lines.append(take())
        passed += lines[-1]["whole_s"]
        enough = min(max(SHARE * steps * passed / len(lines), LEAST), MOST)
    return lines


def moments(settings: Shared) -> list[int]:
    """Steps that stand for all: the last one, or some over the run where parts are frozen or crops smaller at first."""
    changing = isinstance(settings, Finetune) and (settings.progressive or settings.freeze_steps or settings.unfreeze_every)
    return [(2 * k + 1) * settings.steps // (2 * STAGES) + 1 for k in range(STAGES)] if changing else [settings.steps]


def time_validation(settings: Shared, rehearsal: Rehearsal) -> tuple[float, dict[str, float]]:
    """Validate a batch of cases, or fewer where that takes long; gives the seconds of all cases, and the figures."""
    rehearsal.training.model.eval()
    for cases in sorted({min(2, rehearsal.cases), min(max(settings.batch_size, 4), rehearsal.cases)}):
        seconds, figures = timed(rehearsal.validate(cases))
        if seconds > LONG:
            break
    return seconds * rehearsal.cases / cases, figures


def time_checkpoints(run: Quiet, state: dict[str, Any]) -> tuple[float, float]:
    """Write the latest checkpoint twice, as it replaces another, and the best; gives the seconds of one each."""
    checkpoint.save_latest(run.folder, state)
    latest, _ = timed(lambda: checkpoint.save_latest(run.folder, state))
    best, _ = timed(lambda: checkpoint.save_best(run.folder, {"model": state["model"], "step": 1}))
    return latest, best


def time_curves(settings: Shared, run: Quiet, told: dict[str, Any], figures: dict[str, float]) -> float:
    """Write metrics as long as half the run's and draw their curves, as each validation does."""
    with run.open_metrics() as metrics:
        for step in range(1, min(settings.steps // 2, LINES) + 2):
            write_line(metrics, {"step": step} | told)
            if step % settings.validate_every == 0 or step == 1:
                write_line(metrics, {"step": step} | figures)
    return timed(lambda: curves(run.metrics()))[0]


def time_finish(settings: Shared, run: Quiet, rehearsal: Rehearsal) -> float:
    """Do what comes after the last step, with few cases; gives the seconds with as many as will be judged."""
    cases = min(max(settings.batch_size, 4), rehearsal.cases, rehearsal.judged or rehearsal.cases)
    progress = Progress(step=settings.steps, best=0.0, best_step=1)
    seconds, _ = timed(lambda: rehearsal.finish(run, cases, progress))
    judging: float = json.loads(run.path("summary.json").read_text()).get("judging_seconds", 0.0)
    return seconds + judging * max(rehearsal.judged / cases - 1, 0)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Do it; gives the seconds it took and what it gave."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found
