"""The tasks of fine-tuning: one file each, one line each in TASKS. What a task is: `medssl.tasks.task.Task`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medssl.config import Finetune
from medssl.problems import InputError, Problem

if TYPE_CHECKING:  # settings are checked without importing torch
    from medssl.tasks.task import Task

TASKS = {
    "segmentation": "medssl.tasks.segmentation:Segmentation",
    "classification": "medssl.tasks.classification:Classification",
    "regression": "medssl.tasks.regression:Regression",
}
CLASSES = ("segmentation", "classification")
WHOLE = ("classification", "regression")  # of images as a whole
ONLY_FOR: dict[str, tuple[str, ...]] = {  # settings that other tasks refuse
    "balance_classes": CLASSES,
    "class_weights": ("classification",),
    "label_smoothing": ("classification",),
    "loss": ("classification",),
    "regression_loss": ("regression",),
    "head": WHOLE,
    "mixup": WHOLE,
    "foreground_share": ("segmentation",),
    "overlap": ("segmentation",),
    "tolerance": ("segmentation",),
}


def task_class(name: str) -> "type[Task]":
    """Import the class of the task called `name`, the `task` of a split."""
    module, attribute = TASKS[name].split(":")
    found: type[Task] = getattr(import_module(module), attribute)
    return found


def refuse_foreign(settings: Finetune, task: str) -> None:
    """Raise InputError for each setting of another task that is not at its default: it would change nothing."""
    changed = [name for name, tasks in ONLY_FOR.items() if task not in tasks and getattr(settings, name) != _default(name)]
    if changed:
        raise InputError([
            Problem("settings", name, str(getattr(settings, name)), f"{_default(name)} for the task {task}") for name in changed
        ])  # fmt: skip


def _default(name: str) -> Any:
    return Finetune.model_fields[name].default
