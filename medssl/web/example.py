"""An image to try a network with at once: made up, so that no patient's image leaves the data it was trained on."""

import gzip
import io
from functools import cache
from typing import Any

import numpy as np

from medssl.synth import SPACING, make_case

SEED = 20_261  # of no data set that `medssl synth` makes by itself


@cache
def made_up(dims: int, channels: int) -> tuple[str, bytes]:
    """The name and the bytes of an abdomen: a PNG, or a NIfTI file where no PNG can hold its axes and channels."""
    image, _ = make_case(dims, SEED, 0)
    if dims == 2 and channels in (1, 3):
        return "example.png", _picture(image, channels)
    return "example.nii.gz", _nifti(image, channels)


def _picture(image: Any, channels: int) -> bytes:
    from PIL import Image

    grey = np.clip((image + 175) * 0.6, 0, 255).astype(np.uint8).T[::-1, ::-1]  # HU -175 to 250, the front on top
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey if channels == 1 else np.repeat(grey[..., None], 3, 2))).save(stream, "PNG")
    return stream.getvalue()


def _nifti(image: Any, channels: int) -> bytes:
    import nibabel

    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([*image.shape, 1])[:3] - 1) / 2)
    whole = image.reshape(*image.shape, *[1] * (3 - image.ndim))
    if channels > 1:
        whole = np.stack([whole] * channels, -1)
    volume: Any = nibabel.Nifti1Image(whole, affine)
    volume.header.set_xyzt_units("mm")
    return gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)
