"""Images that a small network can tell apart: a disc, a ring, two discs, or balls of any radius, at any place."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image

from medssl.splits import write_split

CLASSES = ("disc", "ring", "pair")


def make_classes(
    folder: Path, dims: int = 2, cases: int = 36, shares: tuple[float, float, float] = (0.5, 0.2, 0.3), side: int = 32
) -> Path:
    """Write images with two slices a patient, and a split whose parts hold classes turn by turn; gives its path."""
    random = np.random.default_rng(dims)
    (folder / "images").mkdir(parents=True)
    entries = []
    for number in range(cases):
        k = number % 3
        name = f"image_{number:03d}{'.png' if dims == 2 else '.nii.gz'}"
        array = (200 * shape_of(k, dims, side, random) + random.normal(30, 12, [side] * dims)).clip(0, 255).astype(np.uint8)
        if dims == 2:
            PIL.Image.fromarray(array).save(folder / "images" / name)
        else:
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / "images" / name)
        entries.append({"id": f"c{number:03d}", "patient": f"p{number // 6}{k}", "image": f"images/{name}", "label": k})
    first, second = round(shares[0] * cases / 6) * 6, round((shares[0] + shares[1]) * cases / 6) * 6
    parts = {"training": entries[:first], "validation": entries[first:second], "test": entries[second:]}
    content = {"name": "phantoms", "task": "classification", "labels": {str(k): name for k, name in enumerate(CLASSES)}}
    unlabelled = [{key: entry[key] for key in entry if key != "label"} for entry in parts["training"]]
    write_split(folder / "split.json", content | {"modality": {"0": "MR"}, "pretraining": unlabelled} | parts)
    return folder / "split.json"


def shape_of(k: int, dims: int, side: int, random: np.random.Generator) -> np.ndarray:
    """The outline of a class."""
    axes = np.meshgrid(*[np.arange(side, dtype=float)] * dims, indexing="ij")
    centre = random.uniform(0.33, 0.67, dims) * side

    def ball(centre: np.ndarray, radius: float) -> np.ndarray:
        return sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2

    radius = random.uniform(0.2, 0.26) * side
    if k == 0:
        return ball(centre, radius)
    if k == 1:
        return ball(centre, radius * 1.3) & ~ball(centre, radius * 0.75)
    gap = np.zeros(dims)
    gap[random.integers(dims)] = radius
    return ball(centre - gap, radius * 0.6) | ball(centre + gap, radius * 0.6)


def make_radii(folder: Path, dims: int = 2, cases: int = 48, side: int = 32, shuffled: bool = False) -> Path:
    """Write images of a ball at any place, two a patient, and a split that asks for its radius in mm; gives its path.

    Every image has its own brightness and noise, so that the mean of its voxels does not tell the radius. `shuffled`
    deals the radii out anew: there is nothing left to be learned.
    """
    random = np.random.default_rng(dims)
    (folder / "images").mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    axes = np.meshgrid(*[np.arange(side, dtype=float)] * dims, indexing="ij")
    for number in range(cases):
        radius = random.uniform(0.1, 0.35) * side
        centre = random.uniform(0.4, 0.6, dims) * side
        ball = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2
        grey = np.where(ball, random.uniform(90, 180), random.uniform(20, 60)) + random.normal(0, 8, [side] * dims)
        array, name = grey.clip(0, 255).astype(np.uint8), f"image_{number:03d}{'.png' if dims == 2 else '.nii.gz'}"
        if dims == 2:
            PIL.Image.fromarray(array).save(folder / "images" / name)
        else:
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / "images" / name)
        entries.append({"id": f"r{number:03d}", "patient": f"p{number // 2}", "image": f"images/{name}", "label": radius})
    if shuffled:
        dealt = random.permutation([entry["label"] for entry in entries])
        entries = [entry | {"label": float(label)} for entry, label in zip(entries, dealt, strict=True)]
    first, second = cases // 2, cases // 2 + cases // 4
    parts = {"training": entries[:first], "validation": entries[first:second], "test": entries[second:]}
    write_split(folder / "split.json", {"name": "radii", "task": "regression", "modality": {"0": "MR"}} | parts)
    return folder / "split.json"


def make_marked(folder: Path, cases: int = 48, side: int = 64) -> Path:
    """Write noisy images with a small disc and a small ring each, and masks that mark the one which is the class.

    Nothing but the mask tells which of the two is meant. Gives the path of the split.
    """
    random = np.random.default_rng(7)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    entries = []
    for number in range(cases):
        k, name = number % 2, f"{number:03d}.png"
        halves = random.permutation(2) * side // 2
        places = [(random.integers(side - 16), left + random.integers(side // 2 - 15)) for left in halves]
        image, mask = random.normal(60, 25, (side, side)), np.zeros((side, side), np.uint8)
        for of_class, (row, column) in enumerate(places):
            image[row : row + 16, column : column + 16][shape_of(of_class, 2, 16, random)] += 120
        row, column = places[k]
        mask[row + 2 : row + 14, column + 2 : column + 14] = 255
        PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
        PIL.Image.fromarray(mask).save(folder / "masks" / name)
        entries.append({"id": f"m{number:03d}", "image": f"images/{name}", "label": k, "mask": f"masks/{name}"})
    first, second = cases // 2, cases * 3 // 4
    parts = {"training": entries[:first], "validation": entries[first:second], "test": entries[second:]}
    unlabelled = [{key: entry[key] for key in entry if key != "label"} for entry in parts["training"]]
    content = {"name": "marked", "task": "classification", "labels": {"0": "disc", "1": "ring"}, "modality": {"0": "MR"}}
    write_split(folder / "split.json", content | {"pretraining": unlabelled} | parts)
    return folder / "split.json"
