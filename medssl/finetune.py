"""Fine-tuning: encoder + split -> task -> training -> judged once -> run folder."""

import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from medssl import checkpoint
from medssl.conditions import data_of
from medssl.config import Finetune
from medssl.config.networks import title_of
from medssl.data import data_warnings, load_data, split_of
from medssl.deadline import Deadline
from medssl.depth import scaled_parts
from medssl.device import Compute, choose
from medssl.engine import train
from medssl.freezing import Freezing
from medssl.loaders import Crops, training_loader
from medssl.modalities import lacking, lacking_lines
from medssl.model_file import describe, save_model
from medssl.optimisers import parameter_groups
from medssl.parallel import spread
from medssl.plan import adapted_channels, differences, plan_of, save_encoder, seen_before
from medssl.problems import Gathering, InputError, Problem
from medssl.processes import in_turn, part, refuse_uneven
from medssl.progress import Progress
from medssl.progressive import Resizing
from medssl.regions import region_line
from medssl.reports.report import write_report
from medssl.run_folder import RunFolder
from medssl.splits import Split
from medssl.store import Store
from medssl.subsets import take_labelled
from medssl.tasks import refuse_foreign, task_class
from medssl.tasks.task import Task
from medssl.training import Training
from medssl.wall_clock import costs_of


def finetune(
    settings: Finetune, resume: bool = False, profile: bool = False, loose: bool = False, deadline: Deadline | None = None
) -> None:
    """Run a fine-tuning from its settings to its report; raises InputError before anything is written.

    A run is resumed under the conditions that it was made with, or, `loose`, under others too.
    """
    run, compute, split, task, store, seen = in_turn(lambda: opened(settings, resume, loose))
    with closing(run):
        run.say(f"fine-tuning on {compute}, {len(split.part('training'))} labelled cases, encoder: {settings.encoder}")
        for line in [*region_line(settings), *lacking_lines(split, parts_of(settings))]:
            run.say(line)
        warnings = [
            *data_warnings(settings, split, store), *differences(settings),
            *adapted_channels(settings, split, task.loaded), *task.warnings(),
        ]  # fmt: skip
        if seen:
            warnings.append(f"warning: the encoder was pre-trained on {len(seen)} of the cases that are judged")
        for line in [*([f"encoder {settings.encoder}: {task.loaded}"] if task.loaded else []), *warnings]:
            run.say(line)
        progress = train(run, settings, compute, training_of(settings, compute, split, store, task), profile, deadline)
        if part():
            task = whole_again(run, settings, split, compute) if settings.shard else task
            finish(run, settings, compute, split, store, task, progress, warnings)


def opened(
    settings: Finetune, resume: bool, loose: bool = False
) -> tuple[RunFolder, Compute, Split, Task, Store, list[Problem]]:
    """Check and prepare everything, then open the run folder; gives the cases that the encoder saw too, if that is allowed.

    Raises InputError before anything is written.
    """
    compute, problems = choose(settings), Gathering()
    with problems:
        refuse_uneven(settings)
    with problems:
        RunFolder.check(settings, "finetune", resume, loose)
    split, task, store = prepared(settings, problems)
    seen = seen_before(settings, [store.entries[case.id] for case in split.part(settings.judge)])
    if seen and not settings.allow_seen:
        raise InputError(seen)
    return RunFolder.open(settings, "finetune", resume, loose), compute, split, task, store, seen


def whole_again(run: RunFolder, settings: Finetune, split: Split, compute: Compute) -> Task:
    """Build the task anew, with the weights that were trained in shards."""
    task = task_class(split.task)(settings, split)
    task.network.load_state_dict(checkpoint.load(run.path(checkpoint.LATEST))["model"])
    task.network.to(compute.device)
    return task


def prepared(settings: Finetune, problems: Gathering) -> tuple[Split, Task, Store]:
    """Read the split, build the task, pack the data; raises InputError with every problem, those gathered before too."""
    split = labelled_split(settings)
    with problems:
        task = task_class(split.task)(settings, split)
    with problems:
        _, store = load_data(settings, parts_of(settings), labels=True)
    problems.raise_any()
    return split, task, store


def labelled_split(settings: Finetune) -> Split:
    """Read the split and take the labelled subset; raises InputError for settings of another task."""
    split = split_of(settings)
    refuse_foreign(settings, split.task)
    return take_labelled(split, settings.labelled, settings.draw)


def parts_of(settings: Finetune) -> list[str]:
    """The parts of the split that are read: all labelled cases are checked, also those not drawn."""
    return list(dict.fromkeys(["training", "validation", settings.judge]))


def training_of(settings: Finetune, compute: Compute, split: Split, store: Store, task: Task) -> Training:
    """Tell the engine about the task, and keep its encoder frozen as long as the settings say."""
    network, encoder = task.network, task.encoder
    compute.place(network)
    spread(network, encoder, settings)
    augment = task.augment()
    crops = Crops(store, split.part("training"), settings, augment)
    freezing, resizing = Freezing(encoder, settings), Resizing(settings)
    parts = scaled_parts(encoder, settings) if encoder is not None else []

    def before_step(step: int) -> None:
        freezing.before_step(step)
        resizing.before_step(step)

    return Training(
        model=network,
        groups=parameter_groups([*parts, (network, 1.0)]),
        loss=lambda batch: task.loss(resizing(batch)),
        batches=lambda start: training_loader(crops, start),
        validate=lambda: task.validate(store, compute),
        watched=task.watched,
        higher_is_better=task.higher_is_better,
        transform=augment,
        before_step=before_step,
        epoch=len(crops),
        data=lambda: data_of(settings, split, parts_of(settings), store, labels=True),
    )


def finish(
    run: RunFolder, settings: Finetune, compute: Compute, split: Split, store: Store, task: Task, progress: Progress,
    warnings: list[str],
) -> None:  # fmt: skip
    """Judge the chosen weights once on the part that is reported, and write scores, summary and report."""
    if settings.checkpoint == "best":
        task.network.load_state_dict(checkpoint.load_best(run.folder, progress.best_step)["model"])
    step = progress.best_step if settings.checkpoint == "best" else progress.step
    if task.encoder is not None:
        save_encoder(run, task.encoder, plan_of(settings, split, store, step))
    began = time.monotonic()
    scores = task.judge(run, store, compute)
    for line in (found := scores.pop("warnings", [])):
        run.say(line)
    save_model(run, task.network, describe(settings, split, store, step, scores))
    summary = summary_of(settings, split, store, task, progress) | scores | {"warnings": warnings + found + progress.warnings}
    summary |= costs_of(settings, compute, progress)
    run.write_json("summary.json", summary | {"judging_seconds": round(time.monotonic() - began, 1)})
    write_report(run.folder)
    run.say(f"done: {task.headline(scores)} on {scores['n']} {settings.judge} cases, {run.path('report.html')}")


def summary_of(settings: Finetune, split: Split, store: Store, task: Task, progress: Progress) -> dict[str, Any]:
    """What the run was; the scores of its task come on top."""
    entry = store.entries[split.part(settings.judge)[0].id]
    best = -progress.best if task.higher_is_better else progress.best
    return {
        "kind": "finetune",
        "status": "finished",
        "task": split.task,
        "network": title_of(settings.network, split.task),
        "encoder": settings.encoder if settings.encoder == "none" else str(Path(settings.encoder)),
        "labelled": len(split.part("training")),
        "draw": settings.draw,
        "seed": settings.seed,
        "lr": settings.lr,
        "steps": progress.step,
        "checkpoint": settings.checkpoint,
        "best_step": progress.best_step,
        task.watched: best if math.isfinite(best) else None,
        "part": settings.judge,
        "roi": settings.roi,
        "lacking": lacking(split, parts_of(settings)),
        "spacing": list(entry.spacing),
    }
