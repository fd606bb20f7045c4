"""The rate finder: one short training whose learning rate rises from tiny to huge tells which rates a recipe can take.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2017 (https://arxiv.org/abs/1506.01186), with the rules of
fastai's `lr_find`: the rate rises geometrically, the loss is smoothed, and where that is above four times its best the
search ends. Two suggestions: where the smoothed loss falls most steeply over the logarithm of the rate, and a tenth of the
rate where it is lowest. Slopes are of lines through a tenth of the rates on either side, and the first tenth of the rates
is no suggestion: the difference of two neighbours, or the mean of the first few, is noise. All is as it was afterwards.
"""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from medssl import finetune, pretrain
from medssl.atomic import write_atomically
from medssl.config import Finetune, Pretrain, Shared
from medssl.device import Compute, choose
from medssl.optimisers import optimiser_of
from medssl.problems import Gathering, NotFiniteError, RunError
from medssl.reports.charts import rate_curve
from medssl.run_folder import refuse_strangers
from medssl.schedules import Pace, pace_at
from medssl.step import Step
from medssl.training import Training

SMOOTHING = 0.98  # of the loss, without the bias of its start
DIVERGED = 4.0  # times the best smoothed loss


class Search(NamedTuple):
    """The rates that were tried, and the loss at each."""

    rates: list[float]
    losses: list[float]

    @property
    def smoothed(self) -> list[float]:
        """The losses, each with those before it."""
        return smooth(self.losses)

    @property
    def suggestions(self) -> dict[str, float]:
        """The rates to try first; RunError where the losses are too few to tell."""
        if len(self.rates) < 3:
            raise RunError(
                f"rates: found a loss that ends after {len(self.rates)} rates, expected at least 3; try a lower --from"
            )
        loss = np.array(self.smoothed)
        first = len(loss) // 10
        lowest = first + int(loss[first:].argmin())
        slopes = slopes_of(loss, np.log(self.rates), max(first, 1))
        steepest = first + int(slopes[first : lowest + 1].argmin())  # what falls again later is no better
        return {"steepest": self.rates[steepest], "minimum / 10": self.rates[lowest] / 10}


def find_rates(settings: Shared, low: float, high: float, count: int) -> tuple[Search, list[Path]]:
    """Try `count` rates from `low` to `high` on a recipe's data, write rates.png and rates.json into `out`, no run.

    Raises InputError for settings or data that can't be used.
    """
    refuse_strangers(settings.out)
    compute = choose(settings)
    training = prepared(settings.model_copy(update={"steps": count}), compute)
    optimiser = optimiser_of(settings, training.groups)
    search = try_rates(settings, compute, training, optimiser, geometric(low, high, count))
    return search, write(search, settings.out)


def prepared(settings: Shared, compute: Compute) -> Training:
    """Build what the run would train, on its data; raises InputError with every problem."""
    if isinstance(settings, Pretrain):
        split, method, _, store = pretrain.prepared(settings, Gathering())
        return pretrain.training_of(settings, compute, split, store, method)
    assert isinstance(settings, Finetune)
    split, task, store = finetune.prepared(settings, Gathering())
    return finetune.training_of(settings, compute, split, store, task)


def try_rates(
    settings: Shared, compute: Compute, training: Training, optimiser: torch.optim.Optimizer, rates: Sequence[float]
) -> Search:
    """Take a step with each rate, of a network as it is in the first step of a run, until the loss diverges."""
    momentum = pace_at(settings, 1).momentum
    first = replace(training, before_step=lambda step: training.before_step(1))  # frozen what is frozen then, at that size
    losses = list[float]()
    step = Step(settings, compute, first, optimiser, lambda number: Pace(rates[number - 1], momentum))
    with restored(training, optimiser):
        for number, batch in enumerate(tqdm(training.batches(0), total=len(rates), desc="rates", disable=None), 1):
            try:
                losses.append(step(number, batch)["loss"])
            except NotFiniteError:
                break
            if diverged(losses) or number == len(rates):
                break
    return Search(list(rates[: len(losses)]), losses)


@contextmanager
def restored(training: Training, optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Give weights, batch norms, modes, optimiser and torch's random state back after the block as they were before."""
    model, modules = training.model, list(training.model.modules())
    weights, memory = copy.deepcopy(model.state_dict()), copy.deepcopy(optimiser.state_dict())
    modes = [module.training for module in modules]
    trained = [(p, p.requires_grad) for p in model.parameters()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            optimiser.zero_grad(set_to_none=True)
            model.load_state_dict(weights)
            optimiser.load_state_dict(memory)
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for parameter, was_trained in trained:
                parameter.requires_grad_(was_trained)


def geometric(low: float, high: float, count: int) -> list[float]:
    """Rates from `low` to `high`, each the same multiple of the one before."""
    return [low * (high / low) ** (k / (count - 1)) for k in range(count)]


def slopes_of(y: NDArray[np.float64], x: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """The slope at each point of the line that fits it and `reach` points on either side best, fewer at the ends."""
    windows = [slice(max(k - reach, 0), k + reach + 1) for k in range(len(x))]
    return np.array([np.polyfit(x[window], y[window], 1)[0] for window in windows])


def smooth(losses: Sequence[float]) -> list[float]:
    """The running mean of losses with weights that fall by SMOOTHING, without the bias of its start at 0."""
    mean, smoothed = 0.0, []
    for k, loss in enumerate(losses, 1):
        mean += (1 - SMOOTHING) * (loss - mean)
        smoothed.append(mean / (1 - SMOOTHING**k))
    return smoothed


def diverged(losses: Sequence[float]) -> bool:
    """Whether the smoothed loss has left its best behind."""
    smoothed = smooth(losses)
    return smoothed[-1] > DIVERGED * min(smoothed) or not math.isfinite(smoothed[-1])


def write(search: Search, folder: Path) -> list[Path]:
    """Write the picture and the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"suggestions": search.suggestions, "rates": search.rates, "losses": search.losses, "smoothed": search.smoothed}
    picture = rate_curve(search.rates, search.losses, search.smoothed, search.suggestions)
    return [
        write_atomically(folder / "rates.png", picture),
        write_atomically(folder / "rates.json", (json.dumps(content, indent=1) + "\n").encode()),
    ]
