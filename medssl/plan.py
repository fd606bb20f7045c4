"""The plan: the block saved with every encoder that says how to use it, and encoders read back by it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import monai
import torch

from medssl import __version__
from medssl.atomic import atomic_path
from medssl.config import Pretrain, Shared, ViTSettings
from medssl.problems import InputError, Problem
from medssl.run_folder import RunFolder
from medssl.splits import Split
from medssl.store import Entry, Store
from networks import builder
from networks.transfer import Report, TransferError, load_encoder, read_plan, read_weights, write_weights
from networks.vit import ViT

ENCODER = "encoder.safetensors"
SHORT = 16  # hexadecimal digits of an image's SHA-256 that the plan keeps


def build_encoder(settings: Shared, channels: int) -> ViT:
    """Build the encoder of the settings, its weights drawn from the seed."""
    network = settings.network
    assert isinstance(network, ViTSettings)
    torch.manual_seed(settings.seed)
    encoder: ViT = builder(network.name)(
        channels,
        settings.crop_size,
        network.patch_size,
        network.hidden_size,
        network.mlp_size,
        network.layers,
        network.heads,
    )
    return encoder


def start_encoder(encoder: ViT, settings: Shared) -> Report | None:
    """Load the weights that `encoder=` names, a run, a file or none; raises InputError when they do not fit."""
    if settings.encoder == "none":
        return None
    path = encoder_file(settings)
    try:
        tensors, plan = read_weights(path)
        return load_encoder(encoder, tensors, plan)
    except TransferError as error:
        found, _, expected = str(error).removeprefix("found ").partition(", expected ")
        raise InputError([Problem(str(path), "encoder", found, expected or f"a whole {settings.network.name}")]) from error


def plan_of(settings: Pretrain, split: Split, store: Store, step: int) -> dict[str, Any]:
    """Everything that a user of the encoder has to know."""
    network = settings.network.model_dump()
    return {
        "medssl": __version__,
        "versions": {"torch": torch.__version__, "monai": monai.__version__},
        "network": network,
        "channels": split.channels,
        "modality": list(split.modality.values()),
        "spatial_dims": settings.spatial_dims,
        "patch_size": network["patch_size"],
        "image_size": settings.crop_size,
        "spacing": settings.spacing,
        "orientation": "RAS",
        "intensity": settings.intensity.model_dump(),
        "method": settings.method.model_dump(),
        "data": split.name,
        "seen": sorted(store.entries[case.id].content[:SHORT] for case in split.part("pretraining")),
        "step": step,
        "seed": settings.seed,
        "started_from": settings.encoder,
    }


def save_encoder(run: RunFolder, encoder: ViT, plan: dict[str, Any]) -> None:
    """Write encoder.safetensors, with the plan inside, and the plan beside it as encoder.json."""
    with atomic_path(run.path(ENCODER)) as temporary:
        write_weights(temporary, encoder, plan)
    run.write_json("encoder.json", plan)


def encoder_file(settings: Shared) -> Path:
    """The file of weights that `encoder=` means: itself, or the one in a run folder."""
    path = Path(settings.encoder)
    return path / ENCODER if path.is_dir() else path


def differences(settings: Shared) -> list[str]:
    """Warn where the data is prepared otherwise than the encoder's was."""
    plan = None if settings.encoder == "none" else read_plan(encoder_file(settings))
    if plan is None:
        return []
    now = {"spacing": settings.spacing, "intensity": settings.intensity.model_dump(), "spatial_dims": settings.spatial_dims}
    return [
        f"warning: {key} is {value} here, the encoder was pre-trained with {plan.get(key)}"
        for key, value in now.items()
        if plan.get(key) != value
    ]


def seen_before(settings: Shared, entries: Iterable[Entry]) -> list[Problem]:
    """Find cases whose image, under whatever name, the encoder was pre-trained on: a leak when they are judged."""
    plan = None if settings.encoder == "none" else read_plan(encoder_file(settings))
    seen = set((plan or {}).get("seen", []))
    found, expected = "an image that the encoder was pre-trained on", "one it never saw, or allow_seen=true"
    return [Problem(entry.files[0][0], entry.id, found, expected) for entry in entries if entry.content[:SHORT] in seen]
