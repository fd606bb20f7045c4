"""The memory of a prediction, told without computing."""

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from medssl.device import Compute
from medssl.prediction.memory import estimate, forward_bytes
from medssl.prediction.model import Model
from medssl.splits import Case
from networks.complete import build

SIZES: dict[str, dict[str, Any]] = {
    "vit_tiny": {"patch_size": (16, 16, 16), "layers": 4}, "resnet18": {"width": 8}, "swin_unetr": {"width": 12},
    "unet": {"channels": [4, 8]},
}  # fmt: skip


def told(model: Model, network: nn.Module, window: tuple[int, ...], batch_size: int = 1, accumulate: int = 1) -> int:
    compute = Compute(torch.device("cpu"), None)
    changes = {"batch_size": batch_size, "accumulate": accumulate, "crop_size": window}
    settings = model.settings.model_copy(update=changes)
    return forward_bytes([replace(model, network=network, compute=compute, settings=settings)])


def test_bytes_of_a_forward_are_those_of_the_tensors_that_live_at_a_time(model: Model) -> None:
    """Of a chain of 1 x 1 convolutions with 1, 6, 2 and 3 channels two neighbours live at a time, and the input always does."""
    chain = nn.Sequential(nn.Conv3d(1, 6, 1), nn.ReLU(inplace=True), nn.Conv3d(6, 2, 1), nn.Conv3d(2, 3, 1)).eval()
    needed = 2 * 4 * prod((10, 12, 14)) * (1 + 6 + 2)
    assert told(model, chain, (10, 12, 14), batch_size=2) == needed
    assert told(model, chain, (10, 12, 14), batch_size=6, accumulate=3) == needed


def test_the_image_between_spacing_and_fit_counts(model: Model, tmp_path: Path) -> None:
    """Its voxels are half a millimetre long, and of each MONAI makes 40 bytes of coordinates."""
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 10), np.int16), np.diag([1.0, 1.0, 2.0, 1.0])), tmp_path / "a.nii")
    settings = model.settings.model_copy(update={"spacing": (0.5, 0.5, 0.5), "fit": (8, 8, 8)})
    found = estimate([replace(model, settings=settings)], Case("a", "a", (tmp_path / "a.nii",)), 0)
    assert (found.shape, found.prepared) == ((20, 20, 10), (8, 8, 8))
    assert found.bytes > 40 * 40 * 40 * 40


@pytest.mark.parametrize("name", SIZES)
def test_every_network_is_told_and_predicts_as_before(name: str, model: Model) -> None:
    """Two windows at a time take about twice one, at least input and scores; nothing without values stays behind in it."""
    size = (64, 64, 32) if name != "swin_unetr" else (64, 32, 32)
    networks = [build(name, 1, size, 3, **SIZES[name]).eval() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    one, two = (told(model, networks[0], size, batch_size) for batch_size in (1, 2))
    assert one >= 4 * (1 + 3) * prod(size)
    assert 1.5 * one < two < 2.5 * one
    image = torch.rand(1, 1, *size)
    with torch.inference_mode():
        assert torch.equal(networks[0](image), networks[1](image))
