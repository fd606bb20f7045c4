"""Fine-tuning: encoder + split -> task head -> training -> judged once -> run folder."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from tqdm import tqdm

from medssl import checkpoint
from medssl.atomic import atomic_path, write_atomically
from medssl.config import Finetune, UNetSettings
from medssl.data import load_data, split_of, split_warnings
from medssl.device import Compute, choose
from medssl.engine import Progress, Training, parameter_groups, train
from medssl.evaluate import Evaluation, evaluate_segmentation, mean_dice, prediction_arrays
from medssl.loaders import Crops, training_loader, whole_images
from medssl.losses import at_least_float32
from medssl.plan import build_encoder, differences, seen_before, start_encoder
from medssl.problems import Gathering, InputError, Problem
from medssl.report import write_report
from medssl.run_folder import RunFolder
from medssl.scores import scores_csv, summarise
from medssl.splits import Split, take_labelled
from medssl.store import Store
from networks import builder
from networks.transfer import Report
from networks.unetr import unetr
from transforms.augment import augment_segmentation


def finetune(settings: Finetune, resume: bool = False) -> None:
    """Run a fine-tuning from its settings to its report; raises InputError before anything is written."""
    compute, problems = choose(settings), Gathering()
    with problems:
        RunFolder.check(settings, "finetune", resume)
    split = labelled_split(settings)
    with problems:
        network, loaded = build_segmenter(settings, split)
    with problems:
        _, store = load_data(settings, parts_of(settings), labels=True)
    problems.raise_any()
    seen = seen_before(settings, [store.entries[case.id] for case in split.part(settings.judge)])
    if seen and not settings.allow_seen:
        raise InputError(seen)
    run = RunFolder.open(settings, "finetune", resume)
    run.say(f"fine-tuning on {compute}, {len(split.part('training'))} labelled cases, encoder: {settings.encoder}")
    warnings = split_warnings(split) + differences(settings)
    if seen:
        warnings.append(f"warning: the encoder was pre-trained on {len(seen)} of the cases that are judged")
    for line in [*([f"encoder {settings.encoder}: {loaded}"] if loaded else []), *warnings]:
        run.say(line)
    network.to(compute.device)
    progress = train(run, settings, compute, training_of(settings, compute, split, store, network))
    finish(run, settings, compute, split, store, network, progress, warnings)


def labelled_split(settings: Finetune) -> Split:
    """Read the split and take the labelled subset; raises InputError for a task that can't be trained yet."""
    split = split_of(settings)
    if split.task != "segmentation":
        raise InputError([Problem(str(split.file), "task", split.task, "segmentation")])
    return take_labelled(split, settings.labelled, settings.draw)


def parts_of(settings: Finetune) -> list[str]:
    """The parts of the split that are read: all labelled cases are checked, also those not drawn."""
    return list(dict.fromkeys(["training", "validation", settings.judge]))


def build_segmenter(settings: Finetune, split: Split) -> tuple[nn.Module, Report | None]:
    """Build the network, its encoder started from `encoder=`, and say what was loaded."""
    classes = len(split.labels)
    if isinstance(settings.network, UNetSettings):
        torch.manual_seed(settings.seed)
        unet = builder(settings.network.name)(settings.spatial_dims, split.channels, classes, settings.network.channels)
        return unet, None
    encoder = build_encoder(settings, split.channels)
    network = unetr(encoder, classes, settings.network.feature_size)
    return network, start_encoder(encoder, settings)


def training_of(settings: Finetune, compute: Compute, split: Split, store: Store, network: nn.Module) -> Training:
    """Tell the engine about segmentation: Dice and cross-entropy, validated by Dice over whole images."""
    augment = augment_segmentation(spatial_dims=settings.spatial_dims, **settings.augment.model_dump())
    crops = Crops(store, split.part("training"), settings, augment)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=True)
    encoder = getattr(network, "vit", None)

    def loss(batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": criterion(at_least_float32(network(batch["image"])), batch["label"].long())}

    def validate() -> dict[str, float]:
        images = whole_images(store, split.part("validation"), settings)
        return {"val_dice": mean_dice(network, images, split.labels, *windows(settings, compute))}

    def before_step(step: int) -> None:
        if encoder is not None:
            for p in encoder_parameters:
                p.requires_grad_(step > settings.freeze_steps)

    parts: list[tuple[nn.Module, float]] = [(encoder, settings.encoder_lr)] if encoder is not None else []
    groups = parameter_groups([*parts, (network, 1.0)])
    encoder_parameters = [] if encoder is None else [p for p in encoder.parameters() if p.requires_grad]
    return Training(
        model=network,
        groups=groups,
        loss=loss,
        batches=lambda start: training_loader(crops, start),
        validate=validate,
        watched="val_dice",
        higher_is_better=True,
        transform=augment,
        before_step=before_step,
    )


def windows(settings: Finetune, compute: Compute) -> tuple[list[int], float, int, torch.dtype | None]:
    """How whole images are predicted: window, overlap, windows a forward pass, precision."""
    return settings.crop_size, settings.overlap, settings.batch_size, compute.autocast


def finish(
    run: RunFolder, settings: Finetune, compute: Compute, split: Split, store: Store, network: nn.Module, progress: Progress,
    warnings: list[str],
) -> None:  # fmt: skip
    """Judge the chosen weights once on the part that is reported, and write scores, summary and report."""
    if settings.checkpoint == "best":
        network.load_state_dict(checkpoint.load(run.path(checkpoint.BEST))["model"])
    cases = split.part(settings.judge)
    began = time.monotonic()
    with tqdm(total=len(cases), desc=f"judging {settings.judge}", unit="case", disable=None) as bar:
        images = whole_images(store, cases, settings)
        result = evaluate_segmentation(
            network,
            images,
            split.labels,
            *windows(settings, compute),
            progress=lambda case, dice: bar.update() and None,
        )
    write_atomically(run.path("predictions.csv"), scores_csv(result.rows))
    with atomic_path(run.path("predictions.npz")) as temporary:
        np.savez_compressed(temporary, **prediction_arrays(result.kept))
    summary = summary_of(settings, split, store, progress, result) | {"warnings": warnings}
    run.write_json("summary.json", summary | {"judging_seconds": round(time.monotonic() - began, 1)})
    write_report(run.folder)
    score = "none could be scored" if summary["dice"] is None else f"{summary['dice']:.4f}"
    run.say(f"done: Dice {score} on {summary['n']} {settings.judge} cases, {run.path('report.html')}")
    run.close()


def summary_of(settings: Finetune, split: Split, store: Store, progress: Progress, result: Evaluation) -> dict[str, Any]:
    """The answer of the run in figures, with a bootstrap interval over patients."""
    entry = store.entries[split.part(settings.judge)[0].id]
    return {
        "kind": "finetune",
        "status": "finished",
        "task": split.task,
        "network": settings.network.name,
        "encoder": settings.encoder if settings.encoder == "none" else str(Path(settings.encoder)),
        "labelled": len(split.part("training")),
        "draw": settings.draw,
        "seed": settings.seed,
        "lr": settings.lr,
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "checkpoint": settings.checkpoint,
        "best_step": progress.best_step,
        "val_dice": -progress.best,
        "part": settings.judge,
        "spacing": list(entry.spacing),
        **summarise(result.rows),
    }
