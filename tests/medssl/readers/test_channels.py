"""Several files of one case, as channels."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medssl.readers import ReadError, read_images, same_grid

AFFINE = np.array([[0, -1.5, 0.1, 9], [2, 0, 0, -8], [0, 0.2, -3, 7], [0, 0, 0, 1.0]])


def volume(dtype: str, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return (np.random.default_rng(0).normal(0, 30, shape)).astype(dtype)


def test_channels_of_several_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.nii" for name in ("t1", "t2", "moved", "small")]
    nibabel.save(nibabel.Nifti1Image(volume("int16"), AFFINE), paths[0])
    nibabel.save(nibabel.Nifti1Image(volume("int16") + 1, AFFINE), paths[1])
    nibabel.save(nibabel.Nifti1Image(volume("int16"), AFFINE + np.eye(4, k=3)), paths[2])
    nibabel.save(nibabel.Nifti1Image(volume("int16", (4, 5, 5)), AFFINE), paths[3])
    both = read_images(paths[:2])
    assert np.array_equal(both.array, [volume("int16"), volume("int16") + 1])
    for other, field in ((paths[2], "affine"), (paths[3], "shape")):
        with pytest.raises(ReadError) as caught:
            read_images([paths[0], other])
        assert (caught.value.field, caught.value.file) == (field, str(other))
    scaled = nibabel.Nifti1Image(volume("int16"), AFFINE)
    scaled.header.set_slope_inter(2, 3)
    nibabel.save(scaled, paths[1])
    mixed = read_images(paths[:2])
    assert (mixed.array.dtype.name, mixed.slope, mixed.intercept) == ("float32", 1.0, 0.0)
    np.testing.assert_array_equal(mixed.array[1], volume("int16") * 2.0 + 3)


def test_same_grid_tolerates_rounding_only() -> None:
    near, far = AFFINE.copy(), AFFINE.copy()
    near[:3, 3] += 0.01
    far[0, 0] += 0.01  # two voxels apart at the far end of 300
    assert same_grid(near, AFFINE, (300, 300, 300))
    assert not same_grid(far, AFFINE, (300, 300, 300))
