"""The training engine of both scripts: one loop on pytorch-ignite, from the first step or from a checkpoint.

What a step does depends on its number alone: its data, its rate and its random seed come from (seed, step), so a run
that was killed goes on as if nothing had happened.
"""

import logging
import time
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

from medssl.average import Average
from medssl.conditions import conditions_of
from medssl.config import Shared
from medssl.deadline import Deadline
from medssl.device import Compute
from medssl.loop import Loop
from medssl.optimisers import optimiser_of
from medssl.out_of_memory import advised
from medssl.processes import everyones
from medssl.profiling import profiled
from medssl.progress import Progress
from medssl.ranks import rank
from medssl.resuming import resume
from medssl.run_folder import RunFolder
from medssl.saving import Saving
from medssl.signals import held
from medssl.step import Step
from medssl.stopping import OutOfTime, Stopped
from medssl.training import Batch, Training
from medssl.validation import Curves
from medssl.wall_clock import WallClock


def train(
    run: RunFolder, settings: Shared, compute: Compute, training: Training, profile: bool = False,
    deadline: Deadline | None = None,
) -> Progress:  # fmt: skip
    """Train from where the run stands to its last step.

    At the end the model has the averaged weights where there is an average. `profile` leaves a trace of a few steps.
    Raises Stopped on a signal and OutOfTime before the deadline, both after a checkpoint; RunError on a loss or weights that
    are not finite and on want of memory.
    """
    optimiser = optimiser_of(settings, training.groups)
    average = Average(training.model, settings.ema)
    conditions = conditions_of(settings, compute, training.data())
    progress = resume(run, settings, conditions, training, optimiser, average)
    if (progress.step < settings.steps or progress.unjudged) and not progress.stop:
        train_on(run, settings, compute, training, optimiser, average, progress, conditions, profile, deadline or Deadline())
    average.exchange()
    return progress


def train_on(
    run: RunFolder, settings: Shared, compute: Compute, training: Training, optimiser: torch.optim.Optimizer,
    average: Average, progress: Progress, conditions: dict[str, Any], profile: bool, deadline: Deadline,
) -> None:  # fmt: skip
    """Train from the step that `progress` stands at to the last; checkpoints hold the conditions. Raises as `train`."""
    step = Step(settings, compute, training, optimiser)

    def take(engine: Engine, batch: Batch) -> dict[str, Any]:
        with advised(settings, "a step"):
            return step(engine.state.iteration, batch) | loading_times(engine.state.data_s, batch)

    trainer = Engine(take)
    trainer.load_state_dict({"iteration": progress.step, "epoch_length": settings.steps, "max_epochs": 1})
    trainer.logger.setLevel(logging.CRITICAL)  # the command line says once why a run ended
    add_clock(trainer)
    silent = None if rank() == 0 else True  # None: where stderr is no terminal
    bar = ProgressBar(
        desc=settings.out.name, disable=silent, bar_format="{desc} {n_fmt}/{total_fmt} {bar} {postfix} {remaining}"
    )
    bar.attach(trainer, output_transform=shown)

    clock = WallClock(run, settings, compute, training.epoch, progress)
    with (
        run.open_metrics() as metrics,
        held() as told,
        advised(settings, "loading or saving"),
        profiled(run, compute.device, profile and rank() == 0) as traced,
    ):
        saving, drawn = Saving(settings), Curves(run)
        loop = Loop(
            run, settings, training, optimiser, average, progress, conditions, clock, saving, deadline, told, metrics, drawn
        )

        def account(engine: Engine) -> None:
            traced()
            loop.after(engine.state.iteration, engine.state.output, engine.state.batch["id"])
            if progress.stop:
                engine.terminate()

        try:
            if progress.unjudged:
                loop.settle(everyones(run.metrics()[-1:])[0][0], [])
            if progress.step < settings.steps and not progress.stop:
                trainer.add_event_handler(Events.ITERATION_COMPLETED, account)
                trainer.run(training.batches(progress.step))
            clock.update()
        except (Stopped, OutOfTime):
            drawn.draw(last=True)
            raise
    drawn.draw(last=True)


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
