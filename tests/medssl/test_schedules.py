"""The pace of a step by numbers worked out by hand from fastai's rules, and in the optimiser."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medssl.config import Finetune, Pretrain
from medssl.optimisers import optimiser_of, parameter_groups, set_pace
from medssl.problems import InputError
from medssl.recipes import read_settings
from medssl.schedules import Pace, pace_at


@pytest.mark.parametrize(
    ("step", "rate", "momentum"),
    [
        (1, 0.04, 0.95),  # 1 / 25
        (2, 0.52, 0.90),  # half the way up
        (3, 1.0, 0.85),  # the peak, at 2 / 8
        (6, 0.500005, 0.90),  # half the way down to 1e-5
        (8, 0.066996628, 0.943301270),  # 7 / 8 of the way: 1 - 0.99999 * (1 - cos(150 degrees)) / 2
    ],
)
def test_one_cycle(step: int, rate: float, momentum: float, pretraining: Callable[..., Pretrain]) -> None:
    settings = pretraining(steps=8, lr=1.0, schedule="one_cycle")
    assert pace_at(settings, step) == pytest.approx((rate, momentum), rel=1e-7)


def test_one_cycle_of_other_numbers(pretraining: Callable[..., Pretrain]) -> None:
    table = {"name": "one_cycle", "pct_start": 0.5, "div": 4, "div_final": 8, "momentum": [0.9, 0.5, 0.7]}
    settings = pretraining(steps=4, lr=8.0, schedule=table)
    for step, wanted in enumerate([(2, 0.9), (5, 0.7), (8, 0.5), (4.5, 0.6)], 1):
        assert pace_at(settings, step) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("step", "rate", "momentum"),
    [
        (1, 0.04, 0.95),
        (34, 0.28, 0.925),  # a third of the way up: 0.04 + 0.96 * (1 - cos(60 degrees)) / 2
        (100, 1.0, 0.85),  # the last frozen step stands at 0.99, the peak
        (101, 0.1, 0.95),  # the second cycle: lr / 2 / 5
        (104, 0.5, 0.85),  # its peak, lr / 2, at 3 / 10
        (110, 0.024762536, 0.945048443),  # 6 / 7 of the way down to 5e-6
    ],
)
def test_fine_tune_is_one_cycle_frozen_and_one_at_half_the_rate(
    step: int, rate: float, momentum: float, finetuning: Callable[..., Finetune]
) -> None:
    settings = finetuning(steps=110, freeze_steps=100, lr=1.0, schedule="fine_tune")
    assert pace_at(settings, step) == pytest.approx((rate, momentum), rel=1e-7)


@pytest.mark.parametrize("name", ["sgd", "lars", "adam", "adamw"])
def test_the_pace_reaches_every_group_of_every_optimiser(name: str, pretraining: Callable[..., Pretrain]) -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimiser = optimiser_of(pretraining(optimiser=name), parameter_groups([(layers[0], 0.1), (layers, 1.0)]))
    set_pace(optimiser, Pace(0.5, 0.85))
    assert [group["lr"] for group in optimiser.param_groups] == [0.05, 0.05, 0.5, 0.5]
    assert {group.get("momentum", group.get("betas", [0])[0]) for group in optimiser.param_groups} == {0.85}


def test_the_momentum_that_is_set_is_the_momentum_of_the_step() -> None:
    """Two steps of SGD by hand: the second one remembers as much of the first as it is told to."""
    weight = nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.SGD([{"params": [weight], "scale": 1.0}], lr=9.0, momentum=0.9)
    for pace in (Pace(1.0, 0.9), Pace(2.0, 0.5)):
        set_pace(optimiser, pace)
        weight.grad = torch.ones(())
        optimiser.step()
    assert weight.item() == -1 - 2 * (0.5 + 1)


RECIPE = {
    "split": "split.json", "out": "run", "steps": 10, "batch_size": 4, "validate_every": 5, "crop_size": [32, 32],
    "intensity": "percentile", "network": {"name": "vit_tiny", "patch_size": [8, 8]}, "lr": 1e-4,
}  # fmt: skip
CYCLE = "schedule=fine_tune freeze_steps=3"


@pytest.mark.parametrize(
    ("kind", "words", "line"),
    [
        (Finetune, "schedule=one_cylce", "schedule: found one_cylce, expected 'one_cycle'?"),
        (Finetune, "schedule=one_cycle warmup=2", "warmup: found 2, expected 0 with schedule one_cycle"),
        (Finetune, "schedule=one_cycle momentum=0.5", "momentum: found 0.5, expected schedule.momentum"),
        (Finetune, "schedule=one_cycle schedule.pct_start=1", "schedule.pct_start: found 1"),
        (Finetune, "schedule=one_cycle schedule.momentum=[0.9]", "schedule.momentum: found [0.9]"),
        (Finetune, "schedule=cosine schedule.div=3", "schedule.div: found an unknown setting"),
        (Finetune, "schedule=fine_tune", "freeze_steps: found 0, expected 1 to 9, fewer than steps, with schedule fine_tune"),
        (Finetune, "schedule=fine_tune freeze_steps=10", "freeze_steps: found 10, expected 1 to 9"),
        (Finetune, f"{CYCLE} encoder_lr=0.1", "encoder_lr: found 0.1, expected 1.0, as schedule fine_tune has its own"),
        (Finetune, f"{CYCLE} rates=layers", "rates: found layers, expected encoder"),
        (Finetune, f"{CYCLE} unfreeze_every=1", "unfreeze_every: found 1, expected 0"),
        (Finetune, f"{CYCLE} warmup=1", "warmup: found 1, expected 0"),
        (Finetune, f"{CYCLE} network=unet", "schedule: found fine_tune, expected another for the network unet"),
        (Pretrain, "schedule=fine_tune method=mae", "schedule: found fine_tune, expected constant, cosine or one_cycle"),
        (Finetune, "unfreeze_every=2 encoder_lr=0", "unfreeze_every: found 2, expected 0 with encoder_lr=0"),
        (Finetune, "ema=1", "ema: found 1"),
        (Finetune, "progressive=[[16]]", "progressive.0: found [16]"),
        (Finetune, "progressive=[[16,16,16]]", "progressive: found [16, 16, 16], expected one number for each axis"),
        (Finetune, "progressive=[[12,12]]", "progressive: found [12, 12], expected multiples of [8, 8]"),
        (Finetune, "progressive=[[24,24],[16,16]]", "progressive: found [24, 24], expected sizes that rise, so one below"),
        (Finetune, "progressive=[[32,32]]", "progressive: found [32, 32], expected a smaller size than crop_size [32, 32]"),
        (Finetune, "progressive=[[16,40]]", "progressive: found [16, 40], expected a smaller size than crop_size"),
        (Finetune, "crop_size=[64,64] progressive=[[32,32]] network=resnet18 batch_size=1", "found [32, 32], expected more"),
        (Finetune, "progressive=[[16,16]] network=unet", "progressive: found [16, 16], expected more than [16, 16]"),
    ],
)
def test_settings_that_contradict_are_refused_in_one_line(
    kind: type[Finetune] | type[Pretrain], words: str, line: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    with pytest.raises(InputError) as caught:
        read_settings(kind, str(recipe), words.split())
    (problem,) = caught.value.problems
    assert line in str(problem)
