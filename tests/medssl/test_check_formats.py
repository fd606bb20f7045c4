"""What can be wrong with DICOM, MATLAB, NumPy, NRRD and picture files is one line each; good ones give none."""

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import made_files as make
import nrrd
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import MPEG2MPML, JPEGBaseline8Bit, RLELossless

from medssl.check import check_split
from medssl.problems import Problem
from medssl.splits import read_split

Maker = Callable[[Path], object]  # writes the file or folder


def array(*shape: int, seed: int = 0, dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def check(folder: Path, images: list[str], channels: int = 1, labels: list[str] | None = None) -> list[Problem]:
    cases: list[dict[str, Any]] = [{"id": f"{i}", "image": name} for i, name in enumerate(images)]
    for case, label in zip(cases, labels or [], strict=False):
        case["label"] = label
    names = {"0": "background", "1": "tumour"}
    content = {"modality": {str(i): "x" for i in range(channels)}, "labels": names, "test": cases}
    (folder / "split.json").write_text(json.dumps(content))
    return check_split(read_split(folder / "split.json"), deep=True)


# DICOM


def one(**tags: Any) -> Maker:
    return lambda path: make.dicom(path, array(6, 5), **tags)


def stack(**last: Any) -> Maker:
    """Four slices, one of which has tags of its own."""

    def maker(path: Path) -> None:
        make.series(path, array(4, 6, 5))
        if last:
            place = {"ImagePositionPatient": [-100, -80, 45], **last}
            make.dicom(path / "IM001", array(6, 5, seed=9), **place)

    return maker


def without_a_slice(path: Path) -> None:
    stack()(path)
    (path / "IM002").unlink()


def two_series(path: Path) -> None:
    stack()(path)
    make.series(path, array(3, 6, 5), name="B{}", SeriesInstanceUID="1.2.9")


def one_is_text(path: Path) -> None:
    stack()(path)
    (path / "IM001.dcm").write_text("hello")


def one_in_colour(path: Path) -> None:
    make.series(path, array(4, 6, 5, dtype="uint8"))
    make.dicom(path / "IM001", array(6, 5, 3, dtype="uint8"), ImagePositionPatient=[-100, -80, 45])


def report(path: Path) -> None:
    made = make.data_set(array(6, 5))
    del made.PixelData
    make.write(path, made)


def colours(path: Path) -> None:
    make.series(path, array(2, 6, 5))
    for k in range(2):
        make.dicom(path / f"IM00{k + 1}", array(6, 5, 3, dtype="uint8"), ImagePositionPatient=[0, 0, k])


def cut(maker: Maker, count: int) -> Maker:
    def cutter(path: Path) -> None:
        maker(path)
        path.write_bytes(path.read_bytes()[:-count])

    return cutter


def changed(maker: Maker, old: bytes, new: bytes) -> Maker:
    def changer(path: Path) -> None:
        maker(path)
        raw = path.read_bytes()
        assert old in raw
        path.write_bytes(raw.replace(old, new, 1))

    return changer


def run_lengths(path: Path) -> None:
    make.dicom(path, array(6, 5))
    made = pydicom.dcmread(path)
    made.compress(RLELossless)
    made.save_as(path)


def coded(data: bytes, syntax: str) -> Maker:
    def maker(path: Path) -> None:
        made = make.data_set(array(6, 5, dtype="uint8"), PixelData=encapsulate([data]))
        made["PixelData"].is_undefined_length = True
        make.write(path, made, syntax)

    return maker


def jpeg(*shape: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array(*shape, dtype="uint8")).save(out, "JPEG")
    return out.getvalue()


def coded_frames(path: Path) -> None:
    made = make.data_set(array(6, 5, dtype="uint8"), PixelData=encapsulate([jpeg(6, 5)]), NumberOfFrames=1)
    made["PixelData"].is_undefined_length = True
    make.write(path, made, JPEGBaseline8Bit)


TABLE = Dataset()
TABLE.LUTDescriptor = [2, 0, 16]
DICOM: dict[str, tuple[str, Maker, str]] = {
    "folder without DICOM": ("x", Path.mkdir, "without DICOM"),
    "two series": ("x", two_series, "series: found 2:"),
    "a series that is not there": ("x#1.2.3", two_series, "series: found 1.2.826"),
    "uneven gaps": ("x", stack(ImagePositionPatient=[-100, -80, 46]), "gaps of 5 to 6 mm between 4"),
    "missing slice": ("x", without_a_slice, "gaps of 5 to 10 mm"),
    "position twice": ("x", stack(ImagePositionPatient=[-100, -80, 40]), "4 at 3 positions"),
    "moved sideways": ("x", stack(ImagePositionPatient=[-99.7, -80, 45]), "sideways"),
    "another orientation": ("x", stack(ImageOrientationPatient=[0, 1, 0, 1, 0, 0]), "2 orientations"),
    "no right angle": (
        "x.dcm",
        lambda path: make.dicom(path, array(3, 6, 5), ImageOrientationPatient=[1, 0, 0, 1, 0, 0], SpacingBetweenSlices=3),
        "right angle",
    ),
    "another size": ("x", stack(Rows=5, PixelData=bytes(50)), "shape: found 2 in one series: 5x5, 6x5"),
    "another spacing": ("x", stack(PixelSpacing=[0.7, 0.6]), "pixels of 0.5 to 0.7 mm"),
    "another type": ("x", stack(PixelRepresentation=0), "voxel type: found 2"),
    "colours of another kind": ("x", one_in_colour, "colours: found 2 in one series: MONOCHROME2 of 1 samples, RGB of 3"),
    "another patient": ("x", stack(PatientID="P8"), "patient: found 2"),
    "no positions": ("x", lambda path: make.series(path, array(3, 6, 5), PixelSpacing=None), "without place or spacing"),
    "zero spacing": ("x.dcm", one(PixelSpacing=[0, 1]), "spacing: found 0x1 mm"),
    "negative spacing": ("x.dcm", one(PixelSpacing=[-1, 1]), "spacing: found -1x1 mm"),
    "position is NaN": ("x.dcm", changed(one(), b"-100", b" nan"), "position: found nan"),
    "spacing is text": ("x.dcm", changed(one(), b"0.7\\0.5", b"a.7\\0.5"), "spacing: found a.7"),
    "no DICOM in a series": ("x", one_is_text, "IM001.dcm"),
    "no DICOM": ("x.dcm", lambda path: path.write_text("hello" * 99), "no DICOM"),
    "cut inside the tags": ("x.dcm", lambda path: (one()(path), path.write_bytes(path.read_bytes()[:700])), "x.dcm"),
    "cut inside the file meta information": (
        "x.dcm",
        lambda path: (one()(path), path.write_bytes(path.read_bytes()[:150])),
        "transfer syntax",
    ),
    "no pixels": ("x.dcm", report, "pixels: found none"),
    "cut pixels": ("x.dcm", cut(one(), 7), "53 bytes, expected 60"),
    "fewer pixels than rows": ("x.dcm", one(Rows=9), "60 bytes, expected 90"),
    "cut fragments": ("x.dcm", cut(run_lengths, 12), "end mark"),
    "broken run lengths": ("x.dcm", coded(struct.pack("<16I", 1, 64, *[0] * 14) + bytes([0, 5]), RLELossless), "RLE"),
    "broken JPEG": ("x.dcm", coded(jpeg(6, 5)[:200] + bytes(100), JPEGBaseline8Bit), "x.dcm: "),
    "JPEG of another size": ("x.dcm", coded(jpeg(7, 5), JPEGBaseline8Bit), "a picture of 7x5"),
    "a film": ("x.dcm", coded(jpeg(6, 5), MPEG2MPML), "MPEG2"),
    "deflated": (
        "x.dcm",
        changed(one(), b"\x14\0" + b"1.2.840.10008.1.2.1\0", b"\x16\0" + b"1.2.840.10008.1.2.1.99"),
        "Deflated",
    ),
    "no transfer syntax": ("x.dcm", changed(one(), b"\x02\0\x10\0UI", b"\x02\0\x11\0UI"), "transfer syntax: found nothing"),
    "palette": ("x.dcm", one(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR of 1"),
    "stack of colours": ("x", colours, "3 channels in a stack"),
    "lookup table": ("x.dcm", one(ModalityLUTSequence=Sequence([TABLE])), "a lookup table"),
    "bits beyond those allocated": ("x.dcm", one(BitsStored=17, HighBit=16), "bits stored: found 17"),
    "bits that don't start at the lowest": ("x.dcm", one(BitsStored=12, HighBit=15), "the highest is bit 15"),
    "a bit a voxel": ("x.dcm", one(BitsAllocated=1, BitsStored=1), "bits allocated: found 1"),
    "slope of zero": ("x.dcm", one(RescaleSlope=0), "slope: found 0"),
    "no rows": ("x.dcm", one(Rows=None), "rows: found nothing"),
    "zero rows": ("x.dcm", one(Rows=0), "at least one voxel"),
    "frames without positions": ("x.dcm", lambda path: make.dicom(path, array(3, 6, 5)), "3 without positions"),
    "frames that are not described": (
        "x.dcm",
        lambda path: make.dicom(path, array(3, 6, 5), PerFrameFunctionalGroupsSequence=Sequence([Dataset()])),
        "1 described",
    ),
    "claims to be huge": ("x.dcm", one(Rows=60000, Columns=60000), "at most"),
    "fewer compressed pictures than frames": (
        "x.dcm",
        changed(coded_frames, b"IS\x02\0001 ", b"IS\x02\0009 "),
        "the number of frames",
    ),
    "constant": ("x.dcm", lambda path: make.dicom(path, np.zeros((6, 5), np.int16)), "0 everywhere"),
}


# MATLAB


def mat(path: Path) -> None:
    make.mat(path, array(6, 5), array(6, 5, dtype="uint8") % 2)


def struct_with(name: str, *put: Any, **options: Any) -> Maker:
    """A good file in which one field is another."""

    def maker(path: Path) -> None:
        mat(path)
        with h5py.File(path, "r+") as file:
            if f"cjdata/{name}" in file:
                del file[f"cjdata/{name}"]
            if options:
                file["cjdata"].create_dataset(name, *put, **options)
            elif put:
                file[f"cjdata/{name}"] = put[0]

    return maker


def virtual(path: Path) -> None:
    mat(path)
    layout = h5py.VirtualLayout((5, 6), "i2")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (5, 6))
    with h5py.File(path, "r+") as file:
        del file["cjdata/image"]
        file["cjdata"].create_virtual_dataset("image", layout)


def no_group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["cjdata"] = array(6, 5)


def image_is_a_group(path: Path) -> None:
    struct_with("image")(path)
    with h5py.File(path, "r+") as file:
        file.create_group("cjdata/image")


def flipped_chunk(path: Path) -> None:
    mat(path)
    with h5py.File(path) as file:
        where = file["cjdata/image"].id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[where.byte_offset + where.size // 2] ^= 8
    path.write_bytes(raw)


MATLAB: dict[str, tuple[str, Maker, str]] = {
    "version 5": ("x.mat", lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(512)), "expected v7.3"),
    "no HDF5": ("x.mat", lambda path: path.write_bytes(make.MATLAB + bytes(999)), "no whole HDF5"),
    "cut": ("x.mat", cut(mat, 99), "no whole HDF5"),
    "no struct": ("x.mat", lambda path: h5py.File(path, "w").close(), "cjdata: found no struct"),
    "no group": ("x.mat", no_group, "cjdata: found no struct"),
    "no image": ("x.mat", struct_with("image"), "cjdata/image: found nothing"),
    "image is a group": ("x.mat", image_is_a_group, "cjdata/image: found no array"),
    "soft link": ("x.mat", struct_with("image", h5py.SoftLink("/cjdata/tumorMask")), "cjdata/image: found a link"),
    "external link": ("x.mat", struct_with("image", h5py.ExternalLink("/etc/hostname", "x")), "cjdata/image: found a link"),
    "external storage": (
        "x.mat",
        struct_with("image", (5, 6), dtype="i1", external=[("/etc/hostname", 0, 30)]),
        "cjdata/image: found external storage",
    ),
    "virtual data set": ("x.mat", virtual, "cjdata/image: found a virtual data set"),
    "another filter": ("x.mat", struct_with("image", data=array(5, 6), compression="lzf"), "cjdata/image: found filter 32000"),
    "three axes": ("x.mat", struct_with("image", data=array(5, 6, 2)), "cjdata/image: found 3 axes"),
    "complex": ("x.mat", struct_with("image", data=array(5, 6) * 1j), "cjdata/image: found complex128"),
    "patient of a fraction": ("x.mat", struct_with("PID", data=[[0.5]]), "cjdata/PID: found 0.5 of type float64"),
    "text": ("x.mat", struct_with("image", data="hello"), "cjdata/image"),
    "references": ("x.mat", struct_with("image", (5, 6), dtype=h5py.ref_dtype), "cjdata/image: found object"),
    "patient of text": ("x.mat", struct_with("PID", data="hello"), "cjdata/PID"),
    "half a class": ("x.mat", struct_with("label", data=[[1.5]]), "cjdata/label: found 1.5"),
    "two classes": ("x.mat", struct_with("label", data=[[1, 2]]), "cjdata/label: found 1x2"),
    "declares more than it stores": (
        "x.mat",
        struct_with("image", (9000, 9000), dtype="f8", chunks=(900, 900), compression="gzip"),
        "cjdata/image: found 0 bytes stored",
    ),
    "claims to be huge": ("x.mat", struct_with("image", (60000, 60000), dtype="f8", chunks=(9, 9)), "cjdata/image"),
    "flipped bit": ("x.mat", flipped_chunk, "cjdata/image: found broken data"),
    "NaN": ("x.mat", struct_with("image", data=np.full((5, 6), np.nan)), "30 NaN"),
}


# NumPy and NRRD


def save(made: Any) -> Maker:
    return lambda path: np.save(path, made, allow_pickle=True)


NUMPY: dict[str, tuple[str, Maker, str]] = {
    "no NumPy": ("x.npy", lambda path: path.write_bytes(b"hello" * 99), "no NumPy header"),
    "header is no table": ("x.npy", changed(save(array(4, 5, 6)), b"'fortran_order'", b"'fortran_orde' "), "no NumPy header"),
    "objects": ("x.npy", save(np.array([[None, {}], [1, 2]])), "Python objects"),
    "fields": ("x.npy", save(np.zeros((4, 5), "i2,f4")), "colours"),
    "complex": ("x.npy", save(array(4, 5) * 1j), "complex128"),
    "text": ("x.npy", save(np.array([["a", "b"]])), "<U1"),
    "1-D": ("x.npy", save(array(9)), "found 1 (9)"),
    "5-D": ("x.npy", save(array(2, 2, 2, 2, 2)), "found 5"),
    "4-D that is not declared": ("x.npy", save(array(2, 4, 5, 6)), "2 volumes along the fourth axis"),
    "zero-size": ("x.npy", save(array(4, 0, 6)), "at least one voxel"),
    "cut": ("x.npy", cut(save(array(4, 5, 6)), 9), "as its header says"),
    "too long": ("x.npy", lambda path: (save(array(4, 5))(path), path.write_bytes(path.read_bytes() + b"x")), "header says"),
    "claims to be huge": ("x.npy", changed(save(array(4, 5, 6)), b"(4, 5, 6), }   ", b"(9999,9999,99)}"), "at most"),
    "NaN": ("x.npy", save(np.full((4, 5), np.nan)), "20 NaN"),
}


def volume(**fields: Any) -> Maker:
    return lambda path: nrrd.write(str(path), array(4, 5, 6), {"encoding": "raw", **fields})


SPACE: dict[str, Any] = {"space": "left-posterior-superior", "space directions": np.eye(3), "space origin": [0, 0, 0]}
PACKED = volume(encoding="gzip")
NRRD: dict[str, tuple[str, Maker, str]] = {
    "no NRRD": ("x.nrrd", lambda path: path.write_bytes(b"hello" * 99), "no NRRD header"),
    "no end of the header": ("x.nrrd", lambda path: path.write_bytes(b"NRRD0005\ntype: short\n"), "no NRRD header"),
    "version of the future": ("x.nrrd", changed(volume(), b"NRRD000", b"NRRD009"), "header: found"),
    "field twice": ("x.nrrd", changed(volume(), b"encoding: raw", b"type: short\nencoding: raw"), "Duplicate"),
    "voxels elsewhere": ("x.nrrd", changed(volume(), b"encoding: raw", b"data file: y\nencoding: raw"), "another file"),
    "detached header": ("x.nhdr", volume(), "format: found .nhdr"),
    "text for voxels": ("x.nrrd", volume(encoding="ascii"), "encoding: found ascii"),
    "bzip2": ("x.nrrd", volume(encoding="bzip2"), "encoding: found bzip2"),
    "no sizes": ("x.nrrd", changed(volume(), b"sizes:", b"seizes:"), "sizes: found nothing"),
    "fewer sizes": ("x.nrrd", changed(volume(), b"4 5 6", b"4 5"), "sizes: found 4x5"),
    "size of zero": ("x.nrrd", changed(volume(), b"4 5 6", b"4 0 6"), "at least one voxel"),
    "size is text": ("x.nrrd", changed(volume(), b"4 5 6", b"4 a 6"), "header: found"),
    "unknown type": ("x.nrrd", changed(volume(), b"type: int16", b"type: float16"), "voxel type: found float16"),
    "no byte order": ("x.nrrd", changed(volume(), b"endian: little", b"content: x"), "endian: found nothing"),
    "skips bytes": ("x.nrrd", changed(volume(), b"encoding: raw", b"byte skip: 9\nencoding: raw"), "byte skip: found 9"),
    "unknown space": ("x.nrrd", volume(**{**SPACE, "space": "scanner-xyz"}), "space: found scanner-xyz"),
    "singular directions": ("x.nrrd", volume(**{**SPACE, "space directions": np.ones((3, 3))}), "singular"),
    "no directions": ("x.nrrd", changed(volume(**SPACE), b"space directions", b"space_directions"), "space directions"),
    "NaN in the origin": ("x.nrrd", volume(**{**SPACE, "space origin": [0, np.nan, 0]}), "NaN"),
    "zero spacing": ("x.nrrd", volume(spacings=[1, 0, 1]), "spacing: found 1x0x1 mm"),
    "negative spacing": ("x.nrrd", volume(spacings=[1, -1, 1]), "spacing: found 1x-1x1 mm"),
    "4-D without channels": ("x.nrrd", lambda path: nrrd.write(str(path), array(4, 5, 6, 2)), "at most one of channels"),
    "1-D": ("x.nrrd", lambda path: nrrd.write(str(path), array(9)), "2 or 3 in space"),
    "cut": ("x.nrrd", cut(volume(), 9), "as its header says"),
    "cut gzip": ("x.nrrd", cut(PACKED, 9), "end-of-stream"),
    "wrong checksum": ("x.nrrd", lambda path: (PACKED(path), path.write_bytes(path.read_bytes()[:-8] + bytes(8))), "CRC"),
    "too long": ("x.nrrd", lambda path: (volume()(path), path.write_bytes(path.read_bytes() + b"x")), "after the voxels"),
    "claims to be huge": ("x.nrrd", changed(volume(), b"4 5 6", b"9999 9999 9999"), "at most"),
}


# pictures


def picture(mode: str, suffix: str, **options: Any) -> Maker:
    def maker(path: Path) -> None:
        made = Image.fromarray(array(6, 5, dtype="uint8")).convert(mode)
        made.save(path, suffix, **options)

    return maker


def see_through(path: Path) -> None:
    Image.fromarray(array(6, 5, 2, dtype="uint8"), "LA").save(path)


def invisible_colour(path: Path) -> None:
    Image.fromarray(array(6, 5, dtype="uint8")).save(path, transparency=int(array(6, 5)[0, 0]))


def wrong_crc(path: Path) -> None:
    picture("L", "PNG")(path)
    raw = path.read_bytes()
    at = raw.index(b"IDAT") + 4
    data = raw[at : at + struct.unpack(">I", raw[at - 8 : at - 4])[0]]
    path.write_bytes(raw.replace(struct.pack(">I", zlib.crc32(b"IDAT" + data)), b"abcd"))


def header_of(width: int, height: int) -> Maker:
    data = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + data + struct.pack(">I", zlib.crc32(b"IHDR" + data))

    def maker(path: Path) -> None:
        picture("L", "PNG")(path)
        raw = path.read_bytes()
        path.write_bytes(raw[:8] + chunk + raw[33:])

    return maker


PICTURES: dict[str, tuple[str, Maker, str]] = {
    "transparency": ("x.png", see_through, "transparency: found pixels of opacity"),
    "a transparent grey": ("x.png", invisible_colour, "transparency: found pixels of opacity 0"),
    "ink": ("x.jpg", picture("CMYK", "JPEG"), "colours: found mode CMYK"),
    "RGB that is not declared": ("x.png", picture("RGB", "PNG"), "channels: found 3, expected 1"),
    "pages": ("x.tif", picture("L", "TIFF", save_all=True, append_images=[Image.new("L", (5, 6))]), "pages: found 2"),
    "another format": ("x.png", picture("L", "GIF"), "no picture"),
    "text": ("x.jpg", lambda path: path.write_text("hello"), "no picture"),
    "cut PNG": ("x.png", cut(picture("L", "PNG"), 20), "broken picture"),
    "cut JPEG": ("x.jpg", cut(picture("L", "JPEG"), 20), "broken picture"),
    "cut TIFF": ("x.tif", lambda path: (picture("L", "TIFF")(path), path.write_bytes(path.read_bytes()[:20])), "x.tif"),
    "wrong PNG checksum": ("x.png", wrong_crc, "broken picture"),
    "zero-size": ("x.png", header_of(0, 6), "x.png"),
    "claims to be huge": ("x.png", header_of(60000, 60000), "x.png"),
    "constant": ("x.png", lambda path: Image.new("L", (5, 6), 3).save(path), "3 everywhere"),
}

DEFECTS = {
    f"{kind}: {name}": defect
    for kind, table in {"DICOM": DICOM, "MATLAB": MATLAB, "NumPy": NUMPY, "NRRD": NRRD, "picture": PICTURES}.items()
    for name, defect in table.items()
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_one_line(name: str, tmp_path: Path) -> None:
    image, maker, said = DEFECTS[name]
    maker(tmp_path / image.partition("#")[0])
    problems = check(tmp_path, [image])
    assert len(problems) == 1, problems
    line = str(problems[0])
    assert said in line
    assert len(line) <= 300
    assert line.isprintable()


LABELS: dict[str, tuple[np.ndarray | Image.Image, str]] = {
    "colours": (array(6, 5, 3, dtype="uint8"), "1 for a label"),
    "palette with a class too many": (Image.fromarray(array(6, 5, dtype="uint8") % 3).convert("P"), "class"),
    "another size": (array(5, 5, dtype="uint8") % 2, "6x5"),
    "ink in place of classes": (array(6, 5, dtype="uint8") % 2 * np.uint8(255), "class 255"),
}


@pytest.mark.parametrize("name", LABELS)
def test_each_defect_of_a_picture_of_classes(name: str, tmp_path: Path) -> None:
    label, said = LABELS[name]
    picture("L", "PNG")(tmp_path / "x.png")
    (label if isinstance(label, Image.Image) else Image.fromarray(label)).save(tmp_path / "y.png")
    problems = check(tmp_path, ["x.png"], labels=["y.png"])
    assert len(problems) == 1, problems
    assert said in str(problems[0])


@pytest.mark.parametrize(
    ("maker", "said"),
    [
        (mat, None),
        (cut(mat, 99), "no whole HDF5"),
        (struct_with("image"), "cjdata/image: found nothing"),
        (struct_with("tumorMask"), "cjdata/tumorMask: found nothing"),
        (struct_with("tumorMask", data=array(4, 6)), "shape: found 6x4, expected 6x5"),
        (struct_with("tumorMask", data=array(5, 6)), "class"),
        (struct_with("tumorMask", data=array(5, 6) * 0), "background only"),
    ],
)
def test_a_file_that_is_image_and_label(maker: Maker, said: str | None, tmp_path: Path) -> None:
    maker(tmp_path / "x.mat")
    problems = check(tmp_path, ["x.mat"], labels=["x.mat"])
    assert [said in str(problem) for problem in problems] == ([True] if said else []), problems


def four_channels(path: Path) -> None:
    path.write_bytes(make.nifti(array(6, 7, 8, 4)))


def enhanced_like(path: Path) -> None:
    make.dicom(path, array(3, 6, 5), SpacingBetweenSlices=4)


def gz(**changes: tuple[int, str, tuple[float, ...]]) -> Maker:
    return lambda path: path.write_bytes(gzip.compress(make.nifti(array(6, 7, 8), **changes)))


def transcoded(name: str) -> Maker:
    def maker(path: Path) -> None:
        import gdcm

        make.dicom(path, array(16, 12))
        make.transcode(path, getattr(gdcm.TransferSyntax, name))

    return maker


def with_palette(path: Path, grey: bool = True) -> None:
    made = Image.fromarray(array(6, 5, dtype="uint8") % 2)
    made.putpalette([9, 9, 9, 99, 99, 99] if grey else [0, 0, 0, 128, 0, 0])
    made.save(path)


def opaque(mode: str) -> Maker:
    def maker(path: Path) -> None:
        pixels = array(6, 5, len(mode), dtype="uint8")
        pixels[..., -1] = 255
        Image.fromarray(pixels, mode).save(path)

    return maker


GOOD: dict[str, tuple[int, dict[str, Maker]]] = {  # modality names, files
    "volumes": (
        1,
        {
            "a.nii": lambda path: path.write_bytes(make.nifti(array(6, 7, 8))),
            "b.nii.gz": gz(),
            "c.nii.gz": gz(pixdim=(80, "3f", (0, 0, 0))),  # the affine is given elsewhere
            "d.nii.gz": gz(codes=(252, "2h", (0, 0)), pixdim=(80, "3f", (2, 2, 3))),
            "e.nii.gz": gz(codes=(252, "2h", (1, 0))),
            "f.nii.gz": gz(slope=(112, "2f", (0.5, -9))),
            "g.nii.gz": lambda path: path.write_bytes(gzip.compress(make.nifti(array(6, 7, 8, 1)))),
            "ct": stack(),
            "scans": two_series,
            "frames.dcm": enhanced_like,
            "a.npy": save(array(4, 5, 6)),
            "b.npy": save(array(1, 4, 5, 6, dtype="float32")),
            "c.npy": save(np.asfortranarray(array(4, 5, 6))),
            "a.nrrd": volume(),
            "b.nrrd": PACKED,
            "c.nrrd": volume(**SPACE),
            "d.nrrd": volume(spacings=[1, 2, 3]),
        },
    ),
    "volumes of 4 channels": (
        4,
        {
            "a.nii": four_channels,
            "b.nii.gz": lambda path: path.write_bytes(gzip.compress(make.nifti(array(6, 7, 8, 1, 4)))),
            "a.npy": save(array(4, 6, 7, 8)),
            "a.nrrd": lambda path: nrrd.write(str(path), array(4, 6, 7, 8), {"kinds": ["list", *["domain"] * 3]}),
        },
    ),
    "grey pictures": (
        1,
        {
            "a.png": picture("L", "PNG"),
            "b.png": picture("1", "PNG"),
            "c.png": with_palette,
            "d.png": opaque("LA"),
            "e.png": lambda path: Image.fromarray(array(6, 5, dtype="uint16") * 9).save(path),
            "a.jpg": picture("L", "JPEG"),
            "a.tif": picture("F", "TIFF"),
            "b.tiff": picture("L", "TIFF", compression="tiff_lzw"),
            "a.bmp": picture("L", "BMP"),
            "a.npy": save(array(6, 5)),
            "a.nrrd": lambda path: nrrd.write(str(path), array(6, 5)),
            "a.mat": mat,
            "b.mat": struct_with("PID"),
            "c.mat": struct_with("image", data=array(5, 6).astype("f8"), compression="gzip", shuffle=True, fletcher32=True),
            "a.dcm": one(),
            "b": one(BitsStored=12, PhotometricInterpretation="MONOCHROME1"),
            "c.dcm": run_lengths,
            "d.dcm": transcoded("JPEGLosslessProcess14_1"),
            "e.dcm": transcoded("JPEGLSLossless"),
            "f.dcm": transcoded("JPEG2000Lossless"),
            "g.dcm": coded(jpeg(6, 5), JPEGBaseline8Bit),
        },
    ),
    "colour pictures": (
        3,
        {
            "a.png": picture("RGB", "PNG"),
            "b.png": opaque("RGBA"),
            "c.png": lambda path: with_palette(path, grey=False),
            "a.jpg": lambda path: Image.fromarray(array(6, 5, 3, dtype="uint8")).save(path),
            "a.dcm": lambda path: make.dicom(path, array(6, 5, 3, dtype="uint8")),
        },
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_files_give_nothing(kind: str, tmp_path: Path) -> None:
    channels, makers = GOOD[kind]
    for name, maker in makers.items():
        maker(tmp_path / name)
    names = [name if name != "scans" else "scans#1.2.9" for name in makers]
    if kind == "colour pictures":  # a red palette leaves the other channels empty
        Image.fromarray(array(6, 5, 3, dtype="uint8")).quantize(8).save(tmp_path / "c.png")
    assert check(tmp_path, names, channels) == []


def test_good_labels_give_nothing(tmp_path: Path) -> None:
    classes = array(6, 5, dtype="uint8") % 2
    makers: dict[str, Maker] = {
        "a.png": lambda path: Image.fromarray(classes).save(path),
        "b.png": lambda path: with_palette(path, grey=False),
        "c.png": lambda path: Image.fromarray(classes > 0).save(path),
        "d.npy": save(classes > 0),
        "e.mat": mat,
    }
    for name, maker in makers.items():
        maker(tmp_path / name)
        picture("L", "PNG")(tmp_path / f"{name}_image.png")
    assert check(tmp_path, [f"{name}_image.png" for name in makers], labels=list(makers)) == []


@pytest.mark.parametrize(
    ("place", "ids", "said"),
    [
        (
            {"training": [0], "test": [1]},
            ["P7", "p7"],
            "p7 in its header, who is in training (0.dcm), expected a patient in one part only",
        ),
        ({"pretraining": [0], "validation": [1]}, ["P7", "P7_day2"], "P7_day2 in its header, who is in pretraining (0.dcm)"),
        ({"training": [0, 1]}, ["P7", "P7"], "in fold 0 of training (0.dcm), expected a patient in one fold only"),
        ({"pretraining": [0], "training": [1]}, ["P7", "P7"], None),
        ({"training": [0], "test": [1]}, ["P7", "P8"], None),
        ({"training": [0], "test": [1]}, ["Anonymous", "Anonymous"], None),
    ],
)
@pytest.mark.parametrize("grouped_by", ["patient", "image"])
def test_patients_of_the_files(
    place: dict[str, list[int]], ids: list[str], said: str | None, grouped_by: str, tmp_path: Path
) -> None:
    content: dict[str, Any] = {"task": "classification", "labels": {"0": "no", "1": "yes"}, "modality": {"0": "x"}}
    for k in range(4):  # two pictures each: one line a patient
        make.dicom(tmp_path / f"{k}.dcm", array(6, 5, seed=k), PatientID=ids[k % 2])
    for part, cases in place.items():
        made = [{"id": f"c{k}", "image": f"{k}.dcm", "label": k % 2, "fold": k % 2} for case in cases for k in (case, case + 2)]
        content[part] = [{key: case[key] for key in case if key != "fold" or part == "training"} for case in made]
    (tmp_path / "split.json").write_text(json.dumps({**content, "grouped_by": grouped_by}))
    problems = check_split(read_split(tmp_path / "split.json"), deep=True)
    assert [problem.field for problem in problems] == ["patient"] * (said is not None)
    assert said is None or said in str(problems[0])


@pytest.mark.parametrize("parts", [("pretraining", "validation"), ("training", "validation", "test")])
def test_patients_of_the_files_are_compared_with_parts_that_no_script_reads_together(
    parts: tuple[str, ...], tmp_path: Path
) -> None:
    """Pre-training reads no test part, fine-tuning no pre-training; of what they don't read no other problem is told."""
    content: dict[str, Any] = {"task": "classification", "labels": {"0": "no", "1": "yes"}, "modality": {"0": "x"}}
    for part, patient in {"pretraining": "P7", "training": "P8", "validation": "P9", "test": "P7"}.items():
        make.dicom(tmp_path / f"{part}.dcm", array(6, 5), PatientID=patient)
        content[part] = [{"image": f"{part}.dcm", "label": 0}]
    content["test" if "test" not in parts else "pretraining"] += [{"image": "lost.dcm"}, {"image": "gone.nii.gz"}]
    (tmp_path / "split.json").write_text(json.dumps(content))
    (problem,) = check_split(read_split(tmp_path / "split.json"), image_parts=parts, parts=parts)
    assert "test.dcm: patient: found P7 in its header, who is in pretraining (pretraining.dcm)" in str(problem)


def test_there_are_enough_of_both() -> None:
    assert len(DEFECTS) >= 60
    assert sum(len(makers) for _, makers in GOOD.values()) >= 40
