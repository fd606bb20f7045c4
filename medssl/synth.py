"""Synthetic abdomens for demos and smoke tests: small CT-like volumes or slices with labels, and their split.

Every case has a liver, a spleen, an aorta and two kidneys where a body has them, of random size, pose and outline.
Their intensities overlap, and look-alikes of every brightness lie between them, so that a threshold finds no organ
but its place does. Texture, a bias field, blur and noise come on top; some volumes are stored with flipped axes.
Axis letters: x y z from left to right, from back to front, from feet to head; coordinates run from -1 to 1.
"""

import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.atomic import write_atomically
from medssl.problems import InputError, Problem
from medssl.splits import write_split

VERSION = 1  # of the images; a folder of another version is not taken for the same data set
LABELS = {"0": "background", "1": "liver", "2": "spleen", "3": "aorta", "4": "kidney"}
LIVER = 1
SPACING = (1.5, 1.5, 2.0)  # mm
SIZE = {2: (96, 96), 3: (48, 48, 48)}
FEWEST, MOST = 8, 100_000  # cases
MARKER = "synthetic.json"

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Organ:
    """The average organ: centre and radii, the power of its outline (2 ellipsoid, 4 box-like) and its brightness."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    power: float
    brightness: float  # HU


ORGANS = {
    1: (Organ((0.38, 0.10, 0.10), (0.40, 0.48, 0.62), 2.0, 105.0),),
    2: (Organ((-0.52, -0.20, 0.15), (0.20, 0.32, 0.45), 2.5, 120.0),),
    3: (Organ((-0.06, -0.22, 0.00), (0.11, 0.11, 9.0), 2.0, 150.0),),
    4: (
        Organ((0.34, -0.50, -0.25), (0.16, 0.14, 0.32), 3.5, 135.0),
        Organ((-0.34, -0.50, -0.15), (0.16, 0.14, 0.32), 3.5, 135.0),
    ),
}


def make_dataset(folder: str | Path, cases: int = 40, dims: int = 3, seed: int = 0, task: str = "segmentation") -> Path:
    """Write images, labels and split.json into a new folder and give the split's path; the same for the same seed.

    A fifth of the cases is for testing, a tenth for validation, a fifth for training; the rest and the training
    images are for pre-training. The task `regression` asks for the liver's share of the image in percent. A folder that
    holds this data set already is left as it is; raises InputError for one that holds anything else.
    """
    folder = Path(folder)
    settings: dict[str, Any] = {"synthetic": VERSION, "cases": cases, "dims": dims, "seed": seed}
    settings |= {"task": task} if task != "segmentation" else {}
    _refuse(folder, settings)
    split = folder / "split.json"
    content = _split_content(settings)
    entries = [entry for part in ("pretraining", "training", "validation", "test") for entry in content[part]]
    files = {entry[key] for entry in entries for key in ("image", "label") if key in entry}
    if split.is_file() and all((folder / file).is_file() for file in files):
        return split
    for name in ("images", "labels")[: 2 if task == "segmentation" else 1]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_atomically(folder / MARKER, json.dumps(settings).encode())
    for entry in {entry["image"]: entry for entry in entries}.values():  # of a training case the entry with its label
        _write_case(folder, entry, dims, seed)
    if task == "regression":
        for entry in [*content["training"], *content["validation"], *content["test"]]:
            label = make_case(dims, seed, _number(entry))[1]
            entry["label"] = round(100 * float((label == LIVER).mean()), 4)
    write_split(split, content)
    return split


def make_case(dims: int, seed: int, number: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """The image in HU and the label of one case, axes (x, y, z) or (x, y)."""
    random = np.random.default_rng([VERSION, seed, number, dims])
    where = _coordinates(dims, random)
    shape = SIZE[dims]
    body = _inside(where, Organ((0, 0, 0), (0.92, 0.80, 9.0), 2.5, 0), random, wave=0.04)
    image = np.where(body, 50 + 25 * _smooth(random, shape, 8) + 12 * _smooth(random, shape, 20), -900.0)
    for _ in range(int(random.integers(8, 13))):  # gut, muscle and vessels that look like organs
        radii = (*random.uniform(0.06, 0.2, 2), random.uniform(0.1, 0.4))
        centre = (*random.uniform(-0.65, 0.65, 2), random.uniform(-1, 1))
        blob = Organ(centre, radii, random.uniform(2, 4), random.uniform(60, 150))
        image = np.where(_inside(where, blob, random) & body, blob.brightness, image)
    spine = Organ((0, -0.52, 0), (0.13, 0.13, 9.0), 2.0, 250.0)
    image = np.where(_inside(where, spine, random), spine.brightness, image)
    label = np.zeros(shape, np.uint8)
    for number_of, organs in ORGANS.items():
        shift = random.normal(0, 12)  # contrast agent: an organ's brightness differs between cases
        pose = random.normal(0, 0.05, 3)
        for organ in organs:
            inside = _inside(where, _varied(organ, pose, random), random) & body & (label == 0)
            texture = organ.brightness + shift + 12 * _smooth(random, shape, 16)
            image, label = np.where(inside, texture, image), np.where(inside, np.uint8(number_of), label)
    return _scanned(image, random), label


def _scanned(image: Array, random: np.random.Generator) -> npt.NDArray[np.int16]:
    """What the scanner adds: blur, a bias field, another gain and offset, noise."""
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(image, random.uniform(0.5, 1.0))
    soft = image > -300
    bias = 1 + 0.2 * _smooth(random, image.shape, 3)
    image = np.where(soft, image * bias * random.uniform(0.9, 1.1) + random.normal(0, 8), image)
    image = image + random.normal(0, random.uniform(10, 20), image.shape)
    return np.clip(np.rint(image), -1024, 3000).astype(np.int16)


def _coordinates(dims: int, random: np.random.Generator) -> list[Array]:
    """x, y and z at every voxel, of a body that lies a little differently each time; a slice has one height."""
    axes = [np.linspace(-1, 1, n) for n in SIZE[dims]]
    grid = list(np.meshgrid(*axes, indexing="ij"))
    if dims == 2:
        grid.append(np.full(SIZE[2], random.uniform(-0.25, 0.05)))  # where all organs are
    angle, scale = random.normal(0, 0.08), random.uniform(0.9, 1.1)
    x, y, z = (scale * axis + random.normal(0, 0.04) for axis in grid)
    return [np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y, z]


def _varied(organ: Organ, pose: npt.NDArray[np.float64], random: np.random.Generator) -> Organ:
    x, y, z = (float(c) for c in np.array(organ.centre) + pose + random.normal(0, 0.02, 3))
    rx, ry, rz = (float(r) for r in np.array(organ.radii) * random.uniform(0.8, 1.2, 3))
    return Organ((x, y, z), (rx, ry, rz), organ.power, organ.brightness)


def _inside(where: list[Array], organ: Organ, random: np.random.Generator, wave: float = 0.1) -> npt.NDArray[np.bool_]:
    """The voxels of an organ, whose outline waves by about this share of its radius."""
    parts = (np.abs((a - c) / r) ** organ.power for a, c, r in zip(where, organ.centre, organ.radii, strict=True))
    edge = np.maximum(1 + wave * _smooth(random, where[0].shape, 6), 0.5) ** organ.power
    return np.asarray(sum(parts) < edge)


def _smooth(random: np.random.Generator, shape: tuple[int, ...], knots: int) -> Array:
    """Noise of about unit size, linear between `knots` random values along every axis."""
    noise = random.normal(0, 1, [knots] * len(shape))
    for axis, n in enumerate(shape):
        place = np.linspace(0, knots - 1, n)
        low = np.minimum(place.astype(int), knots - 2)
        share = (place - low).reshape(-1, *[1] * (len(shape) - 1 - axis))
        noise = np.take(noise, low, axis) * (1 - share) + np.take(noise, low + 1, axis) * share
    return noise


def _split_content(settings: dict[str, Any]) -> dict[str, Any]:
    cases, dims, task = settings["cases"], settings["dims"], settings.get("task", "segmentation")
    entries = [_entry(number, dims, task) for number in range(cases)]
    fifth, tenth = cases // 5, max(1, cases // 10)
    test, validation, training = entries[:fifth], entries[fifth : fifth + tenth], entries[-fifth:]
    unlabelled = [{key: entry[key] for key in entry if key != "label"} for entry in entries[fifth + tenth :]]
    return {
        "name": f"synthetic-{dims}d-{cases}-{settings['seed']}" + "-liver" * (task == "regression"),
        "description": "made by medssl synth " + json.dumps(settings),
        "task": task,
        "modality": {"0": "CT"},
        **({"labels": LABELS} if task == "segmentation" else {}),
        "pretraining": unlabelled,
        "training": training,
        "validation": validation,
        "test": test,
    }


def _entry(number: int, dims: int, task: str) -> dict[str, Any]:
    name = f"case_{number:03d}"
    file = name + (".nii.gz" if dims == 3 else ".png")
    entry = {"id": name, "patient": f"P{number:03d}", "image": f"images/{file}"}
    return entry | ({"label": f"labels/{file}"} if task == "segmentation" else {})


def _number(entry: dict[str, Any]) -> int:
    return int(entry["id"].removeprefix("case_"))


def _write_case(folder: Path, entry: dict[str, Any], dims: int, seed: int) -> None:
    number = _number(entry)
    image, label = make_case(dims, seed, number)
    shown = np.clip((image + 175) * 0.6, 0, 255).astype(np.uint8) if dims == 2 else image  # HU -175 to 250
    for key, array in (("image", shown), ("label", label)):
        if key in entry:
            data = _picture(array) if dims == 2 else _nifti(array, flips=number % 3)
            write_atomically(folder / entry[key], data)


def _picture(array: npt.NDArray[Any]) -> bytes:
    """A PNG that shows the body as radiologists see it: its right on the left, its front on top."""
    import PIL.Image

    stream = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(array.T[::-1, ::-1])).save(stream, format="PNG")
    return stream.getvalue()


def _nifti(array: npt.NDArray[Any], flips: int) -> bytes:
    """A .nii.gz with the origin in the volume's middle and its first `flips` axes stored the other way round."""
    import nibabel

    signs = np.array([-1.0 if axis < flips else 1.0 for axis in range(3)])
    affine = np.diag([*(signs * SPACING), 1.0])
    affine[:3, 3] = -signs * SPACING * (np.array(array.shape) - 1) / 2
    array = np.flip(array, tuple(range(flips)))
    volume: Any = nibabel.Nifti1Image(array, affine)
    volume.header.set_xyzt_units("mm")
    return gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)  # no time of day, so that bytes are the same


def _refuse(folder: Path, settings: dict[str, Any]) -> None:
    """Raise InputError for settings out of range and for a folder that holds something else."""
    bounds = {"cases": (FEWEST, MOST), "dims": (2, 3), "seed": (0, 2**32 - 1)}
    problems = [
        Problem("synth", name, str(settings[name]), f"{low} to {high}")
        for name, (low, high) in bounds.items()
        if not low <= settings[name] <= high
    ]
    if folder.exists() and not folder.is_dir():
        problems.append(Problem(str(folder), "folder", "a file", "a folder"))
    elif folder.is_dir() and any(folder.iterdir()):
        try:
            held = (folder / MARKER).read_text()
        except (OSError, UnicodeDecodeError):
            held = "other files"
        if held != json.dumps(settings):
            problems.append(Problem(str(folder), "folder", held, "an empty folder, or the same data set"))
    if problems:
        raise InputError(problems)
