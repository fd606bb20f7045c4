"""Validation while a run trains: figures, the best weights so far, curves, and whether patience is at its end."""

import time
from typing import Any

import torch

from medssl import checkpoint
from medssl.atomic import write_atomically
from medssl.config import Shared
from medssl.finite import refuse_non_finite
from medssl.out_of_memory import advised
from medssl.parallel import full, whole_weights
from medssl.processes import breakable, everyones
from medssl.progress import Progress
from medssl.ranks import rank
from medssl.reports.charts import curves
from medssl.run_folder import RunFolder
from medssl.stopwatch import Stopwatch
from medssl.training import Training

SHARE = 0.02  # of the time, at most, goes into curves


def judge(run: RunFolder, settings: Shared, training: Training, progress: Progress) -> dict[str, Any]:
    """Validate, keep the best weights, and note when patience is at its end.

    Raises Interrupted, with nothing changed, where a signal breaks it off.
    """
    assert training.validate is not None
    training.model.eval()
    watch = Stopwatch(torch.device("cpu"))
    with advised(settings, "validation"), whole_weights(training.model), breakable():
        figures_now = everyones(training.validate())[0]  # which ranks of other hardware would round in another way
    watch.lap("validate_s")
    value = figures_now[training.watched] * (-1 if training.higher_is_better else 1)
    if value < progress.best:
        best = {"model": full(training.model.state_dict()), "step": progress.step}
        refuse_non_finite(best, progress.step)
        progress.best, progress.best_step, progress.worse = value, progress.step, 0
        checkpoint.save_best(run.folder, best)
        watch.lap("checkpoint_s")
    else:
        progress.worse += 1
        progress.stop = 0 < settings.patience <= progress.worse
    text = ", ".join(f"{name} {figure:.4f}" for name, figure in figures_now.items())
    run.say(f"step {progress.step}: {text}{' (best)' if progress.best_step == progress.step else ''}")
    return figures_now | watch.laps()


class Curves:
    """Writes progress.png, which is not drawn where that would take more than `SHARE` of the time of this start."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.began, self.seconds = run, time.monotonic(), 0.0

    def draw(self, last: bool = False) -> None:
        """Draw what there is so far, the last time in any case."""
        start = time.monotonic()
        if rank() == 0 and (last or self.seconds <= SHARE * (start - self.began)):
            write_atomically(self.run.path("progress.png"), curves(self.run.metrics()))
            self.seconds += time.monotonic() - start
