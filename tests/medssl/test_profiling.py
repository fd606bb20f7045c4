"""A traced run is the run; its lines tell their times; an estimate leaves nothing behind."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medssl.config import Pretrain
from medssl.data import load_data
from medssl.estimate import estimate
from medssl.loaders import Crops, item_hash, training_loader
from medssl.methods.recon_contrast import ReconContrast
from medssl.pretrain import pretrain
from medssl.runs import read_metrics

Make = Callable[..., Pretrain]
PARTS = ("transfer_s", "forward_s", "backward_s", "optimiser_s")


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.endswith("_s")} for line in lines]


def test_a_trace_changes_nothing_and_every_line_tells_its_time(pretraining: Make, tmp_path: Path) -> None:
    plain, traced = (pretraining(out=tmp_path / name, steps=5, checkpoint_every=2) for name in ("plain", "traced"))
    pretrain(plain)
    pretrain(traced, profile=True)
    lines, others = (list(read_metrics(settings.out / "metrics.jsonl")) for settings in (traced, plain))
    assert without_times(lines) == without_times(others)
    assert not (plain.out / "trace.json.gz").exists()

    with gzip.open(traced.out / "trace.json.gz", "rt") as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    assert sum(name.startswith("Optimizer.step") for name in names) == 3
    assert "%" in (traced.out / "log.txt").read_text().split("profile: ")[1].splitlines()[1]

    steps = [line for line in others if "loss" in line]
    for line in steps:
        assert 0 < sum(line[part] for part in PARTS) <= line["step_s"] + 1e-4
        assert min(line[name] for name in ("read_s", "views_s")) > 0
        assert line["read_s"] + line["views_s"] <= line["data_s"] + 1e-4  # without workers
    assert [line["step"] for line in steps if "checkpoint_s" in line] == [3, 5]  # of those after steps 2 and 4
    assert [line["step"] for line in others if line.get("validate_s", 0) > 0] == [3, 5]
    summary = json.loads((plain.out / "summary.json").read_text())
    spent = sum(line.get("step_s", 0) + line.get("data_s", 0) + line.get("validate_s", 0) for line in others)
    assert spent < summary["seconds"] + 0.05
    assert summary["checkpoint_s"] > 0 < summary["memory_mb"]
    report = (plain.out / "report.html").read_text()
    assert "Where the time went" in report
    assert "Bound by" in report

    told = estimate(pretraining(out=tmp_path / "next"))
    assert "store       complete" in told
    assert "hours" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "traced"]


def test_times_are_no_data(pretraining: Make) -> None:
    settings = pretraining(workers=1, steps=1)
    split, store = load_data(settings, ["pretraining", "validation"], labels=False)
    crops = Crops(store, split.part("pretraining"), settings, ReconContrast.views(settings))
    (batch,) = training_loader(crops, 0)
    assert {key for key, value in batch.items() if isinstance(value, torch.Tensor)} == {"image", "view_0", "view_1"}
    assert all(len(batch[key]) == 4 and min(batch[key]) > 0 and math.isfinite(sum(batch[key])) for key in ("read_s", "views_s"))
    tensors = {key: batch[key][2] for key in ("image", "view_0", "view_1")}
    assert item_hash(tensors) == batch["data_hash"][2]
