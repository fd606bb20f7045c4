"""Two views of a crop: transforms against the same composition of MONAI's own transforms.

    python benchmarks/views.py [--size 96] [--repeats 20] [--draws 200]

Corrupted views: MONAI's side is its tutorial's: CopyItemsd, OneOf of two RandCoarseDropoutd and RandCoarseShuffled for
each view. Joint views, of a picture of 224x224 and of a volume: a crop of random size, Resized (without antialiasing,
which transforms has: in its favour), flips, gamma, contrast, brightness, noise and blur with the same probabilities and
ranges. Both sides take turns in one process on one core: for each seed, five calls of one, then five of the other. The
fastest of the five says what the work costs once the memory is warm and nothing else disturbs the machine, all of them
together what it costs on this machine now. Then the shares of corrupted voxels of ``draws`` views of each side are
compared.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import set_track_meta
from monai.transforms import (
    Compose,
    CopyItemsd,
    OneOf,
    RandAdjustContrastd,
    RandCoarseDropoutd,
    RandCoarseShuffled,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSpatialCropd,
    Resized,
)
from numpy.typing import NDArray

from transforms.joint_views import joint_views
from transforms.views import recon_contrast_views
from turns import Found, print_rows, write_results

ROUNDS = 5
VIEWS = ("view_0", "view_1")


def monai_views(crop: int = 96) -> Compose:
    """The tutorial's composition, in the names used here."""
    steps: list[Callable[..., Any]] = [CopyItemsd("image", times=len(VIEWS), names=VIEWS)]
    small, large, kept, most, shuffled = boxes(crop).values()
    for view in VIEWS:
        inside = RandCoarseDropoutd(view, prob=1.0, holes=6, spatial_size=small, max_spatial_size=large, dropout_holes=True)
        outside = RandCoarseDropoutd(view, prob=1.0, holes=6, spatial_size=kept, max_spatial_size=most, dropout_holes=False)
        steps += [OneOf([inside, outside]), RandCoarseShuffled(view, prob=0.8, holes=10, spatial_size=shuffled)]
    return Compose(steps)


def boxes(crop: int) -> dict[str, int]:
    """The tutorial's sizes of boxes, for crops of 96^3, in proportion to the crop's side; by our settings' names."""
    sizes = {"inpaint_min": 5, "inpaint_max": 32, "outpaint_min": 20, "outpaint_max": 64, "shuffle": 8}
    return {f"{name}_size": max(round(size * crop / 96), 1) for name, size in sizes.items()}


def monai_joint_views(shape: tuple[int, ...]) -> Compose:
    """Views of the joint-embedding methods of a crop of ``shape`` (without channels), composed in the published order."""
    axes = len(shape)
    smallest = [round(n * 0.2 ** (1 / axes)) for n in shape]
    steps: list[Callable[..., Any]] = [CopyItemsd("image", times=len(VIEWS), names=VIEWS)]
    for view in VIEWS:
        steps += [
            RandSpatialCropd(view, smallest, random_size=True),
            Resized(view, shape, mode="bilinear" if axes == 2 else "trilinear"),
            *(RandFlipd(view, 0.5, axis) for axis in range(axes)),
            RandGaussianSmoothd(view, *[(0.1, 2.0)] * 3, prob=0.5),
            RandAdjustContrastd(view, 0.8, (0.6, 1.6)),
            RandScaleIntensityFixedMeand(view, prob=0.8, factors=0.4),
            RandScaleIntensityd(view, prob=0.8, factors=0.4),
            RandGaussianNoised(view, 0.2, std=0.05),
        ]
    return Compose(steps)


def seconds(transform: Any, crop: torch.Tensor, seed: int) -> float:
    """The processor time of one call, without seeding."""
    transform.set_random_state(seed)
    start = time.thread_time()  # not the clock on the wall, which also counts the turns of other processes
    transform({"image": crop})
    return time.thread_time() - start


def timed(sides: dict[str, Any], crop: torch.Tensor, repeats: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of each side, (seed, call)."""
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for seed in range(repeats):
        for name, transform in sides.items():
            times[name].append([1000 * seconds(transform, crop, seed) for _ in range(ROUNDS)])
    return {name: np.array(side) for name, side in times.items()}


def corrupted_shares(transform: Any, crop: torch.Tensor, draws: int) -> NDArray[np.float64]:
    """The share of voxels that differ from the crop, sorted, for ``draws`` views."""
    transform.set_random_state(0)
    made = [transform({"image": crop}) for _ in range(-(-draws // len(VIEWS)))]
    return np.sort([float((item[view] != crop).float().mean()) for item in made for view in VIEWS])


def ks_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest distance between two empirical distributions, given sorted."""
    both = np.concatenate([a, b])
    shares = [np.searchsorted(side, both, side="right") / len(side) for side in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def rows_of(title: str, name: str, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Iterator[Found]:
    """One row for each way of reading the times, in ms."""
    for label, mine, other in (
        ("mean over seeds of the fastest", ours.min(1).mean(), theirs.min(1).mean()),
        ("median over seeds of the fastest", np.median(ours.min(1)), np.median(theirs.min(1))),
        ("median of all", np.median(ours), np.median(theirs)),
    ):
        yield {"two views": title, "against": name, "of": label, "its ms": other, "our ms": mine, "ratio": other / mine}


def compare(title: str, ours: Any, theirs: Any, crop: torch.Tensor, repeats: int) -> Iterator[Found]:
    """Time both sides, with MONAI's metadata and without."""
    for name, tracked in (("MONAI", True), ("MONAI without metadata", False)):
        set_track_meta(tracked)
        times = timed({"MONAI": theirs, "ours": ours}, crop, repeats)
        yield from rows_of(title, name, times["ours"], times["MONAI"])


def main() -> None:
    """Print times, ratios and distributions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96, help="side of the cubic crop, voxels")
    parser.add_argument("--repeats", type=int, default=20, help="seeds that are timed")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--draws", type=int, default=200, help="views whose corrupted voxels are counted")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    crop = torch.rand(1, *[settings.size] * 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = recon_contrast_views(), monai_views()
    print(f"one core, {settings.repeats} seeds x {ROUNDS} calls")
    found = list(compare(f"corrupted, {settings.size}^3", ours, theirs, crop, settings.repeats))
    for x in (torch.rand(1, 224, 224, generator=torch.Generator().manual_seed(0)), crop):
        title = f"joint, {'x'.join(map(str, x.shape[1:]))}"
        found += compare(title, joint_views(), monai_joint_views(tuple(x.shape[1:])), x, settings.repeats)
    print_rows(found, words=3)

    shares = {name: corrupted_shares(side, crop, settings.draws) for name, side in (("MONAI", theirs), ("ours", ours))}
    print(f"share of corrupted voxels, {settings.draws} views each")
    for name, side in shares.items():
        print(f"{name:22s} mean {side.mean():.3f}  quartiles", *(f"{q:.3f}" for q in np.quantile(side, [0.25, 0.5, 0.75])))
    bound = 1.36 * (2 / settings.draws) ** 0.5
    print(f"KS distance {ks_distance(*shares.values()):.3f} (of equal distributions 95% are below {bound:.3f})")
    if settings.json:
        write_results(settings, found)


if __name__ == "__main__":
    main()
