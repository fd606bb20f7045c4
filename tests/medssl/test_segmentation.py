"""Segmentation over residual encoders by settings alone: it learns, and its encoder goes on to MONAI."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.networks.nets import ResNet as MonaiResNet
from safetensors.torch import load_file

from medssl.comparison.arms import group_runs
from medssl.config import Finetune
from medssl.estimate import estimate
from medssl.finetune import finetune, labelled_split
from medssl.runs import read_run
from medssl.synth import make_dataset
from medssl.tasks.segmentation import Segmentation
from networks.fcn import FCN
from networks.resnet_unet import ResNetUNet

RESNET = {"name": "resnet18", "width": 8, "feature_size": 8, "stem_stride": 1}
SMALLER: dict[str, Any] = {"crop_size": [48, 48], "spacing": [3.0, 3.0]}


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 20 synthetic slices, of which 4 are labelled."""
    return make_dataset(tmp_path_factory.mktemp("slices"), cases=20, dims=2)


@pytest.fixture
def segmenting(slices: Path, finetuning: Callable[..., Finetune]) -> Callable[..., Finetune]:
    """Make settings of a small segmentation of slices, with changes."""

    def make(**changes: Any) -> Finetune:
        base: dict[str, Any] = {
            "split": slices, "store": slices.parent / "store", "crop_size": [96, 96], "network": RESNET, "lr": 5e-3,
            "intensity": {"name": "window", "low": -100, "high": 300}, "precision": "float32",
        }  # fmt: skip
        return finetuning(**base | changes)

    return make


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, whose pictures take longer than these trainings."""
    monkeypatch.setattr("medssl.finetune.write_report", lambda folder: folder)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("decoder", ["unet", "fcn"])
def test_organs_are_learned(decoder: str, segmenting: Callable[..., Finetune]) -> None:
    """An answer of background alone has a Dice of 0."""
    network = RESNET | {"decoder": decoder, "stem_pool": decoder == "fcn"}
    steady = {"flip_prob": 0.0, "rotate90_prob": 0.0}
    settings = segmenting(network=network, steps=60, validate_every=60, augment=steady)
    finetune(settings)
    assert json.loads((settings.out / "summary.json").read_text())["dice"] > 0.25


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("decoder", ["unet", "fcn"])
def test_the_encoder_of_a_run_goes_on_to_monai_and_to_another_run(decoder: str, segmenting: Callable[..., Finetune]) -> None:
    settings = segmenting(network=RESNET | {"decoder": decoder}, steps=2, **SMALLER)
    finetune(settings)
    of_images = {"spatial_dims": 2, "n_input_channels": 1, "feed_forward": False, "bias_downsample": False}
    theirs = MonaiResNet("basic", [2, 2, 2, 2], [8, 16, 32, 64], **of_images)
    weights = load_file(settings.out / "encoder.safetensors")
    assert not any(theirs.load_state_dict(weights, strict=True))
    task = Segmentation(settings.model_copy(update={"encoder": str(settings.out)}), labelled_split(settings))
    assert task.loaded is not None
    assert len(task.loaded.loaded) == len(weights)


@pytest.mark.usefixtures("no_report")
def test_decoders_are_arms_of_their_own(segmenting: Callable[..., Finetune], tmp_path: Path) -> None:
    """Also with one seed each, where nothing else would tell the runs apart."""
    for seed, decoder in enumerate(("unet", "fcn")):
        finetune(segmenting(network=RESNET | {"decoder": decoder}, seed=seed, steps=1, out=tmp_path / decoder, **SMALLER))
    arms = group_runs([read_run(tmp_path / decoder) for decoder in ("unet", "fcn")])
    assert {arm.name for arm in arms} == {"resnet18-fcn, random", "resnet18-unet, random"}


@pytest.mark.parametrize(("decoder", "kind"), [("unet", ResNetUNet), ("fcn", FCN)])
def test_settings_choose_the_decoder_and_its_width(decoder: str, kind: type, segmenting: Callable[..., Finetune]) -> None:
    settings = segmenting(network=RESNET | {"decoder": decoder, "feature_size": 6})
    task = Segmentation(settings, labelled_split(settings))
    assert isinstance(task.network, kind)
    assert task.network.encoder is task.encoder
    assert not isinstance(task.network, ResNetUNet) or task.network.out.conv.in_channels == 6
    assert "network     resnet18, 0." in estimate(settings)
