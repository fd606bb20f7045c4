"""DICOM reads as pydicom and the standard's own equation say; dcm2niix gave the same voxels and affine for real series."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import made_files as make
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from medssl.readers import ReadError, dicom_folder, location, read_header, read_image
from medssl.readers.dicom import find_series
from medssl.readers.dicom_file import read_file


def pixels(*shape: int, dtype: str = "int16", seed: int = 0) -> np.ndarray:
    low, high = (0, 255) if dtype == "uint8" else (-1000, 2000) if dtype == "int16" else (0, 4000)
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def test_axial_series_golden_numbers(tmp_path: Path) -> None:
    slices = pixels(4, 6, 5)
    make.series(tmp_path / "ct", slices, RescaleSlope=2, RescaleIntercept=-1024)
    header, volume = read_header(tmp_path / "ct"), read_image(tmp_path / "ct")
    expected = [[-0.5, 0, 0, 100], [0, -0.7, 0, 80], [0, 0, 5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-12)
    np.testing.assert_allclose(header.affine, expected, atol=1e-12)
    assert (header.shape, header.channels, header.dtype.name, header.patient) == ((5, 6, 4), 1, "int16", "P7")
    np.testing.assert_allclose(header.spacing, (0.5, 0.7, 5))
    assert np.array_equal(volume.array[0], slices.transpose(2, 1, 0))
    assert volume.array.flags.c_contiguous
    assert (volume.slope, volume.intercept) == (2, -1024)


def test_oblique_and_sheared_series_follow_the_standard(tmp_path: Path) -> None:
    """PS3.3 C.7.6.2.1.1: the place of a pixel is S + X * column spacing * i + Y * row spacing * j, in LPS."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    x, y, normal = turn[:, 0], turn[:, 1], np.cross(turn[:, 0], turn[:, 1])
    slices = pixels(5, 3, 4)
    places = [np.array([9, -7, 3]) + k * (2.5 * normal + 0.8 * y) for k in range(5)]  # a tilted gantry
    for k in (3, 0, 4, 1, 2):
        where = [round(float(number), 9) for number in places[k]]
        axes = [round(float(number), 12) for number in (*x, *y)]
        made = make.data_set(slices[k], ImagePositionPatient=where, ImageOrientationPatient=axes)
        make.write(tmp_path / f"{9 - k}.dcm", made)
    volume = read_image(tmp_path)
    for i, j, k in np.ndindex(4, 3, 5):
        lps = places[k] + x * 0.5 * i + y * 0.7 * j
        np.testing.assert_allclose(volume.affine @ [i, j, k, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-6)
        assert volume.array[0, i, j, k] == slices[k, j, i]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("name", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_lossless_transfer_syntaxes(tmp_path: Path, name: str, dtype: str) -> None:
    import gdcm

    array = pixels(16, 12, dtype=dtype)
    make.dicom(tmp_path / "a.dcm", array)
    make.transcode(tmp_path / "a.dcm", getattr(gdcm.TransferSyntax, name))
    assert np.array_equal(read_image(tmp_path / "a.dcm").array[0], array)
    assert read_header(tmp_path / "a.dcm").dtype == array.dtype


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_plain_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    array = pixels(5, 4)
    made = make.data_set(array.byteswap() if syntax == ExplicitVRBigEndian else array)
    make.write(tmp_path / "a", made, syntax)
    assert np.array_equal(read_image(tmp_path / "a").array[0], array)


def jpeg(array: np.ndarray, **tags: Any) -> Dataset:
    from io import BytesIO

    out = BytesIO()
    Image.fromarray(array).save(out, "JPEG")
    made = make.data_set(array, PixelData=encapsulate([out.getvalue()]), **tags)
    made["PixelData"].is_undefined_length = True
    return made


def test_jpeg_baseline_agrees_with_pillow(tmp_path: Path) -> None:
    array = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.jpg")
    make.write(tmp_path / "a.dcm", jpeg(array), JPEGBaseline8Bit)
    assert np.array_equal(read_image(tmp_path / "a.dcm").array, read_image(tmp_path / "a.jpg").array)


def test_colours(tmp_path: Path) -> None:
    array = pixels(5, 4, 3, dtype="uint8")
    make.dicom(tmp_path / "a.dcm", array)
    assert read_header(tmp_path / "a.dcm").channels == 3
    assert np.array_equal(read_image(tmp_path / "a.dcm").array, np.moveaxis(array, -1, 0))


@pytest.mark.parametrize(
    ("stored", "signed", "photometric", "expected"),
    [
        (16, 0, "MONOCHROME2", [0, 0xF801, 0x07FF]),
        (12, 0, "MONOCHROME2", [0, 0x801, 0x7FF]),
        (12, 1, "MONOCHROME2", [0, -2047, 2047]),
        (12, 0, "MONOCHROME1", [4095, 2046, 2048]),
        (12, 1, "MONOCHROME1", [-1, 2046, -2048]),
    ],
)
def test_stored_bits_and_inversion(tmp_path: Path, stored: int, signed: int, photometric: str, expected: list[int]) -> None:
    array = np.array([[0, 0xF801, 0x07FF]], np.uint16)
    tags = {"BitsStored": stored, "PixelRepresentation": signed, "PhotometricInterpretation": photometric}
    make.dicom(tmp_path / "a.dcm", array, **tags)
    assert read_image(tmp_path / "a.dcm").array.tolist() == [[expected]]


def test_a_single_picture_is_as_a_png(tmp_path: Path) -> None:
    array = pixels(5, 4, dtype="uint16")
    nowhere = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    make.dicom(tmp_path / "x", array, ImagerPixelSpacing=[0.2, 0.1], PatientID=" Anonymous ", **nowhere)
    header = read_header(tmp_path / "x")
    assert (header.shape, header.spacing, header.patient) == ((5, 4), (0.2, 0.1), None)
    assert np.array_equal(read_image(tmp_path / "x").array[0], array)


def test_slopes_of_their_own_make_floats(tmp_path: Path) -> None:
    slices = pixels(3, 4, 5)
    for k in range(3):
        tags = {"ImagePositionPatient": [0, 0, k], "RescaleSlope": k + 0.5, "RescaleIntercept": -k}
        make.dicom(tmp_path / f"{k}", slices[k], **tags)
    volume = read_image(tmp_path)
    assert (volume.slope, volume.intercept, read_header(tmp_path).dtype.name) == (1.0, 0.0, "float32")
    np.testing.assert_allclose(volume.array[0].T, [slices[k] * (k + 0.5) - k for k in range(3)])


def test_frames_of_an_enhanced_image(tmp_path: Path) -> None:
    slices = pixels(3, 4, 5)
    make.write(tmp_path / "a.dcm", make.enhanced(slices, [[-100, -80, 40], [-100, -80, 30], [-100, -80, 35]]))
    volume = read_image(tmp_path / "a.dcm")
    assert np.array_equal(volume.array[0], slices[[1, 2, 0]].transpose(2, 1, 0))
    assert (volume.slope, volume.intercept) == (3, -5)
    np.testing.assert_allclose(volume.affine, [[-0.5, 0, 0, 100], [0, -0.7, 0, 80], [0, 0, 5, 30], [0, 0, 0, 1]])


def test_frames_of_an_old_image_need_a_gap(tmp_path: Path) -> None:
    make.dicom(tmp_path / "a.dcm", pixels(3, 4, 5), SpacingBetweenSlices=4)
    assert read_header(tmp_path / "a.dcm").spacing == (0.5, 0.7, 4)
    make.dicom(tmp_path / "a.dcm", pixels(3, 4, 5))
    with pytest.raises(ReadError, match="frames: found 3 without positions"):
        read_header(tmp_path / "a.dcm")


def export(folder: Path) -> None:
    """Two series in one folder among what exports hold besides, and X-rays in another folder."""
    make.series(folder / "ct", pixels(3, 4, 5), SeriesDescription="thin")
    make.series(folder / "ct", pixels(4, 6, 5, seed=1), name="B{}.dcm", SeriesInstanceUID="1.2.9", PatientID="p8 ")
    make.dicom(folder / "ct" / "scout", pixels(9, 9), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    make.dicom(folder / "ct" / "capture", pixels(9, 9, 3, dtype="uint8"), SOPClassUID=make.CAPTURE)
    make.dicom(folder / "ct" / "mask", pixels(9, 9), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    make.dicom(folder / "ct" / "report", pixels(9, 9), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", PixelData=None)
    (folder / "ct" / "notes.txt").write_text("hello")
    (folder / "ct" / "._B1.dcm").write_text("what a Mac leaves")
    (folder / "ct" / "README").touch()
    (folder / "ct" / "nowhere").symlink_to("nowhere")
    (folder / "x-rays").mkdir()
    for k in range(2):
        tags = {"Modality": "CR", "SOPClassUID": make.CAPTURE, "ImagePositionPatient": None}
        make.dicom(folder / "x-rays" / f"{k}.dcm", pixels(4, 5, seed=k), **tags)


def test_series_of_a_folder(tmp_path: Path) -> None:
    export(tmp_path)
    thin, thick, *films = find_series(tmp_path)
    assert [film.path for film in films] == [tmp_path / "x-rays" / "0.dcm", tmp_path / "x-rays" / "1.dcm"]
    assert (thin.count, thick.count, thin.needs_uid, films[0].needs_uid) == (3, 4, True, False) or thin.count == 4
    by_uid = {series.uid: series for series in (thin, thick)}
    assert by_uid[make.SERIES].description == "thin"
    assert (by_uid["1.2.9"].patient, by_uid["1.2.9"].modality, by_uid["1.2.9"].study) == ("p8", "CT", "1.2.3")
    assert by_uid["1.2.9"].path == tmp_path / "ct#1.2.9"
    assert location(by_uid["1.2.9"].path) == tmp_path / "ct"
    assert read_header(tmp_path / "ct#1.2.9").shape == (5, 6, 4)
    assert np.array_equal(read_image(by_uid[make.SERIES].path).array[0].T, pixels(3, 4, 5))
    with pytest.raises(ReadError, match=r"series: found 2: 1\.2\.826.* 1\.2\.9"):
        read_header(tmp_path / "ct")
    with pytest.raises(ReadError, match=r"expected 1\.2\.3"):
        read_header(tmp_path / "ct#1.2.3")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined", [True, False])
def test_tags_inside_sequences_are_another_matter(tmp_path: Path, syntax: str, undefined: bool) -> None:
    def nested(depth: int) -> Sequence:
        inner = Dataset()
        inner.PatientID, inner.Rows, inner.PixelSpacing = f"inner {depth}", 99, [9, 9]
        if depth:
            inner.ReferencedImageSequence = nested(depth - 1)
        inner.is_undefined_length_sequence_item = undefined
        made = Sequence([inner, inner])
        made.is_undefined_length = undefined
        return made

    array = pixels(5, 4)
    made = make.data_set(array.byteswap() if syntax == ExplicitVRBigEndian else array)
    made.ReferencedStudySequence = nested(3)
    made.RequestAttributesSequence = nested(1)
    made.IconImageSequence = Sequence([make.data_set(pixels(2, 2))])
    for name in ("ReferencedStudySequence", "RequestAttributesSequence", "IconImageSequence"):
        made[name].is_undefined_length = undefined
    make.write(tmp_path / "a", made, syntax)
    header = read_header(tmp_path / "a")
    assert (header.patient, header.shape, header.spacing) == ("P7", (5, 4), (0.7, 0.5))
    assert np.array_equal(read_image(tmp_path / "a").array[0], array)


def test_a_sequence_of_unknown_type_and_length_has_no_types_inside(tmp_path: Path) -> None:
    """PS3.5 6.2.2 note 4: it is in implicit little endian, whatever the file is in."""
    make.dicom(tmp_path / "a", pixels(5, 4))
    inside = struct.pack("<HHI", 0x0010, 0x0020, 6) + b"inner "
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    unknown = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + item
    raw = (tmp_path / "a").read_bytes()
    at = raw.index(b"\x10\0\x20\0LO")
    (tmp_path / "a").write_bytes(raw[:at] + unknown + raw[at:])
    assert read_header(tmp_path / "a").patient == "P7"


def test_a_folder_of_several_series_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(6):
        make.series(tmp_path / "ct", pixels(3, 4, 5, seed=k), name=f"{k}-{{}}", SeriesInstanceUID=f"ANON{k}")
    read: list[Path] = []
    monkeypatch.setattr(dicom_folder, "read_file", lambda path: (read.append(path), read_file(path))[1])
    with ThreadPoolExecutor(4) as pool:
        headers = list(pool.map(read_header, [tmp_path / f"ct#ANON{k}" for k in range(6)]))
    assert [header.shape for header in headers] == [(5, 4, 3)] * 6
    assert len(read) == 18
    path, array = tmp_path / "ct" / "2-1", pixels(4, 5, seed=99)
    make.dicom(path, array, SeriesInstanceUID="ANON2", ImagePositionPatient=[-100, -80, 40])
    os.utime(path, ns=(0, 0))
    assert np.array_equal(read_image(tmp_path / "ct#ANON2").array[0, ..., 2].T, array)
    make.dicom(tmp_path / "ct" / "new", array, SeriesInstanceUID="ANON2", ImagePositionPatient=[-100, -80, 45])
    os.utime(tmp_path / "ct", ns=(0, 0))
    assert read_header(tmp_path / "ct#ANON2").shape == (5, 4, 4)


@pytest.mark.parametrize("content", [b"", b"hello" * 99])
@pytest.mark.parametrize("name", ["IM001", "1.2.826.7"])
def test_a_slice_that_is_no_dicom_any_more_is_not_left_out(tmp_path: Path, name: str, content: bytes) -> None:
    make.series(tmp_path / "ct", pixels(4, 4, 5))  # the last slice would be missing at the end, which leaves no gap
    (tmp_path / "ct" / "IM001").unlink()
    for note in ("README", "notes.txt", ".lock", "DICOMDIR"):
        (tmp_path / "ct" / note).write_bytes(content)
    assert read_header(tmp_path / "ct").shape == (5, 4, 3)
    (tmp_path / "ct" / name).write_bytes(content)
    with pytest.raises(ReadError, match="as those beside it"):
        read_header(tmp_path / "ct")


def test_find_series_says_what_it_passes_over_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    make.series(tmp_path / "disk" / "ct", pixels(3, 4, 5))
    (tmp_path / "disk" / "ct" / "IM001").write_bytes(b"")
    (tmp_path / "disk" / "ct" / "cut.dcm").write_bytes((tmp_path / "disk" / "ct" / "IM002").read_bytes()[:200])
    (tmp_path / "disk" / "ct" / "up").symlink_to(tmp_path / "disk")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "disk")
    make.dicom(tmp_path / "data" / "a", pixels(4, 5), SeriesInstanceUID="1.2")
    make.series(tmp_path / "data", pixels(2, 4, 5), name="b{}", SeriesInstanceUID="a/b")
    passed: list[ReadError] = []
    assert [series.count for series in find_series(tmp_path / "data", passed)] == [1, 2]
    assert [Path(error.file).name for error in passed] == ["data", "cut.dcm", "IM001"]
    assert [series.count for series in find_series(tmp_path / "data")] == [1, 2]


def test_any_text_picks_a_series_of_a_folder_that_exists(tmp_path: Path) -> None:
    for uid in ("ANON3", "a#b"):
        make.series(tmp_path / "ct#1", pixels(3, 4, 5), name=uid + "{}", SeriesInstanceUID=uid)
    found = {series.uid: series.path for series in find_series(tmp_path)}
    assert found == {uid: tmp_path / f"ct#1#{uid}" for uid in ("ANON3", "a#b")}
    assert [read_header(path).shape for path in found.values()] == [(5, 4, 3)] * 2
    assert location(tmp_path / "nowhere#ANON3") == tmp_path / "nowhere#ANON3"


def test_a_path_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    make.series(tmp_path / "scan#1.2", pixels(2, 4, 5))
    assert location(tmp_path / "scan#1.2") == tmp_path / "scan#1.2"
    assert read_header(tmp_path / "scan#1.2").shape == (5, 4, 2)


def coded(array: np.ndarray, *items: bytes, **tags: Any) -> Dataset:
    """A data set whose compressed pixels are these items, without a table of offsets."""
    parts = [struct.pack("<2HI", 0xFFFE, 0xE000, len(item)) + item for item in (b"", *items)]
    made = make.data_set(array, PixelData=b"".join(parts) + struct.pack("<2HI", 0xFFFE, 0xE0DD, 0), **tags)
    made["PixelData"].is_undefined_length = True
    return made


def jpeg_2000(array: np.ndarray, boxes: bool) -> bytes:
    from io import BytesIO

    out = BytesIO()
    Image.fromarray(array).save(out, "JPEG2000", no_jp2=not boxes)
    return out.getvalue() + b"\0" * (out.tell() % 2)


@pytest.mark.parametrize("boxes", [False, True])  # PS3.5 A.4.4 wants none, but some writers leave them
def test_jpeg_2000_in_any_cut_is_the_picture(tmp_path: Path, boxes: bool) -> None:
    array = np.random.default_rng(0).integers(0, 255, (16, 24), np.uint8)
    whole = jpeg_2000(array, boxes)
    for items in ((whole,), (whole[:22], whole[22:])):
        make.write(tmp_path / "a.dcm", coded(array, *items), JPEG2000Lossless)
        assert np.array_equal(read_image(tmp_path / "a.dcm").array[0], array)


def test_a_picture_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    array = np.zeros((16, 24), np.uint8)
    photo = generate_frames(jpeg(array).PixelData, number_of_frames=1)
    start, rest = b"\xff\x4f\xff\x51\x00\x29\x00\x00", bytes(16) + b"\0\1\7\1\1" + bytes(9)
    large, right = (start + np.array(size, ">u4").tobytes() + rest for size in ((60000, 60000, 0, 0), (24, 16, 0, 0)))
    many = right.replace(b"\0\1\7", b"\x40\0\7")  # 16384 colours
    skipped = b"\xff\xd8\xff\x01\xff\xc0\0\x0b\x08" + bytes([250]) * 4  # no length follows the second mark
    skipped += bytes(0xFFC0 + 4 - len(skipped)) + b"\xff\xc0\0\x0b\x08\0\x10\0\x18\1"
    box = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 8 + len(right), b"xml ") + right + b"\0\0\0\0jp2c"
    for syntax, items in (
        (JPEGBaseline8Bit, [next(photo).replace(b"\0\x10\0\x18", b"\0\x10\0\x28")]),
        (JPEGBaseline8Bit, [skipped]),
        (JPEG2000Lossless, [large]),
        (JPEG2000Lossless, [large[:22], large[22:]]),
        (JPEG2000Lossless, [box + large]),
        (JPEG2000Lossless, [many]),
    ):
        make.write(tmp_path / "a.dcm", coded(array, *items), syntax)
        with pytest.raises(ReadError, match="as rows and columns say"):
            read_image(tmp_path / "a.dcm")


def test_pictures_are_as_many_as_the_frames_and_lie_where_they_seem(tmp_path: Path) -> None:
    array = np.zeros((16, 24), np.uint8)
    whole = jpeg_2000(array, False)
    made = coded(array, whole, whole)
    made.PixelData = made.PixelData.replace(bytes(4), struct.pack("<3I", 8, 0, 8 + len(whole)), 1)  # a table of two offsets
    make.write(tmp_path / "a.dcm", made, JPEG2000Lossless)
    with pytest.raises(ReadError, match="more compressed pictures, expected 1, the number of frames"):
        read_image(tmp_path / "a.dcm")
    made = coded(array, whole, ExtendedOffsetTable=bytes(8), ExtendedOffsetTableLengths=struct.pack("<Q", len(whole)))
    make.write(tmp_path / "a.dcm", made, JPEG2000Lossless)
    with pytest.raises(ReadError, match="an extended offset table"):
        read_header(tmp_path / "a.dcm")


def test_broken_compressed_files_are_lines_and_end_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """gdcm ends its process on a few of these; where it decodes wrongly, no checksum tells."""
    import gdcm

    array = pixels(32, 32)
    make.dicom(tmp_path / "good.dcm", array)
    make.transcode(tmp_path / "good.dcm", gdcm.TransferSyntax.JPEGLosslessProcess14_1)
    raw = (tmp_path / "good.dcm").read_bytes()
    start, generator = raw.index(b"\xff\xd8\xff"), np.random.default_rng(0)
    refused = 0
    for bit in generator.integers(8 * start, 8 * (start + 150), 60):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "bad.dcm").write_bytes(broken)
        try:
            read_image(tmp_path / "bad.dcm")
        except ReadError as error:
            refused += "\n" not in str(error)
    assert refused > 10
    assert np.array_equal(read_image(tmp_path / "good.dcm").array[0], array)
    assert capfd.readouterr() == ("", "")
