"""A MONAI bundle: a folder that `python -m monai.bundle run` predicts with, where medssl is not installed.

Layout and keys: MONAI Bundle Specification, https://docs.monai.io/en/stable/mb_specification.html. The weights are a plain
state dict, which MONAI loads by `weights_only=True`. A config is code: run only bundles that you trust.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from medssl import __version__
from medssl.exports.card import model_card
from medssl.exports.carried import copied, write_scripts
from medssl.exports.constructors import Constructor, constructor_of
from medssl.exports.source import ENCODER_TASK, Source
from medssl.exports.steps import inferer, ours, postprocessing, preprocessing, refuse_unsuited, suffix_of
from medssl.problems import InputError, Problem

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
CT = "CT"


def write(source: Source, folder: Path) -> list[str]:
    """Write the bundle of a fine-tuned network; InputError for an encoder and for what a bundle can't prepare."""
    if source.task == ENCODER_TASK:
        expected = "a fine-tuned network; for encoders there is --to safetensors"
        raise InputError([Problem(str(source.run.folder), "--to monai-bundle", "a run of pre-training", expected)])
    refuse_unsuited(source)
    constructor = constructor_of(source)
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    torch.save(constructor.state, folder / "models/model.pt")
    for name, content in (("inference", inference(source, constructor)), ("metadata", metadata(source))):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    write_scripts(folder, [*ours(source), *([constructor.target] if constructor.ours else [])])
    run = command("BUNDLE", "IMAGES", "PREDICTIONS")
    (folder / "docs/README.md").write_text(model_card(source, ["```sh", run, "```"]), encoding="utf-8")
    return [run, f"# BUNDLE is this folder, IMAGES one with {suffix_of(source)} files; needs monai, pytorch-ignite and fire"]


def command(bundle: str, images: str, out: str) -> str:
    """The command that runs the bundle."""
    folders = f"--bundle_root {bundle} --dataset_dir {images} --output_dir {out}"
    return f"python -m monai.bundle run --config_file {bundle}/configs/inference.json {folders}"


def inference(source: Source, constructor: Constructor) -> dict[str, Any]:
    """The config that predicts every image of a folder."""
    target = copied(constructor.target) if constructor.ours else constructor.target
    files = f"$sorted(glob.glob(@dataset_dir + '/*{suffix_of(source)}'))"
    loader = {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 0}
    weights = {"load_path": "$@bundle_root + '/models/model.pt'", "load_dict": {"model": "@network"}, "map_location": "@device"}
    return {
        "imports": ["$import glob", "$import numpy", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": files,
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": target, **constructor.arguments},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing(source)},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": loader,
        "inferer": inferer(source),
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing(source)},
        "handlers": [
            {"_target_": "CheckpointLoader", **weights},
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "run": ["$@evaluator.run()"],
    }


def metadata(source: Source) -> dict[str, Any]:
    """What the specification wants to be told of a bundle, and the plan."""
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by medssl {__version__}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {name: version(name) for name in ("nibabel", "pytorch-ignite", "einops", "safetensors")},
        "name": source.run.folder.resolve().name,
        "task": f"{source.task} of {source.split.name}",
        "description": f"A {source.run.network} for {source.task}, fine-tuned by medssl on {source.split.name}.",
        "authors": "not told",
        "copyright": f"licence of the weights: {source.licence}",
        "data_source": source.split.name,
        "intended_use": "Research use only. Not a medical device.",
        "eval_metrics": {
            name: source.run.summary[name]
            for name in ("dice", "surface_dice", "hd95", "accuracy", "balanced_accuracy", "log_loss", "mae", "r2", "n")
            if source.run.summary.get(name) is not None
        },
        "network_data_format": {"inputs": {"image": input_format(source)}, "outputs": {"pred": output_format(source)}},
        "medssl": source.description,
    }


def input_format(source: Source) -> dict[str, Any]:
    """The image as the network gets it."""
    modality = source.split.modality
    return {
        "type": "image",
        "format": "hounsfield" if list(modality.values()) == [CT] else "magnitude",
        "modality": ", ".join(modality.values()),
        "num_channels": source.split.channels,
        "spatial_shape": source.size,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": source.task == "segmentation",
        "channel_def": {str(k): name for k, name in modality.items()},
    }


def output_format(source: Source) -> dict[str, Any]:
    """What the network gives, before the postprocessing."""
    of_voxels = source.task == "segmentation"
    kinds = {
        "segmentation": ("image", "segmentation"),
        "classification": ("probabilities", "classes"),
        "regression": ("tuple", "raw"),
    }
    kind, form = kinds[source.task]
    names = source.split.labels if source.task != "regression" else {0: "number"}
    return {
        "type": kind,
        "format": form,
        "num_channels": len(names),
        "spatial_shape": source.size if of_voxels else [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": of_voxels,
        "channel_def": {str(k): name for k, name in names.items()},
    }
