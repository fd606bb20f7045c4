"""Masked views: the mask says exactly what is hidden, what stands there, and how the boxes are drawn."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from transforms.masked import masked_views

CROPS = [torch.rand(s, generator=torch.Generator().manual_seed(1)) + 0.1 for s in [(1, 24, 24, 24), (3, 40, 30)]]


@pytest.mark.parametrize("fill", ["zero", "mean", "noise"])
@pytest.mark.parametrize("x", CROPS, ids=["3d", "2d"])
def test_the_mask_is_what_was_changed(x: torch.Tensor, fill: Any) -> None:
    kept = x.clone()
    views = masked_views(boxes=(2, 5), min_size=3, max_size=9, fill=fill).set_random_state(seed=2)
    out = views({"image": x, "id": "a"})
    view, mask = out["view_0"], out["mask"]
    assert list(out) == ["image", "id", "view_0", "mask"]
    assert mask.shape == (1, *x.shape[1:])
    assert mask.dtype == torch.bool
    assert torch.equal(view != x, mask.expand_as(x))
    hidden = view[mask.expand_as(x)].view(len(x), -1)
    if fill == "zero":
        assert not hidden.any()
    elif fill == "mean":
        torch.testing.assert_close(hidden, x.flatten(1).mean(1, keepdim=True).expand_as(hidden))
    else:
        assert x.min() <= hidden.min() < hidden.max() <= x.max()
        assert len(hidden.unique()) > 0.9 * hidden.numel()
    assert torch.equal(x, kept)
    again = pickle.loads(pickle.dumps(views)).set_random_state(seed=2)({"image": MetaTensor(x)})
    assert isinstance(again["view_0"], MetaTensor)
    assert torch.equal(again["view_0"].as_tensor(), view)
    assert torch.equal(again["mask"], mask)
    assert not torch.equal(views({"image": x})["mask"], mask)


def test_number_and_sides_of_boxes_are_uniform() -> None:
    views = masked_views(boxes=(1, 4), min_size=(2, 5), max_size=(4, 5)).set_random_state(seed=0)
    drawn = [views.draw(views.R, (50, 60))[0] for _ in range(1200)]
    shares = np.bincount([len(boxes) for boxes in drawn], minlength=6) / len(drawn)
    assert shares[[0, 5]].tolist() == [0, 0]
    assert np.abs(shares[1:5] - 0.25).max() < 0.05
    sides = np.concatenate([boxes[:, 1] - boxes[:, 0] for boxes in drawn])
    assert set(sides[:, 1]) == {5}
    assert np.abs(np.bincount(sides[:, 0])[2:] / len(sides) - 1 / 3).max() < 0.05


def test_masks_that_are_kept_stay_and_the_crop_is_never_shared() -> None:
    views = masked_views(max_size=10)
    outs = [views({"image": CROPS[0]}) for _ in range(6)]
    copies = [(out["view_0"].clone(), out["mask"].clone()) for out in outs]
    for _ in range(20):
        views({"image": CROPS[0]})
    for out, (view, mask) in zip(outs, copies, strict=True):
        assert torch.equal(out["view_0"], view)
        assert torch.equal(out["mask"], mask)
        assert out["view_0"].data_ptr() != CROPS[0].data_ptr()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"boxes": (0, 3)}, "boxes"),
        ({"boxes": (4, 3)}, "boxes"),
        ({"fill": "black"}, "fill"),
        ({"min_size": 9, "max_size": 8}, "sizes"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}: expected"):
        masked_views(**settings)
