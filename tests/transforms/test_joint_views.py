"""Views of the joint-embedding methods: sizes, replay, independence, and what leaves an image as it is."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from transforms.joint_views import joint_views

CROPS = [torch.rand(shape, generator=torch.Generator().manual_seed(1)) for shape in [(1, 24, 24, 24), (2, 32, 20)]]
STILL: dict[str, Any] = dict.fromkeys(["gamma_prob", "contrast_prob", "brightness_prob", "noise_prob", "blur_prob"], 0.0)


@pytest.mark.parametrize("x", CROPS, ids=["3d", "2d"])
def test_views_differ_the_crop_stays_and_the_seed_replays(x: torch.Tensor) -> None:
    views, kept = joint_views(local_views=2), x.clone()
    first = views.set_random_state(seed=3)({"image": x, "id": "a"})
    copies = {key: first[key].clone() for key in first if key.startswith("view")}
    other = views({"image": x})
    again = views.set_random_state(seed=3)({"image": x})
    assert list(first) == ["image", "id", "view_0", "view_1", "view_2", "view_3"]
    assert first["image"] is x
    assert torch.equal(x, kept)
    half = [-(-n // 2) for n in x.shape[1:]]
    assert [list(first[f"view_{k}"].shape[1:]) for k in range(4)] == [list(x.shape[1:])] * 2 + [half] * 2
    for key, copy in copies.items():
        assert torch.equal(first[key], copy)  # memory of views that are kept is not used again
        assert torch.equal(again[key], copy)
        assert not torch.equal(other[key], copy)
        assert first[key].is_contiguous()
        assert 0 <= copy.min() < copy.max() <= 1
    assert not torch.equal(first["view_0"], first["view_1"])


def test_a_view_depends_on_the_seed_and_its_number_alone() -> None:
    x = CROPS[0]
    runs = [joint_views(views=n, local_views=m).set_random_state(seed=9)({"image": x}) for n, m in [(2, 0), (2, 3), (4, 0)]]
    assert torch.equal(runs[0]["view_0"], runs[2]["view_0"])
    assert torch.equal(runs[0]["view_1"], runs[1]["view_1"])
    assert torch.equal(runs[0]["view_1"], runs[2]["view_1"])
    assert len({float(runs[2][f"view_{k}"].sum()) for k in range(4)}) == 4


@pytest.mark.parametrize("x", CROPS, ids=["3d", "2d"])
def test_without_changes_a_view_is_the_crop_in_memory_of_its_own(x: torch.Tensor) -> None:
    out = joint_views(scale=(1, 1), flip_prob=0.0, **STILL)({"image": x})
    assert torch.equal(out["view_0"], x)
    assert torch.equal(out["view_1"], x)
    assert len({out[key].data_ptr() for key in ("image", "view_0", "view_1")}) == 3
    flipped = joint_views(scale=(1, 1), flip_prob=[*[0.0] * (x.ndim - 2), 1.0], **STILL)({"image": x})
    assert torch.equal(flipped["view_0"], x.flip(-1))


def test_views_show_as_much_of_the_crop_as_they_should() -> None:
    x = ((torch.arange(48) + 0.5) / 48).view(1, 48, 1, 1).expand(1, 48, 48, 48)  # a voxel says where it was
    views = joint_views(size=16, flip_prob=0.0, local_views=1, local_size=12, **STILL).set_random_state(seed=0)
    sides: dict[str, list[float]] = {"view_0": [], "view_1": [], "view_2": []}
    for _ in range(200):
        out = views({"image": x})
        for key, found in sides.items():
            row = out[key][0, 2:-2, 5, 5]  # without the rims, where the cells outside are missing
            found.append(float(row[-1] - row[0]) / (len(row) - 1) * len(out[key][0]))
    for key, low, high, mean in [("view_0", 0.2, 1.0, 0.48), ("view_1", 0.2, 1.0, 0.48), ("view_2", 0.05, 0.2, 0.125)]:
        shares = np.array(sides[key]) ** 3  # but for the stretch, at most a factor (4/3)**2 on a side's third power
        assert (low * 0.5 < shares).all()
        assert (shares < high * 2).all()
        assert shares.mean() == pytest.approx(mean, rel=0.15)


def test_arrays_metatensors_types_and_pickling() -> None:
    x = CROPS[0]
    views = Compose([joint_views(size=(8, 10, 12))]).set_random_state(seed=5)
    thawed = pickle.loads(pickle.dumps(views))
    expected = views({"image": x.numpy()})
    tracked = thawed({"image": MetaTensor(x)})
    assert type(tracked["view_1"]) is torch.Tensor  # its affine would no longer be true
    assert isinstance(tracked["image"], MetaTensor)
    assert torch.equal(tracked["view_1"], expected["view_1"])
    assert expected["view_1"].shape == (1, 8, 10, 12)
    assert joint_views()({"image": (x * 200).to(torch.uint8)})["view_0"].dtype == torch.float32


def test_colour_needs_three_channels_and_changes_them_together() -> None:
    x = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    grey = joint_views(colour=True, grey_prob=1.0, **STILL)({"image": x})["view_0"]
    assert torch.equal(grey[0], grey[1])
    assert not torch.equal(joint_views(**STILL)({"image": x})["view_0"][0], x[1])
    with pytest.raises(ValueError, match="colour: found 1 channels, expected 3"):
        joint_views(colour=True)({"image": x[:1]})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"views": 0}, "views"),
        ({"local_views": -1}, "local_views"),
        ({"size": 0}, "size"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"local_scale": (0.5, 0.1)}, "scale"),
        ({"blur_prob": 2.0}, "blur_prob"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}: expected"):
        joint_views(**settings)
    with pytest.raises(ValueError, match="size: expected one number or 3"):
        joint_views(size=(8, 8))({"image": CROPS[0]})
