"""Task heads over any encoder that gives `features`."""

from torch import Tensor, nn

from networks.vit import ViT


class Classifier(nn.Module):
    """A linear layer on the encoder's pooled vector: (b, c, *image_size) -> logits (b, classes)."""

    def __init__(self, encoder: ViT, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder.features(x).pooled)
        return logits
