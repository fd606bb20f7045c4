"""Images of any size brought to one: proportions and places are kept."""

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from transforms.fit import FitInsided


def image(shape: tuple[int, ...], spacing: tuple[float, ...]) -> MetaTensor:
    """A disc or ball of 40 mm across around the middle, spacing in mm."""
    affine = np.diag([*spacing, *[1.0] * (4 - len(spacing))])
    axes = [np.arange(n) * mm - (n - 1) * mm / 2 for n, mm in zip(shape, spacing, strict=True)]
    away = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    return MetaTensor(torch.from_numpy((away < 20).astype(np.float32))[None], affine=torch.from_numpy(affine))


@pytest.mark.parametrize(
    ("shape", "spacing", "size", "expected"),
    [
        ((100, 50), (1.0, 1.0), (32, 32), (32, 16)),  # the longer side decides
        ((100, 50), (1.0, 2.0), (32, 32), (32, 32)),  # as long in mm
        ((60, 60), (1.0, 1.0), (96, 64), (64, 64)),  # grown to the smaller side
        ((100, 50, 7), (1.0, 1.0, 8.0), (32, 32), (32, 16, 7)),  # slices are left alone
        ((40, 80, 60), (2.0, 1.0, 1.0), (20, 20, 20), (20, 20, 15)),
    ],
)
def test_sizes(shape: tuple[int, ...], spacing: tuple[float, ...], size: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = image(shape, spacing)
    out = FitInsided(("image", "label"), size, "label")({"image": x, "label": x.clone()})
    assert tuple(out["image"].shape[1:]) == tuple(out["label"].shape[1:]) == expected
    assert set(np.unique(out["label"])) <= {0, 1}
    assert x.shape[1:] == shape  # the input is as it was


def test_what_was_in_a_place_in_mm_stays_there() -> None:
    x = image((90, 120), (1.0, 1.0))
    out = FitInsided("image", (64, 64), "label")({"image": x})["image"]
    inside = np.argwhere(out[0].numpy() > 0.5)
    places = nibabel.affines.apply_affine(out.affine.numpy(), np.pad(inside, ((0, 0), (0, 1))))[:, :2]
    np.testing.assert_allclose(places.mean(0), [44.5, 59.5], atol=1.0)  # the disc's centre
    np.testing.assert_allclose(np.ptp(places, axis=0), [40, 40], atol=3.0)


@pytest.mark.parametrize("size", [(64, 64), (160, 160)])
def test_a_label_stays_where_its_image_is(size: tuple[int, ...]) -> None:
    """Torch's plain "nearest" takes the first voxel that a new one covers: labels lie half a voxel beside their images."""
    x = image((90, 120), (1.0, 1.0))
    out = FitInsided(("image", "label"), size, "label")({"image": x, "label": x.clone()})
    places = [np.argwhere(out[key][0].numpy() > 0.5).mean(0) for key in ("image", "label")]
    np.testing.assert_allclose(*places, atol=0.15)


def test_shrinking_does_not_alias() -> None:
    """Stripes finer than the new voxels become their mean, where plain interpolation makes new stripes of them."""
    stripes = torch.arange(128).remainder(2).float().expand(1, 128, 128)
    out = FitInsided("image", (32, 32), "label")({"image": MetaTensor(stripes)})["image"]
    assert (out[0, 4:-4, 4:-4] - 0.5).abs().max() < 0.05
