"""A small data set and small settings, shared by the tests that train."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medssl.config import Finetune, Pretrain
from medssl.synth import make_dataset

# For ranks as forks of one process: imported once for all. DistributedDataParallel imports the first.
multiprocessing.set_forkserver_preload(["torch._dynamo", "medssl.pretrain", "medssl.finetune"])
SMALL: dict[str, Any] = {
    "crop_size": [32, 32, 32],
    "intensity": "percentile",
    "pad": True,
    "network": {
        "name": "vit_tiny",
        "patch_size": [8, 8, 8],
        "hidden_size": 24,
        "mlp_size": 48,
        "layers": 3,
        "feature_size": 4,
    },
    "steps": 6,
    "batch_size": 4,
    "validate_every": 3,
    "checkpoint_every": 2,
    "workers": 0,
    "lr": 1e-3,
    "threads": 1,
}
VIEWS = {
    "name": "recon_contrast",
    "temperature": 0.05,
    "inpaint_max_size": 12,
    "outpaint_min_size": 8,
    "outpaint_max_size": 16,
}


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 12 synthetic volumes."""
    return make_dataset(tmp_path_factory.mktemp("volumes"), cases=12, dims=3)


@pytest.fixture
def pretraining(volumes: Path, tmp_path: Path) -> Callable[..., Pretrain]:
    """Make settings of a small pre-training, with changes."""

    def make(**changes: Any) -> Pretrain:
        base = SMALL | {
            "split": volumes,
            "out": tmp_path / "pretrain",
            "store": volumes.parent / "store",
            "method": VIEWS,
        }
        return Pretrain.model_validate(base | changes)

    return make


@pytest.fixture
def finetuning(volumes: Path, tmp_path: Path) -> Callable[..., Finetune]:
    """Make settings of a small fine-tuning, with changes."""

    def make(**changes: Any) -> Finetune:
        base = SMALL | {"split": volumes, "out": tmp_path / "finetune", "store": volumes.parent / "store"}
        return Finetune.model_validate(base | changes)

    return make
