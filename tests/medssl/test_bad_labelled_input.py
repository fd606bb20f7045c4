"""Bad input of labelled images: one line each, exit code 2, before a run folder exists; warnings where a run may go on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from phantoms import make_marked

from medssl.cli import script
from medssl.config import Finetune
from medssl.plan import build_encoder
from networks.transfer import write_weights

Change = Callable[[Path, dict[str, Any]], None]
TINY = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 12, "mlp_size": 24, "layers": 2}


def of_class(k: int) -> Change:
    """Leave only one class in training."""

    def change(folder: Path, split: dict[str, Any]) -> None:
        split["training"] = [case for case in split["training"] if case["label"] == k]

    return change


def third_class(folder: Path, split: dict[str, Any]) -> None:
    split["labels"]["2"] = "star"
    split["test"][0]["label"] = split["test"][1]["label"] = 2


def unlabelled(folder: Path, split: dict[str, Any]) -> None:
    del split["training"][1]["label"], split["training"][4]["label"]


def unmasked(folder: Path, split: dict[str, Any]) -> None:
    del split["test"][2]["mask"]


def empty_mask(folder: Path, split: dict[str, Any]) -> None:
    PIL.Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / split["validation"][1]["mask"])


def other_mask(folder: Path, split: dict[str, Any]) -> None:
    PIL.Image.fromarray(np.ones((64, 60), np.uint8)).save(folder / split["validation"][1]["mask"])


def lost_mask(folder: Path, split: dict[str, Any]) -> None:
    (folder / split["training"][2]["mask"]).unlink()


def small(folder: Path, split: dict[str, Any]) -> None:
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 6), np.uint8)).save(folder / split["test"][1]["image"])


def no_channel(folder: Path, split: dict[str, Any]) -> None:
    split["training"][0]["image"] = [None]


CUT: dict[str, Any] = {"roi": 0.2, "fit": [32, 32]}
FAULTS: dict[str, tuple[Change, dict[str, Any], str]] = {
    "one class": (of_class(1), {}, "split.json: training: found 6 cases, all ring, expected cases of at least two classes"),
    "a class never in training": (third_class, {}, "split.json: training: found no case of star, expected one, as test has 2"),
    "no label": (unlabelled, {}, "split.json: training: found 2 without a label (m001, m004), expected a label for every case"),
    "no mask": (unmasked, CUT, "test: found 1 without a mask (m020), expected a mask for every case, for roi=0.2"),
    "empty mask": (empty_mask, CUT, "masks/013.png: mask: found no marked voxel, expected an object to cut around"),
    "mask of another size": (other_mask, CUT, "masks/013.png: shape: found 64x60, expected 64x64, as 013.png has"),
    "mask file gone": (lost_mask, CUT, "masks/002.png: file: found No such file or directory, expected an image file"),
    "smaller than the patch": (small, {}, "images/019.png: size: found 64x6, expected at least 32x32, the crop"),
    "no channel at all": (no_channel, {}, "training[0].image: found null for every channel, expected a path for at least one"),
}


@pytest.fixture
def classifying(tmp_path: Path) -> Callable[..., Finetune]:
    """Make settings of a small classification of 24 images with masks, with changes."""
    split = make_marked(tmp_path / "data", cases=24)

    def make(**changes: Any) -> Finetune:
        base: dict[str, Any] = {
            "split": split, "out": tmp_path / "run", "crop_size": [32, 32], "intensity": "percentile", "network": TINY,
            "steps": 1, "batch_size": 4, "validate_every": 1, "workers": 0, "lr": 1e-3, "threads": 1, "device": "cpu",
        }  # fmt: skip
        return Finetune.model_validate(base | changes)

    return make


def run(settings: Finetune, tmp_path: Path) -> int:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(settings.model_dump_json())
    return script("finetune", [str(recipe)])


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data_is_one_line(
    fault: str, classifying: Callable[..., Finetune], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, settings, words = FAULTS[fault]
    made = classifying(**settings)
    split = json.loads(made.split.read_text())
    change(made.split.parent, split)
    made.split.write_text(json.dumps(split))
    assert run(made, tmp_path) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert line.endswith(words), line
    assert not made.out.exists()


def test_regions_smaller_than_a_crop_are_refused_unless_they_are_resized_or_padded(
    classifying: Callable[..., Finetune], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(classifying(roi=0.2), tmp_path) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 24
    assert all(line.endswith("shape: found 17x17 as prepared, expected 32x32 or pad=true") for line in lines)


def test_other_channels_than_the_encoder_knows_are_a_warning(
    classifying: Callable[..., Finetune], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their first convolution can be adapted, more of them and fewer; nothing is said where there are as many."""
    monkeypatch.setattr("medssl.finetune.write_report", lambda folder: folder)
    file = tmp_path / "encoder.safetensors"
    expected = {(1, 1): None, (3, 1): "found 3, expected 1 (MR)", (1, 3): "found 1, expected 3 (R, G, B)"}
    for (known, channels), words in expected.items():
        settings = classifying(encoder=str(file), out=tmp_path / f"run{known}{channels}")
        names = dict(enumerate("RGB")) if channels == 3 else {"0": "MR"}
        settings.split.write_text(json.dumps(json.loads(settings.split.read_text()) | {"modality": names}))
        write_weights(file, build_encoder(settings, known), {})
        assert run(settings, tmp_path) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "channels: found" in line]
        assert lines == ([f"warning: {file}: channels: {words}: the first convolution is adapted"] if words else [])
        summary = json.loads((settings.out / "summary.json").read_text())
        assert [line for line in summary["warnings"] if "channels" in line] == lines
