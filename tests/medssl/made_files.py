"""Writes small image files for tests: DICOM, figshare's MATLAB struct, NIfTI by hand; good ones unless told otherwise."""

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SERIES = "1.2.826.0.1.3680043.8.498.1"
MATLAB = b"MATLAB 7.3 MAT-file".ljust(116) + b" " * 8 + b"\x00\x02IM"


def nifti(array: np.ndarray, **changes: tuple[int, str, tuple[float, ...]]) -> bytes:
    """A NIfTI-1 file packed by hand; each change is an offset into the header, a struct format and its numbers."""
    code = {"uint8": 2, "int16": 4, "float32": 16, "complex64": 32, "float64": 64}[array.dtype.name]
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, array.ndim, *array.shape, *[1] * (7 - array.ndim))
    struct.pack_into("<2h", head, 70, code, array.itemsize * 8)
    struct.pack_into("<8f3f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1, 352, 1, 0)
    struct.pack_into("<2h", head, 252, 0, 1)
    struct.pack_into("<12f", head, 280, 1, 0, 0, -3, 0, 1, 0, -4, 0, 0, 2, -5)
    head[344:348] = b"n+1\0"
    for offset, form, numbers in changes.values():
        struct.pack_into("<" + form, head, offset, *numbers)
    return bytes(head) + array.tobytes(order="F")


def data_set(pixels: np.ndarray, **tags: Any) -> Dataset:
    """A CT slice of `pixels` (row, column), or (row, column, colour), or (frame, row, column); None leaves a tag out."""
    made = Dataset()
    colours = pixels.ndim == 3 and pixels.shape[2] == 3
    made.Rows, made.Columns = pixels.shape[:2] if colours else pixels.shape[-2:]
    if pixels.ndim == 3 and not colours:
        made.NumberOfFrames = len(pixels)
    made.SOPClassUID, made.SOPInstanceUID = CT, pydicom.uid.generate_uid()
    made.PatientID, made.StudyInstanceUID, made.SeriesInstanceUID = "P7", "1.2.3", SERIES
    made.Modality, made.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.PixelSpacing, made.ImageOrientationPatient, made.ImagePositionPatient = [0.7, 0.5], [1, 0, 0, 0, 1, 0], [-100, -80, 30]
    made.SamplesPerPixel = 3 if colours else 1
    made.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = pixels.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    made["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for name, value in tags.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    if made.BitsStored < made.BitsAllocated and "HighBit" not in tags:
        made.HighBit = made.BitsStored - 1
    return made


def write(path: Path, made: Dataset, syntax: str = ExplicitVRLittleEndian) -> None:
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.save_as(path, enforce_file_format=True)


def dicom(path: Path, pixels: np.ndarray, **tags: Any) -> None:
    write(path, data_set(pixels, **tags))


def series(folder: Path, pixels: np.ndarray, gap: float = 5.0, name: str = "IM{:03}", **tags: Any) -> None:
    """Axial slices of `pixels` (slice, row, column), `gap` mm apart; the last slice has the first name."""
    folder.mkdir(exist_ok=True)
    for k, part in enumerate(pixels):
        tags["ImagePositionPatient"] = [-100, -80, 30 + k * gap]
        dicom(folder / name.format(len(pixels) - k), part, **tags)


def enhanced(slices: np.ndarray, places: list[list[float]], **tags: Any) -> Dataset:
    """Frames of `slices` (frame, row, column) at their places, described by functional groups."""

    def item(**tags: Any) -> Sequence:
        made = Dataset()
        for name, value in tags.items():
            setattr(made, name, value)
        return Sequence([made])

    nowhere = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    made = data_set(slices, **nowhere | tags)
    measures = item(PixelSpacing=[0.7, 0.5])
    rescale = item(RescaleSlope=3, RescaleIntercept=-5)
    turn = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    made.SharedFunctionalGroupsSequence = item(PixelMeasuresSequence=measures, PlaneOrientationSequence=turn)
    frames = [{"PlanePositionSequence": item(ImagePositionPatient=place)} for place in places]
    made.PerFrameFunctionalGroupsSequence = Sequence(
        [item(PixelValueTransformationSequence=rescale, **frame)[0] for frame in frames]
    )
    return made


def transcode(path: Path, syntax: int) -> None:
    """Compress a file's pixels with one of gdcm's encoders."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def mat(path: Path, image: np.ndarray, mask: np.ndarray, pid: str = "MR012345B", label: float = 2.0) -> None:
    """A file with the fields of figshare 1512427; arrays are (row, column) and are stored transposed, as MATLAB does."""
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        group["PID"] = np.array([[ord(letter)] for letter in pid], np.uint16)
        group["label"] = np.array([[label]])
        group.create_dataset("image", data=image.T, compression="gzip", compression_opts=3)
        group["tumorBorder"] = np.zeros((1, 8))
        group.create_dataset("tumorMask", data=mask.T, compression="gzip", compression_opts=3)
    with path.open("r+b") as raw:
        raw.write(MATLAB)
