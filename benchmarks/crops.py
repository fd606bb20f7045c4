"""Crops a second: the store against MONAI's data sets, side by side on the same volumes.

    python benchmarks/crops.py [--volumes 20] [--crops-per-volume 2] [--data FOLDER --crop 32]

Every way reads the same .nii.gz files and gives the same crops: at a window scaled to 0..1, 96^3 voxels at random, in
batches of 4, one or two crops a volume and epoch. Each way runs in a process of its own, without workers, on one thread,
in several turns, so that a busy machine hits all alike; the figures are medians of the turns, the rate of a turn is its
crops over its time. Before the turns each way fills what it keeps on disk, and before each turn those files are read
once, so that all start with a warm cache. `first` is the time until the first batch in a fresh process, imports left
out; `memory` the most that process had, with about 480 MB of imports; `raw` reading a crop's int16 and nothing else.
`CacheDataset, no copy` is CacheDataset(copy_cache=False), which is not MONAI's default but which random crops allow.
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandSpatialCropSamplesd,
    ScaleIntensityRanged,
)
from tqdm import tqdm

from medssl.config import Pretrain
from medssl.data import load_data
from medssl.loaders import Crops, training_loader
from medssl.splits import write_split
from medssl.store import Extent
from turns import in_a_process, print_rows, write_results

SHAPE, WINDOW, BATCH = (256, 256, 192), (-1000.0, 1000.0), 4
WAYS = ("Dataset", "PersistentDataset", "CacheDataset", "CacheDataset, no copy", "store")
DISTINCT = 20  # volumes of their own voxels; further ones are copies of these files, which no way can tell


def main() -> None:
    """Make the volumes, time every way in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=20)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--crops-per-volume", type=int, default=1)
    parser.add_argument("--data", type=Path, help="a folder of .nii.gz files instead of synthetic volumes")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn of each way")
    parser.add_argument("--folder", type=Path, help="where volumes and caches are kept; default: a temporary one")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        files = volumes(folder / "volumes", options.volumes) if options.data is None else large(options.data, options.crop)
        print(f"{len(files)} volumes, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB as .nii.gz")
        measure(options, files, folder)


def volumes(folder: Path, count: int) -> list[Path]:
    """CT-sized volumes: int16, air and a noisy ellipsoid, which gzip packs about as well as a real scan."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.8
    files = [folder / f"volume_{number:03d}.nii.gz" for number in range(count)]
    for number, file in enumerate(tqdm(files, desc="volumes", disable=None)):
        part = folder / "part.nii.gz"
        if file.exists():
            continue
        if number < DISTINCT:
            noise = np.random.default_rng(number).normal(40, 20, SHAPE).astype(np.int16)
            image = np.where(inside, noise, np.int16(-1000)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), part)
        else:
            shutil.copyfile(files[number % DISTINCT], part)
        part.rename(file)
    return files


def large(folder: Path, side: int) -> list[Path]:
    """The volumes of a folder that a crop fits into: MONAI's crops of smaller ones do not make a batch."""
    return [file for file in sorted(folder.glob("*.nii.gz")) if min(nibabel.load(file).shape) >= side]


def memcpy(side: int) -> Callable[[], None]:
    """Copies as many int16 as a crop has, in one piece, from memory that is not in the processor's caches.

    For 96^3 the source is 113 MB; where the third-level cache has 32 MB, one of 516 MB gave the same.
    """
    source = np.ones((64, side**3), np.int16)
    target = np.empty(side**3, np.int16)
    random = np.random.default_rng(0)
    return lambda: np.copyto(target, source[int(random.integers(64))])


def measure(options: argparse.Namespace, files: list[Path], folder: Path) -> None:
    """Run every way in turns, each in a fresh process, and print its medians."""
    results: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    words = (files, folder, options.crop, options.crops_per_volume, options.seconds)
    for way in options.ways:
        began = time.perf_counter()
        in_a_process(fill, way, *words)
        print(f"{way}: filled in {time.perf_counter() - began:.1f} s with imports", flush=True)
    for _ in range(options.turns):
        for way in options.ways:
            results[way].append(in_a_process(one_turn, way, *words))
    medians = {way: {key: statistics.median(r[key] for r in rows) for key in rows[0]} for way, rows in results.items()}
    print_rows([{"way": way, "crops/s": 1e3 / row["ms"]} | row for way, row in medians.items()])
    if options.json:
        write_results(options, medians)
    for way in (way for way in medians if way != "store" and "store" in medians):
        print(f"the store gives {medians[way]['ms'] / medians['store']['ms']:.2f} times the crops of {way}")


def fill(way: str, files: list[Path], folder: Path, side: int, crops: int, seconds: float) -> None:
    """Put on disk what a way keeps there."""
    cache = folder / f"{way}-{side}-{len(files)}"
    if way == "store":
        store(files, cache, side, crops)
    elif way == "PersistentDataset":
        data = monai_data(way, files, cache, side, crops)
        for number in range(len(data)):
            data[number]


def one_turn(way: str, files: list[Path], folder: Path, side: int, crops: int, seconds: float) -> dict[str, float]:
    """Load batches one way for some seconds on one core; gives ms a crop, time until the first batch, memory, disk."""
    torch.set_num_threads(1)
    cache = folder / f"{way}-{side}-{len(files)}"
    warm(cache)
    began = time.perf_counter()
    batches, raw = monai(way, files, cache, side, crops) if way != "store" else store(files, cache, side, crops)
    next(batches)
    first = time.perf_counter() - began
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds or count < 3:
        next(batches)
        count += 1
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    copy = memcpy(side)
    pairs = [(timed(raw), timed(copy)) for _ in range(1000)] if raw else [(float("nan"), float("nan"))]
    disk = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) if cache.exists() else 0
    return {
        "ms": spent / (count * BATCH) * 1e3,
        "raw_ms": statistics.mean(raw for raw, _ in pairs) * 1e3,
        "memcpy_ms": statistics.mean(copied for _, copied in pairs) * 1e3,
        "first_s": first,
        "memory_mb": memory,
        "disk_mb": disk / 1e6,
    }


def warm(folder: Path) -> None:
    """Bring what a way keeps on disk into the system's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(2**24):
                    pass


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def monai_data(way: str, files: list[Path], cache: Path, side: int, crops: int) -> Any:
    """One of MONAI's data sets."""
    low, high = WINDOW
    transform = Compose([
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", axcodes="RAS", labels=None),
        ScaleIntensityRanged("image", low, high, 0, 1, clip=True),
        RandSpatialCropSamplesd("image", (side,) * 3, num_samples=crops, random_size=False),
    ])  # fmt: skip
    items = [{"image": str(file)} for file in files]
    if way == "Dataset":
        return Dataset(items, transform)
    if way == "PersistentDataset":
        return PersistentDataset(items, transform, cache)
    return CacheDataset(items, transform, num_workers=2, progress=False, copy_cache=not way.endswith("no copy"))


def monai(way: str, files: list[Path], cache: Path, side: int, crops: int) -> tuple[Iterator[Any], None]:
    """The batches of one of MONAI's data sets, epoch after epoch."""
    data = monai_data(way, files, cache, side, crops)

    def endless() -> Iterator[Any]:
        while True:  # a batch has BATCH crops
            yield from DataLoader(data, batch_size=max(BATCH // crops, 1), shuffle=True, num_workers=0)

    return endless(), None


def store(files: list[Path], cache: Path, side: int, crops: int) -> tuple[Iterator[Any], Callable[[], Any]]:
    """The batches of the store, and a function that reads a crop's bytes and does nothing with them."""
    cache.mkdir(parents=True, exist_ok=True)
    root = files[0].parent
    split = cache / "split.json"
    cases = [{"image": file.name} for file in files]
    if not split.exists():
        write_split(split, {"pretraining": cases})
    settings = Pretrain.model_validate({
        "split": split, "data_root": root, "store": cache, "out": cache / "out", "steps": 10**9, "validate_every": 1,
        "batch_size": BATCH, "crops_per_case": crops, "workers": 0, "crop_size": [side] * 3, "lr": 1,
        "method": "recon_contrast",
        "intensity": {"name": "window", "low": WINDOW[0], "high": WINDOW[1]}, "foreground_above": None,
        "network": {"name": "vit_tiny", "patch_size": [side // 4] * 3},
    })  # fmt: skip
    parts, packed = load_data(settings, ["pretraining"], labels=False)
    crops_of = Crops(packed, parts.part("pretraining"), settings)
    entries, random = list(packed.entries.values()), np.random.default_rng(0)

    def places() -> Iterator[tuple[Extent, list[int]]]:
        while True:  # inside: volumes are not smaller than a crop
            entry = entries[int(random.integers(len(entries)))]
            yield entry.image, [int(random.integers(n - side + 1)) for n in entry.shape]

    drawn = iter(list(islice(places(), 1000)))

    def raw() -> torch.Tensor:
        extent, start = next(drawn)
        return packed.view(extent, start, [side] * 3).contiguous()

    return iter(training_loader(crops_of, 0)), raw


if __name__ == "__main__":
    main()
