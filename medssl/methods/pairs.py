"""Pairs: a siamese network tells positive pairs from negative ones.

The contrastive model of system B. As published a positive pair is two slices of one class and a negative pair two of
different classes, which reads the classes; without any label it is two views of one crop against views of two.
Koch et al., "Siamese Neural Networks for One-shot Image Recognition", 2015: the two branches are compared by a weighted
sum of the distances of their features. Axis letters: b batch, e embedding.
"""

from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medssl.config import PairsSettings, Pretrain
from medssl.methods.joint import embed, view_tensors, views_of
from medssl.methods.method import Method
from medssl.ranks import gathered, world_size
from networks.features import Encoder
from transforms.in_batches import BatchViews


class Pairs(Method):
    """A positive and a negative pair of every crop, told apart."""

    def __init__(self, encoder: Encoder, settings: Pretrain) -> None:
        super().__init__()
        assert isinstance(settings.method, PairsSettings)
        self.settings = settings.method
        self.encoder = encoder
        self.projector = nn.Linear(encoder.width, settings.method.embedding)
        self.same = nn.Linear(settings.method.embedding, 1)

    @staticmethod
    def views(settings: Pretrain) -> BatchViews:
        """The transform that adds two views to a crop."""
        return views_of(settings)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy and accuracy of the pairs of a batch with two views, each (b, c, *crop_size), of all ranks."""
        first, second = map(gathered, embed(self.encoder, self.projector, view_tensors(batch)))
        a, b, positive = self.partners(batch)
        logits = self.same((first[a] - second[b]).abs())[:, 0].float()
        target = positive.to(logits)
        accuracy = ((logits > 0) == positive).float().mean()
        return {"loss": functional.binary_cross_entropy_with_logits(logits, target), "accuracy": accuracy}

    def partners(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of the batches of all ranks: crop numbers of first and second view, and whether the pair is positive."""
        device = batch["image"].device
        count = world_size() * len(batch["image"])
        own = torch.arange(count, device=device)
        positive, negative = own, own.roll(-1)
        found = torch.ones(count, dtype=torch.bool, device=device)
        if self.settings.by == "class":
            classes = gathered(batch["class"])
            alike = classes[:, None] == classes
            other = ~torch.eye(count, dtype=torch.bool, device=device)
            positive = self.choose(alike & other, own)
            negative, found = self.choose(~alike, own), (~alike).any(1)
        a, b = torch.cat([own, own[found]]), torch.cat([positive, negative[found]])
        return a, b, torch.arange(len(a), device=device) < count

    def choose(self, allowed: Tensor, otherwise: Tensor) -> Tensor:
        """For each row of `allowed` (b, b) one column that is, at random in training, or `otherwise` (b)."""
        weight = torch.rand(allowed.shape, device=allowed.device) if self.training else torch.ones_like(allowed).float()
        return torch.where(allowed.any(1), (weight + 1).mul(allowed).argmax(1), otherwise)

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """A crop, its first view, and its partners in a positive and in a negative pair."""
        first, second = view_tensors(batch)
        a, b, positive = self.partners(batch)
        partner = {int(crop): second[other] for crop, other, yes in zip(a, b, positive, strict=True) if not yes}
        negative = torch.stack([partner.get(k, torch.zeros_like(second[k])) for k in range(len(first))])
        return {"image": batch["image"], "first": first, "positive": second[b[: len(first)]], "negative": negative}

    @staticmethod
    def chance(settings: Pretrain) -> dict[str, float]:
        """The loss of a coin."""
        return {"loss": log(2)}
