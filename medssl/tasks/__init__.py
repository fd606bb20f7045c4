"""The tasks of fine-tuning: one file each, one line each in TASKS. What a task is: `medssl.tasks.task.Task`."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # settings are checked without importing torch
    from medssl.tasks.task import Task

TASKS = {
    "segmentation": "medssl.tasks.segmentation:Segmentation",
    "classification": "medssl.tasks.classification:Classification",
}


def task_class(name: str) -> "type[Task]":
    """Import the class of the task called `name`, the `task` of a split."""
    module, attribute = TASKS[name].split(":")
    found: type[Task] = getattr(import_module(module), attribute)
    return found
