"""A search whose trials are real trainings, without a test part to be read, stopped and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medssl.synth import make_dataset

ROOT = Path(__file__).parents[3]
RECIPE: dict[str, Any] = {
    "split": "data/split.json", "crop_size": [32, 32], "intensity": "percentile", "workers": 0, "threads": 1, "steps": 12,
    "network": {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 3, "feature_size": 4},
    "validate_every": 3, "checkpoint_every": 4, "batch_size": 2, "lr": 0.003, "labelled": 2,
}  # fmt: skip


def started(folder: Path, out: str) -> subprocess.Popen[bytes]:
    words = ["tune", "recipe.json", "--out", out, "--trials", "2", "--space", "lr=1e-3..1e-2", "weight_decay=0,0.1"]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "medssl.cli", *words], cwd=folder, env=variables)


@pytest.mark.long
def test_the_test_part_is_not_there_and_a_stopped_search_ends_as_a_straight_one(tmp_path: Path) -> None:
    split = json.loads(make_dataset(tmp_path / "data", cases=12, dims=2).read_text())
    for case in split["test"]:
        for name in (case["image"], case["label"]):
            (tmp_path / "data" / name).unlink()
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    assert started(tmp_path, "straight").wait(600) == 0
    process = started(tmp_path, "stopped")
    first = tmp_path / "stopped/trials/000/metrics.jsonl"
    while process.poll() is None and not (first.exists() and first.read_bytes().count(b"\n") > 4):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 143
    assert started(tmp_path, "stopped").wait(600) == 0
    straight, stopped = (json.loads((tmp_path / out / "tune.json").read_text())["trials"] for out in ("straight", "stopped"))
    assert [[t["settings"], t["value"], t["validations"]] for t in straight] == [
        [t["settings"], t["value"], t["validations"]] for t in stopped
    ]
    assert "going on after step" in (tmp_path / "stopped/trials/000/log.txt").read_text()
    summary = json.loads((tmp_path / "straight/trials/001/summary.json").read_text())
    assert (summary["part"], summary["val_dice"]) == ("validation", straight[1]["value"])
    refused = [sys.executable, str(ROOT / "ssl_finetune.py"), "straight/best.json"]  # which judges, and so misses the images
    done = subprocess.run(refused, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"No such file" in done.stderr
