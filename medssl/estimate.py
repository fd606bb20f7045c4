"""`--dry-run`: the time, memory and room that a run will need, measured on a few steps; nothing of the run is written."""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from medssl.config import Finetune, Pretrain, Shared
from medssl.data import geometry_of, header_problems, store_folder
from medssl.device import Compute, choose
from medssl.engine import Batch, Training, step_seconds
from medssl.finetune import build_segmenter
from medssl.finetune import training_of as finetuning_of
from medssl.loaders import Crops
from medssl.methods import method_class
from medssl.pack import prepared_bytes
from medssl.plan import build_encoder, start_encoder
from medssl.pretrain import training_of as pretraining_of
from medssl.problems import InputError
from medssl.splits import Split, read_split
from medssl.store import Entry, Extent, Store

TIMED_STEPS = 3


def estimate(settings: Shared) -> str:
    """Time a few steps on made-up crops of the right size and say what the whole run will take."""
    compute = choose(settings)
    parts = ["pretraining" if isinstance(settings, Pretrain) else "training", "validation"]
    split = read_split(settings.split, settings.data_root)
    problems = header_problems(settings, split, parts, labels=isinstance(settings, Finetune))
    if problems:
        raise InputError(problems)
    training = training_for(settings, compute, split)
    batch, view_seconds = made_up_batch(settings, split, training)
    seconds = step_seconds(settings, compute, training, batch, TIMED_STEPS)
    room = sum(prepared_bytes(case, geometry_of(settings)) for part in parts for case in split.part(part)) / 1e9
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
        f"store       at most {room:.2f} GB in {store_folder(settings)}",
    ])  # fmt: skip


def training_for(settings: Shared, compute: Compute, split: Split) -> Training:
    """Build what the run would train; its store is empty."""
    nothing = Store(Path(), [])
    if isinstance(settings, Pretrain):
        encoder = build_encoder(settings, split.channels)
        start_encoder(encoder, settings)
        method = method_class(settings.method.name)(encoder, settings).to(compute.device)
        return pretraining_of(settings, compute, split, nothing, method)
    assert isinstance(settings, Finetune)
    network, _ = build_segmenter(settings, split)
    return finetuning_of(settings, compute, split, nothing, network.to(compute.device))


class MadeUp(Store):
    """A store of one case whose voxels are noise."""

    def __init__(self, settings: Shared, split: Split) -> None:
        shape = tuple(settings.crop_size)
        random = np.random.default_rng(0)
        self.image = random.random((split.channels, *shape), np.float32)
        self.label = random.integers(0, max(len(split.labels), 2), (1, *shape), np.uint8)
        image, label = Extent(0, "<f4", self.image.shape), Extent(1, "|u1", self.label.shape)
        spacing, levels = (1.0,) * len(shape), np.linspace(0, 1, 201)
        labels = label if isinstance(settings, Finetune) else None
        super().__init__(Path(), [Entry("noise", "noise", image, labels, 1, 0, np.eye(4), spacing, levels, {}, "", ())])

    def array(self, extent: Extent) -> np.ndarray:
        return self.label if extent.offset else self.image


def made_up_batch(settings: Shared, split: Split, training: Training) -> tuple[Batch, float]:
    """Make one batch by the run's own views or augmentation; gives it and the seconds a crop took."""
    crops = Crops(MadeUp(settings, split), ["noise"], settings, training.transform)
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
