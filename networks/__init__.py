"""Encoders, decoders, heads and weight transfer. Knows monai, torch, einops and safetensors, nothing of medssl.

NETWORKS maps every name to the function that builds it and to the sizes that the name stands for; ENCODERS are those
that can be pre-trained. Import strings, so that settings can be checked without importing torch.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from networks.features import Encoder

VIT = "networks.vit:ViT"
RESNET_SIZES = {"stem_stride": 2, "stem_pool": True, "width": 64}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_tiny": (VIT, {"hidden_size": 192, "mlp_size": 768, "layers": 12, "heads": 3}),
    "vit_small": (VIT, {"hidden_size": 384, "mlp_size": 1536, "layers": 12, "heads": 6}),
    "vit_base": (VIT, {"hidden_size": 768, "mlp_size": 3072, "layers": 12, "heads": 12}),
    "vit_large": (VIT, {"hidden_size": 1024, "mlp_size": 4096, "layers": 24, "heads": 16}),
    "resnet18": ("networks.resnet:resnet18", RESNET_SIZES),
    "resnet50": ("networks.resnet:resnet50", RESNET_SIZES),
    "swin_unetr": ("networks.swin:Swin", {"width": 48, "depths": [2, 2, 2, 2], "heads": [3, 6, 12, 24], "window": 7}),
}
NETWORKS = ENCODERS | {"unet": ("networks.unet:unet", {"channels": [16, 32, 64, 128, 256]})}


def builder(name: str) -> Callable[..., Any]:
    """Import the function that builds the network called `name`."""
    module, function = NETWORKS[name][0].split(":")
    built: Callable[..., Any] = getattr(import_module(module), function)
    return built


def build_encoder(name: str, in_channels: int, image_size: Sequence[int], **sizes: Any) -> "Encoder":
    """Build the encoder called `name` for images of `image_size` voxels; sizes not given are those of the name.

    Every vit_* also needs `patch_size`; all encoders take `normalise`. Raises ValueError for a name that is no encoder.
    """
    if name not in ENCODERS:
        raise ValueError(f"network: found {name}, expected one of {', '.join(ENCODERS)}")
    encoder: Encoder = builder(name)(in_channels, image_size, **(ENCODERS[name][1] | sizes))
    return encoder
