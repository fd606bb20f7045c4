"""Weights that load or refuse: read a file, fit it to an encoder, report by name what happened.

A file is safetensors, or anything that `torch.load(weights_only=True)` reads; nothing is unpickled. Position
embeddings are resized to the target's grid, the first convolution is adapted to the target's channels, and a file
that brings less than the whole encoder is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from networks.vit import ViT, resize_positions

POSITIONS = "patch_embedding.position_embeddings"
PATCHES = "patch_embedding.patch_embeddings.weight"
PLAN = "medssl_plan"  # the plan's key in the metadata of a safetensors file


class TransferError(ValueError):
    """Weights that cannot be read or do not fit."""


@dataclass(frozen=True)
class Report:
    """The names of all tensors, by what happened to them; `resized` and `adapted` are also loaded."""

    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    adapted: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors"]
        for word in ("resized", "adapted", "skipped", "missing"):
            names = getattr(self, word)
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                parts.append(f"{word} {len(names)} ({shown})")
        return "; ".join(parts)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read the tensors of a file and, where medssl wrote it, the plan that says how to use them.

    Containers (`state_dict`, `model`) and the `module.` prefix of data-parallel training are taken off.
    Raises TransferError naming what is wrong with the file.
    """
    plan = read_plan(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path), plan
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise TransferError(f"found {first_line(error)}, expected readable weights") from error
    except Exception as error:  # torch.load raises its own unpickling error for anything but tensors
        raise TransferError("found objects other than tensors, expected weights alone") from error
    for container in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping):
        raise TransferError(f"found {type(content).__name__}, expected a mapping of names to tensors")
    tensors = {str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    return tensors, None


def read_plan(path: Path) -> dict[str, Any] | None:
    """Read the plan of a file without its tensors; None where medssl did not write it. Raises TransferError."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            plan: dict[str, Any] | None = json.loads((file.metadata() or {}).get(PLAN, "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise TransferError(f"found {first_line(error)}, expected readable weights") from error
    return plan if isinstance(plan, dict) else None


def write_weights(path: Path, encoder: ViT, plan: Mapping[str, Any]) -> None:
    """Write the encoder as safetensors with exactly its own keys and the plan in the metadata."""
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    save_file(state, path, metadata={PLAN: json.dumps(plan)})


def load_encoder(encoder: ViT, tensors: Mapping[str, Tensor], plan: Mapping[str, Any] | None = None) -> Report:
    """Load `tensors` into `encoder` and report it; raises TransferError, with the encoder untouched, when they do not fit.

    The encoder may stand in the file on its own or as a part of a larger network, such as `vit.` in a UNETR. Stale
    `cross_attn.*` tensors of older MONAI versions are skipped; `norm_cross_attn`, which nothing uses, may be missing.
    """
    prefix = _prefix_of(tensors)
    source = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    target = encoder.state_dict()
    if source[PATCHES].shape[2:] != target[PATCHES].shape[2:]:
        found, expected = list(source[PATCHES].shape[2:]), list(target[PATCHES].shape[2:])
        raise TransferError(f"found patches of {found}, expected {expected}")
    fitted, resized, adapted, misfits = dict[str, Tensor](), list[str](), list[str](), list[str]()
    for name in target.keys() & source.keys():
        value, wanted = source[name], target[name]
        if name == POSITIONS and value.shape != wanted.shape and value.shape[-1] == wanted.shape[-1]:
            value = resize_positions(value, _source_grid(value.shape[1], encoder, plan), encoder.grid)
            resized.append(name)
        elif name == PATCHES and value.shape[1] != wanted.shape[1]:
            value = adapt_channels(value, wanted.shape[1])
            adapted.append(name)
        if value.shape != wanted.shape:
            misfits.append(f"{name} {list(value.shape)} for {list(wanted.shape)}")
        fitted[name] = value
    missing = sorted(name for name in target if name not in fitted)
    needed = [name for name in missing if "norm_cross_attn" not in name]
    if misfits:
        raise TransferError(f"found another architecture ({len(misfits)} misfits: {'; '.join(sorted(misfits)[:2])})")
    if needed:
        raise TransferError(f"found {len(fitted)} of {len(target)} tensors (missing {', '.join(needed[:3])})")
    skipped = sorted(name for name in tensors if name.removeprefix(prefix) not in fitted or not name.startswith(prefix))
    encoder.load_state_dict(target | fitted)
    return Report(tuple(sorted(fitted)), tuple(resized), tuple(adapted), tuple(skipped), tuple(missing))


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit a first convolution (e, c, *kernel) to another number of channels, its sum over channels kept.

    Three channels to one is the sum over RGB; an image repeated over M channels gets the answer it got before.
    """
    total = weight.sum(1, keepdim=True)
    return (total / channels).expand(-1, channels, *total.shape[2:]).contiguous()


def _prefix_of(tensors: Mapping[str, Tensor]) -> str:
    """Find where the encoder stands in a file: the one name that ends in the patch embedding's weight."""
    places = [name.removesuffix(PATCHES) for name in tensors if name.endswith(PATCHES)]
    if len(places) != 1:
        raise TransferError(f"found {len(places)} vision transformers among {len(tensors)} tensors, expected one")
    return places[0]


def _source_grid(tokens: int, encoder: ViT, plan: Mapping[str, Any] | None) -> Sequence[int]:
    """Tell the patch grid that position embeddings belong to: from the plan, else a cube of as many tokens."""
    if plan is not None:
        return [size // patch for size, patch in zip(plan["image_size"], plan["patch_size"], strict=True)]
    side = round(tokens ** (1 / len(encoder.grid)))
    if side ** len(encoder.grid) != tokens:
        raise TransferError(f"found {tokens} position embeddings without a plan, expected those of a cube of patches")
    return [side] * len(encoder.grid)


def first_line(error: Exception) -> str:
    """Say in a few words what another library complained about."""
    return (str(error) or type(error).__name__).splitlines()[0][:120]
