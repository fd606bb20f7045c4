"""Encoders, decoders, heads and weight transfer. Knows monai, torch, einops and safetensors, nothing of medssl.

NETWORKS maps every name to the function that builds it and to the sizes that the name stands for. Import strings, so
that settings can be checked without importing torch.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

VIT = "networks.vit:ViT"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_tiny": (VIT, {"hidden_size": 192, "mlp_size": 768, "layers": 12, "heads": 3}),
    "vit_small": (VIT, {"hidden_size": 384, "mlp_size": 1536, "layers": 12, "heads": 6}),
    "vit_base": (VIT, {"hidden_size": 768, "mlp_size": 3072, "layers": 12, "heads": 12}),
    "vit_large": (VIT, {"hidden_size": 1024, "mlp_size": 4096, "layers": 24, "heads": 16}),
    "unet": ("networks.unet:unet", {"channels": [16, 32, 64, 128, 256]}),
}


def builder(name: str) -> Callable[..., Any]:
    """Import the function that builds the network called `name`."""
    module, function = NETWORKS[name][0].split(":")
    built: Callable[..., Any] = getattr(import_module(module), function)
    return built
