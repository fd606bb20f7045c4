"""Losses against golden numbers, a slow reference and a numerical gradient."""

import math

import pytest
import torch
from torch import Tensor

from medssl.losses import l1, nt_xent, nt_xent_chance, regularized_contrastive

A = torch.sin(0.7 * torch.arange(48, dtype=torch.float64)).view(6, 8)
B = torch.sin(1.1 * torch.arange(48, dtype=torch.float64)).view(6, 8)


def slow_nt_xent(a: Tensor, b: Tensor, temperature: float) -> float:
    """Equation 1 of SimCLR, pair by pair, in Python floats."""
    rows = [row / row.norm() for row in [*a, *b]]
    n, total = len(a), 0.0
    for i in range(2 * n):
        scores = {k: float(rows[i] @ rows[k]) / temperature for k in range(2 * n) if k != i}
        highest = max(scores.values())
        total += highest + math.log(sum(math.exp(s - highest) for s in scores.values())) - scores[(i + n) % (2 * n)]
    return total / (2 * n)


@pytest.mark.parametrize(("temperature", "golden"), [(0.07, 11.0085926506), (0.1, 7.9080854055), (0.5, 2.7766048445)])
def test_nt_xent_equals_its_golden_numbers(temperature: float, golden: float) -> None:
    assert nt_xent(A, B, temperature).item() == pytest.approx(golden, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.005, 0.05, 1.0])
def test_nt_xent_equals_a_slow_reference(temperature: float) -> None:
    a, b = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1)), torch.randn(5, 3, 4)
    expected = slow_nt_xent(a.flatten(1).double(), b.flatten(1).double(), temperature)
    assert nt_xent(a, b, temperature).item() == pytest.approx(expected, rel=1e-4)


def test_nt_xent_gradient() -> None:
    torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.2), (A.clone().requires_grad_(), B.clone().requires_grad_()))


def test_nt_xent_is_finite_at_low_temperature_under_bfloat16() -> None:
    a, b = A.float().requires_grad_(), B.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(a * 1, b, 0.005)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_nt_xent(A, B, 0.005), rel=1e-5)
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_nt_xent_chance_is_the_loss_of_equal_rows() -> None:
    rows = torch.ones(6, 8)
    assert nt_xent(rows, rows, 0.1).item() == pytest.approx(nt_xent_chance(6), rel=1e-6)
    assert nt_xent_chance(6) == pytest.approx(math.log(11))


def test_total_is_r_plus_c_times_r() -> None:
    r, c = l1(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])), torch.tensor(0.25)
    assert regularized_contrastive(r, c).item() == 2.5


@pytest.mark.parametrize(("a", "b", "temperature"), [(A, B, 0.0), (A, B, -1.0), (A[:1], B[:1], 0.1), (A, B[:5], 0.1)])
def test_what_has_no_answer_is_refused(a: Tensor, b: Tensor, temperature: float) -> None:
    with pytest.raises(ValueError, match="found"):
        nt_xent(a, b, temperature)
