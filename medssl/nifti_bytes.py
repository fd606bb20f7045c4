"""A NIfTI file in gzip as bytes, of an image whose stored values, slope and place are to be kept as they are.

nibabel lays out the header; its own writer would choose another slope. The file holds no time of day, so that the same
image is the same bytes.
"""

import gzip

import numpy as np
import numpy.typing as npt

from medssl.readers import Volume

LONGEST = 2**15 - 1  # voxels of an axis in NIfTI-1


def nifti_bytes(volume: Volume) -> bytes:
    """Pack a volume of one channel, array (1, *spatial) in 2D or 3D; `readers.read_image` gives it back.

    float16, which the format lacks, becomes float32, and so do values whose slope or intercept float32 can't hold. It is
    NIfTI-1, and NIfTI-2 where an axis is too long for that.
    """
    import nibabel

    volume = _fitting(volume)
    array = volume.array[0]
    header = nibabel.Nifti1Header() if max(array.shape) <= LONGEST else nibabel.Nifti2Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_sform(volume.affine, code="scanner")
    header["pixdim"][1:4] = np.linalg.norm(volume.affine[:3, :3], axis=0)
    header.set_slope_inter(volume.slope, volume.intercept)
    header.set_xyzt_units("mm")
    header["vox_offset"] = len(header.binaryblock) + 4
    return gzip.compress(header.binaryblock + bytes(4) + array.tobytes(order="F"), compresslevel=1, mtime=0)


def label_volume(label: npt.NDArray[np.number], affine: npt.NDArray[np.float64]) -> Volume:
    """A label map (*spatial) of whole numbers as a volume of the smallest type that holds them."""
    classes = np.rint(label)
    return Volume(classes.astype(np.uint8 if classes.max(initial=0) < 256 else np.uint16)[None], 1.0, 0.0, affine)


def _fitting(volume: Volume) -> Volume:
    """The volume with numbers that the header's float32 fields hold exactly."""
    exact = all(float(np.float32(number)) == number for number in (volume.slope, volume.intercept))
    if volume.array.dtype == np.float16 or not exact:
        return Volume(volume.values(), 1.0, 0.0, volume.affine)
    return volume
