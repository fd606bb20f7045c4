"""Compositions: views of a crop, and random states that are seeded again for every sample."""

import pickle
import time
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, OneOf, RandCoarseDropoutd, RandCoarseShuffled, RandShiftIntensityd

from transforms.corrupt import RandInPaintd
from transforms.seeding import Chain, Choice
from transforms.views import Viewsd, recon_contrast_views

SMALL: dict[str, Any] = {
    "inpaint_min_size": 3, "inpaint_max_size": 8, "outpaint_min_size": 8, "outpaint_max_size": 16, "shuffle_size": 4,
}  # fmt: skip
CROPS = [torch.rand(shape, generator=torch.Generator().manual_seed(1)) for shape in [(1, 24, 24, 24), (3, 32, 20)]]


@pytest.mark.parametrize("x", CROPS, ids=["3d", "2d"])
def test_views_differ_the_crop_stays_and_the_seed_replays(x: torch.Tensor) -> None:
    views, kept = recon_contrast_views(**SMALL), x.clone()
    first = views.set_random_state(seed=3)({"image": x, "id": "a"})
    other = views({"image": x})
    again = views.set_random_state(seed=3)({"image": x})
    assert list(first) == ["image", "id", "view_0", "view_1"]
    assert first["image"] is x
    assert torch.equal(x, kept)
    assert torch.equal(first["view_0"], again["view_0"])
    assert torch.equal(first["view_1"], again["view_1"])
    for a, b in [(first["view_0"], first["view_1"]), (first["view_0"], x), (first["view_0"], other["view_0"])]:
        assert not torch.equal(a, b)


def test_a_view_depends_on_the_seed_and_its_number_alone() -> None:
    x = CROPS[0]
    two, four = (recon_contrast_views(views=n, **SMALL).set_random_state(seed=9)({"image": x}) for n in (2, 4))
    assert torch.equal(two["view_0"], four["view_0"])
    assert torch.equal(two["view_1"], four["view_1"])
    assert len({float(four[f"view_{k}"].sum()) for k in range(4)}) == 4


def test_limits_of_the_noise_are_those_of_each_crop() -> None:
    views = recon_contrast_views(outpaint_share=1.0, shuffle_prob=0.0, **SMALL)
    for scale in (1.0, 50.0, 0.1):
        x = CROPS[0] * scale
        view = views({"image": x})["view_0"]
        assert x.min() <= view.min() <= view.max() <= x.max()
        assert view.max() > 0.99 * x.max()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_out_painting(share: float) -> None:
    x = CROPS[0]
    views = recon_contrast_views(outpaint_share=share, shuffle_prob=0.0, growing=False, **SMALL).set_random_state(seed=0)
    changed = np.array([float((views({"image": x})["view_0"] != x).float().mean()) for _ in range(200)])
    assert abs((changed > 0.3).mean() - share) < 0.12  # six boxes of at most 8^3 are at most 22% of 24^3
    with pytest.raises(ValueError, match="weights"):
        recon_contrast_views(outpaint_share=1.5)


def test_views_of_transforms_that_write_into_their_input() -> None:
    x = CROPS[0]
    kept = x.clone()
    dropout = RandCoarseDropoutd("image", holes=3, spatial_size=6, prob=1.0)
    corrupt = Compose([OneOf([dropout, dropout]), RandCoarseShuffled("image", holes=2, spatial_size=4, prob=1.0)])
    views = Viewsd(corrupt).set_random_state(seed=2)
    first = views({"image": x})
    again = views.set_random_state(seed=2)({"image": x})
    assert torch.equal(x, kept)
    assert not torch.equal(first["view_0"], first["view_1"])
    assert torch.equal(first["view_1"], again["view_1"])


def test_a_view_never_shares_memory_with_the_crop() -> None:
    x = CROPS[0].clone()
    for copy in (True, False):
        out = Viewsd(RandInPaintd("image", prob=0.0), copy=copy)({"image": x})
        assert torch.equal(out["view_0"], x)
        assert len({out[key].data_ptr() for key in ("image", "view_0", "view_1")}) == 3


def test_arrays_metatensors_and_pickling() -> None:
    x = CROPS[0]
    views = Compose([recon_contrast_views(**SMALL)]).set_random_state(seed=5)
    thawed = pickle.loads(pickle.dumps(views))
    expected = views({"image": x.numpy()})
    assert torch.equal(thawed({"image": MetaTensor(x)})["view_1"].as_tensor(), expected["view_1"])
    assert torch.equal(expected["image"], x)


def test_a_chain_and_a_choice_are_fixed_by_their_seed() -> None:
    x = CROPS[0]
    inner = Choice([RandInPaintd("image", min_size=2, max_size=5), RandShiftIntensityd("image", 1.0, prob=1.0)], [1, 3])
    chain = Chain([inner, Compose([RandShiftIntensityd("image", 0.5, prob=1.0)])])
    runs = []
    for calls_before in (0, 3):
        for _ in range(calls_before):
            chain({"image": x})
        chain.set_random_state(seed=8)
        runs.append([chain({"image": x})["image"] for _ in range(3)])
    for a, b in zip(*runs, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    drawn = []
    for _ in range(400):
        inner.randomize()
        drawn.append(inner.chosen)
    assert 0.65 < np.mean(drawn) < 0.85
    never = Choice([RandInPaintd("image"), RandInPaintd("image")], [1, 0])
    assert not any(never.randomize() or never.chosen for _ in range(200))


def test_seeding_costs_microseconds() -> None:
    views = recon_contrast_views()
    seconds = []
    for seed in range(200):
        start = time.perf_counter()
        views.set_random_state(seed=seed + 2**40)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 100e-6  # MONAI's own OneOf and its parts: some 900
