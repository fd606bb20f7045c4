"""The encoder by depth: how fast each of its layers learns, and in which order they are freed.

`rates=slice` is fastai's rule: the rates of three groups, lower half, upper half and head, are a geometric sequence.
`rates=layers` is that of BEiT (Bao et al., 2021, https://arxiv.org/abs/2106.08254) and MAE: every layer learns at
`layer_decay` times the rate of the one above it.
"""

from math import sqrt

from torch import nn

from medssl.config import FineTune, Finetune
from medssl.schedules import DEPTH
from networks.features import Encoder

Scaled = list[tuple[nn.Module, float]]  # modules with what multiplies their rate


def scaled_parts(encoder: Encoder, settings: Finetune) -> Scaled:
    """The parts of the encoder, lowest first, with their rates relative to that of the head."""
    lowest = settings.encoder_lr
    if isinstance(settings.schedule, FineTune):
        return list(zip(halves(encoder), (1 / DEPTH, sqrt(1 / DEPTH)), strict=True))
    if settings.rates == "encoder":
        return [(encoder, lowest)]
    if settings.rates == "slice":
        return list(zip(halves(encoder), (lowest, sqrt(lowest)), strict=True))
    layers = encoder.layers()
    return [(layer, lowest * settings.layer_decay ** (len(layers) - 1 - k)) for k, layer in enumerate(layers)]


def freed_in_order(encoder: Encoder, settings: Finetune) -> list[nn.Module]:
    """The parts of the encoder that are freed one after the other, highest first."""
    if not settings.unfreeze_every:
        return [encoder]
    if settings.rates != "layers":
        return halves(encoder)[::-1]
    *below, last_block, above = encoder.layers()  # a norm above the last block is freed with it
    return [nn.ModuleList([last_block, above]), *below[::-1]]


def halves(encoder: Encoder) -> list[nn.Module]:
    """The lower and the upper half of the encoder."""
    layers, middle = encoder.layers(), encoder.halfway
    return [nn.ModuleList(layers[:middle]), nn.ModuleList(layers[middle:])]
