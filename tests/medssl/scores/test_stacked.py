"""The Dice of stacked slices against that of the volume."""

import math

import numpy as np
import pytest

from medssl.scores.stacked import stack_slices
from medssl.scores.voxels import case_scores

LABELS = {0: "background", 1: "core", 2: "rim", 3: "never"}


def test_stacked_slices_score_as_the_volume_does() -> None:
    random = np.random.default_rng(0)
    rows, volumes = [], []
    for name, shape in (("a", (9, 8, 5)), ("b_s1", (7, 7, 12))):
        label, predicted = (random.choice(3, shape, p=[0.9, 0.07, 0.03]) for _ in range(2))
        label[..., 1] = 0  # an empty slice, with a false alarm
        predicted[..., 2] = label[..., 2] = 0
        for k in random.permutation(shape[2]):
            rows += case_scores(f"{name}_s{k:03d}", "P", predicted[..., k], label[..., k], LABELS, (1, 1), tolerance=None)
        volumes += case_scores(name, "P", predicted, label, LABELS, (1, 1, 1), tolerance=None)
    stacked = {(one.volume, one.name): one for one in stack_slices(rows)}
    assert len(stacked) == len(volumes) == 6
    for row in volumes:
        found = stacked[row.case, row.name]
        assert (found.label_voxels, found.predicted_voxels) == (row.label_voxels, row.predicted_voxels)
        assert found.dice == pytest.approx(row.dice, abs=1e-12, nan_ok=True)
        assert math.isnan(found.dice) == (row.name == "never")
    unchanged = {(one.volume, one.name): one.dice for one in stack_slices(volumes)}
    assert unchanged == pytest.approx({(row.case, row.name): row.dice for row in volumes}, nan_ok=True)
