"""Two real processes, gloo and DistributedDataParallel: every loss has the gradient of one process over the whole batch."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from medssl.losses import (
    barlow_twins,
    l1,
    masked_l1,
    masked_l2,
    masked_patches,
    nt_xent,
    nt_xent_of_products,
    products,
    swav,
    vicreg,
)
from medssl.ranks import columns, gathered, numbered, share, summed

WORLD, BATCH, FEATURES = 2, 8, 6
PATIENTS = ["p1", "p2", "p1", "p3", "p1", "p2", "p4", "p4"]  # p1 and p2 are on both ranks


def fixed(*shape: int, seed: int) -> Tensor:
    """Normal numbers, the same in every process."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


IMAGES, MASK = fixed(2, BATCH, 5, seed=0), fixed(BATCH, FEATURES, seed=1) > 0
MASK[5:] = False  # the second rank has far fewer masked elements
FIRST_HALF = torch.arange(BATCH)[:, None].expand(BATCH, FEATURES) < BATCH // WORLD  # the second rank has none
PROTOTYPES, QUEUE = normalize(fixed(4, FEATURES, seed=2)), normalize(fixed(5, FEATURES, seed=3))


def network() -> nn.Module:
    """A small projector with fixed weights."""
    layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, FEATURES)).double()
    for seed, weights in enumerate(layers.parameters()):
        weights.data = fixed(*weights.shape, seed=10 + seed)
    return layers


def groups(rows: slice) -> Tensor:
    """The patients of all ranks."""
    return gathered(numbered(PATIENTS[rows]))


def cosines(x: Tensor) -> Tensor:
    """Scores of the rows of all ranks."""
    return normalize(gathered(x)) @ PROTOTYPES.T


def masked_share(loss: Callable[[Tensor, Tensor, Tensor], Tensor], mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A masked mean, weighted by this rank's part of the mask."""
    return loss(a, b.detach(), mask) * share(mask.sum())


LOSSES: dict[str, Callable[[Tensor, Tensor, slice], Tensor]] = {
    "l1": lambda a, b, _: l1(a, b),
    "nt_xent": lambda a, b, _: nt_xent(gathered(a), gathered(b), 0.2),
    "nt_xent, columns": lambda a, b, _: nt_xent_of_products(summed(products(torch.cat([columns(a), columns(b)]))), 0.2),
    "nt_xent, groups": lambda a, b, rows: nt_xent(gathered(a), gathered(b), 0.2, groups(rows)),
    "barlow_twins": lambda a, b, _: barlow_twins(gathered(a), gathered(b)),
    "vicreg": lambda a, b, _: vicreg(gathered(a), gathered(b)),
    "swav": lambda a, b, _: swav([cosines(a), cosines(b), cosines(a * b)], queue_scores=[QUEUE @ PROTOTYPES.T] * 2),
    "masked_l1": lambda a, b, rows: masked_share(masked_l1, MASK[rows], a, b),
    "masked_l2": lambda a, b, rows: masked_share(masked_l2, MASK[rows], a, b),
    "masked_l2, a rank with nothing": lambda a, b, rows: masked_share(masked_l2, FIRST_HALF[rows], a, b),
    "masked_patches": lambda a, b, rows: masked_share(
        lambda p, t, m: masked_patches(p.view(len(p), 2, 3), t.view(len(t), 2, 3), m), MASK[rows, ::3], a, b
    ),
}


def step(name: str, model: nn.Module, rows: slice) -> dict[str, Any]:
    """The loss of these rows and the gradient of all weights."""
    model.zero_grad()
    a, b = model(IMAGES[:, rows].flatten(0, 1)).chunk(2)
    loss = LOSSES[name](a, b, rows)
    loss.backward()
    return {"loss": loss.item(), "gradient": torch.cat([weights.grad.flatten() for weights in model.parameters()])}  # type: ignore[union-attr]


def one_rank(rank: int, folder: str) -> None:
    """What each process does: all losses on its half of the batch, and gathers of other types."""
    where = {"init_method": f"file://{folder}/rendezvous", "timeout": timedelta(seconds=60)}
    distributed.init_process_group("gloo", rank=rank, world_size=WORLD, **where)
    rows = slice(rank * BATCH // WORLD, (rank + 1) * BATCH // WORLD)
    found: dict[str, Any] = {name: step(name, DistributedDataParallel(network()), rows) for name in LOSSES}
    counted = torch.full((2, 3), 10 * rank)
    uneven = torch.arange(15).view(3, 5) + 100 * rank
    found["columns"] = [columns(kind).tolist() for kind in (uneven, uneven.bfloat16())]
    found["types"] = [gathered(kind).tolist() for kind in (counted, counted.bfloat16().T, counted > 5)]
    sent = torch.tensor([1.0, 2.0], requires_grad=True)
    (gathered(sent) * torch.tensor([1.0, 2.0, 3.0, 4.0]) * (rank + 1)).sum().backward()  # ranks that weigh it differently
    found["received"] = sent.grad.tolist() if sent.grad is not None else None
    found["share"] = share(torch.tensor(0)).item()
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.start_processes(one_rank, (str(folder),), nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_have_the_gradient_and_the_loss_of_one_process(name: str, ranks: list[dict[str, Any]]) -> None:
    expected = step(name, network(), slice(0, BATCH))
    assert expected["gradient"].abs().max() > 1e-3
    for found in ranks:
        torch.testing.assert_close(found[name]["gradient"], expected["gradient"], rtol=1e-7, atol=1e-12)
    mean = sum(found[name]["loss"] for found in ranks) / WORLD
    assert mean == pytest.approx(expected["loss"], rel=1e-7)


def test_a_gather_keeps_types_and_order_and_sums_what_comes_back(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        whole, half, truth = found["types"]
        assert whole == 2 * [[0] * 3] + 2 * [[10] * 3]
        assert half == 3 * [[0.0] * 2] + 3 * [[10.0] * 2]
        assert truth == 2 * [[False] * 3] + 2 * [[True] * 3]
        assert found["share"] == 1
    assert [found["received"] for found in ranks] == [[3.0, 6.0], [9.0, 12.0]]


def test_one_process_gathers_nothing() -> None:
    rows = torch.ones(3, 2)
    assert gathered(rows) is rows
    assert share(torch.tensor(5)).item() == share(torch.tensor(0)).item() == 1


def test_names_have_numbers_of_their_own() -> None:
    numbers = numbered(PATIENTS)
    assert [[x == y for y in PATIENTS] for x in PATIENTS] == (numbers == numbers[:, None]).tolist()
    assert numbered(["p1"]).item() == -7940245846511773976


def test_a_rank_takes_its_share_of_the_columns_of_all_rows(ranks: list[dict[str, Any]]) -> None:
    rows = torch.cat([torch.arange(15).view(3, 5) + 100 * rank for rank in range(WORLD)])
    shares = torch.nn.functional.pad(rows, (0, 1)).chunk(WORLD, 1)
    for share_of_one, found in zip(shares, ranks, strict=True):
        whole, half = found["columns"]
        assert whole == share_of_one.tolist()
        assert half == share_of_one.bfloat16().tolist()
