"""A real study killed with kill -9 at random moments and continued: the same to the last digit as one left in peace."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medssl.synth import make_dataset

ROOT = Path(__file__).parents[3]
KILLS = 5
NETWORK = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 3, "feature_size": 4}
STUDY: dict[str, Any] = {
    "shared": {
        "split": "data/split.json", "crop_size": [32, 32], "network": NETWORK, "workers": 0, "threads": 1, "steps": 8,
        "validate_every": 4, "checkpoint_every": 3, "batch_size": 2, "warmup": 0, "intensity": "percentile",
    },
    "pretrain": {
        "rc": {
            "recipe": "demo_pretrain",
            "settings": {"method.inpaint_max_size": 12, "method.outpaint_min_size": 8, "method.outpaint_max_size": 16},
        }
    },
    "arms": {
        "random": {"recipe": "demo_finetune", "settings": {"saliency": "none"}},
        "pretrained": {"like": "random", "encoder": {"pretrain": "rc"}},
    },
    "axes": {"labelled": [2], "seed, draw": [0, 1]},
    "compare": [["pretrained", "random"]],
}  # fmt: skip


def started(folder: Path) -> subprocess.Popen[bytes]:
    """Start the study, or go on with it, in a session of its own."""
    command = [sys.executable, "-m", "medssl.cli", "study", "study.json", "--out", "out", "--jobs", "2"]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, env=variables, stdout=pipe, stderr=pipe, start_new_session=True)


def progress(out: Path) -> int:
    """What there is of a study: lines of metrics and files."""
    lines = sum(path.read_bytes().count(b"\n") for path in out.glob("*/*/metrics.jsonl"))
    return lines + len(list(out.glob("*/*/*")))


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that belong to its session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                mine = os.getsid(int(entry.name)) == process.pid
            except ProcessLookupError:
                continue
            if mine:
                os.kill(int(entry.name), signal.SIGKILL)
    process.wait()


@pytest.fixture
def sessions() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The studies that a test has started; none of them outlives it."""
    found = list[subprocess.Popen[bytes]]()
    yield found
    for process in found:
        if process.poll() is None:
            kill_all(process)


@pytest.mark.long
def test_a_study_killed_five_times_gives_the_same_table(tmp_path: Path, sessions: list[subprocess.Popen[bytes]]) -> None:
    def start(folder: Path) -> subprocess.Popen[bytes]:
        sessions.append(started(folder))
        return sessions[-1]

    peace, war = tmp_path / "peace", tmp_path / "war"
    for folder in (peace, war):
        make_dataset(folder / "data", cases=20, dims=2)
        (folder / "study.json").write_text(json.dumps(STUDY))
    assert start(peace).wait(900) == 0
    most = progress(peace / "out")
    for moment in sorted(random.Random(8).sample(range(1, most), KILLS)):
        process = start(war)
        while process.poll() is None and progress(war / "out") < moment:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        kill_all(process)
    assert start(war).wait(900) == 0
    assert told(war) == told(peace)
    for path in sorted((peace / "out").glob("*/*/predictions.csv")):
        assert (war / path.relative_to(peace)).read_bytes() == path.read_bytes()
    names = [path.relative_to(peace) for path in (peace / "out").glob("*/*/encoder.safetensors")]
    assert len(names) == 5
    assert all((war / name).read_bytes() == (peace / name).read_bytes() for name in names)


def told(folder: Path) -> Any:
    """The comparison without times."""
    found = json.loads((folder / "out/summary.json").read_text())
    assert [len(arm["seeds"]) for arm in found["arms"]] == [2, 2]

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(inner) for key, inner in value.items() if "seconds" not in key}
        return [timeless(inner) for inner in value] if isinstance(value, list) else value

    return timeless(found)
