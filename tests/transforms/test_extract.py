"""The brain of a phantom head, and the operations on masks against SciPy's."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from torch import Tensor

from transforms.extract import (
    MaskBackgroundd,
    brain_mask,
    components,
    dilate,
    erode,
    fill_holes,
    largest_component,
    otsu_threshold,
)


def head(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A bright brain with dark ventricles, dark skull, brighter scalp, noise, and a bridge from brain to scalp; the brain."""
    grid = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = sum((axis / scale) ** 2 for axis, scale in zip(grid, (0.95, 0.85, 0.9), strict=False)) ** 0.5  # type: ignore[operator]
    brain = radius < 0.72
    image = 0.6 * brain + 1.0 * ((radius > 0.85) & (radius < 0.98))
    image[radius < 0.15] = 0.05  # type: ignore[operator]
    bridge = (grid[0].abs() < 0.03) & (grid[1] > 0) & (radius > 0.72) & (radius < 0.9)
    image[bridge] = 0.6
    image = image + 0.03 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return image[None].float(), brain[None]


def blobs(shape: tuple[int, ...], seed: int, share: float) -> Tensor:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1)
    return torch.from_numpy(smooth > np.quantile(smooth, 1 - share))[None]


@pytest.mark.parametrize("shape", [(160, 140), (64, 72, 60)])
def test_the_brain_of_a_phantom(shape: tuple[int, ...]) -> None:
    image, brain = head(shape)
    mask = brain_mask(image)
    assert mask.shape == (1, *shape)
    assert mask.dtype == torch.bool
    assert 2 * float((mask & brain).sum()) / float(mask.sum() + brain.sum()) > 0.95
    assert torch.equal(brain_mask(image * 300 + 20), mask)  # whatever the unit
    out = MaskBackgroundd(["image", "other"])({"image": MetaTensor(image), "other": torch.cat([image, image + 1])})
    assert isinstance(out["image"], MetaTensor)
    assert torch.equal(out["image"].as_tensor(), torch.where(mask, image, image.min()))
    assert (out["other"][1][~mask[0]] == image.min() + 1).all()
    assert float(image[~mask].max()) > 0.9  # the input still has its scalp


@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("shape", [(60, 50), (22, 25, 24)])
def test_pieces_and_holes_equal_those_of_scipy(shape: tuple[int, ...], share: float) -> None:
    for seed in range(4):
        mask = blobs(shape, seed, share)
        theirs, count = ndimage.label(mask[0].numpy())
        ours = components(mask)[0].numpy()
        assert len({*zip(ours[theirs > 0].tolist(), theirs[theirs > 0].tolist(), strict=True)}) == count > 1
        assert len(np.unique(ours[theirs > 0])) == count
        sizes = np.bincount(theirs.ravel())[1:]
        assert int(largest_component(mask).sum()) == sizes.max()
        assert torch.equal(fill_holes(mask)[0], torch.from_numpy(ndimage.binary_fill_holes(mask[0].numpy())))
    spiral = torch.zeros(1, 41, 41, dtype=torch.bool)  # a long way from end to end
    spiral[0, ::2] = True
    spiral[0, 1::4, -1] = spiral[0, 3::4, 0] = True
    assert len(components(spiral)[spiral].unique()) == 1


@pytest.mark.parametrize("shape", [(21, 25), (17, 19, 15)])
def test_growing_and_shrinking(shape: tuple[int, ...]) -> None:
    mask = blobs(shape, 3, 0.2)
    dims = len(shape)
    cross, cube = ndimage.generate_binary_structure(dims, 1), ndimage.generate_binary_structure(dims, dims)
    grown = ndimage.binary_dilation(ndimage.binary_dilation(mask[0].numpy(), cross), cube)
    assert torch.equal(dilate(mask, [2] * dims)[0], torch.from_numpy(grown))
    assert torch.equal(erode(~mask, [2] * dims), ~dilate(mask, [2] * dims))
    assert torch.equal(dilate(mask, [0] * dims), mask)
    along = dilate(mask, [0] * (dims - 1) + [1])[0].numpy()
    line = np.ones([1] * (dims - 1) + [3])
    assert np.array_equal(along, ndimage.binary_dilation(mask[0].numpy(), line))


def test_threshold_between_two_heaps_and_images_without_contrast() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(4000, generator=generator) * 0.05 + 0.2, torch.randn(1000, generator=generator) * 0.05 + 0.9])
    assert 0.35 < otsu_threshold(x) < 0.75
    assert brain_mask(torch.full((1, 12, 12), 0.4)).all()
    assert torch.equal(MaskBackgroundd("image")({"image": torch.zeros(2, 8, 8, 8)})["image"], torch.zeros(2, 8, 8, 8))
    with pytest.raises(ValueError, match="radius: expected one number or 2"):
        brain_mask(head((60, 60))[0], (1, 2, 3))
