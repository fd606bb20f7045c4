"""The plan: the block saved with every encoder that says how to use it, and encoders read back by it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import monai
import torch

from medssl import __version__
from medssl.atomic import atomic_path
from medssl.config import Finetune, Pretrain, Shared, UNetSettings, encoder_sizes
from medssl.problems import InputError, Problem
from medssl.run_folder import RunFolder
from medssl.splits import Split
from medssl.store import Entry, Store
from medssl.tasks.targets import scale_of
from networks import build_encoder as build_network
from networks.features import Encoder
from networks.transfer import Report, TransferError, load_encoder, read_plan, read_weights, write_weights

ENCODER = "encoder.safetensors"
SHORT = 16  # hexadecimal digits of an image's SHA-256 that the plan keeps


def build_encoder(settings: Shared, channels: int) -> Encoder:
    """Build the encoder of the settings, its weights drawn from the seed; raises InputError for unsuited channels."""
    network = settings.network
    assert not isinstance(network, UNetSettings)
    torch.manual_seed(settings.seed)
    try:
        return build_network(network.name, channels, settings.crop_size, **encoder_sizes(network))
    except ValueError as error:  # worded "FIELD: found FOUND, expected EXPECTED"
        field, _, rest = str(error).partition(": found ")
        found, _, expected = rest.partition(", expected ")
        raise InputError([Problem("settings", f"network.{field}", found, expected)]) from None


def start_encoder(encoder: Encoder, settings: Shared) -> Report | None:
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


def plan_of(settings: Pretrain | Finetune, split: Split, store: Store, step: int) -> dict[str, Any]:
    """Everything that a user of the encoder, pre-trained or fine-tuned, has to know."""
    network = settings.network.model_dump()
    method: dict[str, Any] = settings.method.model_dump() if isinstance(settings, Pretrain) else {"name": split.task}
    if isinstance(settings, Finetune) and split.task == "regression":
        method["targets"] = scale_of(split)._asdict()  # what an output of the network is to be read by
    learned = split.part("pretraining" if isinstance(settings, Pretrain) else "training")
    seen = {digest for case in learned for digest in digests_of(store.entries[case.id])}
    return {
        "medssl": __version__,
        "versions": {"torch": torch.__version__, "monai": monai.__version__},
        "network": network,
        "channels": split.channels,
        "modality": list(split.modality.values()),
        "spatial_dims": settings.spatial_dims,
        "patch_size": network.get("patch_size"),
        "image_size": settings.crop_size,
        "fit": settings.fit,
        "region": settings.region if isinstance(settings, Pretrain) else None,
        "slices": settings.image_dims > settings.spatial_dims,
        "foreground_above": settings.foreground_above,
        "mask": settings.mask,
        "roi": settings.roi,
        "spacing": settings.spacing,
        "orientation": "RAS",
        "intensity": settings.intensity.model_dump(),
        "method": method,
        "data": split.name,
        "seen": sorted(seen | set(plan_before(settings).get("seen", []))),
        "step": step,
        "seed": settings.seed,
        "started_from": settings.encoder,
        "ancestry": ancestry_of(settings),
    }


def plan_before(settings: Shared) -> dict[str, Any]:
    """The plan of the encoder that a run starts from; empty without one, or where its file has none."""
    return {} if settings.encoder == "none" else read_plan(encoder_file(settings)) or {}


def ancestry_of(settings: Shared) -> list[dict[str, Any]]:
    """What the weights went through before this run, oldest first: each encoder's file, method, data and size."""
    if settings.encoder == "none":
        return []
    plan = plan_before(settings)
    told = ("method", "network", "data", "channels", "image_size", "step", "seed", "medssl")
    return [*plan.get("ancestry", []), {"file": settings.encoder} | {name: plan.get(name) for name in told}]


def save_encoder(run: RunFolder, encoder: Encoder, plan: dict[str, Any]) -> None:
    """Write encoder.safetensors, with the plan inside, and the plan beside it as encoder.json."""
    with atomic_path(run.path(ENCODER)) as temporary:
        write_weights(temporary, encoder, plan)
    run.write_json("encoder.json", plan)


def encoder_file(settings: Shared) -> Path:
    """The file of weights that `encoder=` means: itself, or the one in a run folder."""
    path = Path(settings.encoder)
    return path / ENCODER if path.is_dir() else path


def differences(settings: Shared) -> list[str]:
    """Warn where the data is prepared, or the network set, otherwise than it was for the encoder."""
    plan = plan_before(settings)
    if not plan:
        return []
    now: dict[str, Any] = {
        "spacing": settings.spacing,
        "intensity": settings.intensity.model_dump(),
        "spatial_dims": settings.spatial_dims,
        "foreground_above": settings.foreground_above,
        "mask": settings.mask,
        "roi": settings.roi,
        "fit": settings.fit,
    }
    before = {"roi": None} | {key: plan[key] for key in now.keys() & plan.keys()}  # who knew no roi saw whole images
    if settings.spacing and before.get("spacing"):
        before["spacing"] = before["spacing"][: settings.image_dims]  # of an encoder of slices that of their plane
    if not isinstance(settings.network, UNetSettings):  # these leave no trace in the weights
        silent = ("normalise", "heads", "stem_stride", "stem_pool")
        sizes, network = encoder_sizes(settings.network), plan.get("network", {})
        now |= {f"network.{key}": sizes[key] for key in silent if key in sizes}
        before |= {f"network.{key}": network[key] for key in silent if key in network}
    return [
        f"warning: {key} is {_told(value)} here, the encoder was pre-trained with {_told(before[key])}"
        for key, value in now.items()
        if key in before and before[key] != value
    ]


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def adapted_channels(settings: Shared, split: Split, loaded: Report | None) -> list[str]:
    """Warn where the encoder knew another number of channels than the split has, so that its first layer was adapted."""
    if loaded is None or loaded.channels == split.channels:
        return []
    names = f"{split.channels} ({', '.join(split.modality.values())}): the first convolution is adapted"
    return [f"warning: {Problem(str(encoder_file(settings)), 'channels', str(loaded.channels), names)}"]


def seen_before(settings: Shared, entries: Iterable[Entry]) -> list[Problem]:
    """Find cases whose image, or a channel of it, the encoder was pre-trained on, under whatever name: a leak when judged."""
    seen = set(plan_before(settings).get("seen", []))
    found, expected = "an image that the encoder was pre-trained on", "one it never saw, or allow_seen=true"
    return [Problem(entry.files[0][0], entry.id, found, expected) for entry in entries if digests_of(entry) & seen]


def digests_of(entry: Entry) -> set[str]:
    """What tells an image again, also among other channels: a digest of the whole and of each channel that is there."""
    return {digest[:SHORT] for digest in (entry.content, *entry.channels)}
