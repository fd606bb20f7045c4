"""Heads over any encoder: those of a task, and the projector of a contrast."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from networks.features import Encoder


class Classifier(nn.Module):
    """A head on an encoder: (b, c, *space) -> (b, outputs), the logits of classes, or numbers of a regression.

    `linear` is one layer on the pooled vector, `mlp` a `concat_head` on the mean and the maximum over the last map's
    positions. In training an `mlp` needs batches of two or more.
    """

    def __init__(self, encoder: Encoder, outputs: int, head: str = "linear") -> None:
        super().__init__()
        if head not in {"linear", "mlp"}:
            raise ValueError(f"head: found {head}, expected linear or mlp")
        self.encoder = encoder
        self.with_maximum = head == "mlp"
        self.head = concat_head(2 * encoder.width, outputs) if self.with_maximum else nn.Linear(encoder.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder.features(x)
        vector = features.pooled
        if self.with_maximum:
            vector = torch.cat([vector, features.maps[-1].flatten(2).amax(2)], 1)
        outputs: Tensor = self.head(vector)
        return outputs


def concat_head(width: int, outputs: int, hidden: int = 512) -> nn.Sequential:
    """fastai's head behind its pooling: (b, width) -> (b, outputs), with half as much dropout first as before the end.

    A norm stands before a layer and its shift does the work of a bias. The last layer has one all the same: a
    regression starts it at the mean of its targets.
    """
    return nn.Sequential(
        nn.BatchNorm1d(width),
        nn.Dropout(0.25),
        nn.Linear(width, hidden, bias=False),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(hidden),
        nn.Dropout(0.5),
        nn.Linear(hidden, outputs),
    )


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
