"""Run folders made by hand, as the scripts would leave them, with scores small enough to work out on paper."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl.scores.calibration import summarise_calibration
from medssl.scores.classes import Judged, predictions_csv, summarise_classes
from medssl.scores.numbers import Estimate, estimates_csv, summarise_numbers
from medssl.scores.voxels import Score, scores_csv, summarise

LABELS = {0: "background", 1: "anterior", 2: "posterior"}


def finetune_run(
    folder: Path,
    dice: Mapping[str, Sequence[float]],
    *,
    encoder: str = "none",
    seed: int = 0,
    network: str = "vit_small",
    labelled: int | None = 6,
    hd95: float = 2.0,
    surface: float | None = None,
    config: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write a finished fine-tuning run; `dice` gives the Dice of the classes 1, 2 of each case, NaN where excluded.

    `surface` is the surface Dice as a share of the Dice; None leaves it and the volume errors out, as older runs did.
    """
    rows = [
        Score(case, case.split("_")[0], LABELS[index + 1], value, float("nan") if np.isnan(value) else hd95, 10, 10,
              *([] if surface is None else [value * surface, -1.5]))
        for case, values in dice.items()
        for index, value in enumerate(values)
    ]  # fmt: skip
    shared = {"network": network, "encoder": encoder, "seed": seed, "draw": seed, "labelled": labelled, "steps": 100}
    shared |= {"lr": 1e-3}
    folder.mkdir(parents=True)
    write(folder / "config.json", shared | {"kind": "finetune", "network": {"name": network}, **(config or {})})
    state = {"kind": "finetune", "status": "finished", "task": "segmentation", "seconds": 60.0, "part": "test"}
    write(folder / "summary.json", shared | state | summarise(rows) | {"warnings": [], **(summary or {})})
    write(folder / "split.json", {"labels": {str(k): v for k, v in LABELS.items()}, "training": [{"image": "a.nii.gz"}]})
    write(folder / "environment.json", {"python": "3.11", "packages": {"torch": "2.13.0"}})
    (folder / "predictions.csv").write_bytes(scores_csv(rows))
    metrics(folder, {"val_dice": [0.3, 0.6, 0.7, 0.7, 0.7]})
    return folder


def classification_run(
    folder: Path,
    cases: Mapping[str, tuple[int, Sequence[float]]],
    *,
    encoder: str = "none",
    seed: int = 0,
    validation: Sequence[Judged] = (),
) -> Path:
    """Write a finished classification of three classes; `cases` gives the truth and the probabilities of each case.

    Probabilities are calibrated by those of `validation`.
    """
    rows = [Judged(case, case.split("_")[0], truth, tuple(p)) for case, (truth, p) in cases.items()]
    names = {0: "disc", 1: "ring", 2: "pair"}
    shared = {"network": "vit_small", "encoder": encoder, "seed": seed, "draw": seed, "labelled": 6, "steps": 100, "lr": 1e-3}
    folder.mkdir(parents=True)
    write(folder / "config.json", shared | {"kind": "finetune", "network": {"name": "vit_small"}})
    state = {"kind": "finetune", "status": "finished", "task": "classification", "seconds": 60.0, "part": "test"}
    scores = summarise_classes(rows, names, draws=50) | {"calibration": summarise_calibration(rows, validation, draws=50)}
    write(folder / "summary.json", shared | state | scores | {"warnings": []})
    write(folder / "split.json", {"task": "classification", "labels": {str(k): v for k, v in names.items()}})
    write(folder / "environment.json", {"python": "3.11"})
    (folder / "predictions.csv").write_bytes(predictions_csv(rows, names))
    metrics(folder, {"val_log_loss": [1.1, 0.9, 0.8, 0.7, 0.5], "val_accuracy": [0.3, 0.6, 0.7, 0.7, 0.7]})
    return folder


def regression_run(folder: Path, cases: Mapping[str, tuple[float, float]], *, encoder: str = "none", seed: int = 0) -> Path:
    """Write a finished regression; `cases` gives the true and the predicted number of each case."""
    rows = [Estimate(case, case.split("_")[0], truth, predicted) for case, (truth, predicted) in cases.items()]
    shared = {"network": "vit_small", "encoder": encoder, "seed": seed, "draw": seed, "labelled": 6, "steps": 100, "lr": 1e-3}
    folder.mkdir(parents=True)
    write(folder / "config.json", shared | {"kind": "finetune", "network": {"name": "vit_small"}})
    state = {"kind": "finetune", "status": "finished", "task": "regression", "seconds": 60.0, "part": "test"}
    write(folder / "summary.json", shared | state | summarise_numbers(rows, draws=50) | {"warnings": []})
    write(folder / "split.json", {"task": "regression"})
    write(folder / "environment.json", {"python": "3.11"})
    (folder / "predictions.csv").write_bytes(estimates_csv(rows))
    metrics(folder, {"val_mae": [900, 700, 600, 500, 400], "val_r2": [-0.2, 0.1, 0.2, 0.3, 0.5]})
    return folder


def pretrain_run(folder: Path, shape: Sequence[int] = (16, 20, 12)) -> Path:
    """Write a finished pre-training run with the views of one crop."""
    folder.mkdir(parents=True)
    shared = {"kind": "pretrain", "network": "vit_small", "method": "recon_contrast", "steps": 100}
    write(folder / "config.json", shared)
    write(folder / "summary.json", shared | {"status": "finished", "seconds": 90.0, "val_l1": 0.05, "n_cases": 200})
    random = np.random.default_rng(0)
    names = ("image", "view_0", "view_1", "reconstruction_0", "reconstruction_1")
    np.savez(folder / "views.npz", **{name: random.random((2, 1, *shape), dtype=np.float32) for name in names})
    metrics(folder, {"val_l1": [0.3, 0.2, 0.1, 0.06, 0.05]})
    return folder


def metrics(folder: Path, validation: Mapping[str, Sequence[float]]) -> None:
    """Write 100 training lines and a validation every 20 steps."""
    lines: list[dict[str, Any]] = [{"step": s, "loss": 1 / s, "lr": 1e-3, "data_s": 0.1} for s in range(1, 101)]
    for name, values in validation.items():
        lines += [{"step": 20 * (i + 1), name: value} for i, value in enumerate(values)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 101, "lo')


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content))
