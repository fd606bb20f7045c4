"""Which cases a report shows, and that a run keeps them with their saliency and draws them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phantoms import make_classes

from medssl.config import Finetune
from medssl.finetune import finetune
from medssl.scores.classes import read_predictions
from medssl.tasks.shown import pick, slices_of


def test_the_worst_the_middle_and_the_best_are_picked_once() -> None:
    errors = [((7 * i) % 101) / 101 for i in range(101)]  # every value once, in no order
    picked = pick(errors)
    shown = {group: [round(101 * errors[i]) for i, g in picked if g == group] for group in ("worst", "typical", "best")}
    assert shown == {"worst": list(range(100, 91, -1)), "typical": [51, 50, 49], "best": [0, 1, 2]}
    assert [group for _, group in picked] == ["worst"] * 9 + ["typical"] * 3 + ["best"] * 3
    assert pick([]) == []
    for n in range(1, 30):
        chosen = [i for i, _ in pick([0.5] * n)]
        assert len(set(chosen)) == len(chosen) <= 15
        assert n > 15 or n - len(chosen) <= 1
    assert pick([0.1, 0.9, 0.5]) == [(1, "worst"), (2, "worst"), (0, "best")]


def test_slices_are_the_most_salient_ones_apart_from_each_other() -> None:
    weights = np.array([0, 1, 9, 10, 9, 1, 0, 0, 0, 0, 0, 4, 5, 4, 0, 2.0])
    assert slices_of(16, weights) == [3, 12, 15]
    assert slices_of(16, None) == slices_of(16, np.zeros(16)) == [2, 8, 13]
    assert slices_of(2, np.array([0.0, 1.0])) == [0, 1]


@pytest.mark.parametrize(("dims", "kind", "network"), [(2, "grad_cam", "resnet18"), (3, "occlusion", "vit_tiny")])
def test_a_run_keeps_and_draws_its_cases(dims: int, kind: str, network: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"width": 4, "stem_stride": 1, "stem_pool": False}
    if network == "vit_tiny":
        sizes = {"patch_size": [8] * 3, "hidden_size": 24, "mlp_size": 24, "layers": 2}
    split = make_classes(tmp_path / "images", dims, cases=24, shares=(0.5, 0.25, 0.25), side=16)
    settings = Finetune.model_validate({
        "split": split, "out": tmp_path / "run", "store": tmp_path / "store", "crop_size": [16] * dims, "steps": 2,
        "intensity": "percentile", "batch_size": 6, "validate_every": 2, "workers": 0, "lr": 1e-3, "threads": 1,
        "saliency": kind, "network": {"name": network, **sizes}, "precision": "float32",
    })  # fmt: skip
    finetune(settings)
    run = tmp_path / "run"
    arrays = np.load(run / "predictions.npz")
    _, rows = read_predictions(run / "predictions.csv")
    by_loss = sorted(rows, key=lambda row: -row.log_loss)
    assert [str(arrays[f"name_{k}"]) for k in range(3)] == [row.case for row in by_loss[:3]]
    assert str(arrays["name_3"]) == by_loss[-1].case
    assert [str(arrays[f"group_{k}"]) for k in range(6)] == ["worst"] * 3 + ["best"] * 3
    space = (16, 16) if dims == 2 else (16, 16, 3)
    for k in range(6):
        assert arrays[f"image_{k}"].shape == (1, *space)
        assert (arrays[f"saliency_{k}"].shape, arrays[f"saliency_{k}"].dtype) == (space, np.uint8)
        assert float(arrays[f"error_{k}"]) == pytest.approx(next(r for r in rows if r.case == arrays[f"name_{k}"]).log_loss)
    assert dims == 2 or sorted(set(arrays["slices_0"].tolist())) == arrays["slices_0"].tolist()
    assert (run / "predictions.npz").stat().st_size < 100_000
    page = (run / "report.html").read_text()
    what = "Grad-CAM, which places" if kind == "grad_cam" else "occlusion, how far the predicted class falls"
    for words in (what, "not why, and not that the answer is right", "Worst cases: log loss highest", "Best cases"):
        assert words in page
    for row in rows:
        assert page.count(f"<span>{row.case}</span>") == 1
        verdict = "right, " if row.correct else "wrong, said "
        names = json.loads((run / "split.json").read_text())["labels"]
        assert f"<span>{verdict}{names[str(row.predicted)]}: {row.probabilities[row.predicted]:.1%}</span>" in page
