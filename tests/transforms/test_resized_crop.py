"""Random resized crops: the law of the boxes, and the resizing against sums written out cell by cell."""

import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from transforms.resized_crop import CropBox, CropLaw, resize, resized_crop
from transforms.seeding import random_state

SHAPES = [(2, 20, 17), (3, 9, 14, 11)]


def image(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def triangle_weights(n: int, size: int) -> np.ndarray:
    """What each of ``n`` voxels gives to each of ``size``: the triangle of linear interpolation, as wide as it must be."""
    width = max(n / size, 1)
    rows = []
    for k in range(size):
        centre = (k + 0.5) * n / size
        row = [max(0.0, 1 - abs(i + 0.5 - centre) / width) for i in range(n)]
        rows.append([weight / sum(row) for weight in row])
    return np.array(rows)


def slow(x: Tensor, box: CropBox, size: tuple[int, ...]) -> Tensor:
    """The resized crop voxel by voxel from an explicit list of sources: mirrored places are read backwards."""
    axes = []
    for first, last, flip, wanted in zip(box.start, box.stop, box.flips, size, strict=True):
        sources = list(range(first, last))[:: -1 if flip else 1]
        axes.append((sources, triangle_weights(len(sources), wanted)))
    out = np.zeros((len(x), *size))
    for place in product(*map(range, size)):
        block = x.numpy()[np.ix_(range(len(x)), *[sources for sources, _ in axes])]
        for (_, weights), k in zip(reversed(axes), reversed(place), strict=True):
            block = block @ weights[k]
        out[(slice(None), *place)] = block
    return torch.from_numpy(out)


@pytest.mark.parametrize(
    ("shape", "start", "stop", "size"),
    [
        ((2, 20, 17), (3, 2), (15, 17), (7, 25)),
        ((1, 20, 17), (0, 0), (20, 17), (6, 5)),
        ((2, 9, 14, 11), (1, 2, 3), (9, 13, 10), (5, 16, 7)),
        ((1, 9, 14, 11), (0, 1, 0), (3, 14, 11), (8, 4, 11)),
    ],
)
def test_crop_flip_and_resize_equal_the_sum_over_sources(
    shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...], size: tuple[int, ...]
) -> None:
    x = image(shape)
    kept = x.clone()
    for flips in product([False, True], repeat=len(size)):
        box = CropBox(start, stop, flips)
        torch.testing.assert_close(resized_crop(x, box, size), slow(x, box, size), rtol=0, atol=1e-12)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_whole_at_its_own_size_is_exact_and_a_constant_stays(shape: tuple[int, ...]) -> None:
    x = image(shape).float()
    spatial = shape[1:]
    whole = CropLaw(scale=(1, 1), flip_prob=0.0).draw(random_state(0), spatial, spatial)
    same = resized_crop(x, whole, spatial)
    assert torch.equal(same, x)
    assert same.data_ptr() != x.data_ptr()
    inner = CropBox((1,) * len(spatial), tuple(n - 1 for n in spatial), (False,) * len(spatial))
    part = resized_crop(x, inner, [n - 2 for n in spatial])  # a part without any resizing is no view of the image either
    assert part.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert part.is_contiguous()
    for size in (5, 40):
        torch.testing.assert_close(
            resize(torch.full(shape, 0.3), [size] * len(spatial)), torch.full((shape[0], *[size] * len(spatial)), 0.3)
        )


def test_a_volume_of_equal_slices_is_resized_like_a_slice() -> None:
    x = image((2, 21, 16))
    volume = x[:, None].expand(-1, 10, -1, -1)
    flat = resized_crop(x, CropBox((2, 1), (19, 13), (True, False)), (9, 20))
    deep = resized_crop(volume, CropBox((3, 2, 1), (8, 19, 13), (True, True, False)), (13, 9, 20))
    torch.testing.assert_close(deep, flat[:, None].expand(-1, 13, -1, -1))


def test_shrinking_does_not_fold_what_is_too_fine() -> None:
    stripes = (torch.arange(96) % 2).float().expand(1, 96, 96)
    thin = resize(stripes, (96, 40))
    folded = functional.interpolate(stripes[None], (96, 40), mode="bilinear")[0]
    assert (thin[..., 2:-2] - 0.5).abs().max() < 0.1  # the mean of the stripes
    assert (folded - 0.5).abs().max() > 0.3
    assert resize(torch.ones(1, 8, 8, dtype=torch.uint8), (4, 4)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"found shape \[1, 8\]"):
        resize(torch.ones(1, 8), (4,))


@pytest.mark.parametrize(
    ("shape", "size"), [((200, 200), (64, 64)), ((100, 100, 100), (32, 32, 32)), ((90, 120, 60), (45, 60, 30))]
)
def test_shares_ratios_and_places_follow_the_law(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    law, rng = CropLaw(scale=(0.1, 0.4), flip_prob=(0.2, *[0.7] * (len(shape) - 1))), random_state(3)
    boxes = [law.draw(rng, shape, size) for _ in range(1500)]
    start, stop = (np.array([getattr(box, name) for box in boxes]) for name in ("start", "stop"))
    assert (start >= 0).all()
    assert (stop <= shape).all()
    sides = stop - start
    shares = sides.prod(1) / math.prod(shape)
    rounding = 1.05
    assert 0.1 / rounding < shares.min() < 0.11
    assert 0.38 < shares.max() < 0.4 * rounding
    assert np.abs(np.sort(shares) - np.linspace(0.1, 0.4, len(shares))).max() < 0.03  # uniform
    zooms = sides / np.array(size)
    for a, b in combinations(range(len(shape)), 2):
        logs = np.log(zooms[:, b] / zooms[:, a])
        assert np.abs(logs).max() < math.log(4 / 3 * rounding)
        assert abs(logs.mean()) < 0.02
        if len(shape) == 2:
            assert np.abs(np.sort(logs) - np.linspace(-1, 1, len(logs)) * math.log(4 / 3)).max() < 0.04
    room = np.array(shape) - sides
    places = np.sort((start + 0.5) / (room + 1), axis=0)
    assert np.abs(places - np.linspace(0, 1, len(places))[:, None]).max() < 0.06
    flips = np.mean([box.flips for box in boxes], axis=0)
    assert np.abs(flips - [0.2, *[0.7] * (len(shape) - 1)]).max() < 0.05


def test_every_place_is_as_likely() -> None:
    law, rng = CropLaw(scale=(0.25, 0.25), ratio=(1, 1)), random_state(2)  # a box of 4 x 6 in 8 x 12: 5 x 7 places
    starts = np.array([law.draw(rng, (8, 12), (8, 12)).start for _ in range(3500)])
    counts = np.bincount(starts @ [7, 1], minlength=35)
    assert len(counts) == 35
    assert ((counts - 100) ** 2 / 100).sum() < 65  # chi-squared of 34 degrees of freedom, p = 0.001


@pytest.mark.parametrize(("shape", "mean"), [((224, 224), 0.532), ((96, 96, 96), 0.48)])
def test_shares_are_those_of_the_published_rejection(shape: tuple[int, ...], mean: float) -> None:
    """In 2D the mean of the published loop, which rounds before it compares, is 0.539."""
    rng, law = random_state(0), CropLaw()
    boxes = [law.draw(rng, shape, shape) for _ in range(3000)]
    shares = np.array([np.subtract(box.stop, box.start).prod() for box in boxes]) / math.prod(shape)
    assert shares.mean() == pytest.approx(mean, abs=0.015)


def test_a_box_that_never_fits_is_the_largest_without_stretch() -> None:
    whole = CropLaw(scale=(1, 1))
    for shape, size, sides in [
        ((30, 60), (8, 8), (30, 30)),
        ((30, 60), (10, 20), (30, 60)),
        ((20, 40, 10), (5, 5, 5), (10, 10, 10)),
    ]:
        for seed in range(200):
            box = whole.draw(random_state(seed), shape, size)
            assert tuple(b - a for a, b in zip(box.start, box.stop, strict=True)) == sides


def test_wrong_ranges_are_refused() -> None:
    for name, wrong in [
        ("scale", (0, 1)),
        ("scale", (0.5, 0.2)),
        ("scale", (0.5, 1.1)),
        ("ratio", (1.1, 2)),
        ("flip_prob", 1.2),
    ]:
        with pytest.raises(ValueError, match=f"{name}: expected"):
            CropLaw(**{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flip_prob: expected one number or 3"):
        CropLaw(flip_prob=(0.5, 0.5)).draw(random_state(0), (8, 8, 8), (8, 8, 8))
