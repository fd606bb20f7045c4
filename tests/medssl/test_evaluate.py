"""Dice and HD95 against MONAI, the empty-class policy by hand, and prediction in windows."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from medssl.evaluate import LabelledImage, evaluate_segmentation, mean_dice, predict_volume, prediction_arrays
from medssl.problems import RunError
from medssl.scores.voxels import case_scores, dice, hd95, read_scores, score_by_case, scores_csv, summarise

NAMES = {0: "background", 1: "one", 2: "two"}


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random smooth regions of three classes; some touch the border."""
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    return gaussian_filter(noise, (0, *[3] * len(shape))).argmax(0).astype(np.uint8)


def one_hot(label: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(label, dtype=torch.long), 3).movedim(-1, 0)[None]


@pytest.mark.parametrize(("shape", "spacing"), [((40, 50, 30), (1.5, 0.7, 2.0)), ((64, 48), (0.9, 1.7))])
def test_scores_equal_monais(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    prediction, label = blobs(shape, 0), blobs(shape, 1)
    label[tuple(slice(0, size // 2) for size in shape)] = 0  # the objects' boxes differ
    theirs = compute_hausdorff_distance(one_hot(prediction), one_hot(label), percentile=95, spacing=spacing)
    np.testing.assert_allclose(hd95(prediction, label, spacing, [1, 2]), theirs[0], rtol=1e-5)
    overlap = compute_dice(one_hot(prediction), one_hot(label), include_background=False)
    np.testing.assert_allclose(dice(torch.tensor(prediction), label, [1, 2]), overlap[0], rtol=1e-6)


def test_scores_by_hand() -> None:
    prediction, label = np.zeros((2, 10, 10, 10), np.uint8)
    prediction[2, 2, 2] = label[5, 2, 2] = 1
    assert hd95(prediction, label, (2.0, 1.0, 1.0)) == [6.0]
    prediction[5, 2, 2] = 1
    assert dice(prediction, label, [1]) == [2 / 3]
    with pytest.raises(ValueError, match="shape"):
        dice(prediction, label[:5], [1])
    with pytest.raises(ValueError, match="spacing"):
        hd95(prediction, label, (1.0, 1.0))
    with pytest.raises(ValueError, match="integers"):
        dice(prediction.astype(float), label, [1])


def test_empty_classes_follow_the_policy(tmp_path: Path) -> None:
    label, prediction = np.zeros((2, 30, 40), np.uint8)
    label[:2] = prediction[:1] = 1  # class 1: 80 and 40 pixels, Dice 2/3; class 2 in neither
    rows = case_scores("a", "p", prediction, label, NAMES, (1, 1))
    prediction[5] = 2  # invented
    rows += case_scores("b", "p", prediction, label, NAMES, (1, 2))
    rows += case_scores("c", "q", label * 0, label, NAMES, (1, 1))  # missed
    rows += case_scores("d", "q", label * 0, label * 0, NAMES, (1, 1))  # nothing to score

    scores = score_by_case(rows)
    assert [scores[case] for case in "abc"] == pytest.approx([2 / 3, 1 / 3, 0])
    assert math.isnan(scores["d"])
    assert [row.hd95 for row in rows if row.case == "b"][1] == pytest.approx(math.hypot(30, 80))
    assert {row.hd95 for row in rows if (row.case, row.name) == ("c", "one")} == {50}
    summary = summarise(rows)
    assert (summary["n"], summary["unscored"]) == (3, ["d"])
    assert summary["dice"] == pytest.approx(1 / 3)
    assert summary["dice_interval"] == pytest.approx([0, 0.5])  # patients q: 0; p: mean of 2/3 and 1/3
    one, two = summary["classes"]["one"], summary["classes"]["two"]
    assert (one["n"], one["missed"], one["invented"]) == (3, 1, 0)
    assert (two["n"], two["missed"], two["invented"], two["dice"]) == (1, 0, 1, 0)

    path = tmp_path / "predictions.csv"
    path.write_bytes(scores_csv(rows))
    assert path.read_text().splitlines()[2] == "a,p,two,,,0,0"
    assert str(read_scores(path)) == str(rows)  # as text, for NaN is not equal to itself
    assert summarise(row for row in rows if row.case == "d")["dice"] is None


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
    assert (kept[0], kept[-1], len(kept)) == ("case0", "case8", 4)
    assert kept == sorted(kept)
    arrays = prediction_arrays(result.kept)
    assert arrays["image_0"].shape == (1, 20, 20)
    assert (arrays["prediction_3"].dtype, str(arrays["name_3"])) == (np.uint8, "case8")
    mean = summarise(result.rows)["dice"]
    assert mean == pytest.approx(np.mean(list(expected.values())))
    assert mean_dice(Threshold(), cases, NAMES, (16, 16)) == mean
    assert math.isnan(mean_dice(Threshold(), [], NAMES, (16, 16)))
