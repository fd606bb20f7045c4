"""Preparation: geometry by the affine, intensity by window or percentiles, with files and without."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRange
from PIL import Image

from transforms.prepare import (
    ScaleHUd,
    ScalePercentiled,
    prepare_ct,
    prepare_geometry,
    prepare_mr,
    scale_intensity,
    volume_percentiles,
)


def write(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.uint8, torch.float16])
def test_scale_intensity_against_monai(dtype: torch.dtype) -> None:
    x = (torch.rand(2, 9, 10, generator=torch.Generator().manual_seed(0)) * 250).to(dtype)
    kept = x.clone()
    expected = torch.as_tensor(ScaleIntensityRange(30, 200, 0, 1, clip=True)(x.float()))
    out = scale_intensity(x, 30, 200)
    assert out.dtype == torch.float32
    assert torch.equal(x, kept)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(scale_intensity(x, 200, 30), 1 - expected)  # a falling ramp


def test_scale_intensity_by_channel_and_without_contrast() -> None:
    x = torch.tensor([[0.0, 5.0, 10.0], [0.0, 50.0, 100.0]])
    assert scale_intensity(x, [0, 0], [10, 100]).tolist() == [[0, 0.5, 1]] * 2
    assert scale_intensity(x, [0, 0], torch.tensor([10, 0])).tolist() == [[0, 0.5, 1], [0, 0, 0]]
    assert not scale_intensity(torch.full((1, 4), 3.0), 3, 3).any()


def test_percentiles_by_channel_with_constants_and_nan() -> None:
    x = (
        torch.rand(4, 12, 13, 14, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 1000, 0, 5.0])[:, None, None, None]
    )
    x[3, :6] = torch.nan
    low, high = volume_percentiles(x, (0.5, 99.5)).T
    assert low[1] == pytest.approx(np.percentile(x[1].numpy(), 0.5))
    assert high[3] == pytest.approx(np.nanpercentile(x[3].numpy(), 99.5))
    out = ScalePercentiled("image", 0.5, 99.5)({"image": x})["image"]
    assert out.isfinite().all()
    assert (out.min(), out.max()) == (0, 1)
    assert not out[2].any()
    assert not out[3, :6].any()
    torch.testing.assert_close(out[0], out[0].clamp(0, 1))
    assert not ScalePercentiled("image")({"image": torch.full((1, 4, 4), torch.nan)})["image"].any()
    for wrong in [(50, 50), (-1, 50), (0, 101)]:
        with pytest.raises(ValueError, match="percentiles"):
            ScalePercentiled("image", *wrong)


def test_window_on_crops_without_affine_and_on_metatensors() -> None:
    x = torch.tensor([[-1000, -57, 53, 164, 3000]], dtype=torch.int16)
    scale = ScaleHUd("image", -57, 164)
    out = scale({"image": x, "label": x})
    assert out["image"][0, [0, 1, 3, 4]].tolist() == [0, 0, 1, 1]
    assert out["image"][0, 2] == pytest.approx(110 / 221)
    assert out["label"] is x
    assert isinstance(scale({"image": MetaTensor(x.float())})["image"], MetaTensor)
    assert torch.equal(scale({"image": x.numpy()})["image"], out["image"])
    with pytest.raises(ValueError, match="window"):
        ScaleHUd("image", 5, 5)


def test_ct_from_a_file_in_another_orientation(tmp_path: Path) -> None:
    ct = np.full((20, 24, 10), -1000, np.int16)
    ct[4:12, 6:20, 2:6] = 40
    ct[4:8, 6:20, 2:6] = 400
    ct[9:12, 10:16, 2:6] = -1000
    label = (ct > 0).astype(np.uint8) * 3
    affine = np.array([[-1.0, 0, 0, 30], [0, -1, 0, 40], [0, 0, 4, -7], [0, 0, 0, 1]])  # LPS, 1 x 1 x 4 mm
    data = {"image": write(tmp_path / "i.nii.gz", ct, affine), "label": write(tmp_path / "l.nii.gz", label, affine)}
    out = prepare_ct(("image", "label"), spacing=(2, 2, 2))(data)
    image, label_out = out["image"], out["label"]
    assert image.shape == label_out.shape
    assert image.dtype == torch.float32
    assert (float(image.min()), float(image.max())) == (0, 1)
    assert set(label_out.unique().tolist()) <= {0, 3}
    assert torch.diag(image.affine)[:3].tolist() == [2, 2, 2]
    assert 4 <= image.shape[1] <= 6  # 8 mm, and the rim that interpolation leaves above the window
    assert 7 <= image.shape[2] <= 9
    right, left = image[0].mean((1, 2))[[0, -1]]
    assert left > right  # in RAS the bright side, first in the file, comes last


def test_mr_and_geometry_alone() -> None:
    x = torch.zeros(1, 10, 12, 14)
    x[:, 2:7, 3:9, 4:10] = 5 + torch.rand(1, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    mr = {"image": MetaTensor(x), "label": MetaTensor((x > 0).float())}
    cropped = prepare_geometry(("image", "label"), foreground_above=0.0)(mr)
    assert cropped["image"].shape == cropped["label"].shape == (1, 5, 6, 6)
    empty = prepare_geometry(("image",), foreground_above=9.0)({"image": MetaTensor(x)})
    assert empty["image"].shape == x.shape  # no foreground: the whole image, not nothing
    assert prepare_geometry(("image",), None, None)({"image": x})["image"] is x


def test_2d(tmp_path: Path) -> None:
    x = torch.zeros(3, 20, 30)
    x[1, 4:12, 6:20] = 9.0
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0]))
    out = prepare_geometry(("image",), (1.0, 1.0), foreground_above=1.0, spatial_dims=2)(
        {"image": MetaTensor(x, affine=affine)}
    )
    assert out["image"].shape[0] == 3
    assert 15 <= out["image"].shape[1] <= 18
    assert out["image"].shape[2] == 14
    path = tmp_path / "slice.png"
    grey = np.zeros((16, 12), np.uint8)
    grey[4:10, 2:9] = np.arange(42).reshape(6, 7) + 50
    Image.fromarray(grey).save(path)
    loaded = prepare_mr("image", None, spatial_dims=2)({"image": path})["image"]
    assert sorted(loaded.shape[1:]) == [6, 7]
    assert (float(loaded.min()), float(loaded.max())) == (0, 1)
