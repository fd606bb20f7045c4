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
from transforms.memory import Recycled
from transforms.seeding import Chain
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
    with pytest.raises(ValueError, match="outpaint_share"):
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
    for views in (Viewsd(RandInPaintd("image", prob=0.0)), recon_contrast_views(**SMALL)):
        out = views({"image": x})
        assert len({out[key].data_ptr() for key in ("image", "view_0", "view_1")}) == 3


def test_arrays_metatensors_and_pickling() -> None:
    x = CROPS[0]
    views = Compose([recon_contrast_views(**SMALL)]).set_random_state(seed=5)
    thawed = pickle.loads(pickle.dumps(views))
    expected = views({"image": x.numpy()})
    assert torch.equal(thawed({"image": MetaTensor(x)})["view_1"].as_tensor(), expected["view_1"])
    assert torch.equal(expected["image"], x)


def test_memory_is_used_again_but_never_while_a_tensor_holds_it() -> None:
    x, memory = CROPS[0], Recycled(limit=2)
    first = memory.empty_like(x).copy_(x)
    place, part = first.data_ptr(), first[0, 3:5].numpy()
    del first
    second = memory.empty_like(x).zero_()  # a slice of the first, as an array, still holds its memory
    assert second.data_ptr() != place
    assert np.array_equal(part, x[0, 3:5])
    del part
    assert memory.empty_like(x).data_ptr() == place
    several = [memory.empty_like(x) for _ in range(5)]
    assert len({tensor.data_ptr() for tensor in several}) == 5
    del several
    assert len(memory.free) == 2
    assert memory.empty_like(CROPS[1].half()).shape == CROPS[1].shape


def test_views_that_are_kept_stay_as_they_are() -> None:
    views = recon_contrast_views(**SMALL)
    kept = [views.set_random_state(seed=k)({"image": CROPS[0]})["view_1"] for k in range(20)]
    copies = [view.clone() for view in kept]
    del kept[::2]
    for k in range(20):
        views.set_random_state(seed=100 + k)({"image": CROPS[0]})
    assert all(torch.equal(a, b) for a, b in zip(kept, copies[1::2], strict=True))


def test_a_chain_is_fixed_by_its_seed() -> None:
    x = CROPS[0]
    inner = [RandInPaintd("image", min_size=2, max_size=5), RandShiftIntensityd("image", 1.0, prob=0.5)]
    chain = Chain([*inner, Compose([RandShiftIntensityd("image", 0.5, prob=1.0)])])
    runs = []
    for calls_before in (0, 3):
        for _ in range(calls_before):
            chain({"image": x})
        chain.set_random_state(seed=8)
        runs.append([chain({"image": x})["image"] for _ in range(3)])
    for a, b in zip(*runs, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    assert not torch.equal(torch.as_tensor(runs[0][0]), torch.as_tensor(runs[0][1]))


def test_seeding_costs_microseconds() -> None:
    views = recon_contrast_views()
    seconds = []
    for seed in range(200):
        start = time.perf_counter()
        views.set_random_state(seed=seed + 2**40)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 100e-6  # MONAI's own OneOf and its parts: some 900
