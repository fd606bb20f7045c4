"""Trainings of both scripts end as if they had never been killed: `make test-kill`, and a short form for every day."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moments import Kill
from phantoms import make_classes
from proof import prove
from schedule import END, schedule

from medssl.config import Finetune, Pretrain, Shared
from medssl.synth import make_dataset

FLAT = {"crop_size": [32, 32], "batch_size": 8}
VIT = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 3, "feature_size": 4}
RESNET = {"name": "resnet18", "width": 4, "stem_stride": 1, "stem_pool": False}
SWAV = {"name": "swav", "projector": [16, 8], "prototypes": 8, "queue": 16, "queue_after": 6, "freeze_prototypes": 3}
MAE = {"name": "mae", "decoder_width": 24, "decoder_layers": 1, "decoder_heads": 4}
THAW = {"freeze_steps": 5, "unfreeze_every": 4, "rates": "layers", "progressive": [[16, 16]], "encoder_lr": 0.3}
LONG = {"steps": 40, "checkpoint_every": 4, "validate_every": 6, "warmup": 5, "clip": 1.0}
SHORT = LONG | {"steps": 24, "checkpoint_every": 3, "validate_every": 4}
RUNS: dict[str, tuple[type[Shared], str, dict[str, Any]]] = {
    "recon_contrast": (Pretrain, "volumes", LONG | {"schedule": "one_cycle", "warmup": 0, "accumulate": 2}),
    "swav with its queue": (
        Pretrain, "images", LONG | FLAT | {"method": SWAV, "network": RESNET, "optimiser": "lars", "schedule": "cosine"}
    ),
    "mae": (Pretrain, "images", LONG | FLAT | {"method": MAE, "network": VIT, "ema": 0.9}),
    "UNETR": (Finetune, "volumes", SHORT | {"overlap": 0.0, "schedule": "cosine"}),
    "classification": (Finetune, "classes", SHORT | FLAT | THAW | {"network": RESNET, "mixup": 0.4}),
}  # fmt: skip


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The data sets of the runs."""
    folder = tmp_path_factory.mktemp("killed")
    return {
        "volumes": make_dataset(folder / "volumes", cases=12, dims=3),
        "images": make_dataset(folder / "images", cases=20, dims=2),
        "classes": make_classes(folder / "classes"),
    }


@pytest.fixture
def making(
    splits: dict[str, Path], tmp_path: Path, pretraining: Callable[..., Pretrain], finetuning: Callable[..., Finetune]
) -> Callable[..., Any]:
    """Make the settings of a run, with changes."""

    def make(name: str, **changes: Any) -> Shared:
        kind, data, settings = RUNS[name]
        made = pretraining if kind is Pretrain else finetuning
        return made(**settings | {"split": splits[data], "out": tmp_path / "out"} | changes)

    return make


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_killed_training_ends_as_if_nothing_had_happened(
    name: str, making: Callable[..., Any], record_property: Callable[[str, Any], None]
) -> None:
    settings = making(name)
    kills = schedule(settings, seed=len(name), **({} if isinstance(settings, Pretrain) else {"validation": 2, "others": 7}))
    record_property(f"killed: {name}", str(prove(settings, kills)))


TWO_RANKS = [
    Kill("start: packing"), Kill("step: backward", 3, nth=5), Kill("step: forward", 6, nth=4, rank=1, alone=True),
    Kill("checkpoint: half", 8), Kill("validation: forward", 12, nth=2), Kill("step: optimiser done", 13, alone=True),
    Kill("step: half a line", 15), Kill("checkpoint: between the renames", 18, alone=True),
    Kill("step: reading a crop", 22, rank=1, alone=True),
]  # fmt: skip


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("name", ["swav with its queue", "UNETR"])
def test_two_ranks_that_are_killed_together_or_alone(
    name: str, making: Callable[..., Any], record_property: Callable[[str, Any], None]
) -> None:
    changes = {"steps": 24, "checkpoint_every": 2, "validate_every": 6}
    record_property(f"killed: {name}, 2 ranks", str(prove(making(name, **changes), TWO_RANKS, ranks=2)))


@pytest.mark.slow
def test_three_kills_and_as_if_nothing_had_happened(
    making: Callable[..., Any], record_property: Callable[[str, Any], None]
) -> None:
    settings = making("swav with its queue", steps=12)
    kills = [Kill("step: backward", 3, nth=4), Kill("checkpoint: between the renames", 8), Kill("step: half a line", 11)]
    record_property("killed: short", str(prove(settings, kills, inside=True)))


def test_a_schedule_has_the_moments_that_are_asked_for(making: Callable[..., Any]) -> None:
    kills = schedule(making("mae"), seed=1)
    steps = [kill.step for kill in kills if kill.step]
    assert steps == sorted(set(steps))
    assert len(kills) >= 20 + len(END)
