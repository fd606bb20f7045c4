"""The corruptions, each alone: where they write, what they write, and that they can be replayed."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandCoarseDropoutd
from torch import Tensor

from transforms.corrupt import (
    BoxLaw,
    RandInPaintd,
    RandOutPaintd,
    RandPixelShuffled,
    in_paint,
    limits_of,
    out_paint,
    shuffle_boxes,
    uniform_noise,
)
from transforms.seeding import random_state

SHAPES = [(1, 40, 40), (3, 31, 50), (1, 24, 24, 24), (2, 40, 17, 28)]
TRANSFORMS = [RandInPaintd, RandOutPaintd, RandPixelShuffled]
FUNCTIONS = [in_paint, out_paint, shuffle_boxes]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def crop(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """All voxels different, in -3..5."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 8 - 3


def inside(shape: tuple[int, ...], boxes: np.ndarray) -> Tensor:
    """Which voxels lie in a box, voxel by voxel: slow and plain."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape[1:]), indexing="ij"), axis=-1)
    mask = np.zeros(shape[1:], bool)
    for start, stop in boxes:
        mask |= ((grid >= start) & (grid < stop)).all(-1)
    return torch.from_numpy(mask).expand(shape)


@pytest.mark.parametrize("growing", [False, True])
def test_boxes_lie_inside_and_reach_every_size_and_border(growing: bool) -> None:
    shape, low, high = (20, 9, 40), (3, 5, 2), (6, 12, 4)  # the second axis is shorter than the largest box
    boxes = np.concatenate([BoxLaw(4, low, high, growing).draw(random_state(k), shape) for k in range(400)])
    sides = boxes[:, 1] - boxes[:, 0]
    for axis in range(3):
        assert set(sides[:, axis]) == set(range(low[axis], min(high[axis], shape[axis]) + 1))
    assert (boxes[:, 0].min(0) == 0).all()
    assert (boxes[:, 1].max(0) == shape).all()
    grown = np.diff(sides.reshape(400, 4, 3), axis=1)
    assert (grown >= 0).all() == growing


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_painting_changes_the_voxels_of_the_boxes_or_all_others(shape: tuple[int, ...], device: str) -> None:
    x = crop(shape).to(device)
    boxes = BoxLaw(3, 4, 14).draw(random_state(1), shape[1:])
    mask = inside(shape, boxes).to(device)
    assert torch.equal(in_paint(x, boxes, 5) != x, mask)
    assert torch.equal(out_paint(x, boxes, 5) == x, mask)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shuffling_keeps_the_values_of_every_box_and_channel(shape: tuple[int, ...], device: str) -> None:
    x = crop(shape).to(device)
    box = np.array([[[3] * len(shape[1:]), [11] * len(shape[1:])]])
    region = (slice(None), *[slice(3, 11)] * len(shape[1:]))
    y = shuffle_boxes(x, box, 5)
    before, after = x[region].flatten(1), y[region].flatten(1)
    assert torch.equal(before.sort(1).values, after.sort(1).values)
    assert (before != after).float().mean() > 0.9
    assert torch.equal((x == y) | inside(shape, box).to(device), torch.ones_like(x, dtype=torch.bool))
    if shape[0] > 1:  # every channel has an order of its own
        orders = [[before[k].tolist().index(value) for value in after[k].tolist()] for k in range(2)]
        assert orders[0] != orders[1]


def test_overlapping_boxes_are_shuffled_one_after_the_other() -> None:
    x = crop((1, 16, 16))
    boxes = np.array([[[0, 0], [8, 8]], [[0, 0], [16, 16]]])
    y = shuffle_boxes(x, boxes, 1)
    assert torch.equal(x.flatten().sort().values, y.flatten().sort().values)
    assert (x != y).float().mean() > 0.95


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int16, torch.uint8])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_type_stays_and_keeps_to_the_range(function: Callable[..., Tensor], dtype: torch.dtype, device: str) -> None:
    x = (crop((1, 20, 20, 20)) * 20 + 100).to(dtype).to(device)
    y = function(x, BoxLaw(4, 5, 12).draw(random_state(2), x.shape[1:]), 3)
    assert y.dtype == dtype
    assert y.device == x.device
    assert y.min() >= x.min()
    assert y.max() <= x.max()


def test_noise_is_uniform_over_the_range_of_the_crop() -> None:
    x = crop((1, 8, 8))
    noise = uniform_noise(torch.empty(200_001), limits_of(x), 7).double()
    share = (noise.sort().values - x.min()) / (x.max() - x.min())
    even = torch.linspace(0, 1, len(share), dtype=torch.float64)
    assert (share - even).abs().max() < 1.95 / len(share) ** 0.5  # Kolmogorov-Smirnov, p = 0.001
    neighbours = torch.corrcoef(torch.stack([noise[:-1], noise[1:]]))[0, 1]
    assert abs(neighbours) < 4 / len(share) ** 0.5


def test_noise_stays_inside_a_range_that_rounding_could_leave() -> None:
    x = torch.tensor([[1000.0, 1000.0003]])
    noise = uniform_noise(torch.empty(50_000), limits_of(x), 1)
    assert x.min() <= noise.min() <= noise.max() <= x.max()
    assert torch.equal(uniform_noise(torch.empty(9), (7.0, 7.0), 1), torch.full((9,), 7.0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_input_is_untouched_and_the_seed_replays(transform: Any, shape: tuple[int, ...]) -> None:
    corrupt = transform("image", prob=1.0, min_size=3, max_size=9)
    x = crop(shape)
    kept = x.clone()
    data = {"image": x, "other": 1}
    first = corrupt.set_random_state(seed=4)(data)
    second = corrupt(data)
    again = corrupt.set_random_state(seed=4)(data)
    assert torch.equal(x, kept)
    assert data["image"] is x
    assert set(first) == {"image", "other"}
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], second["image"])
    assert not torch.equal(first["image"], x)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_in_a_compose_with_arrays_metatensors_and_pickling(transform: Any) -> None:
    x = crop((1, 24, 24, 24))
    chain = Compose([transform("image", prob=1.0, min_size=3, max_size=9)]).set_random_state(seed=1)
    thawed = pickle.loads(pickle.dumps(chain))
    expected = chain({"image": x})["image"]
    assert torch.equal(thawed({"image": x.numpy()})["image"], expected)
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0]))
    tracked = chain.set_random_state(seed=1)({"image": MetaTensor(x, affine=affine)})["image"]
    assert isinstance(tracked, MetaTensor)
    assert torch.equal(tracked.affine, affine.to(tracked.affine))
    assert torch.equal(tracked.as_tensor(), expected)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_probability_and_keys(transform: Any) -> None:
    x, y = crop((1, 24, 24)), crop((2, 24, 24), seed=1)
    assert transform("image", prob=0.0)({"image": x})["image"] is x
    half = transform("image", prob=0.5).set_random_state(seed=0)
    assert 60 < sum(half({"image": x})["image"] is not x for _ in range(200)) < 140
    both = transform(("image", "more"), prob=1.0, holes=2, min_size=4, max_size=9).set_random_state(seed=0)
    out = both({"image": x, "more": torch.cat([x, y])})
    assert torch.equal((out["image"] == x)[0], (out["more"][:1] == x)[0]) or transform is RandPixelShuffled  # one place
    assert not torch.equal(out["image"][0], out["more"][0])  # but noise and order of its own
    with pytest.raises(KeyError):
        both({"image": x})
    with pytest.raises(ValueError, match="equal spatial shapes"):
        both({"image": x, "more": y[:, 1:]})


def test_wrong_sizes_are_refused() -> None:
    for wrong in ({"holes": 0}, {"min_size": 0}, {"min_size": 9, "max_size": 8}, {"min_size": (1, 9), "max_size": (8, 8)}):
        with pytest.raises(ValueError, match="expected"):
            RandInPaintd("image", **wrong)
    with pytest.raises(ValueError, match="one for each spatial axis"):
        RandInPaintd("image", min_size=(2, 2), max_size=(4, 4))({"image": crop((1, 16, 16, 16))})


@pytest.mark.parametrize(("transform", "low", "high"), [(RandInPaintd, 5, 16), (RandOutPaintd, 10, 32)])
def test_grown_boxes_corrupt_as_much_as_those_of_monai(transform: Any, low: int, high: int) -> None:
    x = crop((1, 48, 48, 48))
    ours = transform("image", min_size=low, max_size=high, growing=True).set_random_state(seed=0)
    theirs = RandCoarseDropoutd(
        "image", holes=6, spatial_size=low, max_spatial_size=high, dropout_holes=transform is RandInPaintd, prob=1.0
    ).set_random_state(seed=0)
    shares = [
        np.array([float((side({"image": x.clone()})["image"] != x).float().mean()) for _ in range(150)])
        for side in (ours, theirs)
    ]
    error = np.sqrt(sum(share.var() / len(share) for share in shares))
    assert abs(shares[0].mean() - shares[1].mean()) < 4 * error
    assert shares[0].std() == pytest.approx(shares[1].std(), rel=0.4)
