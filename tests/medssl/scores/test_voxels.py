"""Scores of label maps against MONAI, against slow loops and by hand, and the empty-class policy."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter

from medssl.scores.bootstrap import bootstrap_interval, mean_intervals
from medssl.scores.surfaces import surface_scores
from medssl.scores.voxels import case_scores, class_scores, dice, read_scores, score_by_case, scores_csv, summarise

NAMES = {0: "background", 1: "one", 2: "two"}
NAN = float("nan")
SHAPES = [((40, 50, 30), (1.5, 0.7, 2.0)), ((64, 48), (0.9, 1.7))]


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random smooth regions of three classes; some touch the border."""
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    return gaussian_filter(noise, (0, *[3] * len(shape))).argmax(0).astype(np.uint8)


def one_hot(label: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(label, dtype=torch.long), 3).movedim(-1, 0)[None]


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_scores_equal_monais(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    prediction, label = blobs(shape, 0), blobs(shape, 1)
    label[tuple(slice(0, size // 2) for size in shape)] = 0  # the objects' boxes differ
    pair = one_hot(prediction), one_hot(label)
    np.testing.assert_allclose(
        dice(torch.tensor(prediction), label, [1, 2]), compute_dice(*pair, include_background=False)[0], rtol=1e-6
    )
    theirs = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)
    for tolerance in (0.5, 2.0, 4.1):
        ours = surface_scores(prediction, label, spacing, tolerance, [1, 2])
        np.testing.assert_allclose(ours.hd95, theirs[0], rtol=1e-5)
        near = compute_surface_dice(*pair, class_thresholds=[tolerance] * 2, spacing=spacing)
        np.testing.assert_allclose(ours.dice, near[0], rtol=1e-6)
        assert 0.02 < ours.dice[0] < 0.98


def surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """The voxels of a mask that have a face neighbour outside of it, one by one."""

    def outside(place: tuple[int, ...]) -> bool:
        return any(not 0 <= i < size for i, size in zip(place, mask.shape, strict=True)) or not mask[place]

    steps = [tuple(sign * (axis == k) for k in range(mask.ndim)) for axis in range(mask.ndim) for sign in (-1, 1)]
    places = [tuple(map(int, place)) for place in np.argwhere(mask)]
    return [p for p in places if any(outside(tuple(map(sum, zip(p, step, strict=True)))) for step in steps)]


@pytest.mark.parametrize(("shape", "spacing"), [((10, 9, 8), (1.5, 0.7, 2.0)), ((20, 24), (0.1, 0.3))])
def test_surfaces_equal_a_slow_search(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    prediction, label = blobs(shape, 2), blobs(shape, 3)
    tolerance = 3 * spacing[0]
    for k in (1, 2):
        ours = surface_scores(prediction, label, spacing, tolerance, [k])
        mine, its = (surface(array == k) for array in (prediction, label))
        apart = [
            [min(math.dist(np.multiply(p, spacing), np.multiply(q, spacing)) for q in others) for p in some]
            for some, others in ((mine, its), (its, mine))
        ]
        within = [distance <= tolerance + 1e-9 for distance in itertools.chain(*apart)]
        assert 0 < sum(within) < len(within)
        assert ours.dice == [pytest.approx(sum(within) / len(within))]
        assert ours.hd95 == [pytest.approx(max(np.percentile(far, 95) for far in apart))]


def test_scores_by_hand() -> None:
    prediction, label = np.zeros((2, 10, 10, 10), np.uint8)
    prediction[2, 2, 2] = label[5, 2, 2] = 1
    assert surface_scores(prediction, label, (2.0, 1.0, 1.0), 5.9).hd95 == [6.0]
    assert [surface_scores(prediction, label, (2.0, 1.0, 1.0), mm).dice[0] for mm in (5.9, 6.0)] == [0.0, 1.0]
    assert surface_scores(prediction, label, (0.1, 1.0, 1.0), 0.3).dice == [1.0]  # 3 * 0.1 is 0.30000000000000004
    prediction[5, 2, 2] = 1
    assert dice(prediction, label, [1]) == [2 / 3]
    assert surface_scores(prediction, label, (2.0, 1.0, 1.0), 1.0).dice == [pytest.approx(2 / 3)]
    [row] = case_scores("a", "p", prediction, label, {1: "one"}, (2.0, 1.0, 1.5))
    assert (row.volume_error, row.absolute_volume_error, row.relative_volume_error) == (3.0, 3.0, 1.0)
    [row] = case_scores("a", "p", label[0] * 0, prediction[2], {1: "one"}, (0.5, 0.5), tolerance=None)
    assert (row.volume_error, row.absolute_volume_error, row.relative_volume_error) == (-0.25, 0.25, -1.0)
    assert math.isnan(row.hd95)
    assert math.isnan(row.surface_dice)
    with pytest.raises(ValueError, match="shape"):
        dice(prediction, label[:5], [1])
    with pytest.raises(ValueError, match="spacing"):
        surface_scores(prediction, label, (1.0, 1.0), 1.0)
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
    near = score_by_case(rows, "surface_dice")
    assert [near[case] for case in "abc"] == pytest.approx([1, 0.5, 0])
    assert math.isnan(near["d"])
    assert [row.hd95 for row in rows if row.case == "b"][1] == pytest.approx(math.hypot(30, 80))
    assert {row.hd95 for row in rows if (row.case, row.name) == ("c", "one")} == {50}
    summary = summarise(rows)
    assert (summary["n"], summary["patients"], summary["unscored"]) == (3, 2, ["d"])
    assert summary["dice"] == pytest.approx(1 / 3)
    assert summary["dice_interval"] == pytest.approx([0, 0.5])  # patients q: 0; p: mean of 2/3 and 1/3
    assert (summary["surface_dice"], summary["surface_dice_interval"]) == (pytest.approx(0.5), pytest.approx([0, 0.75]))
    one, two = summary["classes"]["one"], summary["classes"]["two"]
    assert (one["n"], one["missed"], one["invented"]) == (3, 1, 0)
    assert (one["volume_error"], one["relative_volume_error"]) == pytest.approx((-200 / 3, -2 / 3))  # -40, -80, -80
    assert one["absolute_volume_error"] == pytest.approx(200 / 3)
    assert (two["n"], two["missed"], two["invented"], two["dice"], two["surface_dice"]) == (1, 0, 1, 0, 0)
    assert (two["volume_error"], two["volume_error_interval"]) == (80, [80, 80])
    assert two["relative_volume_error"] is two["relative_volume_error_interval"] is None

    path = tmp_path / "predictions.csv"
    path.write_bytes(scores_csv(rows))
    assert path.read_text().splitlines()[1].split(",")[5:] == ["80", "40", "1.0", "-40.0", "-0.5"]
    assert path.read_text().splitlines()[2] == "a,p,two,,,0,0,,,"
    assert str(read_scores(path)) == str(rows)  # as text, for NaN is not equal to itself
    nothing = summarise(row for row in rows if row.case == "d")
    assert (nothing["n"], nothing["dice"], nothing["classes"]["one"]["hd95"]) == (0, None, None)


def test_predictions_of_older_runs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("case,patient,class,dice,hd95,label_voxels,predicted_voxels\na,p,one,0.5,2.5,10,15\n")
    [row] = read_scores(path)
    assert (row.hd95, row.relative_volume_error) == (2.5, 0.5)
    found = class_scores([row], draws=10)["one"]
    assert found["surface_dice"] is found["surface_dice_interval"] is found["volume_error"] is None


def test_intervals_of_means_are_those_of_each_column() -> None:
    random = np.random.default_rng(0)
    values, patients = random.random((40, 3)), random.integers(0, 15, 40).tolist()
    found = mean_intervals(values, patients, draws=500, seed=2)
    for column, ends in zip(values.T, found, strict=True):
        assert ends.tolist() == pytest.approx(bootstrap_interval(column, patients, draws=500, seed=2))
    values[:, 2] = NAN
    values[:, 1] = np.where(np.arange(40) < 39, NAN, 0.25)  # the draws without this case have no mean
    found = mean_intervals(values, patients, draws=500, seed=2)
    assert (found[1].tolist(), bool(np.isnan(found[2]).all())) == ([0.25, 0.25], True)
