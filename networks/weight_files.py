"""Files of weights: safetensors, or anything that `torch.load(weights_only=True)` reads; nothing is unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

PLAN = "medssl_plan"  # the plan's key in the metadata of a safetensors file


class TransferError(ValueError):
    """Weights that cannot be read or do not fit."""


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
    except (OSError, SafetensorError) as error:
        raise TransferError(f"found {first_line(error)}, expected readable weights") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:  # what torch says of them names its own internals
        raise TransferError("found a damaged file, or none of weights, expected readable weights") from error
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


def write_weights(path: Path, network: nn.Module, plan: Mapping[str, Any]) -> None:
    """Write an encoder or a whole network as safetensors with exactly its own keys and the plan in the metadata."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(state, metadata={PLAN: json.dumps(plan)}))  # save_file would let nobody else read it


def first_line(error: Exception) -> str:
    """Say in a few words what another library complained about."""
    return (str(error) or type(error).__name__).splitlines()[0][:120]
