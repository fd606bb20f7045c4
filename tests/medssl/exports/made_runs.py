"""Finished runs of every kind of network, made in a moment: settings, split, random weights, scores out of the air."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from medssl.config import Finetune, Pretrain
from medssl.exports.source import arguments_of
from medssl.model_file import FORMAT, MODEL
from medssl.plan import ENCODER
from medssl.run_folder import config_of
from medssl.splits import read_split, write_split
from networks import build_encoder
from networks.complete import build
from networks.transfer import write_weights

VIT = {"name": "vit_tiny", "hidden_size": 24, "mlp_size": 48, "heads": 3, "feature_size": 4}
UNETR = VIT | {"layers": 12}
PATCHES = VIT | {"layers": 3}
RESNET = {"name": "resnet18", "width": 4, "feature_size": 4}
SWIN = {"name": "swin_unetr", "width": 12, "depths": [2, 1, 1, 1], "heads": [1, 2, 3, 4], "window": 3}
UNET = {"name": "unet", "channels": [4, 8, 16]}
KINDS: dict[str, dict[str, Any]] = {  # with the constructor's name, by what they are called
    "UNETR 3D": {"network": UNETR | {"patch_size": [16] * 3}},
    "UNETR 2D": {"network": UNETR | {"patch_size": [16] * 2}},
    "UNet 3D": {"network": UNET},
    "UNet 2D": {"network": UNET},
    "ResNet 2D": {"network": RESNET, "task": "classification"},
    "ResNet 3D": {"network": RESNET, "task": "classification", "channels": 2},
    "SwinUNETR 3D": {"network": SWIN, "crop_size": [64, 32, 32]},
    "SwinUNETR 2D": {"network": SWIN, "crop_size": [64, 64]},
    "SwinTransformer 2D": {"network": SWIN, "crop_size": [64, 64], "task": "encoder"},
    "ViT 3D": {"network": PATCHES | {"patch_size": [8, 8, 16]}, "task": "encoder"},
    "ResNet encoder 2D": {"network": RESNET, "task": "encoder"},
    "build patches 3D": {"network": PATCHES | {"patch_size": [8] * 3}},
    "build tokens 2D": {"network": PATCHES | {"patch_size": [8] * 2, "decoder": "tokens"}},
    "build progressive 2D": {"network": UNETR | {"patch_size": [16] * 2}, "progressive": [[16, 16]]},
    "build resnet 2D": {"network": RESNET | {"normalise": "imagenet"}, "channels": 3},
    "build resnet 3D": {"network": RESNET},
    "build fcn 2D": {"network": RESNET | {"decoder": "fcn"}},
    "build ViT class 2D": {"network": PATCHES | {"patch_size": [8] * 2}, "task": "classification", "loss": "log_sigmoid"},
    "build mlp 3D": {"network": RESNET, "task": "regression", "head": "mlp"},
    "build scaled 2D": {"network": RESNET | {"normalise": "imagenet"}, "task": "classification"},
}
SUMMARY = {
    "segmentation": {
        "dice": 0.8123,
        "dice_interval": [0.7, 0.9],
        "classes": {"lump": {"n": 2, "dice": 0.8, "dice_interval": None}},
    },
    "classification": {"accuracy": 0.75, "accuracy_interval": [0.5, 0.9], "calibration": {"temperature": 2.0}},
    "regression": {"mae": 3.25, "mae_interval": [2.0, 4.0]},
    "encoder": {},
}


def dims_of(kind: str) -> int:
    """2 or 3, the last word of a kind."""
    return int(kind[-2])


def write_run(
    folder: Path, dims: int, *, network: dict[str, Any], task: str = "segmentation", channels: int = 1,
    suffix: str = ".nii.gz", images: Path | None = None, **changes: Any,
) -> Path:  # fmt: skip
    """Write the files of a finished run."""
    images = images or folder

    def label(k: int) -> Any:
        return {"segmentation": f"{k}_label{suffix}", "regression": k}.get(task, k % 2)

    cases = [{"id": f"c{k}", "image": f"{k}{suffix}", "label": label(k)} for k in range(6)]
    content: dict[str, Any] = {"name": "made up", "modality": {str(k): f"m{k}" for k in range(channels)}}
    content |= {"task": "segmentation" if task == "encoder" else task}
    content |= {} if task == "regression" else {"labels": {"0": "none", "1": "lump", "2": "ring"}}
    unlabelled = [{"id": case["id"], "image": case["image"]} for case in cases[:4]]
    parts = (
        {"pretraining": unlabelled}
        if task == "encoder"
        else {"training": cases[:2], "validation": cases[2:4], "test": cases[4:]}
    )
    folder.mkdir(parents=True)
    write_split(images / "the_split.json", content | parts)
    shutil.copy(images / "the_split.json", folder / "split.json")
    base = {
        "split": images / "the_split.json", "out": folder, "steps": 1, "batch_size": 2, "validate_every": 1, "lr": 1e-3,
        "crop_size": [32] * dims, "intensity": "percentile", "network": network, "workers": 0, "pad": True,
    }  # fmt: skip
    settings: Any = Pretrain.model_validate(base | {"method": "simclr"} | changes) if task == "encoder" else (
        Finetune.model_validate(base | changes))  # fmt: skip
    arguments = arguments_of(settings, read_split(folder / "split.json", images))
    torch.manual_seed(0)
    made = disturb(build_encoder(**arguments) if task == "encoder" else build(**arguments))
    plan = {"network": settings.network.model_dump(), "image_size": settings.crop_size, "started_from": "/home/me/enc.pt"}
    plan |= {"method": {"name": task, "targets": {"mean": 40.0, "deviation": 8.0}}}
    write(folder / "config.json", config_of(settings, "pretrain" if task == "encoder" else "finetune"))
    write(folder / "encoder.json", plan)
    told = {
        "kind": "pretrain" if task == "encoder" else "finetune",
        "status": "finished",
        "n": 2,
        "patients": 2,
        "part": "test",
    }
    write(folder / "summary.json", told | {"task": task, "network": network["name"]} | SUMMARY[task])
    if task == "encoder":
        write_weights(folder / ENCODER, made, plan)  # type: ignore[arg-type]
    else:
        write_weights(folder / MODEL, made, plan | {"format": FORMAT, "task": task, "settings": {}})
    return folder


def disturb(network: torch.nn.Module) -> torch.nn.Module:
    """Give norms scales, shifts and statistics of their own, so that none can be left out unnoticed."""
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape) + 0.5)
    return network.eval()


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
