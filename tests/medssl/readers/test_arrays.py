"""NumPy files read as numpy reads them, and are never unpickled."""

from pathlib import Path

import numpy as np
import pytest

from medssl.readers import ReadError, read_header, read_image


@pytest.mark.parametrize("shape", [(5, 7), (4, 5, 6), (3, 4, 5, 6)])
@pytest.mark.parametrize("dtype", ["bool", "uint8", ">i2", "<f4", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_agree_with_numpy(tmp_path: Path, shape: tuple[int, ...], dtype: str, order: str) -> None:
    array = np.random.default_rng(0).normal(0, 30, shape).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    header, volume = read_header(tmp_path / "a.npy"), read_image(tmp_path / "a.npy")
    assert np.array_equal(volume.array, array if len(shape) == 4 else array[None])
    assert volume.array.dtype.isnative
    assert volume.array.flags.c_contiguous
    assert (header.shape, header.channels) == (volume.array.shape[1:], len(volume.array))
    assert header.dtype == volume.array.dtype
    assert np.array_equal(header.affine, np.eye(4))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_byte_too_few_or_too_many(tmp_path: Path, change: int) -> None:
    np.save(tmp_path / "a.npy", np.arange(20.0).reshape(4, 5))
    raw = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(raw[:-1] if change < 0 else raw + b"x")
    for read in (read_header, read_image):
        with pytest.raises(ReadError, match="as its header says"):
            read(tmp_path / "a.npy")
