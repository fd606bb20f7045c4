"""Small files that claim or unpack to gigabytes are refused within a second and 50 MB."""

import gzip
import io
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import made_files as make
import nrrd
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

VOLUME = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
READ = """
import resource, sys, time
import h5py, nibabel.nifti1, nrrd, numpy, pydicom, pydicom.pixels, PIL.Image, pydicom.filereader
from medssl.readers import ReadError, read_header, read_image
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
for read in (read_header, read_image):
    try:
        read(sys.argv[1])
    except ReadError as error:
        print(error)
print(time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def nifti_claim(path: Path) -> None:
    path.write_bytes(gzip.compress(make.nifti(VOLUME, dim=(40, "8h", (3, 30000, 30000, 30, 1, 1, 1, 1)))))


def nifti_tail(path: Path) -> None:
    path.write_bytes(gzip.compress(make.nifti(VOLUME)) + gzip.compress(bytes(2**24)) * 64)  # 1 GB


def mat_claim(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("cjdata/image", (60000, 60000), "f8", chunks=(1000, 1000), compression="gzip")


def mat_unpacks(path: Path) -> None:
    """A chunk of 200 bytes that unpacks to 1 GB."""
    import zlib

    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(64)) + packer.flush()
    with h5py.File(path, "w") as file:
        made = file.create_dataset("cjdata/image", (10, 10), "u2", chunks=(10, 10), compression="gzip")
        made.id.write_direct_chunk((0, 0), packed)


def npy_claim(path: Path) -> None:
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1200, 1200, 1200)}\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)


def nrrd_claim(path: Path) -> None:
    nrrd.write(str(path), VOLUME)
    path.write_bytes(path.read_bytes().replace(b"4 5 6", b"1200 1200 1200"))


def nrrd_tail(path: Path) -> None:
    nrrd.write(str(path), VOLUME)
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(2**24)) * 64)


def dicom_claim(path: Path) -> None:
    make.dicom(path, VOLUME[0], Rows=60000, Columns=30000)


def dicom_coded_claim(path: Path) -> None:
    """A JPEG of 5 KB whose own header agrees with the claim."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)).save(out, "JPEG")
    data = out.getvalue()
    at = data.index(b"\xff\xc0") + 5
    data = data[:at] + struct.pack(">2H", 40000, 40000) + data[at + 4 :]
    made = make.data_set(VOLUME[0].astype(np.uint8), PixelData=encapsulate([data]), Rows=40000, Columns=40000)
    made["PixelData"].is_undefined_length = True
    make.write(path, made, JPEGBaseline8Bit)


def dicom_rle_unpacks(path: Path) -> None:
    """A picture of 4 KB whose compressed pixels unpack to 640 MB."""
    coded = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 5_000_000
    made = make.data_set(np.zeros((64, 64), np.uint8), PixelData=encapsulate([coded]))
    made["PixelData"].is_undefined_length = True
    make.write(path, made, RLELossless)


def dicom_deflated(path: Path) -> None:
    """The tags of a file, packed with 1 GB of zeros in front of the pixels."""
    import zlib

    make.dicom(path, VOLUME[0])
    raw = path.read_bytes().replace(ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.1.2.1.99")
    raw = raw[:156] + raw[156:].replace(
        struct.pack("<H", 20) + b"1.2.840.10008.1.2.1.99", struct.pack("<H", 22) + b"1.2.840.10008.1.2.1.99"
    )
    packer = zlib.compressobj(9, wbits=-15)
    path.write_bytes(raw + b"".join(packer.compress(bytes(2**24)) for _ in range(64)) + packer.flush())


def dicom_text(path: Path) -> None:
    """A patient whose name has 1 GB."""
    make.dicom(path, VOLUME[0])
    raw = path.read_bytes()
    head = raw[: raw.index(b"\x10\0\x20\0LO")] + struct.pack("<2H2s2xI", 0x0010, 0x0020, b"UT", 2**30)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 2**30)


BOMBS = {
    "claim.nii.gz": (nifti_claim, "at most"),
    "tail.nii.gz": (nifti_tail, "after the voxels"),
    "claim.mat": (mat_claim, "cjdata/image"),
    "unpacks.mat": (mat_unpacks, "cjdata/image"),
    "claim.npy": (npy_claim, "as its header says"),
    "claim.nrrd": (nrrd_claim, "as its header says"),
    "tail.nrrd": (nrrd_tail, "after the voxels"),
    "claim.dcm": (dicom_claim, "rows and columns"),
    "coded.dcm": (dicom_coded_claim, "what unpacks to"),
    "rle.dcm": (dicom_rle_unpacks, "as rows and columns say"),
    "deflated.dcm": (dicom_deflated, "Deflated"),
    "text.dcm": (dicom_text, "patient: found 1073741824 bytes"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str, tmp_path: Path) -> None:
    make_bomb, said = BOMBS[name]
    make_bomb(tmp_path / name)
    command = [sys.executable, "-c", READ, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    *lines, measured = done.stdout.splitlines()
    seconds, megabytes = map(float, measured.split())
    assert lines
    assert all(said in line for line in lines)
    assert seconds < 1
    assert megabytes < 50
