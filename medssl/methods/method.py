"""What a self-supervised method is: a module around the encoder that is kept."""

from typing import Any

from torch import Tensor, nn

from medssl.config import Pretrain
from networks.features import Encoder
from transforms.in_batches import BatchViews


class Method(nn.Module):
    """Built as `Method(encoder, settings)`; a batch holds "image" (b, c, *crop_size), the views, "id" and "patient"."""

    VALIDATION = "val_loss"  # lower is better; it selects the best checkpoint
    encoder: Encoder

    @staticmethod
    def views(settings: Pretrain) -> BatchViews:
        """The transform that turns {"image"} into {"image", "view_0", ...}."""
        raise NotImplementedError

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Scalars by name, of which `loss` is minimised."""
        raise NotImplementedError

    def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Scalars by name, one of them VALIDATION; the views of a case are the same at every validation."""
        return {f"val_{name}": value for name, value in self(batch).items()}

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What the report shows of each crop, in this order: (b, c, *space) each."""
        raise NotImplementedError

    def before_step(self, step: int) -> None:
        """Get ready for a step, counted from 1."""

    @staticmethod
    def chance(settings: Pretrain) -> dict[str, float]:
        """Parts of the loss with the value they have when nothing is learned, where there is such a value."""
        return {}


class Restoring(Method):
    """A method that restores images by a decoder which is thrown away: `autoencoder` holds the encoder."""

    autoencoder: nn.Module

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]
        """The network that is kept."""
        encoder: Encoder = self.autoencoder.encoder  # type: ignore[assignment]
        return encoder
