"""LARS against its paper's loop; the others are torch's, chosen by name."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medssl.config import Pretrain
from medssl.optimisers import LARS, optimiser_of, parameter_groups


def slow_lars(weights: torch.Tensor, gradients: list[torch.Tensor], lr: float, momentum: float, decay: float) -> torch.Tensor:
    """Algorithm 1 of You et al., 2017, in Python floats; trust 0.001, nothing scaled for a tensor of one axis."""
    values, speed = weights.flatten().tolist(), [0.0] * weights.numel()
    for gradient in gradients:
        update = [g + decay * w for g, w in zip(gradient.flatten().tolist(), values, strict=True)]
        length = sum(u * u for u in update) ** 0.5
        local = 0.001 * sum(w * w for w in values) ** 0.5 / length if weights.ndim > 1 else 1.0
        speed = [momentum * s + local * u for s, u in zip(speed, update, strict=True)]
        values = [w - lr * s for w, s in zip(values, speed, strict=True)]
    return torch.tensor(values, dtype=weights.dtype).view(weights.shape)


@pytest.mark.parametrize("shape", [(3, 5), (4, 2, 3, 3), (7,)])
def test_lars_is_its_papers_loop(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape, dtype=torch.float64)
    gradients = [torch.randn(shape, dtype=torch.float64) * 10**k for k in range(4)]
    parameter = nn.Parameter(start.clone())
    optimiser = LARS([{"params": [parameter]}], lr=0.7, momentum=0.8, weight_decay=0.03)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimiser.step()
    torch.testing.assert_close(parameter.detach(), slow_lars(start, gradients, 0.7, 0.8, 0.03))


def test_lars_takes_a_weight_of_zeros_off_the_ground_and_passes_over_what_has_no_gradient() -> None:
    moving, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimiser = LARS([{"params": [moving, still]}], lr=0.1)
    moving.grad = torch.ones(2, 2)
    optimiser.step()
    assert torch.equal(moving, torch.full((2, 2), -0.1))  # |w| = 0: a plain step
    assert torch.equal(still, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD), ("lars", LARS)]
)
def test_each_is_chosen_by_name_with_its_settings(name: str, kind: type, pretraining: Callable[..., Pretrain]) -> None:
    settings = pretraining(optimiser=name, lr=0.5, momentum=0.7, beta2=0.95, weight_decay=0.01)
    norm = nn.BatchNorm1d(3)
    optimiser = optimiser_of(settings, parameter_groups([(nn.Sequential(nn.Linear(3, 3), norm), 1.0)]))
    assert type(optimiser) is kind
    decays = {p.ndim > 1: group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decays == {True: 0.01, False: 0.0}
    first = optimiser.param_groups[0]
    assert (first["lr"], first.get("momentum", first.get("betas", [0])[0])) == (0.5, 0.7)
    assert first.get("betas", (0, 0.95))[1] == 0.95
