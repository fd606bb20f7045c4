"""How to make a network without medssl: a class of MONAI's and its arguments, or where MONAI has none, our code.

MONAI's own classes are `UNETR` at patch 16 with 12 layers, `SwinUNETR`, `UNet`, `ResNet` with one linear layer, and as
encoders `ViT`, `SwinTransformer` and `ResNet`. What is built otherwise needs `networks/`, which knows nothing of medssl and
is carried along (see `carried`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from monai.networks.nets import UNETR, UNet
from torch import Tensor, nn

from medssl.config import ResNetSettings, SwinSettings, UNetSettings, ViTSettings
from medssl.exports.source import ENCODER_TASK, Source
from medssl.problems import RunError
from networks.features import Normalise

OURS = "networks.complete.build"
STAGES = {"resnet18": ("basic", [2, 2, 2, 2]), "resnet50": ("bottleneck", [3, 4, 6, 3])}
CLOSE = 1e-4  # the largest difference of an output, relative to the largest output but at least to 1


@dataclass(frozen=True)
class Constructor:
    """A function's import path, its arguments, and the state dict that the network so made loads strictly."""

    target: str
    arguments: dict[str, Any]
    state: dict[str, Tensor]

    @property
    def ours(self) -> bool:
        """Whether its code has to be carried along."""
        return self.target == OURS

    def __str__(self) -> str:
        return f"{self.target}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


def constructor_of(source: Source) -> Constructor:
    """Find what makes the network, and see that it does; raises RunError where its outputs are others."""
    state = {name: value.detach().cpu().contiguous() for name, value in source.network.state_dict().items()}
    target, arguments, renamed = OURS, source.arguments, dict[str, str]()
    native = None if scales_images(source.network) and source.task != ENCODER_TASK else monai_arguments(source)
    if native is not None:
        target, arguments = native
    if target.endswith(".ResNet") and source.task != ENCODER_TASK:
        renamed = {name: name.removeprefix("encoder.").replace("head.", "fc.") for name in state}
    constructor = Constructor(target, arguments, {renamed.get(name, name): value for name, value in state.items()})
    if not constructor.ours and not scales_images(source.network):
        refuse_difference(constructor, source)
    return constructor


def scales_images(network: nn.Module) -> bool:
    """Whether the encoder begins with the scale of ImageNet (`normalise=imagenet`), which no class of MONAI's does."""
    return any(isinstance(part, Normalise) for part in network.modules())


def monai_arguments(source: Source) -> tuple[str, dict[str, Any]] | None:
    """MONAI's class and its arguments for the network; None where there is none."""
    settings, network = source.settings.network, source.network
    if isinstance(settings, UNetSettings):
        return "monai.networks.nets.UNet", unet(source, settings)
    if isinstance(settings, ViTSettings):
        if source.task == ENCODER_TASK:
            return "monai.networks.nets.ViT", vit(source, settings)
        return ("monai.networks.nets.UNETR", unetr(source, settings)) if isinstance(network, UNETR) else None
    if isinstance(settings, SwinSettings):
        return swin(source, settings)
    linear = source.arguments.get("head") == "linear"
    if source.task == ENCODER_TASK or linear:
        return "monai.networks.nets.ResNet", resnet(source, settings)
    return None


def unet(source: Source, settings: UNetSettings) -> dict[str, Any]:
    assert isinstance(source.network, UNet)
    levels = len(settings.channels)
    sizes = {"channels": settings.channels, "strides": [2] * (levels - 1), "num_res_units": 2, "norm": "instance"}
    return dimensions(source) | sizes


def vit(source: Source, settings: ViTSettings) -> dict[str, Any]:
    sizes = {"img_size": source.size, "patch_size": settings.patch_size, "hidden_size": settings.hidden_size}
    sizes |= {"mlp_dim": settings.mlp_size, "num_layers": settings.layers, "num_heads": settings.heads}
    return {name: value for name, value in dimensions(source).items() if name != "out_channels"} | sizes


def unetr(source: Source, settings: ViTSettings) -> dict[str, Any]:
    sizes = vit(source, settings)
    return dimensions(source) | {
        "feature_size": settings.feature_size,
        **{name: sizes[name] for name in ("img_size", "hidden_size", "mlp_dim", "num_heads")},
    }


def swin(source: Source, settings: SwinSettings) -> tuple[str, dict[str, Any]] | None:
    """The whole network, or the encoder alone, whose arguments have other names."""
    dims, size = source.settings.spatial_dims, settings.width
    sizes: dict[str, Any] = {"depths": settings.depths, "num_heads": settings.heads}
    if source.task == "segmentation":
        return "monai.networks.nets.SwinUNETR", dimensions(source) | sizes | {
            "feature_size": size,
            "window_size": settings.window,
        }
    if source.task != ENCODER_TASK:
        return None
    sizes |= {"window_size": [settings.window] * dims, "patch_size": [2] * dims, "embed_dim": size}
    return "monai.networks.nets.swin_unetr.SwinTransformer", {"spatial_dims": dims, "in_chans": source.split.channels} | sizes


def resnet(source: Source, settings: ResNetSettings) -> dict[str, Any]:
    block, layers = STAGES[settings.name]
    classes = {} if source.task == ENCODER_TASK else {"num_classes": source.arguments["outputs"]}
    return {
        "block": block,
        "layers": layers,
        "block_inplanes": [settings.width * 2**stage for stage in range(4)],
        "spatial_dims": source.settings.spatial_dims,
        "n_input_channels": source.split.channels,
        "conv1_t_stride": settings.stem_stride,
        "no_max_pool": not settings.stem_pool,
        "bias_downsample": False,
        "feed_forward": bool(classes),
    } | classes


def dimensions(source: Source) -> dict[str, Any]:
    return {
        "spatial_dims": source.settings.spatial_dims,
        "in_channels": source.split.channels,
        "out_channels": source.arguments.get("outputs"),
    }


def make(target: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Call what an import path names."""
    module, _, name = target.rpartition(".")
    made: nn.Module = getattr(import_module(module), name)(**arguments)
    return made


def refuse_difference(constructor: Constructor, source: Source) -> None:
    """Make the network from its description, load it strictly, and raise RunError where it answers otherwise."""
    made = make(constructor.target, constructor.arguments).eval()
    made.load_state_dict(constructor.state)
    images = examples(source, 1)
    with torch.inference_mode():
        found, expected = (one_of(network(images)) for network in (made, source.network))
    if difference(found, expected) > CLOSE:
        raise RunError(f"{constructor.target} answers otherwise than the run's network, so nothing was written")


def examples(source: Source, count: int) -> Tensor:
    """Random images (b, c, *size) of 0..1, the same at each call."""
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, source.split.channels, *source.size, generator=generator)


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number but at least to 1."""
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def one_of(output: Any) -> Tensor:
    """Of the outputs of MONAI's ViT the tokens, of those of its Swin transformer the last map."""
    found: Tensor = output[-1] if isinstance(output, list) else output[0] if isinstance(output, tuple) else output
    return found
