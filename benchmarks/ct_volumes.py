"""Synthetic CT of a trunk, as large as a scanner's: int16 .nii.gz in HU and their split, for benchmarks.

A body in air, fat under its skin, lungs above, organs, a spine, vessels that wind from top to bottom, noise. It stands in
for real scans where what is measured is the time of a file's way to a crop and how fast a network learns to restore it.
"""

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from medssl.splits import write_split

AIR, FAT, TISSUE, LUNG, BONE, VESSEL = -1000, -100, 40, -850, 500, 150
ORGANS, VESSELS = 25, 12
Image = NDArray[np.int16]


def write_volumes(
    folder: Path, pretraining: int, validation: int, shape: Sequence[int], spacing: Sequence[float], seed: int = 0
) -> Path:
    """Write so many volumes of this shape (x, y, z), spacing in mm, and give the path of their split."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"case_{number:03d}" for number in range(pretraining + validation)]
    for number, name in enumerate(tqdm(names, desc="volumes", disable=None)):
        image = volume(shape, np.random.default_rng([seed, number]))
        nibabel.save(nibabel.Nifti1Image(image, np.diag([*spacing, 1.0])), folder / f"{name}.nii.gz")
    cases = [{"id": name, "patient": name.replace("case", "P"), "image": f"{name}.nii.gz"} for name in names]
    parts = {"pretraining": cases[:pretraining], "validation": cases[pretraining:]}
    split = folder / "split.json"
    write_split(split, {"name": "synthetic CT", "task": "classification", "modality": {"0": "CT"}, **parts})
    return split


def volume(shape: Sequence[int], random: np.random.Generator) -> Image:
    """One trunk in HU."""
    image = np.full(shape, AIR, np.int16)
    width, depth = random.uniform(0.75, 0.9), random.uniform(0.55, 0.7)
    paint(image, (0, 0, 0), (width, depth, 9), FAT)
    paint(image, (0, 0, 0), (width - 0.08, depth - 0.08, 9), TISSUE)
    for side in (-1, 1):
        paint(image, (0.4 * side, 0, 0.9), (0.28, 0.4 * depth / 0.6, random.uniform(0.5, 0.8)), LUNG)
    for _ in range(ORGANS):
        centre, radii = random.uniform([-0.5, -0.35, -1], [0.5, 0.35, 0.3]), random.uniform(0.05, 0.25, 3)
        paint(image, centre, radii, int(random.uniform(-60, 160)))
    paint(image, (0, -0.4 * depth / 0.6, 0), (0.1, 0.1, 9), BONE)
    for _ in range(VESSELS):
        wind(image, random)
    return np.add(image, random.normal(0, 12, shape).astype(np.int16), out=image)


def paint(image: Image, centre: Sequence[float], radii: Sequence[float], value: int) -> None:
    """Fill an ellipsoid; the image reaches from -1 to 1 along each axis."""
    distance, inside = np.float32(0), []
    for n, middle, radius in zip(image.shape, centre, radii, strict=True):
        low, high = (int(np.clip((edge + 1) / 2 * n, 0, n)) for edge in (middle - radius, middle + radius))
        inside.append(slice(low, high))
        along = ((np.arange(low, high, dtype=np.float32) + 0.5) * 2 / n - 1 - middle) / radius
        distance = np.add.outer(distance, along**2)
    image[tuple(inside)][distance < 1] = value


def wind(image: Image, random: np.random.Generator) -> None:
    """Draw one vessel through all slices, along a sine of its own."""
    place, swing, phase = random.uniform(-0.35, 0.35, 2), random.uniform(0.02, 0.15, 2), random.uniform(0, 6, 2)
    radius = random.uniform(0.015, 0.04)
    for k in range(image.shape[2]):
        x, y = place + swing * np.sin(phase + 6 * k / image.shape[2])
        paint(image[:, :, k : k + 1], (x, y, 0), (radius, radius, 9), VESSEL)
