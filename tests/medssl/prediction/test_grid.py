"""Labels come back to the input's grid: against all class scores resampled at once, and for any position of the axes."""

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from medssl.prediction.grid import Grid, Linear, Nearest, is_exact, labels_on, lines_of, places_of
from medssl.preparation import prepare
from medssl.readers import Volume
from medssl.store import Geometry
from medssl.windows import label_map

CLASSES = 4


class Places(nn.Module):
    """Scores of classes by brightness and by the place in the window, so that windows disagree where they overlap."""

    def forward(self, x: Tensor) -> Tensor:
        bands = torch.linspace(0, 1, CLASSES).reshape(1, -1, *[1] * (x.ndim - 2))
        ramp = torch.linspace(-0.2, 0.2, x.shape[-1])
        return -8 * (x[:, :1] + ramp - bands).abs()


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    waves = sum(np.sin(random.uniform(3, 9) * axis + random.uniform(0, 6)) for axis in axes)
    return ((waves - waves.min()) / np.ptp(waves)).astype(np.float32)


def prepared_by(array: np.ndarray, affine: np.ndarray, geometry: Geometry) -> tuple[Tensor, Grid, Grid]:
    image, _, new = prepare(Volume(array[None], 1.0, 0.0, affine), None, geometry)
    return torch.from_numpy(image), Grid(array.shape, affine), Grid(image.shape[1:], new)


def affine_of(codes: str, spacing: tuple[float, ...] = (1.1, 0.8, 2.3)) -> np.ndarray:
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    matrix = np.diag([*spacing, 1.0]) @ inv_ornt_aff(turn, (30, 34, 22))
    matrix[:3, 3] += [12, -7, 40]
    return matrix


GEOMETRIES = [
    Geometry(3, (1.7, 1.3, 1.0)),
    Geometry(3, (0.9, 1.9, 2.0), foreground_above=0.1),
    Geometry(3, None, fit=(24, 24, 24)),
]


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["finer", "cropped", "fitted"])
def test_labels_are_those_of_all_probabilities_resampled(codes: str, geometry: Geometry) -> None:
    array = np.zeros((30, 34, 22), np.float32)
    array[5:27, 3:30, 4:19] = 0.2 + 0.8 * smooth((22, 27, 15))
    image, output, prepared = prepared_by(array, affine_of(codes), geometry)
    labels = labels_on(output, prepared)
    assert isinstance(labels, Linear)
    window = (16, 16, 16)
    found = label_map(Places(), image, window, labels=labels).numpy()
    scores = sliding_window_inference(image[None], window, 4, Places(), 0.25, "gaussian")[0]
    matrix = places_of(output, prepared)
    index = np.stack(np.meshgrid(*map(np.arange, output.shape), indexing="ij")).reshape(3, -1)
    places = matrix[:, :3] @ index + matrix[:, 3:]
    sampled = np.stack([map_coordinates(part, places, order=1, mode="nearest") for part in scores.softmax(0).numpy()])
    expected = sampled.argmax(0).reshape(output.shape)
    last = np.array(prepared.shape)[:, None] - 1
    outside = ((places < -0.501) | (places > last + 0.501)).any(0).reshape(output.shape)
    assert outside.any() == (geometry.foreground_above is not None)
    expected[outside] = 0
    assert len(np.unique(expected)) == CLASSES
    assert (found == expected).mean() > 0.9995  # ties


def test_the_same_grid_turned_loses_nothing() -> None:
    image, output, prepared = prepared_by(smooth((30, 34, 22)), affine_of("SAR"), Geometry(3, None, foreground_above=0.5))
    lines = lines_of(output, prepared)
    assert lines is not None
    assert is_exact(lines)
    labels = labels_on(output, prepared)
    assert isinstance(labels, Nearest)
    found = label_map(Places(), image, (16, 16, 16), labels=labels).numpy()
    plain = label_map(Places(), image, (16, 16, 16)).numpy()
    assert np.bincount(found.ravel())[1:].tolist() == np.bincount(plain.ravel())[1:].tolist()


def test_a_sheared_stack_takes_the_nearest_label() -> None:
    affine = affine_of("RAS")
    affine[1, 2] = 0.9  # a tilted gantry
    output, prepared = Grid((12, 13, 14), affine), Grid((20, 20, 30), np.diag([1.0, 1.0, 1.0, 1.0]) @ affine_of("RAS"))
    assert lines_of(output, prepared) is None
    source = np.random.default_rng(0).integers(0, 5, prepared.shape).astype(np.uint8)
    labels = labels_on(output, prepared)
    labels.begin(prepared.shape, 0, (0, 0, 0))
    labels.take(0, torch.nn.functional.one_hot(torch.from_numpy(source).long(), 5).movedim(-1, 0).float())
    found, matrix = labels.finish().numpy(), np.linalg.inv(prepared.affine) @ affine
    for index in np.ndindex(output.shape):
        at = (matrix @ [*index, 1])[:3]
        last = np.array(prepared.shape) - 1
        inside = (at > -0.501).all() and (at < last + 0.501).all()
        assert found[index] == (source[tuple(np.rint(at).astype(int).clip(0, last))] if inside else 0)


def test_an_image_fitted_into_a_picture_comes_back() -> None:
    image, output, prepared = prepared_by(smooth((45, 61)), np.eye(4), Geometry(2, fit=(32, 32)))
    found = label_map(Places(), image, (16, 16), labels=labels_on(output, prepared)).numpy()
    direct = label_map(Places(), torch.from_numpy(smooth((45, 61)))[None], (45, 61)).numpy()
    assert found.shape == (45, 61)
    assert (found == direct).mean() > 0.8  # windows add their ramp


def test_scores_of_two_planes_alone_are_held() -> None:
    image, output, prepared = prepared_by(smooth((60, 20, 20)), np.eye(4), Geometry(3, (2.0, 1.0, 1.0)))
    labels = labels_on(output, prepared)
    assert isinstance(labels, Linear)
    seen: list[int] = []
    paint = labels.paint

    def painted(j: int, probabilities: Tensor) -> None:
        seen.append(probabilities.numel())
        paint(j, probabilities)

    labels.paint = painted  # type: ignore[method-assign]
    label_map(Places(), image, (16, 16, 16), labels=labels)
    assert seen == [CLASSES * 20 * 20] * 60
