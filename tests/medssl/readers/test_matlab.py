"""figshare's slices read as h5py reads them, upright, with patient and class."""

from pathlib import Path

import h5py
import made_files as make
import numpy as np
import pytest

from medssl.readers import ReadError, read_header, read_image

IMAGE = np.random.default_rng(0).integers(0, 4000, (6, 7)).astype(np.int16)
MASK = (IMAGE > 3000).astype(np.uint8)


def test_slice_and_mask(tmp_path: Path) -> None:
    make.mat(tmp_path / "1.mat", IMAGE, MASK, pid="100360", label=3.0)
    with h5py.File(tmp_path / "1.mat") as file:
        expected = file["cjdata/image"][()].T
    header = read_header(tmp_path / "1.mat")
    assert (header.shape, header.channels, header.patient, header.label) == ((6, 7), 1, "100360", 3)
    assert np.array_equal(read_image(tmp_path / "1.mat").array[0], expected)
    assert np.array_equal(read_image(tmp_path / "1.mat").array[0], IMAGE)
    assert np.array_equal(read_image(tmp_path / "1.mat", label=True).array[0], MASK)
    assert read_header(tmp_path / "1.mat", label=True).dtype == np.uint8


@pytest.mark.parametrize("pid", ["unknown", "", " Anonymized "])
def test_removed_patients_are_none(tmp_path: Path, pid: str) -> None:
    make.mat(tmp_path / "1.mat", IMAGE, MASK, pid=pid or "\0\0")
    assert read_header(tmp_path / "1.mat").patient is None


@pytest.mark.parametrize(
    ("pid", "kind", "patient"),
    [
        (np.array([[100360.0]]), "double", "100360"),
        (np.array([[104]], np.uint16), "uint16", "104"),
        (np.array([[104]], np.uint16), "char", "h"),
        (np.array([[104], [50]], np.uint32), "char", "h2"),
        (np.array([0, 0], np.uint64), "empty", None),
    ],
)
def test_patients_that_are_numbers(tmp_path: Path, pid: np.ndarray, kind: str, patient: str | None) -> None:
    make.mat(tmp_path / "1.mat", IMAGE, MASK)
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        del file["cjdata/PID"]
        file["cjdata/PID"] = pid
        file["cjdata/PID"].attrs["MATLAB_class"] = np.bytes_("double" if kind == "empty" else kind)
        file["cjdata/PID"].attrs["MATLAB_empty"] = np.uint8(kind == "empty")
    assert read_header(tmp_path / "1.mat").patient == patient


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (4, 4)}])
def test_other_storage(tmp_path: Path, options: dict[str, object]) -> None:
    make.mat(tmp_path / "1.mat", IMAGE, MASK)
    with h5py.File(tmp_path / "1.mat", "r+") as file:
        del file["cjdata/image"], file["cjdata/tumorMask"]
        file.create_dataset("cjdata/image", data=IMAGE.T.astype(">f8"), **options)
        file["cjdata/tumorMask"] = MASK.T.astype(bool)
    assert np.array_equal(read_image(tmp_path / "1.mat").array[0], IMAGE)
    assert np.array_equal(read_image(tmp_path / "1.mat", label=True).array[0], MASK)


def test_flipped_bits_in_packed_data_are_found(tmp_path: Path) -> None:
    make.mat(tmp_path / "1.mat", IMAGE, MASK)
    with h5py.File(tmp_path / "1.mat") as file:
        chunk = file["cjdata/image"].id.get_chunk_info(0)
    raw = (tmp_path / "1.mat").read_bytes()
    found = 0
    for bit in np.random.default_rng(0).permutation(8 * chunk.size)[:300]:
        broken = bytearray(raw)
        broken[chunk.byte_offset + bit // 8] ^= 1 << bit % 8
        (tmp_path / "1.mat").write_bytes(broken)
        try:  # the few bits that mean nothing, such as those that fill the last byte, change nothing
            assert np.array_equal(read_image(tmp_path / "1.mat").array[0], IMAGE)
        except ReadError as error:
            found += error.field == "cjdata/image"
    assert found > 290
