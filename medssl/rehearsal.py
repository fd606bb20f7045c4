"""What a run would train, as `--dry-run` needs it: as a whole, and with few of the cases that are validated and judged.

No case of the test part is read: where test cases will be judged, validation cases stand in for them.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from medssl import finetune, pretrain
from medssl.config import Finetune, Pretrain, Shared
from medssl.device import Compute
from medssl.methods import method_class
from medssl.plan import build_encoder, start_encoder
from medssl.progress import Progress
from medssl.run_folder import RunFolder
from medssl.splits import Split
from medssl.store import Store
from medssl.tasks import task_class
from medssl.tasks.task import Task
from medssl.training import Training


class Rehearsal(NamedTuple):
    """A training, and what comes after its steps on so many of the `cases` to validate and the `judged` to judge."""

    training: Training
    validate: Callable[[int], Callable[[], dict[str, float]]]
    finish: Callable[[RunFolder, int, Progress], None]
    cases: int
    judged: int


class Quiet(RunFolder):
    """A run folder that tells nobody."""

    def say(self, text: str) -> None:
        pass


def rehearsal_of(settings: Shared, compute: Compute, split: Split, store: Store) -> Rehearsal:
    """Build what the run would build; raises InputError for settings that don't fit the split."""
    if isinstance(settings, Pretrain):
        return of_pretraining(settings, compute, split, store)
    assert isinstance(settings, Finetune)
    return of_finetuning(settings, compute, split, store)


def of_pretraining(settings: Pretrain, compute: Compute, split: Split, store: Store) -> Rehearsal:
    """Method and encoder of a pre-training."""
    encoder = build_encoder(settings, split.channels)
    start_encoder(encoder, settings)
    method = method_class(settings.method.name)(encoder, settings)
    whole = pretrain.training_of(settings, compute, split, store, method)

    def validate(count: int) -> Callable[[], dict[str, float]]:
        found = pretrain.training_of(settings, placed(compute), few(split, count), store, method).validate
        assert found is not None
        return found

    def finish(run: RunFolder, count: int, progress: Progress) -> None:
        pretrain.finish(run, settings, compute, few(split, count), store, method, progress)

    return Rehearsal(whole, validate, finish, len(split.part("validation")), 0)


def of_finetuning(settings: Finetune, compute: Compute, split: Split, store: Store) -> Rehearsal:
    """Task and network of a fine-tuning."""
    task = task_class(split.task)(settings, split)

    def of_few(count: int) -> Task:
        short = copy.copy(task)
        short.split = few(split, count)
        return short

    def finish(run: RunFolder, count: int, progress: Progress) -> None:
        finetune.finish(run, settings, compute, few(split, count), store, of_few(count), progress, [])

    training = finetune.training_of(settings, compute, split, store, task)
    cases, judged = (len(split.part(part)) for part in ("validation", settings.judge))
    return Rehearsal(training, lambda count: partial(of_few(count).validate, store, compute), finish, cases, judged)


def placed(compute: Compute) -> Compute:
    """The same for a network that is placed already: its blocks stay as they are."""
    return replace(compute, recomputed=False, compiled=False)


def few(split: Split, count: int) -> Split:
    """The split with so many validation cases, spread over all of them, and the same ones to be judged."""
    cases = split.part("validation")
    chosen = tuple(cases[k * len(cases) // count] for k in range(count))
    return replace(split, parts=split.parts | {"validation": chosen, "test": chosen})
