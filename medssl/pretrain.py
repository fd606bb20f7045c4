"""Pre-training: recipe -> store, method, engine -> run folder with the encoder."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl import checkpoint
from medssl.atomic import atomic_path
from medssl.config import Pretrain
from medssl.data import load_data, split_of, split_warnings
from medssl.device import Compute, choose
from medssl.engine import Progress, Training, parameter_groups, to_device, train
from medssl.loaders import VALIDATION, Crops, training_loader, validation_loader
from medssl.methods import method_class
from medssl.methods.recon_contrast import ReconContrast
from medssl.plan import build_encoder, plan_of, save_encoder, start_encoder
from medssl.problems import Gathering
from medssl.report import write_report
from medssl.run_folder import RunFolder
from medssl.splits import Split
from medssl.store import Store

PARTS = ("pretraining", "validation")  # of the split; no label is read


def pretrain(settings: Pretrain, resume: bool = False) -> None:
    """Run a pre-training from its settings to its report; raises InputError before anything is written."""
    compute, problems = choose(settings), Gathering()
    with problems:
        RunFolder.check(settings, "pretrain", resume)
    encoder = build_encoder(settings, split_of(settings).channels)
    with problems:
        loaded = start_encoder(encoder, settings)
    with problems:
        split, store = load_data(settings, PARTS, labels=False)
    problems.raise_any()
    method = method_class(settings.method.name)(encoder, settings).to(compute.device)
    run = RunFolder.open(settings, "pretrain", resume)
    run.say(f"pre-training on {compute}, {len(split.part('pretraining'))} cases")
    for warning in split_warnings(split):
        run.say(warning)
    if loaded:
        run.say(f"encoder {settings.encoder}: {loaded}")
    progress = train(run, settings, compute, training_of(settings, compute, split, store, method))
    finish(run, settings, compute, split, store, method, progress)


def training_of(settings: Pretrain, compute: Compute, split: Split, store: Store, method: ReconContrast) -> Training:
    """Tell the engine about this method."""
    views = method.views(settings.method)
    crops = Crops(store, split.part("pretraining"), settings, views)
    fixed = fixed_crops(settings, split, store, method)

    def validate() -> dict[str, float]:
        sums, count = dict[str, float](), 0
        with torch.inference_mode(), compute.context():
            for batch in validation_loader(fixed):
                for name, value in method.validate(to_device(batch, compute.device)).items():
                    sums[name] = sums.get(name, 0.0) + value.item() * len(batch["id"])
                count += len(batch["id"])
        return {name: total / count for name, total in sums.items()}

    return Training(
        model=method,
        groups=parameter_groups([(method, 1.0)]),
        loss=method,
        batches=lambda start: training_loader(crops, start),
        validate=validate,
        watched=method.VALIDATION,
        higher_is_better=False,
        transform=views,
        chance=method.chance(settings.batch_size),
    )


def fixed_crops(settings: Pretrain, split: Split, store: Store, method: ReconContrast) -> Crops:
    """One crop of every validation case with fixed views, so that the curve is comparable between epochs."""
    return Crops(store, split.part("validation"), settings, method.views(settings.method), VALIDATION)


def finish(
    run: RunFolder,
    settings: Pretrain,
    compute: Compute,
    split: Split,
    store: Store,
    method: ReconContrast,
    progress: Progress,
) -> None:
    """Write the encoder, the figure of one crop, the summary and the report."""
    step = progress.step
    if settings.checkpoint == "best":
        best = checkpoint.load(run.path(checkpoint.BEST))
        method.load_state_dict(best["model"])
        step = best["step"]
    save_encoder(run, method.autoencoder.encoder, plan_of(settings, split, store, step))
    batch = next(iter(validation_loader(fixed_crops(settings, split, store, method))))
    save_views(run, compute, method, batch)
    run.write_json(
        "summary.json",
        {
            "kind": "pretrain",
            "status": "finished",
            "method": settings.method.name,
            "network": settings.network.name,
            "steps": progress.step,
            "seconds": round(progress.seconds, 1),
            "checkpoint": settings.checkpoint,
            "best_step": progress.best_step,
            method.VALIDATION: progress.best,
            "spatial_dims": settings.spatial_dims,
            "n_cases": len(split.part("pretraining")),
            "parameters": sum(p.numel() for p in method.autoencoder.encoder.parameters()),
            "warnings": split_warnings(split),
        },
    )
    write_report(run.folder)
    run.say(f"done: {run.path('encoder.safetensors')}, {run.path('report.html')}")
    run.close()


def save_views(run: RunFolder, compute: Compute, method: ReconContrast, batch: dict[str, Tensor]) -> None:
    """Keep one crop with its views and what the method makes of them, for the report."""
    method.eval()
    with torch.inference_mode(), compute.context():
        restored = method.reconstruct(to_device(batch, compute.device))
    shown = {name: value[0] for name, value in batch.items() if name.startswith(("image", "view_"))}
    shown |= {f"reconstruction_{k}": view[0] for k, view in enumerate(restored)}
    with atomic_path(run.path("views.npz")) as temporary:
        arrays: dict[str, Any] = {name: value.float().cpu().numpy() for name, value in shown.items()}
        np.savez_compressed(temporary, **arrays)
