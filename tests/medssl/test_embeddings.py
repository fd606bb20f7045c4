"""Spread and rank against closed forms, collapse by hand, PCA against scikit-learn, the picture by its pixels."""

import io

import numpy as np
import PIL.Image
import pytest
from sklearn.decomposition import PCA

from medssl.embeddings import collapse_warning, effective_rank, embedding_figure, feature_spread, pca
from medssl.reports.canvas import PALETTE

RANDOM = np.random.default_rng(0)


def test_directions_all_over_the_sphere_spread_by_one() -> None:
    rows = RANDOM.standard_normal((1000, 64)) * RANDOM.uniform(0.1, 10, (1000, 1))  # lengths do not count
    assert feature_spread(rows) == pytest.approx(1, abs=0.01)
    # two opposite directions: each feature is +-u, so the mean of |u| times sqrt(e)
    line = np.outer([1, -1, 2, -3], [3.0, 4.0])
    assert feature_spread(line) == pytest.approx((0.6 + 0.8) / 2 * np.sqrt(2))
    # an offset of length r beside isotropic noise of length 1 leaves about 1 / sqrt(1 + r^2)
    offset = RANDOM.standard_normal((1000, 400)) / 20 + np.eye(400)[0] * 3
    assert feature_spread(offset) == pytest.approx(1 / np.sqrt(10), rel=0.02)


def test_constant_features_have_no_spread_and_rank_one() -> None:
    rows = np.tile(RANDOM.standard_normal(32), (50, 1))
    assert feature_spread(rows) == pytest.approx(0, abs=1e-12)
    assert effective_rank(rows) == pytest.approx(1)
    assert effective_rank(rows * 0) == feature_spread(rows * 0) == 0


def test_the_rank_counts_directions() -> None:
    basis, _ = np.linalg.qr(RANDOM.standard_normal((40, 40)))
    for rank in (1, 3, 40):
        rows = basis[:, :rank] @ np.linalg.qr(RANDOM.standard_normal((60, rank)))[0].T
        assert effective_rank(rows) == pytest.approx(rank)
    # singular values 3 and 1: exp of the entropy of (3/4, 1/4)
    assert effective_rank(basis[:, :2] * [3, 1]) == pytest.approx(4 / 3**0.75)
    assert effective_rank(RANDOM.standard_normal((400, 20))) == pytest.approx(20, rel=0.01)


def test_collapse_is_told_and_health_is_not() -> None:
    def warning(rows: np.ndarray) -> str | None:
        return collapse_warning(feature_spread(rows), effective_rank(rows), *rows.shape)

    healthy = RANDOM.standard_normal((300, 64))
    assert warning(healthy) is None
    assert warning(np.maximum(healthy, 0)) is None  # as a network that ends in a ReLU
    assert "collapsed" in str(warning(1 + 1e-4 * healthy))
    assert "collapsed" in str(warning(np.outer(healthy[:, 0], healthy[0]) + 1e-3 * healthy))  # a line
    # as measured: an untrained ResNet-50 and a collapsed ViT, for each number of images
    untrained = {12: (0.012, 1.29), 32: (0.0126, 1.52), 64: (0.0129, 1.81), 128: (0.0132, 2.24), 192: (0.0133, 2.57)}
    collapsed = {12: (0.0078, 1.17), 32: (0.0082, 1.28), 64: (0.0087, 1.37), 128: (0.0087, 1.42), 192: (0.0086, 1.43)}
    assert all(collapse_warning(*measured, n, 2048) is None for n, measured in untrained.items())
    assert all(collapse_warning(*measured, n, 96) for n, measured in collapsed.items())
    # few images fill few directions, whatever the encoder: no alarm
    assert warning(1 + 0.05 * healthy[:12]) is None
    assert warning(healthy[:2]) is None


@pytest.mark.parametrize("rows", [np.zeros(3), np.zeros((0, 3)), np.array([[np.nan, 1.0]])])
def test_what_is_no_set_of_features(rows: np.ndarray) -> None:
    for measure in (feature_spread, effective_rank, pca):
        with pytest.raises(ValueError, match="features: found"):
            measure(rows)


def test_pca_is_scikit_learns() -> None:
    rows = RANDOM.standard_normal((50, 10)) @ np.diag(np.arange(1, 11)) + 7
    theirs = PCA(2, svd_solver="full").fit(rows)
    points, explained = pca(rows)
    np.testing.assert_allclose(np.abs(points), np.abs(theirs.transform(rows)), atol=1e-9)
    np.testing.assert_allclose(explained, theirs.explained_variance_ratio_)
    assert pca(rows[:1]).points.tolist() == [[0, 0]]  # no direction at all
    assert pca(rows * 0).explained == [0, 0]


def test_the_picture_has_a_colour_for_each_class_that_is_there() -> None:
    points, classes = RANDOM.standard_normal((60, 2)), np.repeat([0, 2], 30)

    def colours(data: bytes) -> set[str]:
        image = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"), int)
        rgb = {name: [int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in PALETTE}
        return {name for name, value in rgb.items() if (np.abs(image - value).max(-1) <= 30).sum() > 100}

    drawn = colours(embedding_figure(points, classes, ["a", "$b", "_c"], explained=[0.5, 0.25]))
    assert {PALETTE[0], PALETTE[2]} <= drawn
    assert PALETTE[4] not in drawn
    alone = embedding_figure(points, None, [], dark=True)
    assert PALETTE[6] in colours(alone)
    assert PALETTE[0] not in colours(alone)
    assert len(embedding_figure(points, np.arange(60) % 20, [str(k) for k in range(20)])) > 1000
