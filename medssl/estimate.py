"""`--dry-run`: the time, memory and room that a run will need, measured on a few steps; nothing of the run is written."""

import resource
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from medssl.config import Finetune, Pretrain, Shared
from medssl.data import geometry_of, header_problems, split_of, store_path
from medssl.device import Compute, choose
from medssl.engine import step_seconds
from medssl.finetune import labelled_split
from medssl.finetune import training_of as finetuning_of
from medssl.loaders import Crops
from medssl.methods import method_class
from medssl.pack import Wanted, prepared_bytes
from medssl.plan import build_encoder, start_encoder
from medssl.pretrain import training_of as pretraining_of
from medssl.problems import InputError
from medssl.splits import Case, Split
from medssl.store import Entry, Extent, Store
from medssl.tasks import task_class
from medssl.training import Batch, Training

TIMED_STEPS = 3


def estimate(settings: Shared) -> str:
    """Time a few steps on made-up crops of the right size and say what the whole run will take."""
    compute = choose(settings)
    split = labelled_split(settings) if isinstance(settings, Finetune) else split_of(settings)
    parts = ["pretraining" if isinstance(settings, Pretrain) else "training", "validation"]
    wanted = Wanted(split, parts, geometry_of(settings), labels=isinstance(settings, Finetune))
    problems = header_problems(settings, split, parts, wanted.labels)
    if problems:
        raise InputError(problems)
    training = training_for(settings, compute, split)
    batch, view_seconds = made_up_batch(settings, split, training)
    seconds = step_seconds(settings, compute, training, batch, TIMED_STEPS)
    room = sum(prepared_bytes(case, wanted.geometry) for case in wanted.cases) / 1e9
    count = sum(p.numel() for p in training.model.parameters())
    reading = view_seconds * settings.batch_size
    waiting = max(reading / settings.workers - seconds, 0.0) if settings.workers else reading
    bound = "computing" if waiting < 0.1 * seconds else f"data: each step waits {waiting:.2f} s, more workers help"
    return "\n".join([
        f"device      {compute}",
        f"network     {settings.network.name}, {count / 1e6:.1f} million parameters",
        f"step        {seconds:.2f} s, {settings.batch_size / seconds:.1f} crops a second",
        f"views       {view_seconds * 1e3:.0f} ms a crop",
        f"run         {(seconds + waiting) * settings.steps / 3600:.2f} hours for {settings.steps} steps, without validation",
        f"bound by    {bound}",
        f"memory      {peak_memory(compute):.1f} GB at most",
        f"store       at most {room:.2f} GB in {store_path(settings, wanted).parent}",
    ])  # fmt: skip


def training_for(settings: Shared, compute: Compute, split: Split) -> Training:
    """Build what the run would train; its store is empty."""
    nothing = Store([], [])
    if isinstance(settings, Pretrain):
        encoder = build_encoder(settings, split.channels)
        start_encoder(encoder, settings)
        method = method_class(settings.method.name)(encoder, settings)
        return pretraining_of(settings, compute, split, nothing, method)
    assert isinstance(settings, Finetune)
    return finetuning_of(settings, compute, split, nothing, task_class(split.task)(settings, split))


class MadeUp(Store):
    """A store of one case whose voxels are noise."""

    def __init__(self, settings: Shared, split: Split) -> None:
        shape = tuple(settings.read_size)
        random = np.random.default_rng(0)
        voxels = {"image": random.random((split.channels, *shape), np.float32)}
        if isinstance(settings, Finetune) and split.task == "segmentation":
            voxels["label"] = random.integers(0, max(len(split.labels), 2), (1, *shape), np.uint8)
        arrays = {name: Extent(0, 0, array.dtype.str, array.shape) for name, array in voxels.items()}
        self.voxels = {extent: voxels[name] for name, extent in arrays.items()}
        levels = np.linspace(0, 1, 201, dtype=np.float32)[None].repeat(split.channels, 0)
        super().__init__([], [Entry("noise", "noise", 1, 0, np.eye(4), (1.0,) * len(shape), levels, "", 0, (), arrays)])

    def array(self, extent: Extent) -> np.ndarray:
        return self.voxels[extent]

    def view(self, extent: Extent, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(self.array(extent))


def made_up_batch(settings: Shared, split: Split, training: Training) -> tuple[Batch, float]:
    """Make one batch by the run's own views or augmentation; gives it and the seconds a crop took."""
    crops = Crops(
        MadeUp(settings, split),
        [Case("noise", "noise", (), label=0.0 if split.task == "regression" else 0)],
        settings,
        training.transform,
    )
    began = time.perf_counter()
    items = [crops[index] for index in range(settings.batch_size)]
    seconds = (time.perf_counter() - began) / len(items)
    return torch.utils.data.default_collate(items), seconds


def peak_memory(compute: Compute) -> float:
    """The most memory used until now, in GB: of the GPU where there is one, else of this process."""
    if compute.device.type == "cuda":
        return torch.cuda.max_memory_reserved(compute.device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
