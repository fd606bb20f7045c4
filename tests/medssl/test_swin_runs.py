"""Swin UNETR by settings alone: pre-trained, fine-tuned from that run or from published weights, refused where it can't be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from phantoms import make_classes
from pydantic import ValidationError

from medssl.config import Finetune, Pretrain
from medssl.finetune import finetune
from medssl.pretrain import pretrain

SWIN: dict[str, Any] = {"name": "swin_unetr", "width": 12, "depths": [1, 1, 1, 1], "heads": [1, 2, 3, 4], "window": 2}
CROPS: dict[str, Any] = {"network": SWIN, "crop_size": [64, 32, 32], "steps": 1, "validate_every": 1, "batch_size": 2}


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, whose pictures take longer than these trainings."""
    for script in ("finetune", "pretrain"):
        monkeypatch.setattr(f"medssl.{script}.write_report", lambda folder: folder)


@pytest.mark.slow
def test_a_pretrained_swin_goes_on_to_swin_unetr(
    pretraining: Callable[..., Pretrain], finetuning: Callable[..., Finetune]
) -> None:
    before = pretraining(method="masked", **CROPS)
    pretrain(before)
    settings = finetuning(encoder=str(before.out), **CROPS)
    finetune(settings)
    log = (settings.out / "log.txt").read_text()
    tensors = len(torch.load(settings.out / "checkpoint_best.pt", weights_only=True)["model"])
    loaded = int(log.partition("loaded ")[2].split()[0])
    assert "skipped" not in log.partition("loaded ")[2].splitlines()[0]
    assert 40 < loaded < tensors
    assert json.loads((settings.out / "summary.json").read_text())["network"] == "swin_unetr"


def test_classes_by_a_swin_are_judged_with_saliency(tmp_path: Path, finetuning: Callable[..., Finetune]) -> None:
    split = make_classes(tmp_path / "classes", side=64, cases=24)
    settings = finetuning(**CROPS | {"crop_size": [64, 64]}, split=split, store=tmp_path / "store")
    finetune(settings)
    assert json.loads((settings.out / "summary.json").read_text())["accuracy"] is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": [32, 32, 32]}, "crop_size: found .32, 32, 32., expected more than .32, 32, 32. for the norms"),
        ({"crop_size": [48, 48, 48]}, "crop_size: found .48, 48, 48., expected multiples of .32, 32, 32."),
        ({"network": SWIN | {"heads": [5, 2, 3, 4]}}, "heads: found .5, 2, 3, 4., expected divisors of the channels 12"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str, finetuning: Callable[..., Finetune]) -> None:
    with pytest.raises(ValidationError, match=message):
        finetuning(**CROPS | changes)
