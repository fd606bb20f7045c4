"""NRRD reads as pynrrd reads it, with its positions turned to RAS."""

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest

from medssl.readers import ReadError, read_header, read_image

DIRECTIONS = np.array([[0.5, 0.1, 0], [0, 0.7, 0.2], [0.3, 0, 2]])


def volume(*shape: int, dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(0).normal(0, 30, shape).astype(dtype)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "<i2", ">i2", "uint32", "<f4", ">f8", "int64"])
def test_volumes_agree_with_pynrrd(tmp_path: Path, dtype: str, encoding: str) -> None:
    path = tmp_path / "v.nrrd"
    nrrd.write(str(path), volume(4, 5, 6, dtype=dtype), {"encoding": encoding})
    expected, _ = nrrd.read(str(path))
    header, read = read_header(path), read_image(path)
    assert np.array_equal(read.array[0], expected)
    assert (header.shape, header.dtype) == ((4, 5, 6), expected.dtype.newbyteorder("="))
    assert np.array_equal(read.affine, np.eye(4))


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (1, 1, 1)), ("left-posterior-superior", (-1, -1, 1)), ("LAS", (-1, 1, 1))],
)
def test_spaces(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    fields = {"space": space, "space directions": DIRECTIONS, "space origin": [10, 20, 30]}
    nrrd.write(str(tmp_path / "v.nrrd"), volume(4, 5, 6), fields)
    affine = read_image(tmp_path / "v.nrrd").affine
    place = DIRECTIONS.T @ [1, 2, 3] + [10, 20, 30]  # of a voxel, as the format's definition has it
    np.testing.assert_allclose(affine @ [1, 2, 3, 1], [*(place * signs), 1])
    np.testing.assert_allclose(read_header(tmp_path / "v.nrrd").spacing, np.linalg.norm(DIRECTIONS, axis=1))


@pytest.mark.parametrize(
    ("unit", "mm"),
    [(b"um", 1e-3), ("µm".encode(), 1e-3), ("\u03bcm".encode(), 1e-3), (b"\xb5m", 1e-3), (b"mm", 1), (b"cm", 10), (b"m", 1e3)],
)
def test_every_unit_becomes_mm(tmp_path: Path, unit: bytes, mm: float) -> None:
    fields = {"space": "LPS", "space directions": DIRECTIONS, "space origin": [10, 20, 30], "space units": ["xy"] * 3}
    nrrd.write(str(tmp_path / "v.nrrd"), volume(4, 5, 6), fields)
    raw = (tmp_path / "v.nrrd").read_bytes()
    with pytest.raises(ReadError, match="space units: found xy xy xy"):
        read_header(tmp_path / "v.nrrd")
    (tmp_path / "v.nrrd").write_bytes(raw.replace(b'"xy"', b'"' + unit + b'"'))
    expected = np.array([*(DIRECTIONS.T @ [1, 2, 3] + [10, 20, 30]) * [-mm, -mm, mm], 1])
    np.testing.assert_allclose(read_image(tmp_path / "v.nrrd").affine @ [1, 2, 3, 1], expected)


@pytest.mark.parametrize("axis", [0, 3])
def test_lists_are_channels(tmp_path: Path, axis: int) -> None:
    array = volume(*np.insert([4, 5, 6], axis, 3))
    directions = np.insert(DIRECTIONS, axis, np.nan, axis=0)
    fields: dict[str, Any] = {"space": "RAS", "space directions": directions, "space origin": [0, 0, 0]}
    nrrd.write(str(tmp_path / "v.nrrd"), array, fields)
    assert np.array_equal(read_image(tmp_path / "v.nrrd").array, np.moveaxis(array, axis, 0))
    kinds = ["domain"] * 4
    kinds[axis] = "vector"
    nrrd.write(str(tmp_path / "v.nrrd"), array, {"kinds": kinds, "spacings": np.insert([1.0, 2, 3], axis, np.nan)})
    header = read_header(tmp_path / "v.nrrd")
    assert (header.shape, header.channels, header.spacing) == ((4, 5, 6), 3, (1, 2, 3))


def test_pictures_in_space(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "v.nrrd"), volume(4, 5), {"spacings": [0.5, 2]})
    assert read_header(tmp_path / "v.nrrd").spacing == (0.5, 2)
    fields = {"space": "LPS", "space directions": DIRECTIONS[:2], "space origin": [0, 0, 0]}
    nrrd.write(str(tmp_path / "v.nrrd"), volume(4, 5), fields)
    normal = read_header(tmp_path / "v.nrrd").affine[:3, 2]
    np.testing.assert_allclose(DIRECTIONS[:2] * [-1, -1, 1] @ normal, 0, atol=1e-12)


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_byte_too_few_or_too_many(tmp_path: Path, change: int, encoding: str) -> None:
    nrrd.write(str(tmp_path / "v.nrrd"), volume(4, 5, 6), {"encoding": encoding})
    raw = (tmp_path / "v.nrrd").read_bytes()
    (tmp_path / "v.nrrd").write_bytes(raw[:-1] if change < 0 else raw + b"x")
    with pytest.raises(ReadError):
        read_image(tmp_path / "v.nrrd")
