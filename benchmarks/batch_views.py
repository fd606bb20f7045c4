"""Two corrupted views of a batch of crops, made at once on a device, against MONAI's transforms crop by crop.

    python benchmarks/batch_views.py [--device cuda|cpu] [--crops 16] [--size 96] [--repeats 7] [--json FILE]

MONAI's side is its tutorial's composition on one core, without metadata, as in `views.py`; so is `transforms` crop by
crop. The batch is on the device when its time begins, as the step finds it, with the draws that the loader made. All
sides take turns in one process; medians over the repeats, for the whole batch. On a CPU the time is that of the processor
with one thread; on a GPU that until the device is done. Beside them: what drawing costs the loader, and how many kernels
making the views launches, which bounds a GPU on small batches.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import set_track_meta
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import default_collate

from transforms.in_batches import BatchViews, Drawn
from transforms.joint_views import joint_views
from transforms.views import recon_contrast_views
from turns import write_results
from views import monai_views


class Kernels(TorchDispatchMode):
    """Counts the operations inside that compute something, each at least one kernel on a GPU: neither views nor allocations."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view and "empty" not in func.name() and "_unsafe_view" not in func.name()
        return func(*args, **kwargs or {})


def per_crop(transform: Any, images: Tensor) -> Callable[[int], None]:
    """Make the views of each crop by a call."""

    def make(seed: int) -> None:
        for k, image in enumerate(images):
            transform.set_random_state(seed=seed * len(images) + k)
            transform({"image": image})

    return make


def drawn(views: BatchViews, images: Tensor, seed: int) -> dict[str, Any]:
    """A batch with its draws, as the loader gives it."""
    draw = Drawn(views)
    items = [draw.set_random_state(seed=seed * len(images) + k)({"image": image}) for k, image in enumerate(images)]
    draws: dict[str, Any] = default_collate([{k: v for k, v in item.items() if k != "image"} for item in items])
    return draws | {"image": images}


def clock(device: str) -> float:
    """Milliseconds: of this thread, or, on a GPU, until it is done."""
    if device == "cpu":
        return 1000 * time.thread_time()
    torch.cuda.synchronize()
    return 1000 * time.perf_counter()


def timed(make: Callable[[int], Any], seed: int, device: str) -> float:
    """Milliseconds of one call."""
    start = clock(device)
    make(seed)
    return clock(device) - start


def kernels(views: BatchViews, images: Tensor) -> int:
    """How many kernels making the views of a batch launches, at least."""
    batch = drawn(views, images, 0)
    with Kernels() as counted:
        views.of_batch(batch, range(len(images)))
    return counted.count


def measure(settings: argparse.Namespace, views: BatchViews, theirs: Any) -> dict[str, float]:
    """Median milliseconds of every side."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(settings.crops, 1, *[settings.size] * 3, generator=random)
    there, device = images.to(settings.device), settings.device
    batches = [drawn(views, images, seed) for seed in range(settings.repeats + 1)]
    ready = [{k: v.to(device) for k, v in batch.items() if k != "image"} | {"image": there} for batch in batches]
    sides: dict[str, tuple[Callable[[int], Any], str]] = {
        "crop by crop": (per_crop(views, images), "cpu"),
        "draws alone": (lambda seed: drawn(views, images, seed), "cpu"),
        f"batch on {device}": (lambda seed: views.of_batch(ready[seed], range(settings.crops)), device),
    }
    if theirs is not None:
        sides["MONAI crop by crop"] = (per_crop(theirs, images), "cpu")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for seed in range(settings.repeats + 1):
        for name, (make, on) in sides.items():
            times[name].append(timed(make, seed, on))
    return {name: float(np.median(side[1:])) for name, side in times.items()}  # the first warms up


def main() -> None:
    """Print times, ratios and launches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="where batches are made into views: cpu or cuda")
    parser.add_argument("--crops", type=int, default=16, help="of a batch")
    parser.add_argument("--size", type=int, default=96, help="side of a cubic crop, voxels")
    parser.add_argument("--repeats", type=int, default=7, help="batches that are timed")
    parser.add_argument("--json", type=Path, help="file for the results")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    set_track_meta(False)
    results = {}
    for title, views, theirs in (("corrupted", recon_contrast_views(), monai_views()), ("joint", joint_views(), None)):
        found = measure(settings, views, theirs)
        launches = kernels(views, torch.rand(settings.crops, 1, *[settings.size] * 3))
        results[title] = found | {"kernels": launches}
        print(f"two {title} views of {settings.crops} crops of {settings.size}^3, {launches} kernels in a batch")
        for name, milliseconds in found.items():
            ratio = f"  1/{found['MONAI crop by crop'] / milliseconds:.1f} of MONAI's" if theirs is not None else ""
            print(f"  {name:20s} {milliseconds:9.2f} ms a batch {milliseconds / settings.crops:8.3f} ms a crop{ratio}")
    if settings.json:
        write_results(settings, results)


if __name__ == "__main__":
    main()
