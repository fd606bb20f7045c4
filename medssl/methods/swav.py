"""SwAV: each view predicts the cluster that another view of the same crop was assigned to.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020
(https://arxiv.org/abs/2006.09882): two large views are assigned to prototypes of equal share, all views, also small
ones, predict. A queue of earlier features makes the assignment even where a batch is smaller than the prototypes.
Axis letters: v view, n features in the queue, k prototype, e embedding.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medssl.config import Pretrain, SwAVSettings
from medssl.losses import swav, swav_chance
from medssl.methods.joint import embed, view_pictures, view_tensors, views_of
from medssl.methods.method import Method
from medssl.ranks import gathered
from networks.features import Encoder
from networks.heads import mlp
from transforms.in_batches import BatchViews

ASSIGNED = 2  # views whose assignment is predicted


class SwAV(Method):
    """Swapped prediction of cluster assignments."""

    queue: Tensor
    filled: Tensor

    def __init__(self, encoder: Encoder, settings: Pretrain) -> None:
        super().__init__()
        assert isinstance(settings.method, SwAVSettings)
        s = self.settings = settings.method
        self.encoder = encoder
        self.projector = mlp([encoder.width, *s.projector])
        self.prototypes = nn.Linear(s.projector[-1], s.prototypes, bias=False)
        self.register_buffer("queue", torch.zeros(ASSIGNED, s.queue, s.projector[-1]))
        self.register_buffer("filled", torch.tensor(0))  # features in the queue
        self.step = 0

    @staticmethod
    def views(settings: Pretrain) -> BatchViews:
        """The transform that adds two large views and the small ones to a crop."""
        s = settings.method
        assert isinstance(s, SwAVSettings)
        return views_of(settings, local_views=s.local_views, local_size=settings.local_size, local_scale=s.local_scale)

    def before_step(self, step: int) -> None:
        """Give the prototypes length 1, and let them learn, or not yet."""
        self.step = step
        with torch.no_grad():  # not in `forward`, which has a copy of them where weights are sharded
            self.prototypes.weight.copy_(functional.normalize(self.prototypes.weight))
        self.prototypes.weight.requires_grad_(step > self.settings.freeze_prototypes)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of a batch with at least two views (b, c, *crop_size), the first two of which are assigned."""
        features = [
            gathered(functional.normalize(view.float())) for view in embed(self.encoder, self.projector, view_tensors(batch))
        ]
        loss = self.loss([self.scores(view) for view in features])
        if self.training and self.settings.queue:
            self.keep(torch.stack([view.detach() for view in features[:ASSIGNED]]))
        return {"loss": loss}

    def scores(self, features: Tensor) -> Tensor:
        """The cosines (b, k) of features (b, e) of length 1 and the prototypes, in float32: epsilon is small."""
        prototypes = self.prototypes.weight if self.training else functional.normalize(self.prototypes.weight)
        with torch.autocast(features.device.type, enabled=False):
            return features @ prototypes.T

    def loss(self, scores: list[Tensor]) -> Tensor:
        """The loss of the views' scores (b, k), the queue's taking part in the assignment once it is full and due."""
        s = self.settings
        due = self.training and s.queue and int(self.filled) == s.queue and self.step > s.queue_after
        with torch.no_grad():
            earlier = [self.scores(view) for view in self.queue] if due else None
        return swav(scores, ASSIGNED, s.temperature, s.epsilon, s.rounds, earlier)

    def keep(self, features: Tensor) -> None:
        """Put the features (v, b, e) of a step in front of the queue; the oldest leave it."""
        count = min(features.shape[1], self.settings.queue)
        self.queue.copy_(torch.cat([features[:, :count], self.queue], 1)[:, : self.settings.queue])
        self.filled.add_(count).clamp_(max=self.settings.queue)

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """A crop and its views."""
        return view_pictures(batch)

    @staticmethod
    def chance(settings: Pretrain) -> dict[str, float]:
        """The loss when every view is as close to any cluster as to any other."""
        assert isinstance(settings.method, SwAVSettings)
        return {"loss": swav_chance(settings.method.prototypes)}
