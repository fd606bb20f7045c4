"""The rate finder: what it suggests where the answer is known, that it leaves no trace, and its command."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phantoms import make_classes
from torch import Tensor, nn

from medssl.cli import main
from medssl.config import Finetune, Pretrain
from medssl.device import choose
from medssl.optimisers import optimiser_of, parameter_groups
from medssl.rate_finder import Search, geometric, prepared, smooth, try_rates
from medssl.training import Training


def test_a_parabola_is_left_behind_above_its_largest_stable_rate(pretraining: Callable[..., Pretrain]) -> None:
    """Gradient descent on w^2 / 2 shrinks w by 1 - rate: it falls fastest below rate 1 and diverges above rate 2."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 4.0)
    training = Training(
        model=model,
        groups=parameter_groups([(model, 1.0)]),
        loss=lambda batch: {"loss": model.weight.square().sum() / 2 + 1},
        batches=lambda start: ({"id": ["a"], "data_hash": ["0"]} for _ in range(25)),
        validate=None,
        watched="",
        higher_is_better=False,
    )
    settings = pretraining(optimiser="sgd", momentum=0.0)
    rates = geometric(2e-4, 300, 25)  # none of them is 1, where w is 0 at once
    search = try_rates(settings, choose(settings), training, optimiser_of(settings, training.groups), rates)
    weight, losses = 4.0, []
    for rate in search.rates:
        losses.append(weight**2 / 2 + 1)
        weight *= 1 - rate
    assert search.losses == pytest.approx(losses, rel=1e-4)
    assert len(search.rates) < 25
    assert search.smoothed[-1] > 4 * min(search.smoothed)
    assert max(search.smoothed[:-1]) < 4 * min(search.smoothed)
    assert rates[0] < search.suggestions["steepest"] < 1 < 10 * search.suggestions["minimum / 10"] < 300
    assert model.weight.item() == 4.0


def test_losses_are_smoothed_without_the_bias_of_the_start() -> None:
    losses = [3.0, 1.0, 4.0, 1.0, 5.0]
    for k, found in enumerate(smooth(losses), 1):
        weights = 0.98 ** np.arange(k)[::-1]
        assert found == pytest.approx(np.average(losses[:k], weights=weights))


def test_suggestions_are_before_the_minimum() -> None:
    """The last loss falls again, more steeply than anything before: that is chance beyond the minimum."""
    losses = [10.0] * 3 + [9.0, 4.0, 0.1, 30.0, 30.0, 0.5]
    search = Search(geometric(1e-4, 1e4, 9), losses)
    assert search.smoothed.index(min(search.smoothed)) == 5
    assert search.suggestions["steepest"] == pytest.approx(1.0)  # the fifth, whose neighbours lie furthest apart
    assert search.suggestions["minimum / 10"] == pytest.approx(1.0)


def test_noise_is_not_taken_for_a_slope() -> None:
    """Losses of 1.4 with a deviation of 0.05 fall by 0.3 between 1e-3 and 1e-1 and rise behind it."""
    rates = np.array(geometric(1e-7, 10, 100))
    falling = -0.15 * np.log10(rates / 1e-3).clip(0, 2) + 3 * np.log10(rates / 1e-1).clip(0)
    for seed in range(20):
        losses = 1.4 + falling + np.random.default_rng(seed).normal(0, 0.05, 100)
        found = Search(rates.tolist(), losses.tolist()).suggestions
        assert 1e-3 < found["steepest"] < 0.2
        assert 5e-3 < found["minimum / 10"] < 2e-2


def snapshot(training: Training, optimiser: torch.optim.Optimizer) -> list[Any]:
    """Everything that a training could leave behind."""
    model = training.model
    parameters = [(p.requires_grad, p.grad) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    return copy.deepcopy([dict(model.state_dict()), optimiser.state_dict(), torch.get_rng_state(), parameters, modes])


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return torch.equal(first, second) if isinstance(first, Tensor) else bool(first == second)


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 24 images of three classes."""
    return make_classes(tmp_path_factory.mktemp("classes"), cases=24)


@pytest.fixture
def classifying(classes: Path, finetuning: Callable[..., Finetune]) -> Callable[..., Finetune]:
    """Make settings of a small classification, with changes."""
    network = {"name": "resnet18", "width": 4, "stem_stride": 1, "stem_pool": False}
    small = {"split": classes, "store": classes.parent / "store", "crop_size": [32, 32], "network": network}
    return lambda **changes: finetuning(**small | changes)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_search_leaves_no_trace(optimiser: str, classifying: Callable[..., Finetune]) -> None:
    """Weights, batch norms, the optimiser in the middle of its work, modes, and torch's random state: bit for bit."""
    settings = classifying(optimiser=optimiser, freeze_steps=3, mixup=0.4, steps=12, frozen_norm="train")
    training = prepared(settings, choose(settings))
    worker = optimiser_of(settings, training.groups)
    for p in training.model.parameters():
        p.grad = torch.ones_like(p)
    worker.step()
    worker.zero_grad(set_to_none=True)
    torch.manual_seed(11)
    before = snapshot(training, worker)
    search = try_rates(settings, choose(settings), training, worker, geometric(1e-5, 1e-1, 12))
    assert len(search.losses) == 12
    assert equal(before, snapshot(training, worker))
    again = try_rates(settings, choose(settings), training, worker, geometric(1e-5, 1e-1, 12))
    assert again == search


def test_the_command_writes_two_files_and_no_run(
    classifying: Callable[..., Finetune], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = classifying(out=tmp_path / "found", steps=3)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(settings.model_dump_json())
    assert main(["rates", str(recipe), "workers=0", "--from", "1e-5", "--to", "1e30"]) == 2
    assert "rates: found 1e-05, 1e+30, expected 0 < from < to <= 1e6" in capsys.readouterr().err
    assert main(["rates", str(recipe), "workers=0", "--from", "1e-5", "--to", "1e5", "--count", "20"]) == 0
    printed = capsys.readouterr().out
    assert {path.name for path in settings.out.iterdir()} == {"rates.json", "rates.png"}
    content = json.loads((settings.out / "rates.json").read_text())
    assert len(content["rates"]) == len(content["losses"]) == len(content["smoothed"]) > 3
    assert f"lr={content['suggestions']['steepest']:.2g}" in printed
    assert (settings.out / "rates.png").read_bytes().startswith(b"\x89PNG")
    (settings.out / "letter.txt").write_text("mine")
    assert main(["rates", str(recipe)]) == 2
    assert "letter.txt, which is no file of a run" in capsys.readouterr().err


def test_pre_training_has_rates_too(
    pretraining: Callable[..., Pretrain], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(pretraining(out=tmp_path / "found").model_dump_json())
    assert main(["rates", str(recipe), "--count", "10", "--to", "1e-3"]) == 0
    assert "minimum / 10" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "found" / "rates.json").read_text())["rates"]) == 10
