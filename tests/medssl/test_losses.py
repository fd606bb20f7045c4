"""Losses against golden numbers, slow references written from the papers, and numerical gradients."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from medssl.losses import (
    barlow_twins,
    l1,
    masked_l1,
    masked_l2,
    masked_patches,
    nt_xent,
    nt_xent_chance,
    patch_foreground,
    regularized_contrastive,
    sinkhorn,
    swav,
    swav_chance,
    vicreg,
    vicreg_parts,
)

Loss = Callable[[Tensor, Tensor], Tensor]


def sines(rows: int, features: int, step: float) -> Tensor:
    """The rows that the golden numbers are of."""
    return torch.sin(step * torch.arange(rows * features, dtype=torch.float64)).view(rows, features)


A, B = sines(6, 8, 0.7), sines(6, 8, 1.1)
PROTOTYPES = normalize(sines(5, 8, 0.3))
GROUPS = torch.tensor([3, 5, 3, 7, 5, 3])
MASK = sines(6, 8, 0.9) > 0.2


def scores(rows: Tensor) -> Tensor:
    """Cosines with five prototypes."""
    return normalize(rows) @ PROTOTYPES.to(rows).T


def swav_of_rows(a: Tensor, b: Tensor) -> Tensor:
    """SwAV of two views and one local crop, with a queue."""
    queue = [scores(sines(4, 8, step).to(a)) for step in (0.2, 0.4)]
    return swav([scores(a), scores(b), scores(a.roll(1, 1) + b)], queue_scores=queue)


def swav_of_columns(a: Tensor, b: Tensor) -> Tensor:
    """SwAV of scores that are the numbers themselves: without the product that autocast rounds."""
    return swav([a[:, :5], b[:, :5], a[:, 3:]])


LOSSES: dict[str, Loss] = {
    "l1": l1,
    "masked_l1": lambda a, b: masked_l1(a, b, MASK),
    "masked_l2": lambda a, b: masked_l2(a, b, MASK[:, :1]),
    "masked_patches": lambda a, b: masked_patches(a.view(3, 2, 8), b.view(3, 2, 8), MASK[:3, :2]),
    "nt_xent": lambda a, b: nt_xent(a, b, 0.2),
    "nt_xent, groups": lambda a, b: nt_xent(a, b, 0.2, GROUPS),
    "barlow_twins, few rows": barlow_twins,
    "barlow_twins, few features": lambda a, b: barlow_twins(a.view(12, 4), b.view(12, 4)),
    "vicreg, few rows": vicreg,
    "vicreg, few features": lambda a, b: vicreg(a.view(12, 4), b.view(12, 4)),
    "swav": swav_of_rows,
}


def random(*shape: int, seed: int) -> Tensor:
    """Normal numbers, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_nt_xent(a: Tensor, b: Tensor, temperature: float, groups: list[int] | None = None) -> float:
    """Equation 1 of SimCLR, pair by pair, in Python floats."""
    rows = [row / row.norm() for row in [*a, *b]]
    n, total = len(a), 0.0
    patient = 2 * (groups or list(range(n)))
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        against = [k for k in range(2 * n) if k == positive or patient[k] != patient[i]]
        logits = {k: float(rows[i] @ rows[k]) / temperature for k in against}
        highest = max(logits.values())
        total += highest + math.log(sum(math.exp(s - highest) for s in logits.values())) - logits[positive]
    return total / (2 * n)


def slow_barlow_twins(a: Tensor, b: Tensor, off_diagonal: float) -> Tensor:
    """Equations 1 and 2 of Barlow Twins, feature by feature."""
    total = a.new_zeros(())
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            x, y = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
            c = (x * y).mean() / ((x.square().mean() + 1e-5) * (y.square().mean() + 1e-5)).sqrt()
            total = total + ((1 - c) ** 2 if i == j else off_diagonal * c**2)
    return total


def slow_vicreg(a: Tensor, b: Tensor, similarity: float, variance: float, covariance: float) -> Tensor:
    """Equations 1 to 6 of VICReg, feature by feature; the distance as a mean over features too, as in its code."""
    n, d = a.shape
    total = similarity * sum(((a[i] - b[i]) ** 2).sum() for i in range(n)) / (n * d)
    for z in (a, b):
        for i in range(d):
            x = z[:, i] - z[:, i].mean()
            total = total + variance / 2 * torch.clamp(1 - ((x**2).sum() / (n - 1) + 1e-4).sqrt(), min=0) / d
            for j in set(range(d)) - {i}:
                total = total + covariance * ((x * (z[:, j] - z[:, j].mean())).sum() / (n - 1)) ** 2 / d
    return total


def slow_codes(rows: list[list[float]], epsilon: float, rounds: int) -> list[list[float]]:
    """Algorithm 1 of SwAV's appendix in Python floats: equal shares of prototypes, then of rows."""
    q = [[math.exp(s / epsilon) for s in row] for row in rows]
    b, k = len(q), len(q[0])
    for _ in range(rounds):
        columns = [sum(row[j] for row in q) for j in range(k)]
        q = [[row[j] / columns[j] / k for j in range(k)] for row in q]
        q = [[value / sum(row) / b for value in row] for row in q]
    return [[value * b for value in row] for row in q]


def slow_swav(views: list[Tensor], queues: list[Tensor], temperature: float, epsilon: float, rounds: int) -> float:
    """Every assigned view's codes against every other view's predictions, row by row; one queue an assigned view."""
    terms = []
    for v, queue in enumerate(queues):
        codes = slow_codes(torch.cat([views[v], queue]).tolist(), epsilon, rounds)
        for other in [w for w in range(len(views)) if w != v]:
            for code, row in zip(codes, views[other].tolist(), strict=False):
                normaliser = math.log(sum(math.exp(s / temperature) for s in row))
                terms.append(-sum(q * (s / temperature - normaliser) for q, s in zip(code, row, strict=True)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (lambda: nt_xent(A, B, 0.07), 11.0085926506),
        (lambda: nt_xent(A, B, 0.1), 7.9080854055),
        (lambda: nt_xent(A, B, 0.5), 2.7766048445),
        (lambda: barlow_twins(A, B), 6.9657290564),
        (lambda: vicreg(A, B), 33.4686336721),
        (lambda: swav([scores(A), scores(B)]), 4.3251111328),
        (lambda: swav([scores(A), scores(B), scores(sines(6, 8, 1.7)), scores(sines(6, 8, 2.3))]), 2.6656231191),
    ],
)
def test_golden_numbers(loss: Callable[[], Tensor], golden: float) -> None:
    assert loss().item() == pytest.approx(golden, abs=1e-9)


@pytest.mark.parametrize("groups", [None, [2, 9, 2, 2, 9]])
@pytest.mark.parametrize("temperature", [0.005, 0.05, 1.0])
def test_nt_xent_equals_a_slow_reference(temperature: float, groups: list[int] | None) -> None:
    a, b = random(5, 3, 4, seed=1), random(5, 3, 4, seed=2)
    expected = slow_nt_xent(a.flatten(1), b.flatten(1), temperature, groups)
    numbers = None if groups is None else torch.tensor(groups)
    assert nt_xent(a, b, temperature, numbers).item() == pytest.approx(expected, rel=1e-9)
    assert nt_xent(a.float(), b.float(), temperature, numbers).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)], ids=["few rows", "few features"])
@pytest.mark.parametrize(
    ("loss", "reference", "weights"), [(barlow_twins, slow_barlow_twins, (0.3,)), (vicreg, slow_vicreg, (3.0, 2.0, 5.0))]
)
def test_both_forms_equal_a_slow_reference_in_value_and_gradient(
    loss: Callable[..., Tensor], reference: Callable[..., Tensor], weights: tuple[float, ...], shape: tuple[int, int]
) -> None:
    a, b = random(*shape, seed=3).requires_grad_(), (0.4 * random(*shape, seed=4) + 0.2).requires_grad_()
    value, expected = loss(a, b, *weights), reference(a, b, *weights)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(value, (a, b)), torch.autograd.grad(expected, (a, b)))


def test_vicreg_is_the_weighted_sum_of_its_parts() -> None:
    parts = vicreg_parts(A, B)
    assert vicreg(A, B, 2, 3, 5) == 2 * parts["similarity"] + 3 * parts["variance"] + 5 * parts["covariance"]


@pytest.mark.parametrize("queued", [0, 4])
@pytest.mark.parametrize("assigned", [1, 2])
def test_swav_equals_a_slow_reference(assigned: int, queued: int) -> None:
    views = [scores(random(6, 8, seed=seed)) for seed in range(4)]
    queues = [scores(random(queued, 8, seed=seed)) for seed in range(4, 4 + assigned)]
    value = swav(views, assigned, 0.2, 0.1, 2, queues if queued else None)
    assert value.item() == pytest.approx(slow_swav(views, queues, 0.2, 0.1, 2), rel=1e-9)


def test_no_gradient_comes_through_codes_or_queue() -> None:
    first, second, queue = scores(A).requires_grad_(), scores(B).requires_grad_(), scores(-A).requires_grad_()
    swav([first, second], assigned=1, queue_scores=[queue]).backward()
    assert first.grad is None
    assert queue.grad is None
    assert second.grad is not None


def test_sinkhorn_equals_a_slow_reference_and_balances() -> None:
    cosines = scores(random(9, 8, seed=5))
    expected = torch.tensor(slow_codes(cosines.tolist(), 0.05, 3), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(cosines), expected, rtol=1e-10, atol=0)
    balanced = sinkhorn(cosines, rounds=2000)
    torch.testing.assert_close(balanced.sum(0), torch.full((5,), 9 / 5, dtype=torch.float64))
    torch.testing.assert_close(balanced.sum(1), torch.ones(9, dtype=torch.float64))


def test_sinkhorn_does_not_overflow_where_the_exponential_would() -> None:
    codes = sinkhorn(scores(A).to(torch.bfloat16), epsilon=0.002)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes.sum(1), torch.ones(6))


def test_masked_means_count_every_channel_of_what_the_mask_selects() -> None:
    prediction, target = random(2, 3, 4, 5, seed=6), random(2, 3, 4, 5, seed=7)
    mask = random(2, 1, 4, 5, seed=8) > 0.3
    chosen = (prediction - target)[mask.expand(2, 3, 4, 5)]
    torch.testing.assert_close(masked_l1(prediction, target, mask), chosen.abs().mean())
    torch.testing.assert_close(masked_l2(prediction, target, mask), chosen.square().mean())


def test_masked_patches_equal_a_slow_reference() -> None:
    prediction, patches = random(2, 5, 6, seed=9), random(2, 5, 6, seed=10).abs()
    patches[0, 1], patches[1, 3] = 0.25, patches[1, 3] * 1e-3
    masked = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 0, 1, 1]], dtype=torch.bool)
    errors: dict[bool, list[float]] = {True: [], False: []}
    for normalise, seen in errors.items():
        for sample, patch in [(0, 0), (0, 3), (1, 1), (1, 4)]:  # masked, and neither of the two flat ones
            x = patches[sample, patch].tolist()
            mean = sum(x) / 6
            deviation = math.sqrt(sum((value - mean) ** 2 for value in x) / 5 + 1e-6)
            goal = [(value - mean) / deviation for value in x] if normalise else x
            seen += [(p - g) ** 2 for p, g in zip(prediction[sample, patch].tolist(), goal, strict=True)]
        value = masked_patches(prediction, patches, masked, patch_foreground(patches), normalise).item()
        assert value == pytest.approx(sum(seen) / len(seen), rel=1e-12)


def test_nothing_selected_gives_zero_and_unselected_values_no_gradient() -> None:
    prediction = A.clone().requires_grad_()
    for loss in (masked_l1, masked_l2):
        value = loss(prediction, B, torch.zeros(6, 8, dtype=torch.bool))
        assert value.item() == 0
        assert not torch.autograd.grad(value, prediction)[0].any()
        spoilt = torch.where(MASK, A, torch.nan).requires_grad_()
        gradient = torch.autograd.grad(loss(spoilt, B, MASK), spoilt)[0]
        assert torch.equal(gradient != 0, MASK)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name: str) -> None:
    if name == "swav":  # codes are constants, which a numerical gradient can't know: only what predicts may move
        fixed = [scores(A), scores(B)]
        assert torch.autograd.gradcheck(lambda a: swav([*fixed, scores(a)]), A.roll(1).requires_grad_())
    else:
        assert torch.autograd.gradcheck(LOSSES[name], (A.clone().requires_grad_(), B.clone().requires_grad_()))


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_no_digit(name: str, scale: float) -> None:
    """The loss of bfloat16 embeddings inside autocast is, to the bit, that of the same numbers in float32 outside."""
    a, b = ((scale * x).to(torch.bfloat16).requires_grad_() for x in (A, B))
    loss = swav_of_columns if name == "swav" else LOSSES[name]
    expected = loss(a.float(), b.float())
    assert expected.item() == pytest.approx(loss(a.double(), b.double()).item(), rel=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(a, b)
    assert value.dtype == torch.float32
    assert value.item() == expected.item()
    gradient = torch.autograd.grad(value, a)[0]
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("level", [0.0, 0.5, 3000.0])
@pytest.mark.parametrize("name", LOSSES)
def test_a_constant_batch_is_finite(name: str, level: float) -> None:
    a, b = (torch.full((6, 8), level).requires_grad_() for _ in range(2))
    value = LOSSES[name](a, b)
    value.backward()
    assert torch.isfinite(value)
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            self.elements = max(self.elements, tensor.numel() if isinstance(tensor, Tensor) else 0)
        return made


def test_nt_xent_of_restored_volumes_is_finite_at_low_temperature_and_small_in_memory() -> None:
    a, b = (torch.rand(4, 1, 96, 96, 96, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in (1, 2))
    with Largest() as largest, torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(a.to(torch.bfloat16), b.to(torch.bfloat16), 0.005)
        loss.backward()
    assert loss.item() == pytest.approx(
        slow_nt_xent(*(x.detach().bfloat16().flatten(1).double() for x in (a, b)), 0.005), rel=1e-3
    )
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert largest.elements == 8 * 96**3  # both views, once; every pair of rows would be eight times that


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
@pytest.mark.parametrize("shape", [(8, 300), (300, 8)])
def test_neither_form_makes_more_than_the_embeddings(loss: Loss, shape: tuple[int, int]) -> None:
    a, b = (torch.rand(shape, requires_grad=True) for _ in range(2))
    with Largest() as largest:
        loss(a, b).backward()
    assert largest.elements == 2400


def test_chance_is_the_loss_of_what_tells_nothing_apart() -> None:
    rows = torch.ones(6, 8)
    assert nt_xent(rows, rows, 0.1).item() == pytest.approx(nt_xent_chance(6), rel=1e-6)
    assert nt_xent_chance(6) == pytest.approx(math.log(11))
    assert swav([rows, rows], queue_scores=[rows, rows]).item() == pytest.approx(swav_chance(8), rel=1e-6)
    assert swav_chance(8) == pytest.approx(math.log(8))


def test_total_is_r_plus_c_times_r() -> None:
    r, c = l1(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])), torch.tensor(0.25)
    assert regularized_contrastive(r, c).item() == 2.5


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda: nt_xent(A, B, 0.0), "temperature: found 0.0, expected more than 0"),
        (lambda: nt_xent(A, B, -1.0), "temperature: found -1.0, expected more than 0"),
        (lambda: nt_xent(A[:1], B[:1], 0.1), "batch: found 1 rows, expected at least 2"),
        (lambda: nt_xent(A, B, 0.1, GROUPS[:5]), r"groups: found shape \[5\], expected one number a pair, \[6\]"),
        (lambda: barlow_twins(A, B[:5]), r"views: found shapes \[6, 8\] and \[5, 8\], expected two of one shape"),
        (lambda: barlow_twins(A[:1], B[:1]), "batch: found 1 rows, expected at least 2"),
        (lambda: vicreg(A[:1], B[:1]), "batch: found 1 rows, expected at least 2"),
        (lambda: swav([A, B], temperature=0), "temperature: found 0, expected more than 0"),
        (lambda: swav([A, B], queue_scores=[A, B], epsilon=0), "epsilon: found 0, expected more than 0"),
        (lambda: swav([A, B], queue_scores=[A, B], rounds=0), "rounds: found 0, expected more than 0"),
        (lambda: swav([A]), "scores: found shapes .* expected 2 or more of one shape"),
        (lambda: swav([A, B[:5]]), "scores: found shapes .* expected 2 or more of one shape"),
        (lambda: swav([A, B], 3), "assigned: found 3, expected 1 to 2"),
        (lambda: swav([A, B], queue_scores=[A]), r"queue_scores: found shapes \[\[6, 8\]\], expected 2 of \[rows, 8\]"),
        (lambda: masked_l1(A, B[:, :1], MASK), r"target: found shape \[6, 1\], expected the prediction's, \[6, 8\]"),
        (lambda: masked_l2(A, B, MASK[:5]), r"mask: found shape \[5, 8\], expected one that broadcasts to \[6, 8\]"),
    ],
)
def test_what_has_no_answer_is_refused(loss: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss()
