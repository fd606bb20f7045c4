"""Prediction in windows, and a data set judged."""

import math

import numpy as np
import pytest
import torch

from medssl.evaluate import LabelledImage, evaluate_segmentation, mean_dice, predict_volume, prediction_arrays
from medssl.problems import RunError
from medssl.scores.voxels import dice, summarise

NAMES = {0: "background", 1: "one", 2: "two"}


class Threshold(torch.nn.Module):
    """Three classes by the grey value, so that any way of cutting windows gives the same map."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(tuple(x.shape))
        return torch.cat([0.3 - x, 0.25 - (x - 0.5).abs(), x - 0.7], 1)


@pytest.mark.parametrize("shape", [(16, 16, 16), (40, 16, 9), (9, 7, 5), (16, 16), (50, 11)])
def test_windows_give_the_map_of_one_forward(shape: tuple[int, ...]) -> None:
    network, window = Threshold().train(), (16,) * len(shape)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    found = predict_volume(network, image, window, overlap=0.5, batch_size=2)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), Threshold()(image[None])[0].argmax(0))
    assert {shape[2:] for shape in network.batches} == {window}
    assert max(shape[0] for shape in network.batches) <= 2
    assert shape != window or len(network.batches) == 1
    assert network.training


def test_a_network_that_gives_nan_is_not_judged() -> None:
    image = torch.full((1, 16, 16), float("nan"))
    with pytest.raises(RunError, match="finite"):
        predict_volume(Threshold(), image, (16, 16))


def test_a_data_set_is_judged_and_the_best_and_worst_are_kept() -> None:
    random = np.random.default_rng(0)
    cases, expected = [], {}
    for k in range(9):
        image = torch.tensor(random.random((1, 20, 20)), dtype=torch.float32)
        label = predict_volume(Threshold(), image, (20, 20))
        label[: 2 * k] = 0  # case k has ever more wrong
        cases.append(LabelledImage(f"case{k}", f"p{k // 2}", image, label[None], (1.0, 1.0)))
        expected[f"case{k}"] = np.nanmean(dice(predict_volume(Threshold(), image, (20, 20)), label, [1, 2]))
    seen: dict[str, float] = {}
    result = evaluate_segmentation(Threshold(), iter(cases), NAMES, (16, 16), progress=seen.__setitem__)
    assert seen == pytest.approx(expected)
    kept = [prediction.case for prediction in result.kept]
    assert (kept[0], kept[-3:], len(kept)) == ("case0", ["case6", "case7", "case8"], 6)  # the lower half are the worst
    assert kept == sorted(kept)
    arrays = prediction_arrays(result.kept)
    assert arrays["image_0"].shape == (1, 20, 20)
    assert (arrays["prediction_5"].dtype, str(arrays["name_5"])) == (np.uint8, "case8")
    mean = summarise(result.rows)["dice"]
    assert mean == pytest.approx(np.mean(list(expected.values())))
    assert mean_dice(Threshold(), cases, NAMES, (16, 16)) == mean
    assert math.isnan(mean_dice(Threshold(), [], NAMES, (16, 16)))
