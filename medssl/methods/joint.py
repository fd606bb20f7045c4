"""What the joint-embedding methods share: their views, and one forward pass for all views of one size.

Axis letters: b batch, c channel, e embedding, then space.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medssl.config import JointViews, Pretrain
from medssl.methods.method import Method
from medssl.ranks import gathered
from networks.features import Encoder
from networks.heads import mlp
from transforms.in_batches import BatchViews
from transforms.joint_views import joint_views


class TwoViews(Method):
    """An encoder and a projector that is thrown away, trained on two views of every crop; the loss is the method's."""

    def __init__(self, encoder: Encoder, settings: Pretrain) -> None:
        super().__init__()
        self.settings: Any = settings.method  # the table of the method that inherits
        self.encoder = encoder
        self.projector = mlp([encoder.width, *settings.method.projector])  # type: ignore[union-attr]

    @staticmethod
    def views(settings: Pretrain) -> BatchViews:
        """The transform that adds two views to a crop."""
        return views_of(settings)

    def projected(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What is compared: the projected views of all ranks, (b, e) each."""
        first, second = embed(self.encoder, self.projector, view_tensors(batch))
        return gathered(first), gathered(second)

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """A crop and its views."""
        return view_pictures(batch)


def views_of(settings: Pretrain, views: int = 2, **local: Any) -> BatchViews:
    """The transform that adds the views of a joint-embedding method to a crop."""
    assert isinstance(settings.method, JointViews)
    chosen = settings.method.model_dump(include=set(JointViews.model_fields))
    return joint_views(views=views, size=settings.crop_size, **chosen, **local)


def embed(encoder: nn.Module, projector: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    """Project the pooled vectors of views, each (b, c, *space), to (b, e) each; those of one size in one forward pass."""
    sizes = [view.shape for view in views]
    pooled = [encoder.features(torch.cat(group)).pooled for group in _runs(views)]  # type: ignore[operator]
    embedded: Tensor = projector(torch.cat(pooled))
    return list(embedded.split([size[0] for size in sizes]))


def view_tensors(batch: dict[str, Any]) -> list[Tensor]:
    """The views of a batch in their order."""
    return [batch[name] for name in sorted((n for n in batch if n.startswith("view_")), key=lambda n: int(n[5:]))]


def view_pictures(batch: dict[str, Any]) -> dict[str, Tensor]:
    """A crop and its views, for the figure."""
    return {"image": batch["image"]} | {f"view {k}": view for k, view in enumerate(view_tensors(batch))}


def _runs(views: Sequence[Tensor]) -> list[list[Tensor]]:
    """Group neighbours of one size."""
    groups: list[list[Tensor]] = []
    for view in views:
        if groups and groups[-1][0].shape == view.shape:
            groups[-1].append(view)
        else:
            groups.append([view])
    return groups
