"""NIfTI reads as nibabel reads it; broken files are in test_check.py."""

import gzip
import random
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medssl.readers import ReadError, read_header, read_image

AFFINE = np.array([[0, -1.5, 0.1, 9], [2, 0, 0, -8], [0, 0.2, -3, 7], [0, 0, 0, 1.0]])


def volume(dtype: str, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return (np.random.default_rng(0).normal(0, 30, shape)).astype(dtype)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["uint8", "<i2", ">i2", "uint16", "<f4", ">f8", "int64"])
def test_volumes_agree_with_nibabel(tmp_path: Path, dtype: str, kind: Any, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    made = kind(volume(dtype), AFFINE, dtype=np.dtype(dtype).newbyteorder("="))
    if dtype.startswith(">"):
        made = kind(volume(dtype), AFFINE, header=kind.header_class(endianness=">"), dtype=dtype)
    made.header.set_slope_inter(0.5, -7)
    nibabel.save(made, path)
    expected: Any = nibabel.load(path)
    header, read = read_header(path), read_image(path)
    assert header.shape == read.array.shape[1:] == expected.shape
    assert header.dtype == read.array.dtype
    assert read.array.dtype.isnative
    assert np.array_equal(read.array[0], expected.dataobj.get_unscaled())
    np.testing.assert_allclose(read.values()[0], expected.get_fdata(dtype=np.float32), rtol=1e-6)
    assert np.array_equal(read.affine, expected.affine)
    np.testing.assert_allclose(header.spacing, expected.header.get_zooms(), rtol=1e-6)


@pytest.mark.parametrize(
    ("stored", "shape"),
    [((4, 5, 6, 1), (4, 5, 6)), ((4, 5, 1), (4, 5, 1)), ((4, 5, 1, 1), (4, 5, 1)), ((4, 5), (4, 5))],
)
def test_axes_of_one_voxel(tmp_path: Path, stored: tuple[int, ...], shape: tuple[int, ...]) -> None:
    made = nibabel.Nifti1Image(volume("int16", stored), np.eye(4))
    made.header.set_data_shape(stored)
    nibabel.save(made, tmp_path / "v.nii")
    assert read_header(tmp_path / "v.nii").shape == shape
    assert np.array_equal(read_image(tmp_path / "v.nii").array[0], volume("int16", stored).reshape(shape))


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1e3), ("mm", 1), ("micron", 1e-3), ("unknown", 1)])
def test_every_unit_becomes_mm(tmp_path: Path, unit: str, mm: float) -> None:
    made = nibabel.Nifti1Image(volume("int16"), AFFINE)
    made.header.set_xyzt_units(unit, "msec")
    nibabel.save(made, tmp_path / "v.nii")
    header = read_header(tmp_path / "v.nii")
    np.testing.assert_allclose(header.affine, np.diag([mm, mm, mm, 1]) @ AFFINE, rtol=1e-6)
    np.testing.assert_allclose(header.spacing, np.linalg.norm(AFFINE[:3, :3], axis=0) * mm, rtol=1e-6)


@pytest.mark.parametrize("stored", [(4, 5, 6, 3), (4, 5, 6, 1, 3), (4, 5, 6, 3, 1)])
def test_a_fourth_axis_is_channels(tmp_path: Path, stored: tuple[int, ...]) -> None:
    made = nibabel.Nifti1Image(volume("int16", stored), AFFINE)
    made.header.set_data_shape(stored)
    nibabel.save(made, tmp_path / "v.nii.gz")
    header, read = read_header(tmp_path / "v.nii.gz"), read_image(tmp_path / "v.nii.gz")
    assert (header.shape, header.channels) == ((4, 5, 6), 3)
    assert read.array.flags.c_contiguous
    assert np.array_equal(read.array, np.moveaxis(volume("int16", stored).reshape(4, 5, 6, 3), -1, 0))


@pytest.mark.parametrize("stored", [(4, 5, 6, 2, 3), (4, 5, 6, 1, 1, 3)])
def test_more_axes_are_refused(tmp_path: Path, stored: tuple[int, ...]) -> None:
    nibabel.save(nibabel.Nifti1Image(volume("int16", stored), AFFINE), tmp_path / "v.nii")
    with pytest.raises(ReadError, match="axes"):
        read_header(tmp_path / "v.nii")


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    raw = gzip.compress(nibabel.Nifti1Image(volume("int16", (12, 12, 12)), AFFINE).to_bytes(), mtime=0)
    for bit in random.Random(0).sample(range(8 * 10, 8 * len(raw)), 400):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "v.nii.gz").write_bytes(broken)
        with pytest.raises(ReadError):
            read_image(tmp_path / "v.nii.gz")


def test_several_gzip_members_and_padding_are_fine(tmp_path: Path) -> None:
    raw = nibabel.Nifti1Image(volume("int16"), AFFINE).to_bytes()
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:] + bytes(512)))
    assert np.array_equal(read_image(tmp_path / "v.nii.gz").array[0], volume("int16"))
