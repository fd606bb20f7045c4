"""Heads over any encoder: the classifier of a task and the projector of a contrast."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from networks.features import Encoder


class Classifier(nn.Module):
    """A linear layer on the encoder's pooled vector: (b, c, *space) -> logits (b, classes)."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder.features(x).pooled)
        return logits


def mlp(widths: Sequence[int], norm: bool = True, last_norm: bool = False) -> nn.Sequential:
    """The projector of SimCLR, Barlow Twins, SwAV and VICReg: (b, widths[0]) -> (b, widths[-1]).

    Linear layers with batch norm (unless `norm` is false) and ReLU between them. `last_norm` ends in a batch norm
    without scale and shift, as of MoCo v3 and SimSiam. A layer before a norm has no bias: the norm would take it off.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths: found {list(widths)}, expected two or more positive numbers")
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=not norm), *([nn.BatchNorm1d(after)] if norm else []), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)
