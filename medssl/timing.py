"""The pieces of a run, each done in small and timed: a batch, some steps, a validation, checkpoints, the end."""

import json
import statistics
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from medssl import checkpoint
from medssl.average import Average
from medssl.config import Finetune, Shared
from medssl.device import Compute
from medssl.engine import Progress, state_of, write_line
from medssl.memory import workers_memory
from medssl.optimisers import optimiser_of
from medssl.rehearsal import Quiet, Rehearsal
from medssl.reports.charts import curves
from medssl.step import Step
from medssl.training import Batch

TIMED = 3  # batches and steps, after one that warms up
STAGES = 4  # moments of a training that changes on its way
LONG = 10.0  # seconds of a validation after which no more cases are taken
LINES = 1000  # of metrics, for the curves


class Loading(NamedTuple):
    """A batch, and the seconds that one process makes such a batch in: in all, reading, and its views."""

    batch: Batch
    seconds: float
    read: float
    views: float


class Stepping(NamedTuple):
    """Seconds of a step, what it told, and the parts of a checkpoint after it."""

    seconds: float
    told: dict[str, Any]
    state: dict[str, Any]


def worker_bytes(settings: Shared, batches: Iterable[Batch]) -> float:
    """The memory that the workers of the run's loader have for themselves, once each has made a batch."""
    return max((workers_memory() for _ in islice(batches, settings.workers + 1)), default=0.0) if settings.workers else 0.0


def time_loading(batches: Iterable[Batch]) -> Loading:
    """Make a few batches; the median after the first."""
    found, began = list[Loading](), time.perf_counter()
    for batch in islice(batches, TIMED + 1):
        found.append(Loading(batch, time.perf_counter() - began, sum(batch["read_s"]), sum(batch["views_s"])))
        began = time.perf_counter()
    timed = found[1:] or found
    return Loading(found[-1].batch, *(statistics.median(times) for times in zip(*(of[1:] for of in timed), strict=True)))


def time_steps(settings: Shared, compute: Compute, rehearsal: Rehearsal, batch: Batch) -> Stepping:
    """Take steps on one batch: the median of a few, or the mean of such medians at moments spread over the run."""
    training = rehearsal.training
    optimiser, average = optimiser_of(settings, training.groups), Average(training.model, settings.ema)
    step, medians = Step(settings, compute, training, optimiser), list[float]()
    for number in moments(settings):
        times = list[float]()
        for _ in range(TIMED + 1):
            began = time.perf_counter()
            told = step(number, batch)
            average.update()
            times.append(time.perf_counter() - began)
        medians.append(statistics.median(times[1:]))
    return Stepping(statistics.mean(medians), told, state_of(training, optimiser, Progress()) | average.state())


def moments(settings: Shared) -> list[int]:
    """Steps that stand for all: the last one, or some over the run where parts are frozen or crops smaller at first."""
    changing = isinstance(settings, Finetune) and (settings.progressive or settings.freeze_steps or settings.unfreeze_every)
    return [(2 * k + 1) * settings.steps // (2 * STAGES) + 1 for k in range(STAGES)] if changing else [settings.steps]


def time_validation(settings: Shared, rehearsal: Rehearsal) -> tuple[float, dict[str, float]]:
    """Validate a batch of cases, or fewer where that takes long; gives the seconds of all cases, and the figures."""
    rehearsal.training.model.eval()
    counts = sorted({min(2, rehearsal.cases), min(max(settings.batch_size, 4), rehearsal.cases)})
    for count in counts:
        seconds, figures = timed(rehearsal.validate(count))
        if seconds > LONG:
            break
    return seconds * rehearsal.cases / count, figures


def time_checkpoints(run: Quiet, state: dict[str, Any]) -> tuple[float, float]:
    """Write the latest checkpoint twice, as it replaces another, and the best; gives the seconds of one each."""
    checkpoint.save_latest(run.folder, state)
    latest, _ = timed(lambda: checkpoint.save_latest(run.folder, state))
    best, _ = timed(lambda: checkpoint.save_best(run.folder, {"model": state["model"], "step": 1}))
    return latest, best


def time_curves(settings: Shared, run: Quiet, told: dict[str, Any], figures: dict[str, float]) -> float:
    """Write metrics as long as half the run's and draw their curves, as each validation does."""
    with run.path("metrics.jsonl").open("a", encoding="utf-8") as metrics:
        for step in range(1, min(settings.steps // 2, LINES) + 2):
            write_line(metrics, {"step": step} | told)
            if step % settings.validate_every == 0 or step == 1:
                write_line(metrics, {"step": step} | figures)
    return timed(lambda: curves(run.metrics()))[0]


def time_finish(settings: Shared, run: Quiet, rehearsal: Rehearsal) -> float:
    """Do what comes after the last step, with few cases; gives the seconds with as many as will be judged."""
    count = min(max(settings.batch_size, 4), rehearsal.cases, rehearsal.judged or rehearsal.cases)
    progress = Progress(step=settings.steps, best=0.0, best_step=1)
    seconds, _ = timed(lambda: rehearsal.finish(run, count, progress))
    judging: float = json.loads(run.path("summary.json").read_text()).get("judging_seconds", 0.0)
    return seconds + judging * max(rehearsal.judged / count - 1, 0)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Do it; gives the seconds it took and what it gave."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found
