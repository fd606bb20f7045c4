"""Crops of a volume: inside it, around the foreground, padded where it ends."""

import numpy as np
import pytest
import torch
from monai.transforms import SpatialPad

from transforms.crop import foreground_start, pad_to, random_start

GENERATORS = [np.random.default_rng(0), np.random.RandomState(0)]


@pytest.mark.parametrize("random", GENERATORS, ids=["Generator", "RandomState"])
@pytest.mark.parametrize(("shape", "size"), [((9, 8), (4, 5)), ((6, 7, 5), (3, 7, 2)), ((3, 20), (8, 8)), ((1, 1), (1, 1))])
def test_crops_around_every_voxel_lie_inside_and_hold_it(
    shape: tuple[int, ...], size: tuple[int, ...], random: np.random.Generator
) -> None:
    for voxel in np.ndindex(*shape):
        start = foreground_start(np.array([voxel], dtype=np.int16), shape, size, random)
        stop = np.minimum(start + size, shape)
        assert (start >= 0).all()
        assert (stop - start == np.minimum(size, shape)).all()
        assert ((start <= voxel) & (voxel < stop)).all()
        centred = np.subtract(voxel, np.floor_divide(size, 2))
        free = (centred >= 0) & (centred + size <= shape)
        assert (start == centred)[free].all()


@pytest.mark.parametrize("random", GENERATORS, ids=["Generator", "RandomState"])
def test_every_foreground_voxel_and_every_start_is_drawn(random: np.random.Generator) -> None:
    voxels = np.array([[5, 5], [6, 9], [9, 4]])
    drawn = {tuple(foreground_start(voxels, (20, 20), (4, 4), random)) for _ in range(200)}
    assert drawn == {(3, 3), (4, 7), (7, 2)}
    starts = {tuple(foreground_start(voxels[:0], (4, 3), (3, 5), random)) for _ in range(100)}
    assert starts == {(0, 0), (1, 0)}
    assert {int(random_start((5,), (2,), random)[0]) for _ in range(200)} == {0, 1, 2, 3}


def test_padding_is_where_monai_puts_it() -> None:
    x = torch.arange(2 * 5 * 7).reshape(2, 5, 7)
    part = x[:, 2:6, 4:8]  # (2, 3, 3): the volume ends there
    padded = pad_to(part, (4, 4), value=-1)
    assert padded.shape == (2, 4, 4)
    assert torch.equal(padded, torch.as_tensor(SpatialPad((4, 4), value=-1)(part)).to(x.dtype))
    assert pad_to(x, (3, 7)) is x
