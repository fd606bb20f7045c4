"""Views made of a whole batch: those of each crop alone, from the same seeds, but for the noise."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from transforms import corrupt, corrupt_batch
from transforms.in_batches import BatchViews, Drawn
from transforms.joint_views import joint_views
from transforms.masked import masked_views
from transforms.views import recon_contrast_views

BATCHES = {
    "3d": torch.rand(4, 1, 20, 17, 23, generator=torch.Generator().manual_seed(1)) - 0.3,
    "2d, channels": torch.rand(3, 3, 32, 21, generator=torch.Generator().manual_seed(2)) * 50,
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
RECON: dict[str, Any] = {  # clipped boxes, sides of their own for each axis, overlaps, fewer boxes inside than outside
    "inpaint_holes": 3, "inpaint_min_size": 3, "inpaint_max_size": 8, "outpaint_holes": 5, "outpaint_min_size": 6,
    "outpaint_max_size": 40, "shuffle_size": 5, "shuffle_prob": 0.7,
}  # fmt: skip
STILL: dict[str, Any] = dict.fromkeys(["gamma_prob", "contrast_prob", "brightness_prob", "noise_prob", "blur_prob"], 0.0)


def by_crop(views: BatchViews, images: Tensor) -> dict[str, Tensor]:
    """The views of each crop alone, stacked."""
    made = []
    for seed, image in enumerate(images):
        item = views.set_random_state(seed=seed)({"image": image})
        made.append({key: value.clone() for key, value in item.items()})
    return default_collate(made)  # type: ignore[no-any-return]


def in_batch(views: BatchViews, images: Tensor, noise: int = 0, device: str = "cpu") -> dict[str, Tensor]:
    """The same in two steps, with the pickling on the way from a loader's process."""
    draw = Drawn(views)
    items = [draw.set_random_state(seed=seed)({"image": image}) for seed, image in enumerate(images)]
    batch = default_collate(pickle.loads(pickle.dumps(items)))
    made = views.of_batch({k: v.to(device) for k, v in batch.items()}, [noise + seed for seed in range(len(images))])
    return {key: value.cpu() for key, value in made.items()}


def boxes_of(views: Any, images: Tensor) -> Tensor:
    """What is painted in each view, voxel by voxel: slow and plain (v, b, *space)."""
    hidden = torch.zeros(2, len(images), *images.shape[2:], dtype=torch.bool)
    for seed, image in enumerate(images):
        views.set_random_state(seed=seed).randomize()
        for k, corruption in enumerate(views.corruptions(image.shape[1:])):
            for start, stop in corruption.boxes:
                hidden[k, seed][tuple(map(slice, start, stop))] = True
            if corruption.paint is corrupt.out_paint:
                hidden[k, seed].logical_not_()
    return hidden


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BATCHES)
def test_without_noise_corruptions_are_those_of_each_crop_bit_for_bit(
    name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is 7 everywhere, and every permutation moves all voxels of a box by one."""

    def moved(count: Tensor, shape: tuple[int, ...], seeds: list[int]) -> Tensor:
        places = torch.arange(shape[-1], device=count.device)
        return ((torch.where(places < count, places, 0) - 1) % count).expand(shape)

    monkeypatch.setattr(corrupt, "uniform_noise", lambda out, limits, seed: out.fill_(7))
    monkeypatch.setattr(corrupt_batch, "noise_in_range", lambda x, views, seeds: x.new_full((views, *x.shape), 7))
    monkeypatch.setattr(torch, "randperm", lambda n, **words: torch.arange(n).roll(1))
    monkeypatch.setattr(corrupt_batch, "orders", moved)
    views, images = recon_contrast_views(**RECON), BATCHES[name].repeat(4, *[1] * (BATCHES[name].ndim - 1))
    expected, found = by_crop(views, images), in_batch(views, images, device=device)
    assert list(found) == ["image", "view_0", "view_1"]
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
        assert found[key].is_contiguous()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BATCHES)
def test_noise_is_uniform_in_each_crops_range_where_it_should_be(name: str, device: str) -> None:
    images = BATCHES[name] * torch.arange(1, 1 + len(BATCHES[name])).view(-1, *[1] * (BATCHES[name].ndim - 1))
    views = recon_contrast_views(**RECON | {"shuffle_prob": 0.0, "outpaint_max_size": 12})
    hidden, found = boxes_of(views, images), in_batch(views, images, device=device)
    for k, image in enumerate(images):
        for mask, view in zip(hidden[:, k], (found["view_0"][k], found["view_1"][k]), strict=True):
            assert torch.equal(view[:, ~mask], image[:, ~mask])
            noise = (view[:, mask] - image.min()) / (image.max() - image.min())
            assert 0 <= noise.min() < noise.max() <= 1
            flat = np.sort(noise.flatten().numpy())
            distance = np.abs(flat - (np.arange(len(flat)) + 0.5) / len(flat)).max()  # Kolmogorov and Smirnov's
            assert distance < 2.2 / len(flat) ** 0.5  # of uniform noise 1 in 8000 is larger
            assert len(np.unique(flat)) > 0.99 * len(flat)


def test_a_crops_noise_depends_on_its_seed_and_on_no_other_crop() -> None:
    images = BATCHES["3d"]
    for views, key in (
        (recon_contrast_views(**RECON | {"outpaint_max_size": 12}), "view_1"),
        (masked_views(max_size=9, fill="noise"), "view_0"),
        (joint_views(noise_prob=1.0, local_views=1), "view_2"),
    ):
        whole, again, other = (in_batch(views, images, noise)[key] for noise in (5, 5, 6))
        assert torch.equal(whole, again)
        assert not any(torch.equal(a, b) for a, b in zip(whole, other, strict=True))
        alone = in_batch(views, images[:2], 5)[key]
        torch.testing.assert_close(alone, whole[:2], rtol=0, atol=1e-5 if key == "view_2" else 0)  # matrix products round


@pytest.mark.parametrize("device", DEVICES)
def test_shuffled_boxes_are_permutations_each_channel_its_own(device: str) -> None:
    """Apart from each other, cut off by the border, of other sides, and empty."""
    x = torch.arange(2 * 3 * 2 * 20 * 10.0).view(2, 3, 2, 20, 10)  # two views of three crops with two channels
    boxes = torch.zeros(2, 3, 3, 2, 2, dtype=torch.int64)
    boxes[:, :2] = torch.tensor([[[2, 1], [6, 5]], [[0, 0], [0, 0]], [[13, 4], [20, 10]]])
    boxes[1, 1, 0] = torch.tensor([[8, 3], [11, 4]])
    y = corrupt_batch.shuffle(x.clone().to(device), boxes.to(device), (8, 6), [1, 2, 3]).cpu()
    moved = y != x
    for view in range(2):
        for crop in range(3):
            for channel in range(2):
                inside = torch.zeros(20, 10, dtype=torch.bool)
                for start, stop in boxes[view, crop].tolist():
                    part = tuple(map(slice, start, stop))
                    inside[part] = True
                    before, after = (z[view, crop, channel][part].flatten() for z in (x, y))
                    assert torch.equal(after.sort().values, before)
                    assert len(before) < 4 or not torch.equal(after, before)
                assert not (moved[view, crop, channel] & ~inside).any()
    assert not moved[:, 2].any()
    offsets = (y - x)[0, :2, :, 13:, 4:].reshape(4, -1)
    assert not any(torch.equal(offsets[i], offsets[j]) for i in range(4) for j in range(i))


def test_every_order_of_a_shuffled_box_is_as_likely() -> None:
    count = torch.tensor([4, 3]).view(2, 1, 1, 1, 1).expand(2, 500, 3, 1, 1)
    order = corrupt_batch.orders(count, (2, 500, 3, 2, 5), range(500))
    for view, number in enumerate((4, 3)):
        drawn = order[view, ..., :number].reshape(-1, number).tolist()
        counts = np.unique(drawn, axis=0, return_counts=True)[1]
        permutations = {4: 24, 3: 6}[number]
        assert len(counts) == permutations
        chi = ((counts - len(drawn) / permutations) ** 2 / (len(drawn) / permutations)).sum()
        assert chi < permutations - 1 + 4 * (2 * (permutations - 1)) ** 0.5
        assert (order[view, ..., number:] == order[view, ..., :1]).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fill", ["zero", "mean", "noise"])
@pytest.mark.parametrize("name", BATCHES)
def test_masked_views_of_a_batch_are_those_of_each_crop(name: str, fill: Any, device: str) -> None:
    views, images = masked_views(boxes=(1, 5), min_size=3, max_size=9, fill=fill), BATCHES[name]
    expected, found = by_crop(views, images), in_batch(views, images, device=device)
    assert list(found) == ["image", "view_0", "mask"]
    assert found["mask"].dtype == torch.bool
    assert torch.equal(found["mask"], expected["mask"])
    hidden = found["mask"].expand_as(images)
    assert torch.equal(found["view_0"][~hidden], images[~hidden])
    if fill == "noise":
        assert (found["view_0"][hidden] != images[hidden]).all()
        for view, image in zip(found["view_0"], images, strict=True):
            assert image.min() <= view.min() < view.max() <= image.max()
    else:
        torch.testing.assert_close(found["view_0"], expected["view_0"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", [{"local_views": 2}, {"size": 12, "blur_sigma": (3, 6)}, {"contrast_prob": 0.0}, STILL])
@pytest.mark.parametrize("name", BATCHES)
def test_joint_views_of_a_batch_are_those_of_each_crop(name: str, changes: dict[str, Any], device: str) -> None:
    """Cut out, resized both ways, mirrored, blurred beyond the border, changed; some crops have no change at all."""
    images = BATCHES[name].repeat(4, *[1] * (BATCHES[name].ndim - 1))
    images = 0.05 + 0.95 * (images - images.min()) / (images.max() - images.min())  # gamma magnifies rounding at 0
    views = joint_views(**{"colour": images.shape[1] == 3, "noise_prob": 0.0} | changes)
    expected, found = by_crop(views, images), in_batch(views, images, device=device)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].is_contiguous()
        torch.testing.assert_close(found[key], value, rtol=0, atol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_gaussian_noise_has_the_deviation_drawn(device: str) -> None:
    images = torch.full((6, 1, 40, 40, 40), 0.5)
    views = joint_views(**STILL | {"noise_prob": 0.7, "noise_std": 0.1, "local_views": 1})
    found = in_batch(views, images, device=device)
    for seed in range(len(images)):
        views.set_random_state(seed=seed).randomize()
        drawn = [view.change.noise_std for view in views.draw_views(images[seed])]
        noises = [(found[f"view_{k}"][seed] - 0.5).flatten() for k in range(3)]
        for std, noise in zip(drawn, noises, strict=True):
            assert float(noise.std()) == pytest.approx(std, rel=0.04, abs=1e-6)
            assert abs(float(noise.mean())) <= 4 * std / len(noise) ** 0.5 + 1e-7


def test_no_two_views_of_a_crop_have_the_same_noise() -> None:
    found = in_batch(joint_views(**STILL | {"noise_prob": 1.0, "local_views": 1}), torch.full((1, 1, 40, 40, 40), 0.5))
    noises = [(found[f"view_{k}"] - 0.5).flatten()[:8000] for k in range(3)]
    assert np.abs(np.corrcoef(noises) - np.eye(3)).max() < 0.05


def test_colour_needs_three_channels_when_drawn() -> None:
    with pytest.raises(ValueError, match="colour: found 1 channels, expected 3"):
        Drawn(joint_views(colour=True))({"image": BATCHES["3d"][0]})
