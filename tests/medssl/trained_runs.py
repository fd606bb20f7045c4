"""Networks of a few weights, trained for a few steps once, and what is predicted with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from phantoms import make_classes, make_radii

from medssl.config import Finetune
from medssl.finetune import finetune
from medssl.prediction.model import Model, load_model
from medssl.synth import make_dataset

VIT = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 2}
UNET = {"name": "unet", "channels": [4, 8]}
SMALL: dict[str, Any] = {
    "steps": 6, "batch_size": 6, "validate_every": 6, "checkpoint_every": 6, "workers": 0, "threads": 1, "pad": True,
    "precision": "float32", "device": "cpu",
}  # fmt: skip
CT = {"name": "window", "low": -100, "high": 300}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train by settings, without report and baselines, which take longer, and give the run's folder."""

    def train(**settings: Any) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("medssl.finetune.write_report", lambda folder: folder)
            for name in ("classification.judge_pixels", "regression.judge_number_pixels"):
                patch.setattr(f"medssl.tasks.{name}", lambda *words: {"name": "none", "balanced_accuracy": 0.0, "mae": 1e9})
            out = tmp_path_factory.mktemp("runs") / "run"
            store = Path(settings["split"]).parent / "store"
            finetune(Finetune.model_validate(SMALL | {"out": out, "store": store} | settings))
        return out

    return train


@pytest.fixture(scope="session")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 10 synthetic volumes."""
    return make_dataset(tmp_path_factory.mktemp("organs"), cases=10, dims=3)


@pytest.fixture(scope="session")
def segmenter(trained: Callable[..., Path], organs: Path) -> Path:
    """A run that finds organs on the images' own grid, in several windows."""
    return trained(split=organs, crop_size=[32] * 3, intensity=CT, network=UNET, lr=3e-2, batch_size=2, steps=12)


@pytest.fixture(scope="session")
def resampler(trained: Callable[..., Path], organs: Path) -> Path:
    """A run that finds organs at a spacing of its own, in images cut to what is brighter than air."""
    cut: dict[str, Any] = {"spacing": [2.0, 2.5, 3.0], "foreground_above": -500}
    return trained(split=organs, crop_size=[32] * 3, intensity=CT, network=UNET, lr=3e-2, batch_size=2, steps=12, **cut)


@pytest.fixture(scope="session")
def classifier(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tells pictures of three classes apart, with a temperature."""
    split = make_classes(tmp_path_factory.mktemp("classes"), cases=72, shares=(0.4, 0.4, 0.2))
    return trained(split=split, crop_size=[32, 32], intensity="percentile", network=VIT, lr=1e-2, steps=24)


@pytest.fixture(scope="session")
def regressor(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tells the radius of balls."""
    split = make_radii(tmp_path_factory.mktemp("radii"), cases=24)
    return trained(split=split, crop_size=[32, 32], intensity="percentile", network=VIT, lr=1e-2)


@pytest.fixture(scope="session")
def model(segmenter: Path) -> Model:
    """The network of the segmenting run."""
    return load_model(segmenter, "cpu", 1)
