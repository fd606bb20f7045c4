"""The memory of a prediction, told without computing."""

from dataclasses import replace
from math import prod

import torch
from torch import nn

from medssl.device import Compute
from medssl.prediction.memory import forward_bytes
from medssl.prediction.model import Model
from networks import build_encoder
from networks.resnet_unet import ResNetUNet
from networks.unetr import unetr


def test_bytes_of_a_forward_are_those_of_the_tensors_that_live_at_a_time(model: Model) -> None:
    """Of a chain of 1 x 1 convolutions with 1, 6, 2 and 3 channels two neighbours live at a time, and the input always does."""
    chain = nn.Sequential(nn.Conv3d(1, 6, 1), nn.ReLU(inplace=True), nn.Conv3d(6, 2, 1), nn.Conv3d(2, 3, 1)).eval()
    compute = Compute(torch.device("cpu"), None)
    settings = model.settings.model_copy(update={"batch_size": 2, "crop_size": (10, 12, 14)})
    found = forward_bytes([replace(model, network=chain, compute=compute, settings=settings)])
    assert found == 2 * 4 * prod((10, 12, 14)) * (1 + 6 + 2)


def test_every_decoder_is_told(model: Model) -> None:
    """At least its input and its scores, and no weight is touched."""
    size = (32, 32, 32)
    settings = model.settings.model_copy(update={"batch_size": 1, "crop_size": size})
    encoders = {
        "vit": build_encoder("vit_tiny", 1, size, patch_size=(8, 8, 8), layers=4),
        "resnet": build_encoder("resnet18", 1, size, width=8),
    }
    for network in (unetr(encoders["vit"], 3), ResNetUNet(encoders["resnet"], 3)):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        one = forward_bytes([replace(model, network=network.eval(), settings=settings)])
        wide = settings.model_copy(update={"crop_size": (32, 32, 64)})
        assert one > 4 * (1 + 3) * prod(size)
        assert 1.5 * one < forward_bytes([replace(model, network=network, settings=wide)]) < 3 * one
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
