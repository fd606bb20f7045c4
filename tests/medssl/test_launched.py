"""Both scripts on two ranks, as torchrun and SLURM start them, against one process; how they are stopped and how they fail."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medssl import checkpoint
from medssl.cli import main
from medssl.config import Finetune, Pretrain, Shared
from medssl.finetune import finetune
from medssl.pretrain import pretrain
from medssl.synth import make_dataset
from networks.transfer import read_weights

ROOT = Path(__file__).parents[2]
NETWORK = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 3, "feature_size": 4}
RESNET = {"name": "resnet18", "width": 4, "stem_stride": 1, "stem_pool": False}
FLAT: dict[str, Any] = {
    "crop_size": [32, 32], "network": NETWORK, "precision": "float32", "steps": 5, "batch_size": 8, "accumulate": 2,
    "validate_every": 3, "optimiser": "sgd", "lr": 0.02, "clip": 1.0,
}  # fmt: skip
SWAV = {"name": "swav", "projector": [16, 8], "prototypes": 4, "queue": 4, "freeze_prototypes": 2}
RUNS: dict[str, tuple[type[Shared], dict[str, Any]]] = {
    "swav on batch norms, averaged": (Pretrain, {"method": SWAV, "network": RESNET, "ema": 0.9, "lr": 1e-3}),
    "mae, sharded": (
        Pretrain,
        {"method": {"name": "mae", "decoder_width": 24, "decoder_layers": 1, "decoder_heads": 4}, "shard": True},
    ),
    "segmentation, sharded": (Finetune, {"freeze_steps": 2, "shard": True}),
}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 20 synthetic images."""
    return make_dataset(tmp_path_factory.mktemp("images"), cases=20, dims=2)


@pytest.fixture
def making(images: Path, tmp_path: Path, pretraining: Callable[..., Pretrain], finetuning: Callable[..., Finetune]) -> Any:
    """Make settings in 2D, with changes."""

    def make(kind: type[Shared], name: str, **changes: Any) -> Any:
        made = pretraining if kind is Pretrain else finetuning
        return made(**FLAT | {"split": images, "store": images.parent / "store", "out": tmp_path / name} | changes)

    return make


def torchrun(settings: Shared, *words: str) -> subprocess.Popen[str]:
    """Start two ranks under torchrun."""
    port = f"--master_port={random.randint(20000, 32000)}"
    return start([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", port], settings, {}, *words)


def slurm(settings: Shared, *words: str) -> list[subprocess.Popen[str]]:
    """Start two ranks with the variables that srun sets."""
    job = {"JOB_ID": str(random.randint(5000, 17000)), "NTASKS": "2", "JOB_NUM_NODES": "1", "JOB_NODELIST": "localhost"}
    step = job | {"STEP_NUM_TASKS": "2", "STEP_TASKS_PER_NODE": "2", "STEP_NODELIST": "localhost"}
    tasks = [{f"SLURM_{key}": value for key, value in (step | {"PROCID": k, "LOCALID": k}).items()} for k in "01"]
    return [start([sys.executable], settings, task, *words) for task in tasks]


def start(command: list[str], settings: Shared, variables: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """Start a script with settings as its recipe."""
    recipe = settings.out.with_suffix(".json")
    recipe.write_text(settings.model_dump_json())
    script = "ssl_pretrain.py" if isinstance(settings, Pretrain) else "ssl_finetune.py"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return subprocess.Popen(
        [*command, script, str(recipe), *words], cwd=ROOT, env=clean | variables, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str], code: int) -> list[str]:
    """What a process said on stderr before it ended, as it must."""
    _, said = process.communicate(timeout=240)
    assert process.returncode == code, said
    return said.splitlines()


def lines(folder: Path) -> list[dict[str, Any]]:
    """The metrics without times."""
    text = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("_s")} for line in text]


def assert_alike(found: Path, expected: Path) -> None:
    """Hold the metrics, the checkpoint and the encoder of two runs against each other."""
    for ours, theirs in zip(lines(found), lines(expected), strict=True):
        assert ours.pop("data_hash", None) == theirs.pop("data_hash", None)
        assert ours == pytest.approx(theirs, rel=5e-3, abs=1e-5)
    states = [checkpoint.load(folder / "checkpoint_latest.pt") for folder in (found, expected)]
    conditions = [state.pop("conditions") | {"ranks": "of any number"} for state in states]
    assert conditions[0] == conditions[1]
    assert flat(states[0]).keys() == flat(states[1]).keys()
    for ours, theirs in ((flat(states[0])[key], value) for key, value in flat(states[1]).items() if "seconds" not in key):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    ours, theirs = (read_weights(folder / "encoder.safetensors")[0] for folder in (found, expected))
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4) for name in theirs)
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}


def flat(tree: Any, name: str = "") -> dict[str, Any]:
    """The leaves of a checkpoint by their path."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in flat(value, f"{name}.{key}").items()}
    return {name: torch.as_tensor(tree if tree is not None else 0)}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_leave_the_run_of_one_process(name: str, making: Any, tmp_path: Path) -> None:
    kind, changes = RUNS[name]
    one, two = (making(kind, number, **changes) for number in ("one", "two"))
    if kind is Finetune:
        said = ended(torchrun(two), 0)
    else:
        first, second = slurm(two)
        said = ended(first, 0)
        assert ended(second, 0) == []
    assert sum("done: " in line for line in said) == 1
    assert "2 ranks, each on cpu" in (two.out / "log.txt").read_text()
    (pretrain if kind is Pretrain else finetune)(one)
    assert_alike(tmp_path / "two", tmp_path / "one")


@pytest.mark.long
def test_two_ranks_are_stopped_together_and_one_goes_on(making: Any, tmp_path: Path) -> None:
    """The signal reaches the workers too: they go on loading the step that is not yet done everywhere."""
    one, two = (making(Pretrain, number, method="mae", steps=30, validate_every=15, workers=1) for number in ("one", "two"))
    process = torchrun(two)
    waited_for(tmp_path / "two" / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    said = ended(process, 1)  # torchrun's own code
    assert sum("stopped by SIGTERM" in line for line in said) == 1
    assert 5 <= checkpoint.load(two.out / "checkpoint_latest.pt")["progress"]["step"] == len(lines(two.out)) < 30
    pretrain(two, resume=True)
    pretrain(one)
    assert_alike(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_the_death_of_a_rank_ends_the_others(making: Any, tmp_path: Path) -> None:
    ranks = slurm(making(Pretrain, "run", method="mae", steps=100000))
    waited_for(tmp_path / "run" / "metrics.jsonl", ranks[0])
    ranks[1].kill()
    began = time.monotonic()
    assert ended(ranks[0], 1)[-1] == "error: found another rank gone, expected it to live; what it said is the reason"
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_one_rank_says_what_is_wrong_and_all_leave(making: Any, tmp_path: Path) -> None:
    first, second = slurm(making(Pretrain, "run", method="mae"), "batch_size=6", "split=nowhere.json")
    problems = ended(first, 2)
    assert [line for line in problems if "nowhere.json" in line] == problems
    assert ended(second, 2) == []
    first, second = slurm(making(Pretrain, "run", method="mae"), "batch_size=6")
    assert ended(first, 2) == ["error: settings: batch_size: found 6, expected a multiple of accumulate 2 times 2 ranks"]
    assert ended(second, 2) == []
    assert not (tmp_path / "run").exists()


def test_a_command_for_one_process_refuses_to_be_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medssl.cli.WAIT", 0.0)
    for rank, said in (("0", 1), ("1", 0)):
        for key, value in {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(key, value)
        assert main(["list"]) == 2
        assert capsys.readouterr().err.count("found 2 processes started for it") == said


def waited_for(metrics: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a run has taken some steps."""
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 5):
        time.sleep(0.05)
