"""The box around a masked object, against a search over all boxes, and the crop to it."""

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from transforms.prepare import prepare_geometry
from transforms.region import CropToMaskd, region_box


def slow_box(mask: np.ndarray, margin: float, voxel: tuple[float, ...]) -> tuple[list[int], list[int]]:
    """By search: along each axis the least length that holds the side, where it lies nearest to the object's middle."""
    inside = [sorted({place[axis] for place in zip(*np.nonzero(mask), strict=True)}) for axis in range(mask.ndim)]
    side = max((rows[-1] + 1 - rows[0]) * mm for rows, mm in zip(inside, voxel, strict=True)) * (1 + 2 * margin)
    start, end = [], []
    for rows, mm, length in zip(inside, voxel, mask.shape, strict=True):
        size = next(n for n in range(1, length + 1) if n * mm >= side - 1e-9 or n == length)
        middle = (rows[0] + rows[-1] + 1) / 2
        first = min(range(length - size + 1), key=lambda at: (abs(at + size / 2 - middle), at))
        start.append(int(first))
        end.append(int(first + size))
    return start, end


@pytest.mark.parametrize(("shape", "voxel"), [((40, 31), (1.0, 1.0)), ((40, 31), (0.5, 0.8)), ((20, 24, 9), (1.0, 0.7, 3.0))])
@pytest.mark.parametrize("margin", [0.0, 0.25, 0.9])
def test_the_box_is_the_one_that_a_search_finds(shape: tuple[int, ...], voxel: tuple[float, ...], margin: float) -> None:
    """Objects of all places and proportions, many of them at the border."""
    random = np.random.default_rng(0)
    for _ in range(40):
        low = random.integers(0, shape)
        high = np.minimum(low + random.integers(1, 14, len(shape)), shape)
        mask = np.zeros(shape, np.uint8)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mask[box] = random.random(mask[box].shape) < 0.3
        mask[tuple(low)] = 2
        start, end = region_box(mask, margin, voxel)
        assert (start.tolist(), end.tolist()) == slow_box(mask, margin, voxel)
        inside = np.zeros(shape, bool)
        inside[tuple(slice(a, b) for a, b in zip(start, end, strict=True))] = True
        assert inside[mask > 0].all()  # the object is whole


def test_a_margin_is_a_share_of_the_longest_side() -> None:
    mask = np.zeros((100, 100))
    mask[40:60, 45:55] = 1
    for margin, side in ((0.0, 20), (0.1, 24), (0.5, 40), (3.0, 100)):
        start, end = region_box(mask, margin)
        assert (end - start).tolist() == [side, side]
        assert ((start + end) / 2).tolist() == [50, 50]
    assert np.stack(region_box(mask[40:, 45:], 0.5)).tolist() == [[0, 0], [40, 40]]  # shifted inside
    for wrong in ((np.zeros((5, 5)), 0.1), (mask, -0.1)):
        with pytest.raises(ValueError, match=r"^(mask|roi): found .*, expected "):
            region_box(*wrong)


def test_the_crop_keeps_places_in_mm_and_takes_no_mask_along() -> None:
    """Stored as S, L, A with voxels of 3, 1.5 and 2 mm; the object is a cube in mm, so the box has no other voxel."""
    affine = np.array([[0, -1.5, 0, 9], [0, 0, 2.0, -8], [3.0, 0, 0, 7], [0, 0, 0, 1]])
    mask = np.zeros((12, 24, 18), np.float32)
    mask[4:6, 8:12, 6:9] = 1
    random = np.random.default_rng(0)
    image = random.random(mask.shape).astype(np.float32)
    data = {
        name: MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))
        for name, array in {"image": image, "mask": mask}.items()
    }
    out = prepare_geometry(("image",), roi=0.0)(data)
    assert set(out) == {"image"}
    assert out["image"].shape == (1, 4, 3, 2)
    ras = nibabel.as_closest_canonical(nibabel.Nifti1Image(image, affine))
    marked = nibabel.as_closest_canonical(nibabel.Nifti1Image(mask, affine)).get_fdata() > 0
    assert np.array_equal(np.asarray(out["image"]).ravel(), ras.get_fdata()[marked])
    corner = ras.affine @ [*np.argwhere(marked).min(0), 1]
    np.testing.assert_allclose(out["image"].affine.numpy()[:3, 3], corner[:3])
    whole = CropToMaskd(("image",), 9.0, "mask")(data)["image"]
    assert np.array_equal(np.asarray(whole), np.asarray(data["image"]))
