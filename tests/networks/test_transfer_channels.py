"""Encoders of N channels in networks of M: every combination, both families, 2D and 3D."""

from itertools import product
from typing import Any

import pytest
import torch

from networks.features import Encoder
from networks.resnet import resnet18
from networks.transfer import load_encoder
from networks.vit import ViT

COUNTS = (1, 2, 3, 4)


def encoder(family: str, channels: int, dims: int) -> Encoder:
    size: Any = [16] * dims
    if family == "vit":
        return ViT(channels, size, (8,) * dims, 12, 24, 2, 3).double().eval()
    return resnet18(channels, size, width=4).double().eval()


@pytest.mark.parametrize("family", ["vit", "resnet"])
@pytest.mark.parametrize("dims", [2, 3])
def test_an_image_with_equal_channels_gets_the_answer_that_it_got_before(family: str, dims: int) -> None:
    """Of N channels to M: x repeated over M is seen as x repeated over N was, and all else is loaded as it is."""
    torch.manual_seed(0)
    x = torch.rand(2, 1, *[16] * dims, dtype=torch.float64)
    for before, now in product(COUNTS, COUNTS):
        source, target = encoder(family, before, dims), encoder(family, now, dims)
        report = load_encoder(target, source.state_dict())
        assert report.channels == before
        assert report.adapted == ((target.first,) if before != now else ())
        assert report.missing == report.skipped == ()
        with torch.no_grad():
            answers = (net.features(x.expand(-1, c, *x.shape[2:])).pooled for net, c in ((source, before), (target, now)))
            torch.testing.assert_close(*answers, rtol=1e-9, atol=1e-9)
