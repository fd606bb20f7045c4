"""The training engine of both scripts: one loop on pytorch-ignite, from the first step or from a checkpoint.

What a step does depends on its number alone: its data, its rate and its random seed come from (seed, step), so a run
that was killed goes on as if nothing had happened.
"""

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

from medssl import checkpoint
from medssl.atomic import write_atomically
from medssl.average import Average
from medssl.conditions import conditions_of
from medssl.config import Shared
from medssl.device import Compute
from medssl.optimisers import optimiser_of
from medssl.parallel import full, whole_weights
from medssl.processes import everyones, said_once
from medssl.profiling import profiled
from medssl.progress import Progress
from medssl.ranks import rank, world_size
from medssl.reports.charts import curves
from medssl.resuming import resume
from medssl.run_folder import RunFolder
from medssl.saving import Saving
from medssl.step import Step
from medssl.stopping import Stopped
from medssl.stopwatch import Stopwatch
from medssl.training import Batch, Training
from medssl.wall_clock import WallClock


def train(run: RunFolder, settings: Shared, compute: Compute, training: Training, profile: bool = False) -> Progress:
    """Train from where the run stands to its last step; raises Stopped on a signal, RunError on a non-finite loss.

    At the end the model has the averaged weights where there is an average. `profile` leaves a trace of a few steps.
    """
    optimiser = optimiser_of(settings, training.groups)
    average = Average(training.model, settings.ema)
    conditions = conditions_of(settings, compute, training.data)
    progress = resume(run, settings, conditions, training, optimiser, average)
    if progress.step < settings.steps and not progress.stop:
        train_on(run, settings, compute, training, optimiser, average, progress, conditions, profile)
    average.exchange()
    return progress


def train_on(
    run: RunFolder, settings: Shared, compute: Compute, training: Training, optimiser: torch.optim.Optimizer,
    average: Average, progress: Progress, conditions: dict[str, Any], profile: bool = False,
) -> None:  # fmt: skip
    """Train from the step that `progress` stands at to the last; checkpoints hold the conditions. Raises as `train`."""
    step = Step(settings, compute, training, optimiser)
    trainer = Engine(lambda engine, batch: step(engine.state.iteration, batch) | loading_times(engine.state.data_s, batch))
    trainer.load_state_dict({"iteration": progress.step, "epoch_length": settings.steps, "max_epochs": 1})
    trainer.logger.setLevel(logging.CRITICAL)  # the command line says once why a run ended
    add_clock(trainer)
    silent = None if rank() == 0 else True  # None: where stderr is no terminal
    bar = ProgressBar(
        desc=settings.out.name, disable=silent, bar_format="{desc} {n_fmt}/{total_fmt} {bar} {postfix} {remaining}"
    )
    bar.attach(trainer, output_transform=shown)

    clock, saving = WallClock(run, settings, compute, training.epoch, progress), Saving(settings)

    with (
        run.open_metrics() as metrics,
        caught_signals() as caught,
        profiled(run, compute.device, profile and rank() == 0) as traced,
    ):

        def save() -> None:
            clock.update()
            watch = Stopwatch(torch.device("cpu"))
            if rank() == 0:
                os.fsync(metrics.fileno())  # lest a checkpoint is there and lines of its steps are not
            state = state_of(training, optimiser, progress) | average.state() | {"conditions": conditions}
            checkpoint.save_latest(run.folder, state)
            watch.lap("checkpoint_s")
            progress.checkpoint_s = watch.laps()["checkpoint_s"]
            if warning := saving.done(progress.checkpoint_s):
                run.say(f"warning: {warning}")

        def account(engine: Engine) -> None:
            traced()
            progress.step = engine.state.iteration
            average.update()
            saved = {"checkpoint_s": progress.checkpoint_s} if progress.checkpoint_s else {}
            write_line(metrics, {"step": progress.step} | engine.state.output | saved)
            progress.checkpoint_s = 0.0
            at_end = progress.step == settings.steps
            if training.validate and (progress.step % settings.validate_every == 0 or at_end):
                with average.shown():
                    judged = judge(run, settings, training, progress)
                write_line(metrics, {"step": progress.step} | judged)
                for warning in training.warnings(engine.state.output | judged):
                    run.say(f"warning: step {progress.step}: {warning}")
                clock.tell(at_end or progress.stop)
            asked = everyones((caught[0] if caught else 0, saving.overdue()))
            stop, overdue = max(number for number, _ in asked), asked[0][1]  # the clock of rank 0
            if stop or at_end or progress.stop or overdue or progress.step % settings.checkpoint_every == 0:
                save()
            if stop:
                raise said_once(Stopped(stop))
            if progress.stop:
                run.say(f"step {progress.step}: no better {training.watched} in {settings.patience} validations, stopping")
                engine.terminate()

        trainer.add_event_handler(Events.ITERATION_COMPLETED, account)
        trainer.run(training.batches(progress.step))
        clock.update()
    draw_curves(run)


def state_of(training: Training, optimiser: torch.optim.Optimizer, progress: Progress) -> dict[str, Any]:
    """Gather what a checkpoint holds of a training."""
    return {
        "model": full(training.model.state_dict()),
        "optimiser": full(optimiser.state_dict()),
        "progress": progress.state(),
    }


def judge(run: RunFolder, settings: Shared, training: Training, progress: Progress) -> dict[str, float]:
    """Validate, keep the best weights, and note when patience is at its end."""
    assert training.validate is not None
    training.model.eval()
    watch = Stopwatch(torch.device("cpu"))
    with whole_weights(training.model):
        figures_now = everyones(training.validate())[0]  # which ranks of other hardware would round in another way
    watch.lap("validate_s")
    value = figures_now[training.watched] * (-1 if training.higher_is_better else 1)
    if value < progress.best:
        progress.best, progress.best_step, progress.worse = value, progress.step, 0
        checkpoint.save_best(run.folder, {"model": full(training.model.state_dict()), "step": progress.step})
        watch.lap("checkpoint_s")
    else:
        progress.worse += 1
        progress.stop = 0 < settings.patience <= progress.worse
    text = ", ".join(f"{name} {figure:.4f}" for name, figure in figures_now.items())
    run.say(f"step {progress.step}: {text}{' (best)' if progress.best_step == progress.step else ''}")
    draw_curves(run)
    watch.lap("validate_s")
    return figures_now | watch.laps()


def draw_curves(run: RunFolder) -> None:
    """Write progress.png."""
    if rank() == 0:
        write_atomically(run.path("progress.png"), curves(run.metrics()))


def add_clock(trainer: Engine) -> None:
    """Measure how long each step waits for its data, in `state.data_s`."""

    def began(engine: Engine) -> None:
        engine.state.waiting_since = time.perf_counter()

    def ended(engine: Engine) -> None:
        engine.state.data_s = time.perf_counter() - engine.state.waiting_since

    trainer.add_event_handler(Events.GET_BATCH_STARTED, began)
    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, ended)


def loading_times(waited: float, batch: Batch) -> dict[str, float]:
    """The seconds that a step waited for its batch, and how long the loader worked on the batch, wherever and whenever."""
    worked = {key: sum(batch[key]) for key in ("read_s", "views_s") if key in batch}
    return {key: round(seconds, 5) for key, seconds in ({"data_s": waited} | worked).items()}


def shown(output: dict[str, Any]) -> dict[str, str]:
    """What the progress bar shows: loss, and data time and compute time apart."""
    return {"loss": f"{output['loss']:.4f}", "data": f"{output['data_s']:.2f}s", "step": f"{output['step_s']:.2f}s"}


def write_line(file: Any, line: dict[str, Any]) -> None:
    """Append one line of JSON and hand it to the system, so that a killed process loses none."""
    file.write(json.dumps(line) + "\n")
    file.flush()


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying at once; a second one ends the process.

    Not so with several ranks, of which a launcher may tell each one twice.
    """
    caught: list[int] = []

    def catch(number: int, frame: Any) -> None:
        if caught and world_size() == 1:
            raise Stopped(number)
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
