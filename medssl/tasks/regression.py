"""Regression: one number for every image, by a head on any encoder; one centre crop an image.

The network tells the number less the training cases' mean, over their deviation, so that a rate suits any unit; what is
reported is in the target's own unit. Crops are as in `medssl.tasks.classification`. Axis letters: b batch, c channel,
then space.
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from medssl.atomic import atomic_path, write_atomically
from medssl.config import Finetune, UNetSettings
from medssl.device import Compute
from medssl.losses import at_least_float32
from medssl.plan import build_encoder, start_encoder
from medssl.problems import InputError, Problem
from medssl.processes import collected, dealt
from medssl.run_folder import RunFolder
from medssl.scores.numbers import Estimate, estimates_csv, quick_numbers, summarise_numbers
from medssl.splits import Case, Split
from medssl.store import Store
from medssl.tasks.centre import number_of, outputs
from medssl.tasks.mixing import mix_of
from medssl.tasks.pixels import judge_number_pixels
from medssl.tasks.shown import looker, shown_cases
from medssl.tasks.targets import scale_of
from medssl.training import Batch
from networks.heads import Classifier
from transforms.augment import augment_image

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": functional.mse_loss,
    "l1": functional.l1_loss,
    "huber": functional.huber_loss,
}
VALIDATED = ("mae", "rmse", "r2")


class Regression:
    """A number for every image, validated by the mean absolute error, judged by R2, errors and correlations.

    Validation watches the mean absolute error and not R2: it exists for any cases, R2 not for equal ones; one odd case
    among few does not decide it by the square of its error; and runs are compared by it, case by case.
    """

    watched = "val_mae"
    higher_is_better = False

    def __init__(self, settings: Finetune, split: Split) -> None:
        self.settings, self.split = settings, split
        if isinstance(settings.network, UNetSettings):
            expected = "an encoder, vit_... or resnet..., for a number"
            raise InputError([Problem("settings", "network", settings.network.name, expected)])
        self.scale = scale_of(split)
        self.encoder = build_encoder(settings, split.channels)
        self.network = Classifier(self.encoder, 1, settings.head)
        self.loaded = start_encoder(self.encoder, settings)

    def warnings(self) -> list[str]:
        known = self._numbers("training")
        judged = self._numbers(self.settings.judge)
        outside = sum(not min(known) <= number <= max(known) for number in judged)
        span = f"the training cases' {min(known):g} to {max(known):g}"
        found = [f"warning: {outside} {self.settings.judge} cases have a number outside of {span}"] if outside else []
        if len(set(judged)) == 1:
            found.append(f"warning: all {self.settings.judge} cases have the number {judged[0]:g}: there is no R2")
        return found

    def augment(self) -> Callable[[Batch], Batch]:
        return augment_image(spatial_dims=self.settings.spatial_dims, **self.settings.augment.model_dump())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss in deviations of the training targets, and the mean absolute error in their unit, of mixed images too."""
        mean, deviation = self.scale
        mix = mix_of(self.settings.mixup, len(batch["image"]))
        told = at_least_float32(self.network(mix(batch["image"])))[:, 0]
        wanted = mix((batch["number"] - mean) / deviation).to(told)
        mae = (told.detach() - wanted).abs().mean() * deviation
        return {"loss": LOSSES[self.settings.regression_loss](told, wanted), "mae": mae}

    def validate(self, store: Store, compute: Compute) -> dict[str, float]:
        found = quick_numbers(collected(list(self.predict(store, dealt(self.split.part("validation")), compute))))
        return {f"val_{name}": value for name in VALIDATED if (value := found[name]) is not None}

    def judge(self, run: RunFolder, store: Store, compute: Compute) -> dict[str, Any]:
        cases = self.split.part(self.settings.judge)
        with tqdm(total=len(cases), desc=f"judging {self.settings.judge}", unit="case", disable=None) as bar:
            rows = [row for row in self.predict(store, cases, compute, 1) if bar.update() or True]
        write_atomically(run.path("predictions.csv"), estimates_csv(rows))
        with atomic_path(run.path("predictions.npz")) as temporary:
            np.savez_compressed(temporary, **self.shown(store, cases, rows))
        scores, baselines = summarise_numbers(rows), [*self.constants(), judge_number_pixels(self.settings, self.split, store)]
        best = min(baselines, key=lambda baseline: float(baseline["mae"]))
        found = f"the network's MAE {scores['mae']:.4g} is not below the {best['mae']:.4g} of {best['name']}"
        told = {"targets": self.scale._asdict(), "baselines": baselines, "chance": self.chance()}
        return scores | told | {"warnings": [] if scores["mae"] < best["mae"] else [f"warning: {found}"]}

    def shown(self, store: Store, cases: Sequence[Case], rows: Sequence[Estimate]) -> dict[str, Any]:
        """Keep the cases of largest, middle and smallest error with what raised the number."""
        told = [{"truth": row.truth, "predicted": row.predicted} for row in rows]
        look = looker(self.network, self.encoder, self.settings, lambda _: self.number)
        return shown_cases(store, cases, [abs(row.error) for row in rows], told, look, self.settings)

    def number(self, outputs: Tensor) -> Tensor:
        """Give the numbers (b,) that outputs (b, 1) stand for."""
        return self.scale.mean + self.scale.deviation * outputs[:, 0]

    def headline(self, scores: dict[str, Any]) -> str:
        return f"MAE {scores['mae']:.4g}, R2 {'none' if scores['r2'] is None else format(scores['r2'], '.4f')}"

    def predict(
        self, store: Store, cases: Sequence[Case], compute: Compute, batch_size: int | None = None
    ) -> Iterator[Estimate]:
        """Give each case's number in order; RunError where the network's output is not finite."""
        for case, told in outputs(self.network, store, cases, self.settings, compute, batch_size):
            yield Estimate(case.id, case.patient, number_of(case), self.number(told[None]).item())

    def constants(self) -> list[dict[str, Any]]:
        """Judge what needs no image: to say the training cases' mean, or their median, of every case."""
        known, cases = self._numbers("training"), self.split.part(self.settings.judge)
        told = {"the training mean": self.scale.mean, "the training median": median(known)}
        return [
            {"name": name, "value": value}
            | quick_numbers([Estimate(case.id, case.patient, number_of(case), value) for case in cases])
            for name, value in told.items()
        ]

    def chance(self) -> dict[str, float]:
        """What validation would show of a network that always says the training cases' median."""
        middle = median(self._numbers("training"))
        return {"val_mae": float(np.mean([abs(number - middle) for number in self._numbers("validation")]))}

    def _numbers(self, part: str) -> list[float]:
        return [number_of(case) for case in self.split.part(part)]
