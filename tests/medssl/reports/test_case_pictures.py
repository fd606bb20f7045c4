"""Cards: the saliency lies over the image, where it belongs, and the image stays readable."""

import io

import numpy as np
import pytest
from PIL import Image

from medssl.reports.case_pictures import GAP, SIDE, case_picture, overlay


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), float)


def test_a_place_without_effect_keeps_its_grey_and_more_is_brighter() -> None:
    grey = np.linspace(0, 1, 5)[None]
    assert np.allclose(overlay(grey, np.zeros((1, 5))), grey[..., None])
    ramp = overlay(np.full((1, 64), 0.3), np.linspace(0.5, 1, 64)[None])[0] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(ramp) > 0).all()  # luminance alone tells more from less
    strong = overlay(np.linspace(0, 1, 5)[None], np.ones((1, 5)))[0].mean(1)
    assert strong[-1] - strong[0] == pytest.approx(0.35)  # the image shows through


def test_a_2d_image_stands_beside_its_saliency() -> None:
    image, saliency = np.zeros((1, 16, 32)), np.zeros((16, 32), np.uint8)
    image[0, :, 16:] = 1
    saliency[:8, :16] = 255  # upper left
    found = pixels(case_picture({"image_0": image, "saliency_0": saliency}, 0))
    assert found.shape == (SIDE // 2, 2 * SIDE + GAP, 3)
    left, right = found[:, :SIDE], found[:, SIDE + GAP :]
    coloured = np.abs(left - right).sum(2) > 0
    assert coloured[: SIDE // 4, : SIDE // 2].all()
    assert coloured.sum() == SIDE // 4 * SIDE // 2
    assert pixels(case_picture({"image_0": image}, 0)).shape[:2] == (SIDE // 2, SIDE)
    assert pixels(case_picture({"image_0": image}, 0, spacing=(2.0, 1.0))).shape[:2] == (SIDE, SIDE)


def test_slices_are_radiological_and_stand_above_their_saliency() -> None:
    image, saliency = np.full((1, 8, 8, 3), 0.5), np.zeros((8, 8, 3), np.uint8)
    image[0, 0, 0, 0] = 0
    saliency[7, 7, 1] = 255  # right, anterior: upper left of the second slice
    arrays = {"image_0": image, "saliency_0": saliency, "slices_0": np.array([3, 9, 11])}
    found = pixels(case_picture(arrays, 0))
    assert found.shape[:2] == (2 * SIDE + GAP, 3 * SIDE + 2 * GAP)
    coloured = np.argwhere(np.abs(found[:SIDE] - found[SIDE + GAP :]).sum(2) > 0)
    cell = SIDE // 8
    assert coloured.min(0).tolist() == [0, SIDE + GAP]
    assert coloured.max(0).tolist() == [cell - 1, SIDE + GAP + cell - 1]
