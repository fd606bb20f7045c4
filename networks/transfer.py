"""Weights that load or refuse: fit the tensors of a file to any encoder, report by name what happened.

The encoder may stand in the file alone or inside a larger network. Position embeddings are resized to the target's
grid, the first convolution is adapted to the target's channels, and a file that brings less than the whole encoder,
or more of it than there is, is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from networks.features import Encoder
from networks.vit import ViT, resize_positions
from networks.weight_files import TransferError, read_plan, read_weights, write_weights

__all__ = ["Report", "TransferError", "adapt_channels", "load_encoder", "read_plan", "read_weights", "write_weights"]

POSITIONS = "patch_embedding.position_embeddings"
UNUSED = ("cross_attn", "num_batches_tracked")  # what no encoder uses, and files of other versions lack or have besides


@dataclass(frozen=True)
class Report:
    """The names of all tensors, by what happened to them; `resized` and `adapted` are also loaded.

    `channels` are those of the images that the file's first convolution was made for.
    """

    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    adapted: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    channels: int

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors"]
        for word in ("resized", "adapted", "skipped", "missing"):
            names = getattr(self, word)
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                parts.append(f"{word} {len(names)} ({shown})")
        return "; ".join(parts)


def load_encoder(encoder: Encoder, tensors: Mapping[str, Tensor], plan: Mapping[str, Any] | None = None) -> Report:
    """Load `tensors` into `encoder` and report it; raises TransferError, with the encoder untouched, when they do not fit.

    The names may be those of the encoder or of a larger network that has it, such as `vit.` in a UNETR or `backbone.`;
    the common ImageNet weights are a ResNet with an `fc` besides, which is skipped, those of Swin UNETR a Swin transformer
    with heads.
    """
    for theirs, ours in encoder.renamed:
        tensors = {name.replace(theirs, ours): value for name, value in tensors.items()}
    prefix = _prefix_of(tensors, encoder)
    source = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    target = encoder.state_dict()
    _check_kernels(encoder, source, target)
    body, folded = _fold_biases(source)
    fitted, resized, adapted = _fit(body, target, encoder, plan)
    _check_whole(body, fitted, target)
    used = {prefix + name for name in [*fitted, *folded]}
    encoder.load_state_dict(target | fitted)
    return Report(
        loaded=tuple(sorted(fitted)),
        resized=tuple(resized),
        adapted=tuple(adapted + list(folded.values())),
        skipped=tuple(sorted(tensors.keys() - used)),
        missing=tuple(sorted(target.keys() - fitted.keys())),
        channels=source[encoder.first].shape[1],
    )


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit a first convolution (e, c, *kernel) to another number of channels, its sum over channels kept.

    Three channels to one is the sum over RGB; an image repeated over M channels gets the answer it got before.
    """
    total = weight.sum(1, keepdim=True)
    return (total / channels).expand(-1, channels, *total.shape[2:]).contiguous()


def _prefix_of(tensors: Mapping[str, Tensor], encoder: Encoder) -> str:
    """Find where the encoder stands in a file: before the one name that is its landmark."""
    places = [name.removesuffix(encoder.landmark) for name in tensors if f".{name}".endswith(f".{encoder.landmark}")]
    if len(places) != 1:
        raise TransferError(f"found {len(places)} {encoder.family} among {len(tensors)} tensors, expected one")
    if places[0] + encoder.first not in tensors:
        raise TransferError(f"found no {places[0]}{encoder.first}, expected the first convolution")
    return places[0]


def _check_kernels(encoder: Encoder, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Refuse 2D weights for 3D images, another patch size, another stem."""
    found, expected = (list(tensors[encoder.first].shape[2:]) for tensors in (source, target))
    if found != expected:
        what = "patches" if isinstance(encoder, ViT) else "first kernels"
        raise TransferError(f"found {what} of {found}, expected {expected}")


def _check_whole(source: Mapping[str, Tensor], fitted: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Refuse what has other shapes than the encoder, less than all of it, or further layers inside it."""
    misfits = [
        f"{name} {list(value.shape)} for {list(target[name].shape)}"
        for name, value in fitted.items()
        if value.shape != target[name].shape
    ]
    if misfits:
        raise TransferError(f"found another architecture ({len(misfits)} misfits: {'; '.join(misfits[:2])})")
    missing = [name for name in sorted(target.keys() - fitted.keys()) if not any(word in name for word in UNUSED)]
    if missing:
        raise TransferError(f"found {len(fitted)} of {len(target)} tensors (missing {', '.join(missing[:3])})")
    parts = {name.split(".")[0] for name in target}
    further = [name for name in sorted(source.keys() - target.keys()) if name.split(".")[0] in parts]
    further = [name for name in further if not any(word in name for word in UNUSED)]
    if further:
        raise TransferError(f"found another architecture ({len(further)} tensors more: {', '.join(further[:3])})")


def _fold_biases(source: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Move the shortcuts' biases, which MONAI's ResNets have by default, into the running mean of the norm behind.

    Batch norm takes the bias off again: in training with the batch's mean, later with the running mean less the bias.
    Gives the tensors without these biases, and the name of the mean by that of its bias.
    """
    names = {name: name.removesuffix("0.bias") + "1.running_mean" for name in source if name.endswith("downsample.0.bias")}
    names = {bias: mean for bias, mean in names.items() if mean in source and source[mean].shape == source[bias].shape}
    means = {mean: source[mean] - source[bias] for bias, mean in names.items()}
    return {name: means.get(name, value) for name, value in source.items() if name not in names}, names


def _fit(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], encoder: Encoder, plan: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Take the tensors that the encoder has; name those resized to its grid and those adapted to its channels."""
    fitted, resized, adapted = {name: source[name] for name in sorted(target.keys() & source.keys())}, [], []
    for name, value in fitted.items():
        wanted = target[name]
        if name == POSITIONS and value.shape[::2] == wanted.shape[::2]:
            assert isinstance(encoder, ViT)
            grid = _grid_of(value, encoder, plan)
            if grid != encoder.grid:
                fitted[name] = resize_positions(value, grid, encoder.grid)
                resized.append(name)
        elif name == encoder.first and value.shape[1] != wanted.shape[1]:
            fitted[name] = adapt_channels(value, wanted.shape[1])
            adapted.append(name)
    return fitted, resized, adapted


def _grid_of(positions: Tensor, encoder: ViT, plan: Mapping[str, Any] | None) -> tuple[int, ...]:
    """The patch grid of position embeddings (1, n, e): the plan's, else the encoder's or a cube, of as many patches."""
    tokens, axes = positions.shape[1], len(encoder.grid)
    if plan is not None and plan.keys() >= {"image_size", "patch_size"}:
        grid = tuple(size // patch for size, patch in zip(plan["image_size"], plan["patch_size"], strict=True))
        if prod(grid) != tokens:
            raise TransferError(f"found {tokens} position embeddings, expected {prod(grid)} as the plan says")
        return grid
    if tokens == prod(encoder.grid):
        return encoder.grid
    grid = (round(tokens ** (1 / axes)),) * axes
    if prod(grid) != tokens:
        raise TransferError(f"found {tokens} position embeddings without a plan, expected those of a cube of patches")
    return grid
