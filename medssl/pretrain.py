"""Pre-training: recipe -> store, method, engine -> run folder with the encoder."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medssl import checkpoint
from medssl.atomic import atomic_path
from medssl.conditions import data_of
from medssl.config import JointViews, Pretrain
from medssl.data import data_warnings, load_data, split_of
from medssl.deadline import Deadline
from medssl.device import Compute, choose
from medssl.embeddings import collapse_warning, effective_rank, feature_spread
from medssl.engine import train
from medssl.loaders import VALIDATION, Crops, training_loader, validation_loader
from medssl.methods import method_class
from medssl.methods.method import Method
from medssl.modalities import lacking, lacking_lines
from medssl.optimisers import parameter_groups
from medssl.parallel import spread
from medssl.plan import (
    adapted_channels,
    ancestry_of,
    build_encoder,
    differences,
    plan_of,
    save_encoder,
    start_encoder,
)
from medssl.problems import Gathering, InputError, Problem, RunError
from medssl.processes import collected, in_turn, part, refuse_uneven, said_once
from medssl.progress import Progress
from medssl.ranks import alone, gathered
from medssl.regions import region_line
from medssl.reports.report import write_report
from medssl.run_folder import RunFolder
from medssl.signals import give_way
from medssl.splits import Split
from medssl.store import Store
from medssl.training import Batch, Training, to_device
from medssl.views_place import loaded_views, views_place, with_views
from medssl.wall_clock import costs_of
from networks.features import Encoder
from networks.transfer import Report

PARTS = ("pretraining", "validation")  # of the split; no label or mask is read but where a setting asks for it
SHOWN = 4  # crops in the figure of the views
WATCHED = 1024  # validation crops whose features are watched


def pretrain(
    settings: Pretrain, resume: bool = False, profile: bool = False, loose: bool = False, deadline: Deadline | None = None
) -> None:
    """Run a pre-training from its settings to its report; raises InputError before anything is written.

    A run is resumed under the conditions that it was made with, or, `loose`, under others too.
    """
    run, compute, split, method, loaded, store = in_turn(lambda: opened(settings, resume, loose))
    place = views_place(settings, compute)
    with closing(run):
        run.say(f"pre-training on {compute}, {len(split.part('pretraining'))} cases, views made {place}")
        for line in [*region_line(settings), *lacking_lines(split, PARTS), *warnings_of(settings, split, store, loaded)]:
            run.say(line)
        if loaded:
            run.say(f"encoder {settings.encoder}: {loaded}")
        progress = train(run, settings, compute, training_of(settings, compute, split, store, method), profile, deadline)
        if part():
            method = whole_again(run, settings, split).to(compute.device) if settings.shard else method
            finish(run, settings, compute, split, store, method, progress, loaded)


def opened(
    settings: Pretrain, resume: bool, loose: bool = False
) -> tuple[RunFolder, Compute, Split, Method, Report | None, Store]:
    """Check and prepare everything, then open the run folder; raises InputError before anything is written."""
    compute, problems = choose(settings), Gathering()
    with problems:
        refuse_uneven(settings)
    with problems:
        RunFolder.check(settings, "pretrain", resume, loose)
    split, method, loaded, store = prepared(settings, problems)
    return RunFolder.open(settings, "pretrain", resume, loose), compute, split, method, loaded, store


def whole_again(run: RunFolder, settings: Pretrain, split: Split) -> Method:
    """Build the method anew, with the weights that were trained in shards."""
    method = method_of(settings, build_encoder(settings, split.channels))
    method.load_state_dict(checkpoint.load(run.path(checkpoint.LATEST))["model"])
    return method


def prepared(settings: Pretrain, problems: Gathering) -> tuple[Split, Method, Report | None, Store]:
    """Read the split, build the method, pack the data; raises InputError with every problem, those gathered before too."""
    split = split_of(settings)
    encoder = build_encoder(settings, split.channels)
    with problems:
        loaded = start_encoder(encoder, settings)
    with problems:
        method = method_of(settings, encoder)
    with problems:
        check_parts(settings, split)
    with problems:
        _, store = load_data(settings, PARTS, labels=False)
    problems.raise_any()
    return split, method, loaded, store


def method_of(settings: Pretrain, encoder: Encoder) -> Method:
    """Build the method, and its views once of an empty crop; raises InputError where one of them refuses the settings."""
    try:
        method: Method = method_class(settings.method.name)(encoder, settings)
        method.views(settings)({"image": torch.zeros(encoder.in_channels, *(settings.region or settings.crop_size))})
    except ValueError as error:
        field, _, text = str(error).partition(": ")
        if text.startswith("expected "):  # as transforms put it
            expected, _, found = text.rpartition(", found ")
        else:
            found, _, expected = text.partition(", expected ")
        words = found.removeprefix("found "), expected.removeprefix("expected ")
        raise InputError([Problem("settings", f"method.{field}", *words)]) from None
    return method


def check_parts(settings: Pretrain, split: Split) -> None:
    """Raise InputError where the split has not what the method needs: classes, or crops to compare."""
    file, problems = str(split.file), []
    if isinstance(settings.method, JointViews) and len(split.part("validation")) == 1:
        problems.append(Problem(file, "validation", "1 case", f"at least 2, which {settings.method.name} compares"))
    if settings.reads_classes:
        without = [case.id for part in PARTS for case in split.part(part) if not isinstance(case.label, int)]
        problems += [Problem(file, without[0], "no class", "one for each case, for method.by=class")] if without else []
    if problems:
        raise InputError(problems)


def warnings_of(settings: Pretrain, split: Split, store: Store, loaded: Report | None) -> list[str]:
    """What a reader of the results should know before the run."""
    what = "labels" if settings.reads_labels else "masks"
    read = [f"warning: {what} of the pre-training cases are read: this is no label-free pre-training"]
    adapted = adapted_channels(settings, split, loaded)
    parts = f"the crops of a step are compared within parts of {settings.part_size}: accumulate adds no negatives"
    compared = settings.accumulate > 1 and settings.method.name not in ("masked", "mae")
    found = data_warnings(settings, split, store) + differences(settings) + adapted
    return found + read * (not settings.label_free) + [parts] * compared


def training_of(settings: Pretrain, compute: Compute, split: Split, store: Store, method: Method) -> Training:
    """Tell the engine about this method."""
    compute.place(method)
    spread(method, method.encoder, settings)
    views = loaded_views(settings, compute, method)
    crops = Crops(store, split.part("pretraining"), settings, views)
    fixed = fixed_crops(settings, compute, split, store, method)
    chance = method.chance(settings)

    def check(batch: Batch) -> None:
        values = gathered(torch.stack(batch["image"].aminmax()))
        if settings.batch_size > 1 and values.min() == values.max():  # a single crop may be of air alone
            found = f"found {values[0].item():g} in every voxel of the crops of {', '.join(collected(batch['id']))}"
            raise said_once(RunError(f"a batch without contrast: {found}, expected images; does intensity= fit them?"))

    def validate() -> dict[str, float]:
        own = list[tuple[int, dict[str, float]]]()
        for batch in on_device(fixed, compute):
            with alone(), torch.inference_mode(), compute.context():  # not around the loader: views are made in float32
                found = method.validate(batch)
            own.append((len(batch["id"]), {name: value.item() for name, value in found.items()}))
        sums, count = dict[str, float](), 0
        for size, values in collected(own):
            sums = {name: sums.get(name, 0.0) + value * size for name, value in values.items()}
            count += size
        features = embedded(method, fixed, compute)
        watched = {"val_feature_spread": feature_spread(features), "val_effective_rank": effective_rank(features)}
        return {name: total / count for name, total in sums.items()} | watched

    def warnings(figures: dict[str, Any]) -> list[str]:
        at_chance = [
            f"{name} is {figures[name]:.3f}, chance is {value:.3f}: nothing learned there yet"
            for name, value in chance.items()
            if figures[name] >= 0.98 * value
        ]
        cases, width = min(len(fixed), WATCHED), method.encoder.width
        collapsed = collapse_warning(figures["val_feature_spread"], figures["val_effective_rank"], cases, width)
        return at_chance + ([collapsed.removeprefix("warning: ")] if collapsed else [])

    return Training(
        model=method,
        groups=parameter_groups([(method, 1.0)]),
        loss=method,
        batches=lambda start: training_loader(crops, start),
        validate=validate,
        watched=method.VALIDATION,
        higher_is_better=False,
        transform=views,
        views=partial(with_views, views),
        warnings=warnings,
        check=check,
        before_step=method.before_step,
        epoch=len(crops),
        data=lambda: data_of(settings, split, PARTS, store, labels=False),
    )


def fixed_crops(settings: Pretrain, compute: Compute, split: Split, store: Store, method: Method) -> Crops:
    """One crop of every validation case with fixed views, so that the curve is comparable between epochs."""
    return Crops(store, split.part("validation"), settings, loaded_views(settings, compute, method), VALIDATION)


def on_device(crops: Crops, compute: Compute, most: int | None = None) -> Iterator[Batch]:
    """The validation batches on the device, with their views: those of this rank, of all or of the first with `most` crops."""
    for batch in validation_loader(crops, most):
        give_way()
        yield with_views(crops.transform, to_device(batch, compute.device))


def embedded(method: Method, fixed: Crops, compute: Compute) -> NDArray[np.float32]:
    """The pooled vectors (n, e) of validation crops as they are, at the size that the encoder was trained with."""
    size = fixed.settings.crop_size
    found: list[Tensor] = []
    for batch in on_device(fixed, compute, WATCHED):
        image = batch["image"]
        if list(image.shape[2:]) != size:
            image = functional.interpolate(image, size=size, mode="bilinear" if len(size) == 2 else "trilinear")
        with torch.inference_mode(), compute.context():
            found.append(method.encoder.features(image).pooled.float().cpu())
    features: NDArray[np.float32] = torch.cat(collected(found))[:WATCHED].numpy()
    return features


def finish(
    run: RunFolder,
    settings: Pretrain,
    compute: Compute,
    split: Split,
    store: Store,
    method: Method,
    progress: Progress,
    loaded: Report | None = None,
) -> None:
    """Write the encoder, its pictures, the summary and the report."""
    step = progress.step
    if settings.checkpoint == "best":
        step = progress.best_step
        method.load_state_dict(checkpoint.load_best(run.folder, step)["model"])
    save_encoder(run, method.encoder, plan_of(settings, split, store, step))
    method.eval()
    fixed = fixed_crops(settings, compute, split, store, method)
    save_views(run, compute, method, next(on_device(fixed, compute)))
    save_embeddings(run, split, embedded(method, fixed, compute))
    last: dict[str, Any] = next((line for line in reversed(run.metrics()) if "val_effective_rank" in line), {})
    run.write_json(
        "summary.json",
        {
            "kind": "pretrain",
            "status": "finished",
            "method": settings.method.name,
            "network": settings.network.name,
            "steps": progress.step,
            **costs_of(settings, compute, progress),
            "checkpoint": settings.checkpoint,
            "best_step": progress.best_step,
            "watched": method.VALIDATION,
            method.VALIDATION: progress.best,
            "chance": method.chance(settings),
            "feature_spread": last.get("val_feature_spread"),
            "effective_rank": last.get("val_effective_rank"),
            "spatial_dims": settings.spatial_dims,
            "n_cases": len(split.part("pretraining")),
            "parameters": sum(p.numel() for p in method.encoder.parameters()),
            "ancestry": ancestry_of(settings),
            "roi": settings.roi,
            "lacking": lacking(split, PARTS),
            "warnings": warnings_of(settings, split, store, loaded) + progress.warnings,
        },
    )
    write_report(run.folder)
    run.say(f"done: {run.path('encoder.safetensors')}, {run.path('report.html')}")


def save_views(run: RunFolder, compute: Compute, method: Method, batch: Batch) -> None:
    """Keep a few crops with their views and what the method makes of them, for the report: views.npz, (b, c, *space)."""
    with torch.inference_mode(), compute.context():
        pictures = method.pictures(batch)
    with atomic_path(run.path("views.npz")) as temporary:
        arrays: dict[str, Any] = {name: value[:SHOWN].float().cpu().numpy() for name, value in pictures.items()}
        np.savez_compressed(temporary, **arrays)


def save_embeddings(run: RunFolder, split: Split, features: NDArray[np.float32]) -> None:
    """Keep the features of validation crops and, only to colour their picture, the classes that the split knows."""
    classes = [case.label if isinstance(case.label, int) else -1 for case in split.part("validation")][: len(features)]
    with atomic_path(run.path("embeddings.npz")) as temporary:
        np.savez_compressed(temporary, features=features, classes=np.array(classes))
