"""Readers give what nibabel and pillow give for good files; broken ones are in test_check.py."""

import gzip
import random
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medssl.readers import MAX_VOXELS, ReadError, read_header, read_image, read_images, same_grid

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


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    raw = gzip.compress(nibabel.Nifti1Image(volume("int16", (12, 12, 12)), AFFINE).to_bytes(), mtime=0)
    for bit in random.Random(0).sample(range(8 * 10, 8 * len(raw)), 50):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "v.nii.gz").write_bytes(broken)
        with pytest.raises(ReadError):
            read_image(tmp_path / "v.nii.gz")


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    raw = bytearray(nibabel.Nifti1Image(volume("int16"), AFFINE).to_bytes())
    tail = gzip.compress(bytes(2**24)) * 64  # 1 GB in members of 16 MB: it must stop at the first
    (tmp_path / "tail.nii.gz").write_bytes(gzip.compress(bytes(raw)) + tail)
    with pytest.raises(ReadError, match="after the voxels"):
        read_image(tmp_path / "tail.nii.gz")
    struct.pack_into("<3h", raw, 42, 30000, 30000, 30)
    (tmp_path / "claim.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    for read in (read_header, read_image):
        with pytest.raises(ReadError, match=f"at most {MAX_VOXELS}"):
            read(tmp_path / "claim.nii.gz")


def test_several_gzip_members_and_padding_are_fine(tmp_path: Path) -> None:
    raw = nibabel.Nifti1Image(volume("int16"), AFFINE).to_bytes()
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:] + bytes(512)))
    assert np.array_equal(read_image(tmp_path / "v.nii.gz").array[0], volume("int16"))


KINDS = {
    ".png": "uint8 uint16 bool rgb",
    ".tif": "uint8 uint16 float32 bool rgb",
    ".bmp": "uint8 rgb",
    ".jpg": "uint8 rgb",
}


@pytest.mark.parametrize(("suffix", "dtype"), [(suffix, dtype) for suffix in KINDS for dtype in KINDS[suffix].split()])
def test_pictures_agree_with_pillow(tmp_path: Path, dtype: str, suffix: str) -> None:
    shape = (5, 7, 3) if dtype == "rgb" else (5, 7)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    if dtype in {"uint16", "float32"}:
        pixels = pixels.astype(dtype) * 200
    Image.fromarray(pixels > 99 if dtype == "bool" else pixels).save(tmp_path / f"p{suffix}")
    header, read = read_header(tmp_path / f"p{suffix}"), read_image(tmp_path / f"p{suffix}")
    expected = np.asarray(Image.open(tmp_path / f"p{suffix}"))
    expected = np.moveaxis(expected, -1, 0) if dtype == "rgb" else expected[None]
    assert np.array_equal(read.array, expected)
    assert (header.shape, header.channels, header.dtype) == ((5, 7), len(expected), read.array.dtype)
    assert np.array_equal(read.affine, np.eye(4))


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "CMYK"])
def test_palette_and_transparency_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "p.tif")
    with pytest.raises(ReadError, match=f"mode {mode}"):
        read_header(tmp_path / "p.tif")


def test_pages_size_and_format_of_pictures(tmp_path: Path) -> None:
    page = Image.new("L", (4, 4))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(ReadError, match="pages"):
        read_image(tmp_path / "pages.tif")
    page.save(tmp_path / "gif.gif")
    (tmp_path / "gif.gif").rename(tmp_path / "gif.png")
    with pytest.raises(ReadError, match="format"):
        read_image(tmp_path / "gif.png")
    page.save(tmp_path / "huge.bmp")
    raw = bytearray((tmp_path / "huge.bmp").read_bytes())
    struct.pack_into("<2i", raw, 18, 60000, 60000)
    (tmp_path / "huge.bmp").write_bytes(raw)
    with pytest.raises(ReadError):
        read_header(tmp_path / "huge.bmp")


def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20)).astype("uint8")).save(tmp_path / "p.png")
    raw = (tmp_path / "p.png").read_bytes()
    for bit in random.Random(0).sample(range(0, 8 * (len(raw) - 12)), 50):  # the last 12 bytes only say that it ends
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "p.png").write_bytes(broken)
        with pytest.raises(ReadError):
            read_image(tmp_path / "p.png")


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
